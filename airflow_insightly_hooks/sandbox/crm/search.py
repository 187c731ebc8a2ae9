"""Searches of a store, with the behaviours that it was told to have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

from airflow_insightly_hooks.core.records import RecordType
from airflow_insightly_hooks.sandbox.crm.record_store import Store
from airflow_insightly_hooks.sandbox.crm.record_table import Bound, Record, Shelf
from airflow_insightly_hooks.sandbox.crm.search_behaviour import BetweenPages

__all__ = ["Found", "Search"]


class Found(NamedTuple):
    """A page of records, and how many were found in all."""

    records: list[Record]
    total: int


class Search:
    """Answers searches as ``store.behaviour`` says.

    :param store: where the records are; ``between_pages`` changes them.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def page(
        self,
        record_type: RecordType,
        *,
        skip: int = 0,
        top: int | None = None,
        after: str | None = None,
        matches: Callable[[Record], bool] | None = None,
    ) -> Found:
        """Return one page; then comes what happens between pages.

        :param skip: how many are left out at the beginning.
        :param top: how many at most; ``None`` for all.
        :param after: only those updated later than this time, a text in the API's notation.
        :param matches: only those for which it holds.
        """
        shelf, behaviour = self.store.shelf(record_type), self.store.behaviour
        shelf.show(self.store.clock.source())
        ids = self._ids(shelf, Bound(after, behaviour.updated_after == "inclusive"))
        if matches is not None:
            ids = [record_id for record_id in ids if matches(shelf.shown[record_id])]
        total = len(ids)
        stop = total if top is None else min(total, skip + top)
        if behaviour.order == "none":
            # A page of a list shuffled anew is a sample of it.
            page: Sequence[int] = behaviour.random.sample(ids, max(0, stop - skip))
        else:
            page = ids[skip:stop]
        records = [shelf.shown[record_id] for record_id in page]
        between = behaviour.between_pages
        if between and between.applies(record_type.name):
            self._change(record_type, between, islice(ids, stop))
        return Found(records, total)

    def _ids(self, shelf: Shelf, bound: Bound) -> Sequence[int]:
        order = self.store.behaviour.order
        if order == "id":
            return shelf.by_id(bound)
        if order == "stable":
            return shelf.by_hash(bound, self.store.behaviour.seed)
        return shelf.by_update(bound)

    def _change(self, record_type: RecordType, between: BetweenPages, read: islice[int]) -> None:
        """Delete, update and create as a user of the CRM does; ``read`` are the ids read already."""
        records, wanted = self.store.shelf(record_type).records, between.delete + between.update
        if between.where == "first":
            chosen = list(islice((record_id for record_id in read if record_id in records), wanted))
        else:
            chosen = between.random.sample(list(records), min(wanted, len(records)))
        for record_id in chosen[: between.delete]:
            self.store.delete(record_type, record_id)
        for record_id in chosen[between.delete :]:
            self.store.impose(record_type, {}, record_id)
        for _ in range(between.create):
            self.store.impose(record_type, {})

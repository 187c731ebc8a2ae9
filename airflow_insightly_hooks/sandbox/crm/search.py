"""Searches of a record store. They behave as the store's ``behaviour`` says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

from airflow_insightly_hooks.core.records import RecordType
from airflow_insightly_hooks.sandbox.crm.record_store import RecordStore
from airflow_insightly_hooks.sandbox.crm.record_table import Record, RecordTable, UpdatedAfterFilter
from airflow_insightly_hooks.sandbox.crm.search_behaviour import BetweenPages

__all__ = ["Search", "SearchResult"]


class SearchResult(NamedTuple):
    """A page of records, and how many records the search finds in all."""

    records: list[Record]
    total: int


class Search:
    """Answers searches as ``store.behaviour`` says.

    :param store: holds the records. ``between_pages`` changes them.
    """

    def __init__(self, store: RecordStore) -> None:
        self.store = store

    def page(
        self,
        record_type: RecordType,
        *,
        skip: int = 0,
        top: int | None = None,
        after: str | None = None,
        matches: Callable[[Record], bool] | None = None,
    ) -> SearchResult:
        """Return one page. After that, ``between_pages`` changes records.

        :param skip: how many records are left out at the beginning.
        :param top: the largest number of records on the page; ``None`` for no limit.
        :param after: finds only records that were updated after this time, which is in the API's notation.
        :param matches: finds only records for which it returns true.
        """
        table, behaviour = self.store.table(record_type), self.store.behaviour
        table.show_due_changes(self.store.clock.source())
        ids = self._ordered_ids(table, UpdatedAfterFilter(after, behaviour.updated_after == "inclusive"))
        if matches is not None:
            ids = [record_id for record_id in ids if matches(table.shown[record_id])]
        total = len(ids)
        stop = total if top is None else min(total, skip + top)
        if behaviour.order == "none":
            # Each page comes from a newly shuffled list. A random sample has the same effect.
            page: Sequence[int] = behaviour.random.sample(ids, max(0, stop - skip))
        else:
            page = ids[skip:stop]
        records = [table.shown[record_id] for record_id in page]
        between = behaviour.between_pages
        if between and between.check_and_count(record_type.name):
            self._change_between_pages(record_type, between, islice(ids, stop))
        return SearchResult(records, total)

    def _ordered_ids(self, table: RecordTable, updated_after: UpdatedAfterFilter) -> Sequence[int]:
        order = self.store.behaviour.order
        if order == "id":
            return table.ids_by_id(updated_after)
        if order == "stable":
            return table.ids_in_stable_order(updated_after, self.store.behaviour.seed)
        return table.ids_by_update_time(updated_after)

    def _change_between_pages(
        self, record_type: RecordType, between: BetweenPages, read: islice[int]
    ) -> None:
        """Delete, update and create records as a user of the CRM does.

        :param read: the ids of the records that the search has returned already.
        """
        records, wanted = self.store.table(record_type).records, between.delete + between.update
        if between.where == "first":
            chosen = list(islice((record_id for record_id in read if record_id in records), wanted))
        else:
            chosen = between.random.sample(list(records), min(wanted, len(records)))
        for record_id in chosen[: between.delete]:
            self.store.delete(record_type, record_id)
        for record_id in chosen[between.delete :]:
            self.store.write_any_fields(record_type, {}, record_id)
        for _ in range(between.create):
            self.store.write_any_fields(record_type, {})

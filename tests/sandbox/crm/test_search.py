"""Searches without HTTP: what the index finds is what looking at each record finds."""

from __future__ import annotations

from itertools import product
from random import Random

import pytest

from airflow_insightly_hooks.sandbox.crm.change_history import ChangeHistory
from airflow_insightly_hooks.sandbox.crm.clock import Clock
from airflow_insightly_hooks.sandbox.crm.record_store import RecordStore
from airflow_insightly_hooks.sandbox.crm.search import Search
from airflow_insightly_hooks.sandbox.crm.search_behaviour import BetweenPages, SearchBehaviour

BOUNDS = [None, "2025-01-01 00:00:10", "2025-01-01 00:00:30", "2026-01-01 00:00:00"]


def _all_orders(search, contacts):
    """Compare each order and bound with a scan of the records that are there."""
    records = search.store.all(contacts)
    for order, bound, inclusive in product(("id", "updated", "stable", "none"), BOUNDS, (False, True)):
        search.store.behaviour.update(
            {"order": order, "updated_after": "inclusive" if inclusive else "exclusive"}
        )
        wanted = {
            record["CONTACT_ID"]: record["DATE_UPDATED_UTC"]
            for record in records
            if bound is None
            or record["DATE_UPDATED_UTC"] > bound
            or (inclusive and record["DATE_UPDATED_UTC"] == bound)
        }
        found = search.page(contacts, after=bound)
        ids = [record["CONTACT_ID"] for record in found.records]
        assert (sorted(ids), found.total) == (sorted(wanted), len(wanted))
        if order in ("id", "updated"):
            assert ids == sorted(wanted, key=lambda one: (wanted[one] if order == "updated" else "", one))
        if order != "none":
            halves = [
                record["CONTACT_ID"]
                for skip in (0, 20)
                for record in search.page(contacts, skip=skip, top=20, after=bound).records
            ]
            assert halves == ids[:40]


@pytest.mark.parametrize("seed", range(6))
def test_the_index_finds_what_is_there(seed):
    """Through creations, updates and deletions, one by one and many at once, each order finds all, once."""
    random, now = Random(seed), [1_735_689_600.0]
    store = RecordStore(Clock(lambda: now[0]), user_id=1)
    search, contacts = Search(store), store.record_types["Contacts"]
    for _ in range(12):
        now[0] += random.choice((0, 0.4, 7))
        for _ in range(random.choice((1, 3, 80))):
            store.write_any_fields(contacts, {"CONTACT_ID": random.randrange(10**9)})
        present = [record["CONTACT_ID"] for record in store.all(contacts)]
        for record_id in random.sample(present, len(present) // 3):
            if random.random() < 0.5:
                store.delete(contacts, record_id)
            else:
                store.update(contacts, {"CONTACT_ID": record_id, "TITLE": "x"})
        _all_orders(search, contacts)


@pytest.mark.parametrize("seed", range(3))
def test_everything_shows_in_the_end(seed):
    """However changes are delayed and happen between pages, when all delays are over searches show them."""
    now = [1_735_689_600.0]
    behaviour = SearchBehaviour(
        visibility_delay=9,
        seed=seed,
        between_pages=BetweenPages(delete=1, update=2, create=2, where="first", seed=seed, times=60),
    )
    store = RecordStore(Clock(lambda: now[0]), user_id=1, behaviour=behaviour)
    search, contacts = Search(store), store.record_types["Contacts"]
    for _ in range(20):
        store.create(contacts, {"FIRST_NAME": "Ada"})
    was_behind = False
    for step in range(60):
        now[0] += 0.5
        found = search.page(contacts, top=10, skip=step % 3 * 10)
        was_behind |= found.total != len(store.all(contacts))
    assert was_behind
    now[0] += 9
    assert search.page(contacts).records == store.all(contacts)


def test_history_is_bounded():
    """The oldest changes go first; their numbers tell that some are missing."""
    store = RecordStore(Clock(lambda: 0.0), user_id=1)
    store.history = ChangeHistory(max_changes=3)
    for _ in range(5):
        store.create(store.record_types["Contacts"], {"FIRST_NAME": "Ada"})
    assert [change.number for change in store.history.since()] == [3, 4, 5]
    assert [change.number for change in store.history.since(4)] == [5]

"""A state machine that reads windows: users change a CRM, the reader crashes, and clocks differ."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.detection.changes import ChangeWindow, changes_in
from airflow_insightly_hooks.core.detection.scan import Scan
from airflow_insightly_hooks.core.errors import IncompleteScan
from tests.core.detection.crm import CONTACTS, EPOCH, ORDERS, Crm

SETTLE = 5

ACTIONS = st.tuples(
    st.sampled_from(["create", "update", "update the newest", "delete", "delete the first"]),
    st.integers(0, 999),
)
BURSTS = st.lists(ACTIONS, max_size=6)


class History(RuleBasedStateMachine):
    """What happened, what adjoining windows reported, and what they should have reported."""

    @initialize(
        order=st.sampled_from(ORDERS),
        inclusive=st.booleans(),
        totals=st.sampled_from([True, True, False, "wrong"]),
        most=st.sampled_from([500, 500, 4, 2]),
        page_size=st.integers(2, 9),
        skew=st.integers(-2, 2),
        seed=st.integers(0, 99),
        records=st.integers(0, 60),
        first=st.integers(0, 20),
    )
    def begin(self, order, inclusive, totals, most, page_size, skew, seed, records, first):
        # Only counting detects an order of "none", and pages so small may be in order by chance.
        if order == "none":
            totals, most = True, 500
        # Nor does anything show that a page was cut if nothing is counted: later records may be deleted,
        # or move before the page, until the end is confirmed.
        is_cut_uncounted = totals is False and most < page_size
        self.needs_calm = order == "none" or is_cut_uncounted
        self.crm = Crm(order, inclusive, totals, most, seed)
        self.page_size = page_size
        self.skew = skew
        self.happened: set[tuple[int, str, int]] = set()
        for _ in range(records):
            self.act([("create", 0)])
            self.crm.now += 0.7
        self.reported: Counter[tuple[int, str, int]] = Counter()
        self.crm.now += SETTLE
        self.first = self.read_to = first

    def a_window_was_read(self, outcome: str) -> None:
        """Count it; a subclass may override this."""

    def settled(self) -> int:
        """Return the time up to which windows may be read.

        The server's clock may differ from the records' times.
        """
        return int(self.crm.now + self.skew) - SETTLE

    def act(self, burst) -> None:
        for action, which in burst:
            ids = sorted(self.crm.records)
            if action == "create":
                self.happened.add((self.crm.create(), "added", int(self.crm.now)))
            elif ids:
                chosen = {"delete the first": 0, "update the newest": -1}.get(action, which % len(ids))
                record_id = ids[chosen]
                if action.startswith("update"):
                    self.crm.update(record_id)
                    self.happened.add((record_id, "updated", int(self.crm.now)))
                else:
                    self.crm.delete(record_id)

    @rule(burst=BURSTS, seconds=st.sampled_from([0, 0.3, 1, 7, 60]))
    def users_work(self, burst, seconds):
        self.crm.now += seconds
        self.act(burst)

    @rule(
        between=st.lists(BURSTS, max_size=12),
        seconds=st.sampled_from([0.1, 1.0]),
        crash=st.one_of(st.none(), st.none(), st.integers(0, 5)),
    )
    def a_window_is_read(self, between, seconds, crash):
        if self.settled() <= self.read_to:
            self.crm.now += self.read_to - self.settled() + 1
        end = self.settled()
        window = ChangeWindow(EPOCH + timedelta(seconds=self.read_to), EPOCH + timedelta(seconds=end))
        bursts = iter(between)
        there = set(self.crm.records)

        def meanwhile(crm, _number):
            crm.now += seconds
            self.act(next(bursts, ()))

        self.crm.between = meanwhile
        is_quiet = not any(between)
        try:
            records = self.read(window, crash)
        except IncompleteScan:
            assert not is_quiet, "nothing moved, and yet the search couldn't be read"
            self.a_window_was_read("incomplete")
            return
        if records is None:  # its results don't count
            self.a_window_was_read("crashed")
            return
        self.a_window_was_read("read")
        changes = list(changes_in(window, CONTACTS, records))
        self.read_to = end
        reported = {(c["record_id"], c["event"], seconds_of(c["changed_at"])) for c in changes}
        self.reported.update(reported)
        assert len(reported) == len(changes)
        assert reported <= self.happened, "a change was reported that never happened"
        assert all(self.first <= at for _, _, at in reported), "a change before the first window was reported"
        assert max(self.reported.values(), default=1) == 1, "a change was reported twice"
        if self.needs_calm and not is_quiet:
            return
        missing = self.due(window, there) - {(record_id, event) for record_id, event, _ in reported}
        assert not missing, "a change was passed over"

    def read(self, window: ChangeWindow, crash: int | None) -> list[dict] | None:
        after = (window.search_from - EPOCH).total_seconds()
        scan = Scan(CONTACTS, self.page_size)
        records: list[dict] = []
        self.crm.requests.clear()
        while scan.request is not None:
            if crash is not None and len(self.crm.requests) > crash:
                return None
            records += scan.feed(*self.answer(scan, after))
        return records

    def answer(self, scan: Scan, after: float):
        page, total, date = self.crm.answer(scan.request, after)
        return page, total, date + timedelta(seconds=self.skew)

    def due(self, window: ChangeWindow, there: set[int]) -> set[tuple[int, str]]:
        """Return the changes in the window that the API still shows when the window has been read."""
        due = set()
        for record in self.crm.records.values():
            created, updated = (EPOCH + timedelta(seconds=int(t)) for t in (record.created, record.updated))
            if record.record_id in there and created in window:
                due.add((record.record_id, "added"))
            elif record.record_id in there and updated in window:
                due.add((record.record_id, "updated"))
        return due


def seconds_of(text: str) -> int:
    return int((api_time(text) - EPOCH).total_seconds())


@pytest.mark.slow
def test_every_change_that_the_api_still_shows_falls_in_exactly_one_window():
    """Whatever users do between pages, in any order, no change is missed, doubled or misclassified."""
    run_state_machine_as_test(
        History,
        settings=settings(max_examples=2 * settings().max_examples, stateful_step_count=12, deadline=None),
    )

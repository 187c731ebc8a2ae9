"""What is kept of each page that was read, and a scan that continues from it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_insightly_hooks.core.detection.changes import ChangeWindow
from airflow_insightly_hooks.core.detection.late_changes import LateChanges, SameChanges
from airflow_insightly_hooks.core.detection.page_log import page_entry, read_entry
from airflow_insightly_hooks.core.detection.record_times import readable_times
from airflow_insightly_hooks.core.detection.scan import Scan
from airflow_insightly_hooks.core.detection.seen_changes import SeenChanges
from airflow_insightly_hooks.core.errors import IncompleteScan
from airflow_insightly_hooks.core.records import CREATED, UPDATED
from tests.core.detection.crm import CONTACTS, EPOCH, ORDERS, Crm

LIMIT = 60_000
INSTANTS = st.integers(-(10**10), 10**11).map(lambda s: EPOCH + timedelta(seconds=s / 16, days=-20_000))
TIMES = st.one_of(
    INSTANTS.map(datetime.isoformat),
    INSTANTS.map(lambda time: f"{time:%Y-%m-%d %H:%M:%S}"),
    st.sampled_from([None, "", "no time", 7]),
)
RECORDS = st.fixed_dictionaries(
    {"CONTACT_ID": st.one_of(st.integers(1, 2**63 - 1), st.text(min_size=1))},
    optional={CREATED: TIMES, UPDATED: TIMES},
)


def kept(records: list[dict[str, Any]], total: int | None = None, date: datetime | None = None) -> Any:
    """Return a page's entry as a store gives it back."""
    return read_entry(CONTACTS, json.loads(json.dumps(page_entry(CONTACTS, records, total, date))))


@given(st.lists(RECORDS, max_size=20), st.none() | st.integers(0, 10**9), st.none() | INSTANTS)
def test_ids_and_times_come_back(records: list[dict[str, Any]], total: int | None, date: Any) -> None:
    """Whatever a record's id and times are, they come back from the entry."""
    page = kept(records, total, date)
    assert (page.total, page.date) == (total, date)
    assert [record["CONTACT_ID"] for record in page.records] == [record["CONTACT_ID"] for record in records]
    assert [readable_times(record) for record in page.records] == [readable_times(r) for r in records]
    for name in (CREATED, UPDATED):
        assert [bool(record.get(name)) for record in page.records] == [bool(r.get(name)) for r in records]


def test_an_entry_is_small() -> None:
    """A usual page takes some kilobytes. Four of the largest still fit into a store."""
    now = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
    usual = [
        {"CONTACT_ID": 300_000_000 + 3 * n, CREATED: str(now + timedelta(seconds=n))} for n in range(500)
    ]
    usual = [{**record, UPDATED: record[CREATED]} for record in usual]
    assert len(json.dumps(page_entry(CONTACTS, usual, 100_000, now))) < 2_000
    worst = [
        {
            "CONTACT_ID": (7**50 * (n + 1)) % 2**63,
            CREATED: str(now - timedelta(seconds=(7**30 * n) % 10**8, microseconds=(7**20 * n) % 10**6)),
            UPDATED: str(now - timedelta(seconds=(3**30 * n) % 10**7, microseconds=(3**20 * n) % 10**6)),
        }
        for n in range(1, 501)
    ]
    assert len(json.dumps(page_entry(CONTACTS, worst, 100_000, now))) < LIMIT / 4


@pytest.mark.parametrize("records", [None, 5, "?", "AAAA"])
def test_what_is_no_entry_is_refused(records: object) -> None:
    """Damaged state, and state of another program, is an error."""
    with pytest.raises(ValueError, match="can't be read"):
        read_entry(CONTACTS, {"records": records})


# --- a scan that goes on ---------------------------------------------------------------------------------

ACTIONS = st.tuples(
    st.sampled_from(["create", "update", "update the newest", "delete", "delete the first"]),
    st.integers(0, 999),
)
BURSTS = st.lists(st.lists(ACTIONS, max_size=6), max_size=20)


def act(crm: Crm, burst: list[tuple[str, int]]) -> None:
    for action, which in burst:
        ids = sorted(crm.records)
        if action == "create":
            crm.create()
        elif ids:
            chosen = ids[{"delete the first": 0, "update the newest": -1}.get(action, which % len(ids))]
            crm.update(chosen) if action.startswith("update") else crm.delete(chosen)


def crm_of(order: str, totals: object, most: int, seed: int, records: int, bursts: list[Any]) -> Crm:
    crm = Crm(order, totals=totals, most=most, seed=seed)
    for _ in range(records):
        crm.create()
        crm.now += 0.7
    crm.now += 5
    left = iter(bursts)

    def between(crm: Crm, _number: int) -> None:
        crm.now += 0.4
        act(crm, next(left, []))

    crm.between = between
    return crm


class Reader:
    """A scan and a detection, and what is kept of the pages that they have read."""

    def __init__(self, page_size: int, detection: LateChanges | SameChanges) -> None:
        self.scan, self.detection = Scan(CONTACTS, page_size), detection
        self.log: list[str] = []
        self.records: list[int] = []
        self.changes: list[tuple[Any, ...]] = []

    def feed(self, page: list[dict[str, Any]], total: int | None, date: datetime | None) -> None:
        entry = json.dumps(page_entry(CONTACTS, page, total, date))
        records = self.scan.feed(page, total, date)
        self.log.append(entry)
        self.records += [record["CONTACT_ID"] for record in records]
        self.changes += [
            (c["record_id"], c["event"], c["changed_at"], "undeliverable" in c)
            for c in self.detection.changes(records)
        ]

    @property
    def seen(self) -> Any:
        """Return what the detection keeps for later runs, and what a retry reports."""
        detection = self.detection
        if isinstance(detection, SameChanges):
            return None
        return detection.after.blocks(), detection.told.blocks(), detection.plain, detection.late


@pytest.mark.slow
@settings(deadline=None)
@given(
    crm=st.builds(
        lambda **how: lambda: crm_of(**how),
        order=st.sampled_from(ORDERS),
        totals=st.sampled_from([True, False, "wrong"]),
        most=st.sampled_from([500, 4, 2]),
        seed=st.integers(0, 9),
        records=st.integers(0, 60),
        bursts=BURSTS,
    ),
    page_size=st.integers(2, 9),
    stops=st.sets(st.integers(0, 30), max_size=6),
    is_late=st.booleans(),
    known=st.integers(0, 30),
)
def test_a_scan_that_is_stopped_goes_on_as_if_nothing_had_happened(
    crm: Any, page_size: int, stops: set[int], is_late: bool, known: int
) -> None:
    """Stopped after any page and restored, it makes the same requests and returns the same."""
    window = ChangeWindow(EPOCH + timedelta(seconds=20), EPOCH + timedelta(days=1))

    def detection() -> LateChanges | SameChanges:
        if not is_late:
            return SameChanges(CONTACTS, ("added", "updated"), window)
        before = SeenChanges(EPOCH, window.start)
        for record_id in range(1, known):
            before.see(record_id, [EPOCH + timedelta(seconds=record_id // 2)])
        until = EPOCH + timedelta(seconds=60)
        return LateChanges(window, CONTACTS, ("added",), timedelta(seconds=90), before, until)

    whole, stopped = Reader(page_size, detection()), Reader(page_size, detection())
    crms = crm(), crm()
    pages = 0
    while whole.scan.request is not None:
        if pages in stops:
            again = Reader(page_size, detection())
            for entry in stopped.log:
                again.feed(*read_entry(CONTACTS, json.loads(entry)))
            assert again.log == stopped.log
            stopped = again
        assert stopped.scan.request == whole.scan.request
        pages += 1
        answers = [one.answer(whole.scan.request, 5.0) for one in crms]
        try:
            whole.feed(*answers[0])
        except IncompleteScan:
            with pytest.raises(IncompleteScan):
                stopped.feed(*answers[1])
            break
        stopped.feed(*answers[1])
    assert (stopped.records, stopped.changes, stopped.seen) == (whole.records, whole.changes, whole.seen)

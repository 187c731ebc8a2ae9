"""How searches behave: order, changes between pages, clocks, delays, and answers that break off."""

from __future__ import annotations

import http.client
import json
from base64 import b64encode
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import pytest

from airflow_insightly_hooks.sandbox.server import RunningSandbox, running_sandbox

NOW = 1_763_980_000.75
"""2025-11-24 10:26:40.75 UTC"""

SEARCH = "/v3.1/Contacts/Search"
KEY = {"Authorization": f"Basic {b64encode(b'sandbox-key:').decode()}"}


class Crm:
    """A sandbox on a port whose clock only moves when it is told to."""

    def __init__(self, sandbox: RunningSandbox, time: list[float]) -> None:
        self.sandbox = sandbox
        self._time = time

    def time(self) -> float:
        return self._time[0]

    def tick(self, seconds: float) -> None:
        self._time[0] += seconds

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, Any, Any]:
        """Return status, headers and JSON of an answer."""
        port = int(self.sandbox.url.rsplit(":", 1)[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, f"{path}?{urlencode(query)}", text, KEY)
            response = connection.getresponse()
            raw = response.read()
            return response.status, response.headers, json.loads(raw) if raw else None
        finally:
            connection.close()

    def page(self, record_type: str = "Contacts", **query: Any) -> list[dict[str, Any]]:
        """Return a page of a search that is answered with 200."""
        status, _, found = self.ask("GET", f"/v3.1/{record_type}/Search", **query)
        assert status == 200, found
        return found

    def ids(self, **query: Any) -> list[int]:
        return [record["CONTACT_ID"] for record in self.page(**query)]

    def read(self, top: int, **query: Any) -> list[int]:
        """Return the ids on all pages, as a reader gets them that stops at the first short page."""
        found: list[int] = []
        while True:
            page = self.ids(skip=len(found), top=top, **query)
            found += page
            if len(page) < top:
                return found


@pytest.fixture(scope="module")
def running() -> Iterator[Crm]:
    time = [NOW]
    with running_sandbox(clock=lambda: time[0]) as sandbox:
        yield Crm(sandbox, time)


@pytest.fixture
def crm(running: Crm) -> Crm:
    """The sandbox at its beginning; searches find what a test creates with ``LATER``."""
    running.tick(NOW - running.time())
    running.sandbox.reset()
    running.sandbox.configure(requests_per_second=100_000)
    return running


LATER = {"updated_after_utc": "2029-12-31 23:59:59"}


def later(crm: Crm, *seconds: int) -> list[int]:
    """Create contacts that were updated so many seconds into the year 2030."""
    return crm.sandbox.create_many(
        "Contacts", [{"DATE_UPDATED_UTC": f"2030-01-01 00:00:{second:02}"} for second in seconds]
    )


# --- order -------------------------------------------------------------------------------------------------


def test_order_by_update_time(crm):
    """order updated: by update time, ties by id; a change moves a record to its new place."""
    a, b, c, d = later(crm, 30, 10, 30, 20)
    assert crm.ids(**LATER) == [a, b, c, d]
    crm.sandbox.configure(order="updated")
    assert crm.ids(**LATER) == [b, d, a, c]
    crm.sandbox.update("Contacts", b, DATE_UPDATED_UTC="2030-01-01 00:00:40")
    assert crm.ids(**LATER) == [d, a, c, b]
    assert crm.ids(**LATER, skip=1, top=2) == [a, c]


def test_a_stable_order(crm):
    """order stable: neither by id nor by time, the same each time, another one with another seed."""
    created = later(crm, *range(40))
    crm.sandbox.configure(order="stable")
    listed = crm.ids(**LATER)
    assert sorted(listed) == created
    assert listed not in (created, created[::-1])
    assert crm.read(7, **LATER) == listed
    crm.sandbox.configure(seed=1)
    other = crm.ids(**LATER)
    assert (sorted(other), other == listed) == (created, False)
    crm.sandbox.configure(seed=0)
    assert crm.ids(**LATER) == listed


def test_no_order(crm):
    """order none: shuffled anew for each request, in the same way again after the same seed."""
    created = later(crm, *range(40))
    crm.sandbox.configure(order="none", seed=3)
    first, second = crm.ids(**LATER), crm.ids(**LATER)
    assert sorted(first) == sorted(second) == created
    assert first != second
    assert len(crm.ids(**LATER, skip=35, top=10)) == 5
    assert crm.ids(**LATER, skip=50) == []
    crm.sandbox.configure(seed=3)
    assert [crm.ids(**LATER), crm.ids(**LATER)] == [first, second]


def test_the_bound_can_be_inclusive(crm):
    """updated_after inclusive: a record updated at the very bound is found in each order."""
    at, after = later(crm, 10, 11)
    bound = {"updated_after_utc": "2030-01-01T00:00:10Z"}
    for order in ("id", "updated", "stable", "none"):
        crm.sandbox.configure(order=order, updated_after="exclusive")
        assert crm.ids(**bound) == [after]
        crm.sandbox.configure(updated_after="inclusive")
        assert sorted(crm.ids(**bound)) == [at, after]


# --- changes between pages ---------------------------------------------------------------------------------


def test_deletions_between_pages_make_a_reader_miss_records(crm):
    """where first: what was read already is deleted, so records that are still there are skipped."""
    created = later(crm, *range(40))
    crm.sandbox.configure(between_pages={"delete": 3, "where": "first"})
    assert crm.read(10, **LATER) == [*created[:10], *created[13:23], *created[26:36], *created[39:]]


def test_updates_between_pages_move_records(crm):
    """where first, by update time: what was read moves to the end and is read twice, others are missed."""
    created = later(crm, *range(10))
    crm.sandbox.configure(
        clock_offset=10 * 365 * 86400, order="updated", between_pages={"update": 2, "where": "first"}
    )
    assert crm.read(5, **LATER) == [*created[:5], *created[7:], *created[:2]]


def test_changes_between_pages_are_random_but_seeded(crm):
    """where any: the same seed deletes, updates and creates the same; history tells what it was."""
    done = []
    for seed in (7, 7, 8):
        crm.sandbox.reset()
        crm.sandbox.configure(
            between_pages={"record_type": "Contacts", "delete": 3, "create": 1, "update": 2, "seed": seed}
        )
        crm.page(top=10)
        done.append([(change["what"], change["record_id"]) for change in crm.sandbox.history()])
    assert [what for what, _ in done[0]] == ["deleted"] * 3 + ["updated"] * 2 + ["created"]
    assert done[0] == done[1] != done[2]


def test_changes_between_pages_stay_within_their_type_and_times(crm):
    """Answers of other types change nothing; after ``times`` answers it is over."""
    crm.sandbox.configure(between_pages={"record_type": "Leads", "create": 1, "times": 2})
    crm.page()
    assert crm.sandbox.history() == []
    for _ in range(3):
        crm.page("Leads")
    assert [change["record_type"] for change in crm.sandbox.history()] == ["Leads", "Leads"]
    crm.sandbox.configure(between_pages={"create": 1})
    crm.page("Tasks")
    assert crm.sandbox.history()[-1]["record_type"] == "Tasks"
    crm.sandbox.configure(between_pages=None)
    crm.page("Tasks")
    assert len(crm.sandbox.history()) == 3


# --- clocks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "expected"), [(90, "2025-11-24 10:28:10"), (-90, "2025-11-24 10:25:10")], ids=str
)
def test_a_clock_ahead_or_behind(crm, offset, expected):
    """clock_offset moves the Date header, the times of records and those of the history alike."""
    crm.sandbox.configure(clock_offset=offset)
    status, headers, contact = crm.ask("POST", "/v3.1/Contacts", {"FIRST_NAME": "Ada"})
    assert (status, contact["DATE_CREATED_UTC"], contact["DATE_UPDATED_UTC"]) == (201, expected, expected)
    assert headers["Date"].split()[4] == expected.split()[1]
    assert crm.sandbox.history()[-1]["at"] == f"{expected.replace(' ', 'T')}.750000+00:00"


def test_record_times_are_cut_or_rounded(crm):
    """Times are cut to seconds; told to be rounded, they may lie in the future. Given times are cut."""
    assert crm.sandbox.create("Contacts")["DATE_UPDATED_UTC"] == "2025-11-24 10:26:40"
    state = crm.sandbox.configure(record_times="rounded")
    assert state["clock"]["record_times"] == "rounded"
    contact = crm.sandbox.create("Contacts", DATE_CREATED_UTC="2025-01-01 00:00:00.700")
    assert contact["DATE_CREATED_UTC"] == "2025-01-01 00:00:00"
    contact = crm.sandbox.update("Contacts", contact["CONTACT_ID"], TITLE="Owner")
    assert contact["DATE_UPDATED_UTC"] == "2025-11-24 10:26:41"
    assert crm.ids(updated_after_utc="2025-11-24 10:26:40") == [contact["CONTACT_ID"]]
    assert crm.sandbox.history()[-1]["at"] == "2025-11-24T10:26:40.750000+00:00"


# --- visibility --------------------------------------------------------------------------------------------


def test_a_change_becomes_visible_later(crm):
    """Until its time has come a search shows the record as it was; reading it by its id shows it as it is."""
    kept, deleted = later(crm, 1, 2)
    crm.sandbox.configure(visibility_delay=60, seed=5)
    (created,) = later(crm, 3)
    crm.sandbox.update("Contacts", kept, TITLE="Owner", DATE_UPDATED_UTC="2030-01-01 00:00:09")
    crm.ask("DELETE", f"/v3.1/Contacts/{deleted}")
    assert [(one["CONTACT_ID"], one["TITLE"]) for one in crm.page(**LATER)] == [(kept, None), (deleted, None)]
    assert crm.ask("GET", f"/v3.1/Contacts/{kept}")[2]["TITLE"] == "Owner"
    assert crm.ask("GET", f"/v3.1/Contacts/{deleted}")[0] == 404
    assert crm.ask("GET", f"/v3.1/Contacts/{created}")[0] == 200
    crm.tick(60)
    assert [(one["CONTACT_ID"], one["TITLE"]) for one in crm.page(**LATER)] == [
        (kept, "Owner"),
        (created, None),
    ]


def test_visibility_comes_at_the_time_that_history_tells(crm):
    """Each change has a delay of its own, up to the setting; it shows from shown_at on and not before."""
    crm.sandbox.configure(visibility_delay=30, seed=5)
    later(crm, *range(20))
    created = crm.sandbox.history()
    delays = {change["record_id"]: _delay(change) for change in created}
    assert all(0 <= delay <= 30 for delay in delays.values())
    assert len(set(delays.values())) == 20
    for _ in range(31):
        crm.tick(1)
        passed = crm.sandbox.configure()["clock"]["now"]
        shown = {change["record_id"] for change in created if change["shown_at"] <= passed}
        assert set(crm.ids(**LATER)) == shown
    assert len(shown) == 20


def _delay(change: dict[str, Any]) -> float:
    at, shown_at = (datetime.fromisoformat(change[key]) for key in ("at", "shown_at"))
    return (shown_at - at).total_seconds()


def test_a_later_change_that_shows_first_stands(crm):
    """An earlier change of the same record that becomes visible afterwards does not bring itself back."""
    (contact,) = later(crm, 1)
    crm.sandbox.configure(visibility_delay=60)
    crm.sandbox.update("Contacts", contact, TITLE="first")
    crm.sandbox.configure(visibility_delay=0)
    crm.sandbox.update("Contacts", contact, TITLE="second", DATE_UPDATED_UTC="2030-01-01 00:00:05")
    assert [one["TITLE"] for one in crm.page(**LATER)] == ["second"]
    crm.tick(60)
    assert [one["TITLE"] for one in crm.page(**LATER)] == ["second"]


# --- answers that fail or break off ------------------------------------------------------------------------


def test_a_page_that_fails(crm):
    """fault.after lets requests through first: the third page fails twice; Retry-After may be a date."""
    date = "Mon, 24 Nov 2025 10:26:45 GMT"
    crm.sandbox.configure(fault={"path": SEARCH, "status": 503, "after": 2, "times": 2, "retry_after": date})
    answers = [crm.ask("GET", SEARCH, top=1) for _ in range(5)]
    assert [status for status, *_ in answers] == [200, 200, 503, 503, 200]
    assert answers[2][1]["Retry-After"] == date


def test_a_page_that_is_shorter_than_asked_for(crm):
    """shorten: fewer records than top although there are more; a reader that trusts short pages stops."""
    created = later(crm, *range(30))
    crm.sandbox.configure(shorten={"path": SEARCH, "to": 4, "after": 1, "times": 1})
    assert crm.read(10, **LATER) == created[:14]
    assert crm.read(10, **LATER) == created
    crm.sandbox.configure(shorten={"path": SEARCH, "to": 0})
    status, headers, found = crm.ask("GET", SEARCH, count_total="true", **LATER)
    assert (status, headers["X-Total-Count"], found) == (200, "30", [])


def test_an_answer_that_breaks_off(crm):
    """cut: half of the body comes, less than Content-Length says; then the connection is closed."""
    crm.sandbox.configure(cut={"path": SEARCH, "after": 1, "times": 1})
    assert len(crm.ids(top=3)) == 3
    with pytest.raises(http.client.IncompleteRead) as broken:
        crm.ask("GET", SEARCH, top=3)
    assert abs(len(broken.value.partial) - broken.value.expected) <= 1
    assert broken.value.partial.startswith(b'[{"CONTACT_ID":')
    assert len(crm.ids(top=3)) == 3


# --- the truth ---------------------------------------------------------------------------------------------


def test_history_tells_what_happened(crm):
    """Each creation, update and deletion is told with its uncut time, in order; since skips the first."""
    contact = crm.ask("POST", "/v3.1/Contacts", {"FIRST_NAME": "Ada"})[2]["CONTACT_ID"]
    crm.tick(1)
    second = crm.ask("GET", "/_sandbox")[2]["clock"]["now"]
    crm.ask("PUT", "/v3.1/Contacts", {"CONTACT_ID": contact, "TITLE": "Owner"})
    crm.ask("DELETE", f"/v3.1/Contacts/{contact}")
    history = crm.sandbox.history()
    assert [(change["number"], change["what"]) for change in history] == [
        (1, "created"),
        (2, "updated"),
        (3, "deleted"),
    ]
    assert {(change["record_type"], change["record_id"]) for change in history} == {("Contacts", contact)}
    assert history[1]["at"] == history[1]["shown_at"] == second
    assert history[1]["updated"] == second.replace("T", " ")[:19]
    assert crm.sandbox.history(since=2) == history[2:]
    assert crm.sandbox.history(since=99) == []
    assert crm.ask("GET", "/_sandbox/history", since="x")[0] == 400


def test_many_records_at_once(crm):
    """A list of records is loaded in one request; ids alone are answered where that is asked for."""
    ids = crm.sandbox.create_many("Contacts", ({"LAST_NAME": str(number)} for number in range(2000)))
    assert len(set(ids)) == 2000
    assert len(crm.sandbox.history()) == 2000
    assert crm.read(500)[-2000:] == ids
    assert crm.ask("POST", "/_sandbox/records/Contacts", {}, answer="count")[0] == 400


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"order": "random"}, "order must be one of id, updated, stable, none"),
        ({"order": ["id"]}, "order"),
        ({"updated_after": "both"}, "updated_after must be one of exclusive, inclusive"),
        ({"record_times": "exact"}, "record_times must be one of cut, rounded"),
        ({"visibility_delay": -1}, "visibility_delay is not a number from 0 to 86400"),
        ({"visibility_delay": "5"}, "visibility_delay"),
        ({"seed": 1.5}, "seed is not a whole number"),
        ({"between_pages": 5}, "between_pages must be an object with the keys record_type, delete"),
        ({"between_pages": {"remove": 1}}, "between_pages"),
        ({"between_pages": {"delete": -1}}, "between_pages.delete"),
        ({"between_pages": {"create": 10_001}}, "between_pages.create is not a whole number from 0 to 10000"),
        ({"between_pages": {"where": "last"}}, "between_pages.where must be one of any, first"),
        ({"between_pages": {"record_type": "Contact"}}, "between_pages.record_type"),
        ({"between_pages": {"record_type": 5}}, "between_pages.record_type is not a text"),
        ({"between_pages": {"times": True}}, "between_pages.times"),
        ({"shorten": {"path": SEARCH}}, "shorten must be an object with the keys path, after, times, to"),
        ({"shorten": {"path": SEARCH, "to": "5"}}, "shorten.to"),
        ({"cut": {}}, "cut must be an object with the keys path, after, times, path required"),
        ({"cut": {"path": SEARCH, "times": -1}}, "cut.times"),
        ({"cut": {"path": None}}, "cut.path is not a text"),
        ({"fault": {"path": SEARCH, "status": 503, "after": -1}}, "fault.after"),
        ({"fault": {"path": SEARCH, "status": 503, "retry_after": "1\r\nX: y"}}, "fault.retry_after"),
        ({"fault": {"path": SEARCH, "status": 503, "retry_after": ""}}, "fault.retry_after"),
    ],
)
def test_invalid_search_settings_are_refused(running, settings, named):
    """What can't be set is 400, names the key and what it may be, and nothing is set."""
    before = running.ask("GET", "/_sandbox")[2]
    status, _, answer = running.ask("PUT", "/_sandbox", {"requests_per_day": 7, **settings})
    assert (status, answer["Message"].startswith(named)) == (400, True), answer
    assert running.ask("GET", "/_sandbox")[2] == before

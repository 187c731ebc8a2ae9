"""The trigger of a waiting sensor."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.module_loading import import_string

from airflow_insightly_hooks.hooks.insightly import InsightlyHook
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from airflow_insightly_hooks.triggers import polls as module
from airflow_insightly_hooks.triggers.record_change import InsightlyRecordChangeTrigger
from tests.conftest import API_KEY, Connect, Logged

START = datetime(2031, 3, 10, 8, tzinfo=timezone.utc)
SEARCH = "GET /v3.1/Contacts/Search"


def from_now(seconds: float) -> str:
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).isoformat()


def trigger(**arguments: Any) -> InsightlyRecordChangeTrigger:
    arguments = {
        "insightly_conn_id": "insightly_default",
        "record_type": "Contacts",
        "events": ["added", "updated"],
        "settle": 5.0,
        "look_at": from_now(0),
        "until": from_now(5),
        "open_since": START.isoformat(),
        "poll_interval": 0.05,
        **arguments,
    }
    return InsightlyRecordChangeTrigger(**arguments)


def events(of: InsightlyRecordChangeTrigger) -> list[Any]:
    """Return the payloads of all events that the trigger yields."""

    async def collect() -> list[Any]:
        return [event.payload async for event in of.run()]

    return asyncio.run(collect())


@pytest.fixture
def crm(insightly: RunningSandbox) -> RunningSandbox:
    """The sandbox, whose clock shows a minute after START."""
    offset = START + timedelta(minutes=1) - datetime.now(timezone.utc)
    insightly.configure(clock_offset=offset.total_seconds())
    return insightly


@pytest.fixture(autouse=True)
def _no_quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InsightlyHook, "quick_retries", 0)
    monkeypatch.setattr(module, "PATIENCE", 0.0)


def requests(sandbox: RunningSandbox, path: str = SEARCH) -> int:
    count: int = sandbox.configure()["requests"].get(path, 0)
    return count


def add(sandbox: RunningSandbox, seconds: float, **fields: Any) -> None:
    created = (START + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S")
    sandbox.create("Contacts", FIRST_NAME="Zoë", **{"DATE_CREATED_UTC": created, **fields})


def test_serialize() -> None:
    """The format must stay the same between versions: path and arguments, without credentials."""
    arguments = {
        "insightly_conn_id": "crm",
        "record_type": "Contacts",
        "events": ["added"],
        "settle": 5.0,
        "look_at": "2031-03-10T08:00:00Z",
        "until": "2031-03-11T08:00:00Z",
        "open_since": None,
        "poll_interval": 60.0,
        "version": 1,
    }
    path, stored = InsightlyRecordChangeTrigger(**arguments).serialize()  # type: ignore[arg-type]
    assert path == "airflow_insightly_hooks.triggers.record_change.InsightlyRecordChangeTrigger"
    assert stored == arguments
    again = import_string(path)(**stored)
    assert again.serialize() == (path, stored)


@pytest.mark.parametrize(
    "arguments",
    [
        {"version": 2},
        {"version": 0},
        {"later": "argument"},
        {"until": ""},
        {"look_at": "soon"},
        {"open_since": ""},
        {"record_type": "Contact"},
        {"events": ["deleted"]},
    ],
)
def test_what_another_version_has_deferred(
    crm: RunningSandbox, logged: Logged, arguments: dict[str, Any]
) -> None:
    """Arguments that this version can't read wake the sensor, which defers again. The log says why."""
    assert events(trigger(**arguments)) == [{"reason": "error"}]
    assert requests(crm) == 0
    (warning,) = logged.messages("warning")
    assert "looks again now" in warning


def test_what_an_earlier_version_has_deferred(crm: RunningSandbox) -> None:
    """Arguments from before there was a version number can be read."""
    arguments = trigger(open_since=None).serialize()[1]
    del arguments["version"]
    assert events(InsightlyRecordChangeTrigger(**arguments)) == [{"reason": "settled"}]
    assert events(InsightlyRecordChangeTrigger()) == [{"reason": "error"}]


def test_a_change_that_settles_meanwhile(crm: RunningSandbox) -> None:
    """The trigger waits for a change that hasn't settled, without asking for it again."""
    add(crm, 59)
    started = time.monotonic()
    assert events(trigger(settle=2.0, until=from_now(30))) == [{"reason": "changed"}]
    assert 1 < time.monotonic() - started < 6
    assert requests(crm) == 1


def test_many_that_wait_share_looks(crm: RunningSandbox) -> None:
    """A hundred sensors that wait for one record type make about one request an interval."""

    async def wait() -> list[Any]:
        since = [(START + timedelta(seconds=i % 40)).isoformat() for i in range(100)]
        waiting = [
            asyncio.ensure_future(anext(trigger(open_since=s, poll_interval=0.5, until=from_now(30)).run()))
            for s in since
        ]
        await asyncio.sleep(2.2)
        assert not any(one.done() for one in waiting)
        assert await asyncio.to_thread(requests, crm) <= 12
        await asyncio.to_thread(add, crm, 45)
        return [event.payload["reason"] for event in await asyncio.wait_for(asyncio.gather(*waiting), 10)]

    assert asyncio.run(wait()) == ["changed"] * 100


def test_what_is_shared_is_judged_by_each(crm: RunningSandbox) -> None:
    """Each takes from a shared poll only the changes of its own window and events."""
    add(crm, 10)

    async def wait() -> dict[str, Any]:
        kinds: dict[str, dict[str, Any]] = {
            "first": {},
            "too late": {"open_since": (START + timedelta(seconds=11)).isoformat()},
            "other event": {"events": ["updated"]},
        }
        waiting = {
            name: asyncio.ensure_future(anext(trigger(until=from_now(0.8), **arguments).run()))
            for name, arguments in kinds.items()
        }
        return {name: (await one).payload["reason"] for name, one in waiting.items()}

    assert asyncio.run(wait()) == {"first": "changed", "too late": "timeout", "other event": "timeout"}


def test_an_outage_is_shared(crm: RunningSandbox) -> None:
    """While Insightly is down, a hundred sensors ask no more often than one."""
    crm.configure(fault={"path": "/v3.1/Contacts/Search", "status": 503})

    async def wait() -> None:
        waiting = [anext(trigger(poll_interval=1.0, until=from_now(1.8)).run()) for _ in range(100)]
        await asyncio.gather(*waiting)

    asyncio.run(wait())
    assert requests(crm) <= 6


def test_settled(crm: RunningSandbox) -> None:
    """For a closed window it waits until the time, makes no requests, and fires once."""
    started = time.monotonic()
    assert events(trigger(open_since=None, look_at=from_now(0.2))) == [{"reason": "settled"}]
    assert 0.15 < time.monotonic() - started < 1
    assert requests(crm) == 0


def test_changed_already(crm: RunningSandbox) -> None:
    """If there is a change already, it fires at once, without the change's contents."""
    add(crm, 10)
    assert events(trigger()) == [{"reason": "changed"}]
    assert requests(crm) == 1


def test_changes_later(crm: RunningSandbox) -> None:
    """It polls every interval until there is a change."""

    async def wait() -> Any:
        generator = trigger().run()
        first = asyncio.ensure_future(anext(generator))
        await asyncio.sleep(0.2)
        assert not first.done()
        await asyncio.to_thread(add, crm, 10)
        return (await asyncio.wait_for(first, 2)).payload

    assert asyncio.run(wait()) == {"reason": "changed"}
    assert requests(crm) >= 3


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        ({"events": ["updated"]}, {}),
        ({"settle": 55.0}, {}),
        ({"open_since": (START + timedelta(seconds=11)).isoformat()}, {}),
        ({"open_since": (START + timedelta(hours=1)).isoformat()}, {}),
        ({"record_type": "Tasks"}, {}),
    ],
    ids=["another event", "not settled", "before the window", "window of the future", "another type"],
)
def test_what_does_not_count(crm: RunningSandbox, arguments: dict[str, Any], fields: dict[str, Any]) -> None:
    """Changes that the sensor would not return don't wake it. At its time-out it wakes."""
    add(crm, 10, **fields)
    assert events(trigger(until=from_now(0.3), **arguments)) == [{"reason": "timeout"}]


def test_time_is_up(crm: RunningSandbox) -> None:
    """It fires at the sensor's time-out, not a poll interval later."""
    started = time.monotonic()
    assert events(trigger(until=from_now(0.3), poll_interval=60)) == [{"reason": "timeout"}]
    assert 0.2 < time.monotonic() - started < 1.5


@pytest.mark.parametrize("status", [500, 503])
def test_survives_an_outage(crm: RunningSandbox, logged: Logged, status: int) -> None:
    """While Insightly answers 5xx it keeps polling at its interval, and logs it without contents."""
    add(crm, 10)
    crm.configure(fault={"path": "/v3.1/Contacts/Search", "status": status, "times": 3})
    assert events(trigger()) == [{"reason": "changed"}]
    assert requests(crm) == 4
    warnings = logged.messages("warning")
    assert len(warnings) == 3
    assert f"answered {status}" in warnings[0]
    assert warnings[0].endswith("asking again in 0.05 s")


def test_survives_a_dead_host(connect: Connect) -> None:
    """While nothing listens, it keeps polling until the time-out."""
    connect("insightly_default", "insightly", host="http://127.0.0.1:9/v3.1", password=API_KEY)
    assert events(trigger(until=from_now(0.3))) == [{"reason": "timeout"}]


def test_survives_a_rate_limit(crm: RunningSandbox) -> None:
    """It survives too many requests a second."""
    add(crm, 10)
    crm.configure(fault={"path": "/v3.1/Contacts/Search", "status": 429, "times": 2, "retry_after": 1})
    assert events(trigger()) == [{"reason": "changed"}]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405])
def test_refusals(crm: RunningSandbox, logged: Logged, status: int) -> None:
    """If asking again is useless, the sensor is woken at once, and raises the error."""
    crm.configure(fault={"path": "/v3.1/Contacts/Search", "status": status})
    assert events(trigger()) == [{"reason": "error"}]
    assert requests(crm) == 1
    (warning,) = logged.messages("warning")
    assert warning.startswith("Looking for Contacts failed: Insightly")


def test_day_is_spent(crm: RunningSandbox) -> None:
    """If the day's quota is spent, the sensor is woken, and reports it."""
    crm.configure(requests_per_day=0)
    assert events(trigger()) == [{"reason": "error"}]


@pytest.mark.parametrize("given", [None, {"host": "no host"}])
def test_no_connection(connect: Connect, given: dict[str, Any] | None) -> None:
    """A missing or invalid connection wakes the sensor. No exception leaves the trigger."""
    if given is not None:
        connect("crm", "insightly", password=API_KEY, **given)
    assert events(trigger(insightly_conn_id="crm")) == [{"reason": "error"}]


def test_clock_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits by the wall clock, and reads it at least every minute, since it may be set meanwhile."""
    slept: list[float] = []
    now = [datetime(2031, 3, 10, 8, tzinfo=timezone.utc)]

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return now[0]

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += timedelta(minutes=50)

    monkeypatch.setattr(module, "datetime", Clock)
    # Only the module's own name is patched: a sandbox for other tests sleeps in a thread of this process.
    monkeypatch.setattr(module, "asyncio", SimpleNamespace(sleep=sleep))
    assert events(trigger(open_since=None, look_at="2031-03-10T09:00:30Z")) == [{"reason": "settled"}]
    assert slept == [60, 60]


def test_a_record_whose_times_cannot_be_read_wakes(
    crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Polls continue, and the woken run reports the record."""
    odd = [{"TASK_ID": 1, "DATE_CREATED_UTC": "soon", "DATE_UPDATED_UTC": [None]}, {}]
    monkeypatch.setattr(InsightlyHook, "iter_records", lambda *_, **__: iter(odd))
    since = datetime.now(timezone.utc).replace(microsecond=0)
    poll = asyncio.run(module.Poller("insightly_default").poll("Tasks", since))
    assert poll.changes(("updated",), since) == [since, since]

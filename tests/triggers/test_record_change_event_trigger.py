"""The trigger of an asset's watcher."""

from __future__ import annotations

import asyncio
import math
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.sdk.module_loading import import_string
from airflow.triggers.base import BaseEventTrigger
from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome

from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.errors import UnknownRecordType
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.hooks.api import client, server_clock
from airflow_insightly_hooks.hooks.api.api_errors import InsightlyRateLimitError
from airflow_insightly_hooks.hooks.assets import CURSOR_LISTS, cursor_list
from airflow_insightly_hooks.hooks.insightly import InsightlyHook
from airflow_insightly_hooks.hooks.process_registry import clear_process_registries
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from airflow_insightly_hooks.triggers import own_cursor, polls
from airflow_insightly_hooks.triggers import watcher as module
from airflow_insightly_hooks.triggers.record_change import (
    InsightlyRecordChangeEventTrigger,
    changes_asset,
    changes_schedule,
)
from tests.conftest import API_KEY, Connect, Logged
from tests.triggers.conftest import AssetState

START = datetime(2031, 3, 10, 8, tzinfo=timezone.utc)
NOW = START + timedelta(minutes=1)
SEARCH = "GET /v3.1/Contacts/Search"


def trigger(**arguments: Any) -> InsightlyRecordChangeEventTrigger:
    return InsightlyRecordChangeEventTrigger(
        **{"record_type": "Contacts", "poll_interval": 0.05, **arguments}
    )


def events(of: InsightlyRecordChangeEventTrigger, seconds: float = 0.6) -> list[Any]:
    """Return the payloads of the events within so many seconds."""
    found: list[Any] = []

    async def collect() -> None:
        async for event in of.run():
            found.append(event.payload)

    async def within() -> None:
        try:
            await asyncio.wait_for(collect(), seconds)
        except asyncio.TimeoutError:
            return
        raise AssertionError("the trigger has ended: Airflow would start it again at once, endlessly")

    asyncio.run(within())
    return found


def first_event(of: InsightlyRecordChangeEventTrigger) -> Any:
    """Return the payload of the first event, however slow the machine is."""

    async def first() -> Any:
        return (await anext(of.run())).payload

    return asyncio.run(asyncio.wait_for(first(), 30))


@pytest.fixture
def crm(insightly: RunningSandbox, state: AssetState, monkeypatch: pytest.MonkeyPatch) -> RunningSandbox:
    """The sandbox, whose clock shows a minute after START; the last watch has ended at START."""
    monkeypatch.setattr(InsightlyHook, "quick_retries", 0)
    monkeypatch.setattr(polls, "PATIENCE", 0.0)
    monkeypatch.setattr(module, "FIRST_REPEAT", 0.1)
    monkeypatch.setattr(server_clock, "TOLERANCE", math.inf)  # its clock is years ahead, and accepted at once
    insightly.configure(clock_offset=(NOW - datetime.now(timezone.utc)).total_seconds())
    state.values["watched"] = "2031-03-10T08:00:00Z"
    return insightly


def add(sandbox: RunningSandbox, seconds: float) -> None:
    created = (START + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S")
    sandbox.create("Contacts", FIRST_NAME="Zoë", DATE_CREATED_UTC=created)


def server_time(sandbox: RunningSandbox) -> datetime:
    """Return the sandbox's clock, to the second."""
    made = sandbox.create("Tasks", TITLE="now")["DATE_CREATED_UTC"]
    return datetime.fromisoformat(f"{made.replace(' ', 'T')}+00:00")


def requests(sandbox: RunningSandbox) -> dict[str, int]:
    count: dict[str, int] = sandbox.configure()["requests"]
    return {path: n for path, n in count.items() if path.startswith("GET /v3.1")}


def test_serialize() -> None:
    """The format must stay the same between versions.

    It is in the serialized DAG, so it has no credentials.
    """
    path, stored = InsightlyRecordChangeEventTrigger("Contacts").serialize()
    assert path == "airflow_insightly_hooks.triggers.record_change.InsightlyRecordChangeEventTrigger"
    assert stored == {
        "record_type": "Contacts",
        "insightly_conn_id": "insightly_default",
        "poll_interval": 15.0,
        "settle": 5.0,
        "lookback": 900.0,
        "cursor": None,
    }
    assert import_string(path)(**stored).serialize() == (path, stored)
    assert issubclass(InsightlyRecordChangeEventTrigger, BaseEventTrigger)


def test_serialize_of_one_that_webhooks_wake() -> None:
    """It says that webhooks wake the DAG. The poll interval is always included."""
    path, stored = InsightlyRecordChangeEventTrigger("Contacts", push=True).serialize()
    assert (stored["push"], stored["poll_interval"]) == (True, 900.0)
    assert import_string(path)(**stored).serialize() == (path, stored)
    assert import_string(path)(**{**stored, "poll_interval": 1800.0}).poll_interval == 1800


def test_what_another_version_has_written_is_watched() -> None:
    """Until Airflow parses the DAG file again, the database has the arguments of the other version."""
    path, stored = InsightlyRecordChangeEventTrigger("Contacts", later="argument").serialize()
    assert stored["later"] == "argument"
    assert import_string(path)(record_type="Contacts").poll_interval == 15.0


def test_one_asset_for_all_that_watch_as_often() -> None:
    """Two DAGs share a watcher. Its asset is not the one with the cursors, which has no watcher."""
    first, second = changes_asset("Contacts"), changes_asset("Contacts")
    assert (first.name, first.uri) == (second.name, second.uri)
    assert first.watchers[0].trigger.serialize() == second.watchers[0].trigger.serialize()
    assert first.name == "insightly/insightly_default/Contacts/changes/15s/5s"
    assert first.name != changes_asset("Contacts", poll_interval=60).name
    assert first.name != changes_asset("Contacts", settle=60).name
    assert first.name != changes_asset("Contacts", lookback=60).name
    assert len(first.watchers) == 1


def test_an_asset_that_webhooks_wake() -> None:
    """Its name says so. Its watcher shares the watch of those that only poll."""
    made = changes_asset("Contacts", push=True)
    assert made.name == "insightly/insightly_default/Contacts/changes/push/900s/5s"
    assert made.name != changes_asset("Contacts", push=True, poll_interval=60).name
    assert made.name != changes_asset("Contacts", poll_interval=900).name
    (pushed,), (other,) = ([w.trigger for w in asset.watchers] for asset in (made, changes_asset("Contacts")))
    assert pushed.shared_stream_key() == other.shared_stream_key()
    (of_schedule,) = changes_schedule("Contacts", "dag/detect", push=True).asset_condition.objects
    assert of_schedule.name == f"{made.name}/dag%2Fdetect"


@pytest.mark.parametrize("cursor", ["dag/detect", "Zoë's cursor / 2", "ö" * 500])
def test_an_asset_of_ones_own(cursor: str) -> None:
    """Airflow accepts its name, whatever the cursor's name is. All these assets share one watch."""
    first, shared = changes_asset("Contacts", cursor=cursor), changes_asset("Contacts")
    assert first.name.startswith(f"{shared.name}/")
    assert first.name == changes_asset("Contacts", cursor=cursor).name
    assert first.name != changes_asset("Contacts", cursor=cursor[:-1]).name
    (own,), (other,) = ([w.trigger for w in asset.watchers] for asset in (first, shared))
    assert own.cursor == cursor
    assert own.shared_stream_key() == other.shared_stream_key()


def test_a_schedule_of_ones_own() -> None:
    """It runs by that asset, and once at the start, so that a new DAG begins when it is unpaused."""
    made = changes_schedule("Contacts", "dag/detect", poll_interval=30, lookback=0)
    (asset,) = made.asset_condition.objects
    assert asset.name == changes_asset("Contacts", poll_interval=30, lookback=0, cursor="dag/detect").name
    with pytest.raises(ValueError, match="template"):
        changes_schedule("Contacts", "{{ dag.dag_id }}/detect")
    with pytest.raises(ValueError, match="lookback"):
        changes_schedule("Contacts", "dag/detect", lookback=-1)


def test_an_unknown_record_type_is_found_when_the_dag_is_parsed() -> None:
    """The triggerer could only log the error, again and again."""
    with pytest.raises(UnknownRecordType):
        changes_asset("Contact")


def test_it_says_where_it_begins(crm: RunningSandbox, state: AssetState) -> None:
    """The very first watch reports an event at once, so that DAGs mark their beginning.

    It looks from then on.
    """
    state.values.clear()
    add(crm, 5)
    (event,) = events(trigger())
    assert event["since"] == event["until"] == state.values["watched"]
    assert abs(api_time(event["until"]) - (NOW - timedelta(seconds=5))) < timedelta(seconds=3)


def test_each_start_says_so_once(crm: RunningSandbox, state: AssetState) -> None:
    """An event that was handed over and then lost is repeated, from the end of the last watch."""
    for _ in range(2):
        (event,) = events(trigger())
        assert event["since"] == "2031-03-10T08:00:00Z"
        state.values["watched"] = "2031-03-10T08:00:00Z"


def test_a_watch_that_has_stopped_long_ago_begins_a_day_before(
    crm: RunningSandbox, state: AssetState
) -> None:
    """A new DAG must not begin a month ago, where another DAG's watch has ended."""
    state.values["watched"] = "2017-03-10T08:00:00Z"
    events(trigger())
    event = events(trigger())[0]
    assert api_time(event["since"]) > datetime.now(timezone.utc) - timedelta(days=1, minutes=1)


def test_nothing_new_is_one_small_request(crm: RunningSandbox, state: AssetState) -> None:
    """A poll is one request: none for the server's time, no custom fields and no old records."""
    asked: list[Any] = []

    def get(client: Any, path: str, parameters: Any = None, **others: Any) -> Any:
        asked.append((path, parameters))
        return real(client, path, parameters, **others)

    real = client.Client.get
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client.Client, "get", get)
        events(trigger(poll_interval=0.2), seconds=1.1)
    assert 3 <= len(asked) <= 6
    assert {path for path, _ in asked} == {"/Contacts/Search"}
    assert all(parameters["brief"] == "true" for _, parameters in asked)
    # It looks from a lookback before the last poll, not from the last reported change.
    assert asked[0][1]["updated_after_utc"].startswith("2031-03-10T07:44:58")
    assert asked[-1][1]["updated_after_utc"].startswith("2031-03-10T07:45:5")


def test_the_session_is_kept(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks go through one hook, and one connection to the server."""
    made: list[Any] = []
    real = InsightlyHook.__init__

    def init(hook: Any, *arguments: Any) -> None:
        made.append(hook)
        real(hook, *arguments)

    monkeypatch.setattr(InsightlyHook, "__init__", init)
    events(trigger())
    assert len(made) == 1


def test_an_edited_connection_is_taken_up(
    crm: RunningSandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    """After a failure, and every few minutes, the connection is read again."""
    connect("insightly_default", "insightly", host=crm.api_url, login="wrong-key-51c0")

    async def edit() -> list[Any]:
        found: list[Any] = []

        async def collect() -> None:
            async for event in trigger(poll_interval=0.1).run():
                found.append(event.payload)

        running = asyncio.ensure_future(collect())
        await asyncio.sleep(0.5)
        assert found == []
        connect("insightly_default", "insightly", host=crm.api_url, login=API_KEY)
        await asyncio.sleep(1.5)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return found

    assert len(asyncio.run(edit())) == 1
    assert "refuses the API key" in logged.text
    assert "wrong-key-51c0" not in logged.text
    assert API_KEY not in logged.text


def test_changes_are_said_when_they_have_settled(crm: RunningSandbox) -> None:
    """The event waits until the woken DAG need not wait. No more requests are made meanwhile."""

    async def wait() -> Any:
        running = trigger(settle=1.0, poll_interval=1.5).run()
        await anext(running)
        made = await asyncio.to_thread(crm.create, "Contacts", FIRST_NAME="Zoë")
        event = await asyncio.wait_for(anext(running), 10)
        return made["DATE_CREATED_UTC"], event.payload, await asyncio.to_thread(server_time, crm)

    created, event, now = asyncio.run(wait())
    changed_at = datetime.fromisoformat(f"{created.replace(' ', 'T')}+00:00")
    until = api_time(event["until"])
    assert changed_at < until
    assert until + timedelta(seconds=1) <= now < until + timedelta(seconds=8)


def test_a_time_of_the_future_is_no_change_yet(crm: RunningSandbox, state: AssetState) -> None:
    """A user may enter a time years ahead. It must not hide all changes until then."""
    add(crm, 86400 * 365)
    assert len(events(trigger())) == 1
    assert state.values["watched"] < "2031-03-10T08:02"


def test_it_carries_no_record(crm: RunningSandbox) -> None:
    """Airflow's database stores events unencrypted."""
    add(crm, 5)
    found = events(trigger())
    assert found
    assert all(set(event) == {"since", "until"} for event in found)


def test_what_was_not_handed_over_is_said_again(crm: RunningSandbox, state: AssetState) -> None:
    """If a triggerer is stopped before its event was handed over, the place has not moved."""
    add(crm, 5)
    event = asyncio.run(anext(trigger().run()))
    assert event.payload["since"] == "2031-03-10T08:00:00Z"
    assert state.values["watched"] == "2031-03-10T08:00:00Z"


def test_no_state_no_harm(crm: RunningSandbox, state: AssetState, logged: Logged) -> None:
    """If no sensor of ours uses the asset, Airflow doesn't know it.

    Then no place is stored, and the watch continues.
    """
    state.values.clear()
    state.is_known = False
    assert len(events(trigger())) == 1
    assert "is not kept: RuntimeError" in logged.text


# --- whether changes were read ---------------------------------------------------------------------------


def woken(**read_to: str) -> dict[str, Any]:
    """Return a state that lists these cursors, the first one as an earlier version did."""
    values: dict[str, Any] = {}
    for number, dag in enumerate(read_to):
        key = f"cursor/{dag}/detect"
        values[key] = read_to[dag]
        part = cursor_list(key) if number else CURSOR_LISTS[0]
        values.setdefault(part, {})[key] = {"woken": dag != "by_cron"}
    return values


def test_what_nobody_known_reads_is_said_twice(crm: RunningSandbox, state: AssetState) -> None:
    """Airflow may hold an event back until the next one. A third event would make a useless run."""
    add(crm, 5)
    first, second = events(trigger())
    assert first["since"] == second["since"] == "2031-03-10T08:00:00Z"
    assert state.values["watched"] >= first["until"]


def test_what_all_have_read_is_said_once(crm: RunningSandbox, state: AssetState) -> None:
    """Their cursors show it. A cursor that no watcher wakes, or that is a week old, doesn't count."""
    add(crm, 5)
    state.values |= woken(
        a="2031-03-10T08:01:00Z", by_cron="2031-03-10T07:00:00Z", gone="2024-03-03T07:00:00Z"
    )
    assert len(events(trigger())) == 1


def test_what_somebody_has_not_read_is_said_again_ever_more_rarely(
    crm: RunningSandbox, state: AssetState
) -> None:
    """A DAG that was paused, or gets the event late, is woken again. A dead DAG no longer is."""
    add(crm, 5)
    state.values |= woken(a="2031-03-10T08:01:00Z", paused="2031-03-10T08:00:03Z")
    first = events(trigger(), seconds=2.0)
    assert 3 <= len(first) <= 6  # after 0.1, 0.2, 0.4, 0.8 s
    assert {event["since"] for event in first} == {"2031-03-10T08:00:00Z"}


# --- failures --------------------------------------------------------------------------------------------


def test_an_outage_is_survived(crm: RunningSandbox, caplog: pytest.LogCaptureFixture) -> None:
    """The watch waits longer and longer, doesn't end, and then continues from where it was."""
    add(crm, 5)
    crm.configure(fault={"path": "/v3.1/Contacts/Search", "status": 503, "times": 3, "retry_after": None})
    found = events(trigger(poll_interval=0.1), seconds=3)
    assert found[0]["since"] == "2031-03-10T08:00:00Z"
    delays = [
        float(line.split("again in ")[1].split()[0])
        for line in caplog.text.splitlines()
        if "again in" in line
    ]
    assert len(delays) == 3
    assert all(0.8 * 0.2 * 2**i - 0.06 <= delay <= 0.2 * 2**i for i, delay in enumerate(delays))


def test_the_wait_has_an_end(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an outage of a night, it polls again within minutes."""
    monkeypatch.setattr(module, "LONGEST_BACKOFF", 0.1)
    crm.configure(fault={"path": "/v3.1/Contacts/Search", "status": 503, "times": 6, "retry_after": None})
    assert events(trigger(), seconds=1.5)


def test_a_day_that_is_spent_is_waited_for(
    crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It makes no requests until the day ends by the server's clock, and logs that once."""
    slept: list[datetime] = []

    async def sleep_until(moment: datetime) -> None:
        slept.append(moment)
        crm.configure(requests_per_day=10**9)
        clear_process_registries()

    monkeypatch.setattr(module, "sleep_until", sleep_until)
    crm.configure(requests_per_day=0)
    assert len(events(trigger())) == 1
    assert slept == [datetime(2031, 3, 11, tzinfo=timezone.utc)]
    assert caplog.text.count("watching Contacts goes on at") == 1


def test_a_day_that_ends_late_is_not_hammered(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """If our clock is ahead of the server's, it polls again after its interval, not at once."""
    crm.configure(requests_per_day=0)
    monkeypatch.setattr(InsightlyRateLimitError, "__getattribute__", _already_reset)
    assert events(trigger(poll_interval=0.2), seconds=1.1) == []
    assert sum(requests(crm).values()) <= 6


def _already_reset(error: InsightlyRateLimitError, name: str) -> Any:
    return (
        datetime(2020, 1, 1, tzinfo=timezone.utc)
        if name == "resets_at"
        else Exception.__getattribute__(error, name)
    )


@pytest.mark.parametrize("record_type", [*RECORD_TYPES, "Invoice__c"])
def test_every_record_type_can_be_watched(crm: RunningSandbox, record_type: str) -> None:
    """This includes record types without an update time."""
    assert first_event(trigger(record_type=record_type))["until"]


def test_one_with_a_watcher_of_its_own_is_woken_again_alone(
    crm: RunningSandbox, state: AssetState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DAGs that share a watcher aren't woken, and changes that they have not read don't wake it."""
    add(crm, 5)
    state.values |= woken(a="2031-03-10T08:01:00Z", alone="2031-03-10T08:00:03Z")
    key = "cursor/alone/detect"
    state.values[cursor_list(key)] = {key: {"dag": "alone", "task": "detect", "woken": False}}
    monkeypatch.setattr(own_cursor, "count_runs", no_runs)
    assert len(events(trigger())) == 1
    state.values["watched"] = "2031-03-10T08:00:00Z"
    found = events(trigger(cursor="alone/detect"))
    assert len(found) > 5
    assert all(event == {**found[0], "cursor": "alone/detect"} for event in found)
    state.values |= woken(paused="2031-03-10T08:00:03Z", alone="2031-03-10T08:03:00Z")
    state.values["watched"] = "2031-03-10T08:00:00Z"
    assert len(events(trigger(cursor="alone/detect"))) == 1


async def no_runs(*_of: str) -> own_cursor.Runs:
    return own_cursor.Runs(0, 0)


# --- what becomes visible late ---------------------------------------------------------------------------


def test_what_becomes_visible_late_is_said(crm: RunningSandbox, state: AssetState) -> None:
    """Its event ends at a time that only a later run can have read up to. The place doesn't move."""
    state.values["watched"] = "2031-03-10T08:00:50Z"
    state.values |= woken(a="2031-03-10T08:05:00Z")

    async def late() -> tuple[list[Any], datetime]:
        found: list[Any] = []

        async def collect() -> None:
            async for event in trigger(settle=1.0).run():
                found.append(event.payload)

        running = asyncio.ensure_future(collect())
        await asyncio.sleep(1)
        assert len(found) == 1
        now = await asyncio.to_thread(server_time, crm)
        await asyncio.to_thread(add, crm, -300)
        await asyncio.sleep(3.5)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return found, now

    found, now = asyncio.run(late())
    assert len(found) == 2
    assert found[1]["since"] >= "2031-03-10T08:00:50Z"
    assert now <= api_time(found[1]["until"]) <= now + timedelta(seconds=3)
    assert state.values["watched"] < found[1]["until"]


def test_a_late_change_that_was_not_handed_over_is_said_again(crm: RunningSandbox, state: AssetState) -> None:
    """The next poll doesn't show it as late again."""
    state.values["watched"] = "2031-03-10T08:00:50Z"

    async def lose() -> list[bool]:
        it = trigger(settle=1.0)
        watch = it.create_shared_stream_producer(it.serialize()[1])
        reported = []
        async for notice, payload in watch.open_stream():
            reported.append(notice.is_new)
            is_lost = notice.is_new and sum(reported) == 1
            outcome = AdvanceOutcome(acked=0, failed=1) if is_lost else AdvanceOutcome(acked=1, failed=0)
            await watch.advance([AdvanceItem(payload, outcome)])
            if len(reported) == 1:
                await asyncio.to_thread(add, crm, -300)
            if len(reported) == 4:
                return reported
        raise AssertionError("the stream has ended")

    assert asyncio.run(lose()) == [False, True, True, False]

"""What the triggerer runs for an asset's watcher."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.sdk.module_loading import import_string
from airflow.triggers.base import BaseEventTrigger

from airflow_insightly_hooks.core.errors import UnknownRecordType
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.hooks import client
from airflow_insightly_hooks.hooks.insightly import InsightlyHook
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from airflow_insightly_hooks.triggers import record_change as module
from airflow_insightly_hooks.triggers.record_change import InsightlyRecordChangeEventTrigger, changes_asset
from tests.conftest import API_KEY, Connect, Logged

START = datetime(2031, 3, 10, 8, tzinfo=timezone.utc)
NOW = START + timedelta(minutes=1)


class AssetState:
    """What the triggerer gives a watcher's trigger."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    async def aget(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        self.values[key] = json.loads(json.dumps(value))


def trigger(state: AssetState | None, **arguments: Any) -> InsightlyRecordChangeEventTrigger:
    made = InsightlyRecordChangeEventTrigger(
        **{"record_type": "Contacts", "poll_interval": 0.05, **arguments}
    )
    made.asset_state_store = state  # type: ignore[assignment]  # the triggerer injects it so
    return made


def events(of: InsightlyRecordChangeEventTrigger, seconds: float = 0.6) -> list[Any]:
    """Return the payloads of the events of so many seconds."""
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


@pytest.fixture
def crm(insightly: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> RunningSandbox:
    """The sandbox, whose clock shows a minute after START."""
    monkeypatch.setattr(client, "QUICK_RETRIES", 0)
    monkeypatch.setattr(InsightlyHook, "patience", 0.0)
    insightly.configure(clock_offset=(NOW - datetime.now(timezone.utc)).total_seconds())
    return insightly


def add(sandbox: RunningSandbox, seconds: float) -> None:
    created = (START + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S")
    sandbox.create("Contacts", FIRST_NAME="Zoë", DATE_CREATED_UTC=created)


def test_serialize() -> None:
    """The wire format between versions, and what stands in the serialized DAG: no credential."""
    path, stored = InsightlyRecordChangeEventTrigger("Contacts").serialize()
    assert path == "airflow_insightly_hooks.triggers.record_change.InsightlyRecordChangeEventTrigger"
    assert stored == {
        "record_type": "Contacts",
        "insightly_conn_id": "insightly_default",
        "poll_interval": 15.0,
        "settle": 5.0,
    }
    assert import_string(path)(**stored).serialize() == (path, stored)
    assert issubclass(InsightlyRecordChangeEventTrigger, BaseEventTrigger)


def test_one_asset_for_all_that_watch_as_often() -> None:
    """Two DAGs share a watcher; the asset isn't the one that keeps cursors, which has none."""
    first, second = changes_asset("Contacts"), changes_asset("Contacts")
    assert (first.name, first.uri) == (second.name, second.uri)
    assert first.watchers[0].trigger.serialize() == second.watchers[0].trigger.serialize()
    assert first.name == "insightly/insightly_default/Contacts/changes/15s/5s"
    assert first.name != changes_asset("Contacts", poll_interval=60).name
    assert first.name != changes_asset("Contacts", settle=60).name
    assert len(first.watchers) == 1


def test_it_says_where_it_starts(crm: RunningSandbox) -> None:
    """At the first start, so that DAGs mark where they begin; it looks from then on."""
    state = AssetState()
    add(crm, 5)  # before it started
    (event,) = events(trigger(state))
    assert event["since"] == event["until"] == state.values["watched"]
    assert abs(datetime.fromisoformat(event["until"]) - (NOW - timedelta(seconds=5))) < timedelta(seconds=3)


def test_it_says_changes_twice_and_then_is_quiet(crm: RunningSandbox) -> None:
    """Airflow may hold an event back until the next one; a third time would be a run for nothing."""
    state = AssetState(watched="2031-03-10T08:00:00Z")
    add(crm, 5)
    first, second = events(trigger(state))
    assert first["since"] == "2031-03-10T08:00:00Z"
    assert second["since"] == first["until"]
    assert state.values["watched"] == first["until"]


def test_it_carries_no_record(crm: RunningSandbox) -> None:
    """Events stand in Airflow's database, in clear."""
    add(crm, 5)
    assert "Zo" not in json.dumps(events(trigger(AssetState(watched="2031-03-10T08:00:00Z"))))


def test_what_was_not_handed_over_is_said_again(crm: RunningSandbox) -> None:
    """A triggerer that is stopped with an event in its hands has not looked as far as that yet."""
    state = AssetState(watched="2031-03-10T08:00:00Z")
    add(crm, 5)
    running = trigger(state).run()
    event = asyncio.run(anext(running))
    assert event.payload["since"] == "2031-03-10T08:00:00Z"
    assert state.values["watched"] == "2031-03-10T08:00:00Z"


@pytest.mark.parametrize("record_type", [*RECORD_TYPES, "Invoice__c"])
def test_every_record_type_can_be_watched(crm: RunningSandbox, record_type: str) -> None:
    """Those without an update time, too."""
    _, changed = trigger(None, record_type=record_type)._look(NOW - timedelta(seconds=20))
    assert not changed


def test_an_unknown_record_type_is_found_when_the_dag_is_parsed() -> None:
    """The triggerer could only log it, again and again."""
    with pytest.raises(UnknownRecordType):
        changes_asset("Contact")


def test_a_restart_says_it_again(crm: RunningSandbox) -> None:
    """What was handed over and then got lost is said again, once."""
    state = AssetState(watched="2031-03-10T08:00:30Z")
    assert len(events(trigger(state))) == 1
    assert len(events(trigger(state))) == 1


def test_an_outage_is_survived(crm: RunningSandbox, logged: Logged) -> None:
    """It waits longer and longer, doesn't end, and then goes on from where it was."""
    add(crm, 5)
    crm.configure(fault={"path": "/v3.1/Contacts/Search", "status": 503, "times": 2, "retry_after": None})
    found = events(trigger(AssetState(watched="2031-03-10T08:00:00Z")), seconds=1.5)
    assert found[0]["since"] == "2031-03-10T08:00:00Z"
    assert "looking again in 0.1 s" in logged.text
    assert "looking again in 0.2 s" in logged.text
    assert "looking again in 0.4 s" not in logged.text


def test_the_wait_has_an_end(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an outage of a night it looks again within minutes."""
    monkeypatch.setattr(module, "LONGEST_BACKOFF", 0.1)
    crm.configure(fault={"path": "/v3.1/Contacts/Search", "status": 503, "times": 6, "retry_after": None})
    assert events(trigger(AssetState(watched="2031-03-10T08:00:00Z")), seconds=1.5)


def test_a_wrong_key_does_not_end_it(insightly: RunningSandbox, connect: Connect, logged: Logged) -> None:
    """Airflow would start it again each second; the log says what is wrong, and nothing secret."""
    connect("insightly_default", "insightly", host=insightly.api_url, login="wrong-key-51c0")
    assert events(trigger(AssetState(watched="2031-03-10T08:00:00Z"))) == []
    assert "refuses the API key" in logged.text
    assert "wrong-key-51c0" not in logged.text
    assert API_KEY not in logged.text


def test_without_an_asset_it_says_so(crm: RunningSandbox, logged: Logged) -> None:
    """It belongs to a watcher."""
    assert events(trigger(None)) == []
    assert "RuntimeError" in logged.text

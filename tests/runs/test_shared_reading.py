"""Runs over many past windows at the same time: one scan serves all, and each gets its own changes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred

from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.hooks.api.api_errors import InsightlyAccessError
from airflow_insightly_hooks.hooks.assets import cursor_list, records_asset
from airflow_insightly_hooks.hooks.insightly import InsightlyHook
from airflow_insightly_hooks.runs import shared_reading
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from airflow_insightly_hooks.sensors import record_change
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor
from tests.conftest import AssetStateStores, Connect, Logged, StateStore, TaskInstance

START = datetime(2019, 3, 10, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
CANARY = "canary-of-a-record"
ASSET = records_asset("insightly_default", "Contacts")
LATER = [
    {
        "start": "2019-03-10T00:00:00Z",
        "end": "2019-03-11T00:00:00Z",
        "run_id": "x",
        "reader": [],
        "read_at": "2019-03-10T00:00:00Z",
        "slices": [["2019-03-10T00:00:00Z", 1, 2]],
    }
]
"""An index as another version may write it."""
CHUNKS, CLAIM = "chunks/dag/task", "claim/dag/task"
SEARCH = "/v3.1/Contacts/Search"
SCAN = 1
"""How many requests a scan makes here."""


class RunsTaskInstance(TaskInstance):
    """A task instance whose XComs other runs can pull."""

    def __init__(self, run_id: str, xcoms: dict[tuple[str, str], Any]) -> None:
        super().__init__(run_id=run_id)
        self.xcoms = xcoms

    def xcom_push(self, key: str, value: Any) -> None:
        super().xcom_push(key, value)
        self.xcoms[self.run_id, key] = self.xcom[key]

    def xcom_pull(self, task_ids: str, key: str = "return_value", **of_run: Any) -> Any:
        assert (task_ids, of_run["map_indexes"]) == ("task", -1)
        return self.xcoms.get((of_run["run_id"], key))


class Runs:
    """The runs of one detect task: they share the asset's state, and see each other's XComs."""

    def __init__(self) -> None:
        self.stores = AssetStateStores()
        self.xcoms: dict[tuple[str, str], Any] = {}

    @property
    def state(self) -> StateStore:
        return self.stores[ASSET]

    def context(self, hour: int, run_type: str = "backfill", clear_number: int = 0) -> dict[str, Any]:
        return {
            "ti": RunsTaskInstance(f"{run_type}__{hour}", self.xcoms),
            "task_state_store": StateStore(),
            "asset_state_store": self.stores,
            "dag_run": SimpleNamespace(run_type=run_type, clear_number=clear_number),
            "data_interval_start": pendulum.instance(START + hour * HOUR),  # as Airflow has them
            "data_interval_end": pendulum.instance(START + (hour + 1) * HOUR),
        }

    def claim(self, hour: int, **others: Any) -> None:
        """Claim the reading of an hour for another run."""
        chunks = self.state.get(CHUNKS)
        value = {
            "reader": chunks[0]["reader"] if chunks else None,
            "run_id": f"backfill__{hour}x",
            "start": iso_time(START + hour * HOUR),
            "end": iso_time(datetime.now(timezone.utc)),
            "beats_at": iso_time(datetime.now(timezone.utc)),
        }
        self.state.set(CLAIM, {**value, **others})

    def age_chunk(self, read_at: datetime) -> None:
        """Make what was read, and its index, appear to be from then."""
        (chunk,) = self.state.get(CHUNKS)
        self.state.set(CHUNKS, [{**chunk, "read_at": iso_time(read_at)}])
        for (_, key), kept in self.xcoms.items():
            if key.startswith("nearby_"):
                kept["read_at"] = iso_time(read_at)


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture(autouse=True)
def deleted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return the XComs that were deleted."""
    from airflow.sdk.execution_time.xcom import XCom

    deleted: list[dict[str, Any]] = []
    monkeypatch.setattr(XCom, "delete", lambda **xcom: deleted.append(xcom))
    return deleted


@pytest.fixture(autouse=True)
def _contents_are_in_xcom_only(runs: Runs, logged: Logged) -> Iterator[None]:
    """Whatever happens, neither the asset's state nor a log holds a record's contents."""
    yield
    assert CANARY not in logged.text
    assert not any(CANARY in value for value in runs.state.values.values())


@pytest.fixture
def crm(insightly: RunningSandbox) -> RunningSandbox:
    """The sandbox with three contacts for each of ten hours, some of which change again later."""
    for number in range(30):
        created = START + number * HOUR / 3
        updated = created + timedelta(hours=number % 5, minutes=1)
        times = {"DATE_CREATED_UTC": api(created), "DATE_UPDATED_UTC": api(updated)}
        insightly.create("Contacts", FIRST_NAME=CANARY, **times)
    return insightly


def api(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def sensor(**arguments: Any) -> InsightlyRecordChangeSensor:
    arguments = {"record_type": "Contacts", "on_empty": "succeed", **arguments}
    return InsightlyRecordChangeSensor(task_id="task", **arguments)


def directly(hour: int, **arguments: Any) -> list[Any]:
    """Return what a run finds if it shares nothing."""
    window = (START + hour * HOUR, START + (hour + 1) * HOUR)
    return sensor(window=window, **arguments).execute(Runs().context(hour))


def asked(crm: RunningSandbox) -> int:
    """Return how many requests the API got."""
    return sum(number for path, number in crm.configure()["requests"].items() if " /v3.1/" in path)


def scans(crm: RunningSandbox) -> float:
    """Return how many scans of all pages there were."""
    return crm.configure()["requests"].get(f"GET {SEARCH}", 0) / SCAN


# --- what is found -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("events", [["added"], ["updated"], ["added", "updated"]])
@pytest.mark.parametrize("limits", [(2_000, 20_000), (7, 7), (1, 1)])
def test_every_run_finds_what_it_finds_by_itself(
    crm: RunningSandbox,
    runs: Runs,
    monkeypatch: pytest.MonkeyPatch,
    events: list[str],
    limits: tuple[int, int],
) -> None:
    """However much is shared, each run has the same changes, in the same order, as if it read them itself."""
    monkeypatch.setattr(shared_reading, "FIRST_LIMIT", limits[0])
    monkeypatch.setattr(shared_reading, "LIMIT", limits[1])
    found = [sensor(events=events).execute(runs.context(hour)) for hour in range(14)]
    assert found == [directly(hour, events=events) for hour in range(14)]
    assert sum(map(len, found)) >= 10


def test_one_scan_serves_all(crm: RunningSandbox, runs: Runs, logged: Logged) -> None:
    """The first run reads. The runs of the following hours make no requests."""
    sensor().execute(runs.context(0))
    before = asked(crm)
    for hour in range(1, 12):
        assert sensor(deferrable=hour % 2 == 0).execute(runs.context(hour)) is not None
    assert asked(crm) == before
    assert any("Run backfill__0 has read this window at" in line for line in logged.messages("info"))


def test_scans_grow_with_the_changes(
    crm: RunningSandbox, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes beyond the limit are read by the first run that needs them, together with later ones."""
    monkeypatch.setattr(shared_reading, "FIRST_LIMIT", 10)
    monkeypatch.setattr(shared_reading, "LIMIT", 20)
    for hour in range(14):
        sensor().execute(runs.context(hour))
    assert 3 <= scans(crm) <= 5


@pytest.mark.parametrize("limit", [20_000, 7])
def test_backwards(crm: RunningSandbox, runs: Runs, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """A backfill in reverse order finds the same changes.

    From its second scan on, it also reads earlier windows.
    """
    monkeypatch.setattr(shared_reading, "FIRST_LIMIT", limit)
    monkeypatch.setattr(shared_reading, "LIMIT", limit)
    hours = list(range(13, -1, -1))
    found = [sensor().execute(runs.context(hour)) for hour in hours]
    assert scans(crm) == 2 if limit > 7 else 3 <= scans(crm) <= 10
    assert found == [directly(hour) for hour in hours]


@pytest.mark.parametrize("hour", [0, 5])
def test_records_updated_again_are_told(crm: RunningSandbox, runs: Runs, logged: Logged, hour: int) -> None:
    """The log says how many records a past window can't show, whichever run has read them."""
    end = START + (hour + 1) * HOUR
    times = [
        (START + number * HOUR / 3, START + number * HOUR / 3 + timedelta(hours=number % 5, minutes=1))
        for number in range(30)
    ]
    expected = sum(created < end <= updated for created, updated in times)
    assert expected >= 2
    for each in sorted({0, hour}):
        sensor().execute(runs.context(each))
    *_, line = [line for line in logged.messages("info") if "were updated after it" in line]
    assert line.startswith(f"{expected} records from before {iso_time(end)} were updated after it")


def test_nothing_is_hidden_from_who_wants_what_was_added(
    crm: RunningSandbox, runs: Runs, logged: Logged
) -> None:
    """A past window shows all added records, so nothing is logged about updates."""
    sensor(events=["added"]).execute(runs.context(0))
    assert "were updated after it" not in logged.text


def test_an_empty_window_in_between(crm: RunningSandbox, runs: Runs) -> None:
    """A window without changes is also empty when it is read from a shared scan."""
    crm.create("Contacts", FIRST_NAME=CANARY, DATE_CREATED_UTC=api(START + 40 * HOUR))
    sensor().execute(runs.context(0))
    before = asked(crm)
    with pytest.raises(AirflowSkipException):
        sensor(on_empty="skip").execute(runs.context(30))
    assert len(sensor().execute(runs.context(40))) == 1
    assert asked(crm) == before


# --- who shares, and who doesn't ---------------------------------------------------------------------------


def reads(crm: RunningSandbox, context: dict[str, Any]) -> bool:
    """Return whether a run reads records from the API."""
    before = scans(crm)
    found = sensor().execute(context)
    read = scans(crm) - before
    assert found == directly(int(context["ti"].run_id.partition("__")[2]))
    assert read in (0, 1)
    return read == 1


@pytest.mark.parametrize(
    "context",
    [
        {"clear_number": 1},
        {"run_type": "scheduled"},
        {"run_type": "manual"},
    ],
)
def test_another_kind_of_run_reads_by_itself(crm: RunningSandbox, runs: Runs, context: Any) -> None:
    """A cleared run and a run of another type read the API themselves."""
    sensor().execute(runs.context(0))
    assert not reads(crm, runs.context(1))
    assert reads(crm, runs.context(2, **context))


def test_cleared_runs_share_among_themselves(crm: RunningSandbox, runs: Runs) -> None:
    """If a backfill is processed again, it reads anew once, not once for each run."""
    sensor().execute(runs.context(0))
    assert reads(crm, runs.context(1, clear_number=1))
    assert not reads(crm, runs.context(2, clear_number=1))
    assert not reads(crm, runs.context(2))


def test_a_cleared_task_reads_by_itself(crm: RunningSandbox, runs: Runs) -> None:
    """If a task was cleared without its run, it has more tries, and reads the API itself."""
    sensor().execute(runs.context(0))
    context = runs.context(1)
    context["ti"].max_tries += 1
    assert reads(crm, context)


def test_a_catch_up_shares(crm: RunningSandbox, runs: Runs) -> None:
    """Scheduled runs that catch up share a scan like a backfill, and move their cursor."""
    sensor().execute(runs.context(0, "scheduled"))
    assert not reads(crm, runs.context(1, "scheduled"))
    assert runs.state.get("cursor/dag/task") == iso_time(START + 2 * HOUR)


def test_another_account_reads_by_itself(crm: RunningSandbox, runs: Runs, connect: Connect) -> None:
    """Records of one account are never used for another."""
    sensor().execute(runs.context(0))
    other = crm.api_url.replace("127.0.0.1", "localhost")
    connect("insightly_default", "insightly", host=other, login="sandbox-key")
    assert reads(crm, runs.context(1))


def test_what_is_old_is_read_anew(crm: RunningSandbox, runs: Runs) -> None:
    """After an hour a scan is too old."""
    sensor().execute(runs.context(0))
    an_hour_ago = datetime.now(timezone.utc) - HOUR
    runs.age_chunk(an_hour_ago + timedelta(minutes=1))
    assert not reads(crm, runs.context(1))
    runs.age_chunk(an_hour_ago - timedelta(minutes=1))
    assert reads(crm, runs.context(2))


def test_a_run_that_is_not_behind_shares_nothing(insightly: RunningSandbox, runs: Runs) -> None:
    """If a window has just ended, the shared state isn't even read."""
    now = datetime.now(timezone.utc).replace(microsecond=0)
    context = runs.context(0, "scheduled")
    context |= {"data_interval_start": now - 2 * HOUR, "data_interval_end": now - HOUR}
    sensor().execute(context)
    assert set(runs.state.values) == {"cursor/dag/task", "cursor/dag/task~a", cursor_list("cursor/dag/task")}


def test_a_mapped_sensor_reads_by_itself(crm: RunningSandbox, runs: Runs) -> None:
    """A mapped task has no access to the asset's state. A backfill's windows don't need it."""
    context = runs.context(0)
    context["asset_state_store"] = {}
    assert sensor().execute(context) == directly(0)


# --- waiting for who reads ---------------------------------------------------------------------------------


@pytest.fixture
def shared(crm: RunningSandbox, runs: Runs) -> Runs:
    """An hour far away has been read, so that the tests' claims are by the same kind of run."""
    sensor().execute(runs.context(90))
    return runs


def test_a_run_waits_for_another_that_reads(
    crm: RunningSandbox, shared: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another run reads from an earlier time, a sensor in poke mode sleeps, and then uses its scan."""
    shared.claim(0)
    before = asked(crm)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            shared.state.delete(CLAIM)
            sensor().execute(shared.context(0))

    monkeypatch.setattr(record_change.time, "sleep", sleep)
    found = sensor().execute(shared.context(1))
    assert slept == [5, 5]
    assert asked(crm) - before == 2  # hour 0: the clock, a page
    assert found == directly(1)


def test_a_deferrable_run_waits_in_the_triggerer(crm: RunningSandbox, shared: Runs) -> None:
    """While another run reads from an earlier time, a deferrable sensor defers briefly, without requests."""
    shared.claim(0)
    before = asked(crm)
    with pytest.raises(TaskDeferred) as caught:
        sensor(deferrable=True).execute(shared.context(1))
    assert asked(crm) == before
    look_at = datetime.fromisoformat(caught.value.trigger.look_at.replace("Z", "+00:00"))
    assert timedelta(seconds=3) < look_at - datetime.now(timezone.utc) <= timedelta(seconds=5)


@pytest.mark.parametrize(
    "claim",
    [
        {"start": iso_time(START + 2 * HOUR)},
        {"end": iso_time(START + 1.5 * HOUR)},
        {"beats_at": iso_time(datetime.now(timezone.utc) - timedelta(minutes=3))},
        {"reader": ["backfill", 1, 2, "other"]},
        {"run_id": "backfill__1"},
    ],
    ids=["from later on", "up to earlier", "stale", "another kind of run", "its own"],
)
def test_a_claim_that_is_of_no_use_holds_nobody_up(crm: RunningSandbox, shared: Runs, claim: Any) -> None:
    """A run reads by itself if the other run reads something that it doesn't need, or has died."""
    shared.claim(0, **claim)
    assert reads(crm, shared.context(1))


def test_of_two_that_begin_at_once_the_later_gives_way(
    crm: RunningSandbox, shared: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs claimed at the same time. A second later, the run with the later window waits."""
    real = InsightlyHook.iter_records
    monkeypatch.setattr(shared_reading, "FIRST_BEAT", 0)

    def crossed(*arguments: Any, **search: Any) -> Iterator[Any]:
        shared.claim(0)
        return real(*arguments, **search)

    monkeypatch.setattr(InsightlyHook, "iter_records", crossed)
    with pytest.raises(TaskDeferred):
        sensor(deferrable=True).execute(shared.context(1))
    assert shared.state.get(CLAIM)["run_id"] == "backfill__0x"
    assert len(shared.state.get(CHUNKS)) == 1
    with pytest.raises(TaskDeferred):  # and it is not the claim's own start that it waits for
        sensor(deferrable=True).execute(shared.context(2))


def test_a_claim_is_renewed_and_released(
    crm: RunningSandbox, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a run reads, it renews its claim. Afterwards the claim is gone, even if reading failed."""
    monkeypatch.setattr(shared_reading, "FIRST_BEAT", 0)
    monkeypatch.setattr(shared_reading, "BEAT", 0)
    sensor().execute(runs.context(0))
    assert runs.state.writes.count(CLAIM) > 30
    assert CLAIM not in runs.state.values
    crm.configure(fault={"path": SEARCH, "status": 403, "times": 1})
    with pytest.raises(InsightlyAccessError):
        sensor().execute(runs.context(0, clear_number=1))
    assert CLAIM not in runs.state.values


# --- what can go wrong -------------------------------------------------------------------------------------


def test_records_that_are_gone_are_read_anew(crm: RunningSandbox, runs: Runs) -> None:
    """If the XComs of the run that has read are cleared, the next run reads, and shares its scan."""
    sensor().execute(runs.context(0))
    runs.xcoms.clear()
    assert reads(crm, runs.context(1))
    assert not reads(crm, runs.context(2))


@pytest.mark.parametrize(
    "value", ["nonsense", [{"start": 5}], {"run_id": "x"}, 7, LATER, {"version": 9, "run_id": "x"}]
)
def test_a_state_that_is_none_is_read_past(crm: RunningSandbox, runs: Runs, value: Any) -> None:
    """Whatever the state contains, a run finds its changes, and shares what it has read."""
    for key in (CHUNKS, CLAIM):
        runs.state.set(key, value)
    assert reads(crm, runs.context(0))
    assert not reads(crm, runs.context(1))


def test_damaged_records_are_read_anew(crm: RunningSandbox, runs: Runs) -> None:
    """An XCom that is not a valid slice counts as missing."""
    sensor().execute(runs.context(0))
    runs.xcoms["backfill__0", "nearby_0"]["text"] = "nonsense"
    assert reads(crm, runs.context(1))
    runs.xcoms["backfill__1", "nearby_0"] = "nonsense"
    assert reads(crm, runs.context(2))


def test_slices_of_another_try_are_not_taken_for_those_of_the_index(
    crm: RunningSandbox, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a try dies after it pushed different slices and before it wrote the index, no change is hidden."""
    sensor().execute(runs.context(0))
    runs.xcoms.clear()  # as Airflow does when a task is tried again
    with monkeypatch.context() as dying:
        dying.setattr(StateStore, "set", lambda *_: None)
        assert reads(crm, runs.context(0))
    assert ("backfill__0", "nearby_0") in runs.xcoms
    assert sensor().execute(runs.context(1)) == directly(1) != []


def test_a_store_that_fails_costs_requests_only(
    crm: RunningSandbox, runs: Runs, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the state or XComs can't be written, each run reads itself, and logs it."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(RunsTaskInstance, "xcom_push", lambda ti, key, value: key == "window" or fail())
    assert reads(crm, runs.context(0))
    assert runs.state.get(CHUNKS) is None
    assert any("(RuntimeError at " in line for line in logged.messages("warning"))
    monkeypatch.setattr(StateStore, "set", fail)
    monkeypatch.setattr(StateStore, "get", fail)
    assert reads(crm, runs.context(1))


def test_what_no_run_needs_any_more_is_deleted(
    crm: RunningSandbox, runs: Runs, deleted: list[dict[str, Any]]
) -> None:
    """Records are personal data: a chunk's records are deleted when it leaves the index."""
    for generation in range(5):
        sensor().execute(runs.context(generation, clear_number=generation))
        assert len(runs.state.get(CHUNKS)) == min(generation + 1, 4)
    assert deleted == [
        {"key": "nearby_0", "dag_id": "dag", "task_id": "task", "run_id": "backfill__0", "map_index": -1}
    ]

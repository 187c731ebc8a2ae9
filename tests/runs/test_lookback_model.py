"""Changes that become visible late, runs that are killed at any write, retried and cleared: a state machine.

The sensor itself reads; what it should tell is worked out with a memory that forgets nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from airflow_insightly_hooks.core.dates import format_api_time
from airflow_insightly_hooks.hooks.assets import records_asset
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor
from tests.conftest import AssetStateStores, StateStore, TaskInstance, run_context

HISTORIES = 150
SETTLE = 5
EPOCH = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=1)
ASSET = records_asset("insightly_default", "Contacts")
KEY = "cursor/dag/task"

Key = tuple[int, str, int]


class Killed(BaseException):
    """The task is killed: no handler of exceptions sees it."""


class Kill:
    """Kills the task at one of its calls to the stores, before or after the call takes effect."""

    def __init__(self) -> None:
        self.calls_left: int | None = None
        self.is_done = False

    @contextmanager
    def around(self) -> Iterator[None]:
        if self.calls_left == 0 and not self.is_done:
            raise Killed
        yield
        if self.calls_left == 0:
            raise Killed
        if self.calls_left is not None:
            self.calls_left -= 1


class KillingStore(StateStore):
    def __init__(self, kill: Kill) -> None:
        super().__init__()
        self.kill = kill

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        with self.kill.around():
            super().set(key, value, retention=retention)

    def delete(self, key: str) -> None:
        with self.kill.around():
            super().delete(key)


@dataclass
class Record:
    """A record: when it was changed, and when each change becomes visible, in seconds since EPOCH."""

    changes: list[tuple[int, float]] = field(default_factory=list)

    def shown(self, now: float) -> tuple[int, int] | None:
        """Return the times of creation and update that the API shows; ``None`` if it shows no record."""
        visible = [time for time, visible_at in self.changes if visible_at <= now]
        return (self.changes[0][0], max(visible)) if visible else None


class Crm:
    """The account and its hook. One answer has all records."""

    base_url = "https://api.na1.insightly.com/v3.1"
    requests_made = 1

    def __init__(self) -> None:
        self.now = 0.0
        self.records: dict[int, Record] = {}

    def server_time(self) -> datetime:
        return EPOCH + timedelta(seconds=int(self.now))

    def shown(self) -> dict[int, tuple[int, int]]:
        shown = {record_id: record.shown(self.now) for record_id, record in self.records.items()}
        return {record_id: times for record_id, times in shown.items() if times}

    def iter_records(self, _type: str, updated_after: datetime, **_search: Any) -> Iterator[dict[str, Any]]:
        for record_id, (created, updated) in self.shown().items():
            if at(updated) > updated_after:
                yield {
                    "CONTACT_ID": record_id,
                    "DATE_CREATED_UTC": format_api_time(at(created)),
                    "DATE_UPDATED_UTC": format_api_time(at(updated)),
                }


@dataclass
class Run:
    context: dict[str, Any]
    expected: dict[Key, tuple[int, int]] | None = None
    """The changes that the sensor reports once its cursor is written, and the times that its records had."""
    has_ended: bool = False
    tries: dict[int, tuple[dict[Key, tuple[int, int]], dict[int, int]]] = field(default_factory=dict)
    """The changes that each killed try was about to report, and what was known then, by the window's end."""


def at(seconds: int) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


def seconds_of(text: str) -> int:
    return int((datetime.fromisoformat(text.replace("Z", "+00:00")) - EPOCH).total_seconds())


KILLS = st.one_of(st.none(), st.none(), st.tuples(st.integers(0, 6), st.booleans()))


class LateHistory(RuleBasedStateMachine):
    """A CRM's users, imports and visibility, and the runs of one task, one after another."""

    has_failed = True

    @initialize(lookback=st.sampled_from([60, 900]), before=st.integers(0, 5))
    def begin(self, lookback, before):
        self.has_failed = False
        self.lookback = lookback
        self.crm = Crm()
        self.kill = Kill()
        self.asset_states = AssetStateStores()
        self.asset_states[ASSET] = self.asset_state = KillingStore(self.kill)
        self.runs: list[Run] = []
        self.known: dict[int, int] = {}  # by record: up to when its changes were reported or skipped
        self.reported: set[Key] = set()
        self.sensor = InsightlyRecordChangeSensor(
            task_id="task", record_type="Contacts", lookback=lookback, on_empty="succeed"
        )
        for _ in range(before):
            self.change(None, 0)
            self.crm.now += 20

    def change(self, record_id: int | None, delay: float) -> None:
        if record_id is None:
            record_id = len(self.crm.records) + 1
            self.crm.records[record_id] = Record()
        self.crm.records[record_id].changes.append((int(self.crm.now), self.crm.now + delay))

    def delay(self, part: float) -> float:
        return part * self.lookback

    @rule(
        changes=st.lists(
            st.tuples(st.integers(0, 30), st.sampled_from([0, 0, 0.01, 0.1, 0.5, 0.9, 1.0])), max_size=4
        ),
        seconds=st.sampled_from([0, 1, 7, 30]),
    )
    def users_work(self, changes, seconds):
        for which, part in changes:
            ids = list(self.crm.records)
            self.change(ids[which] if which < len(ids) else None, self.delay(part))
        self.crm.now += seconds

    @rule(records=st.integers(1, 40), part=st.floats(0, 1), spread=st.booleans())
    def an_import(self, records, part, spread):
        """Import many records with the same time, which become visible at once or one after another."""
        for number in range(records):
            self.change(None, self.delay(part * (number / records if spread else 1)))

    @rule(seconds=st.sampled_from([1, 6, 20, 61, 300, 890, 2_000]))
    def time_passes(self, seconds):
        self.crm.now += seconds

    @rule(kill=KILLS, seconds=st.sampled_from([0, 1, 15, 60]))
    def a_run(self, kill, seconds):
        self.crm.now += seconds
        run = Run(
            run_context(
                ti=TaskInstance(run_id=f"asset_triggered__{len(self.runs)}"),
                asset_state_store=self.asset_states,
                task_state_store=KillingStore(self.kill),
            )
        )
        self.runs.append(run)
        self.run_once(run, kill)

    @rule(which=st.integers(0, 9), kill=KILLS, only_killed=st.booleans())
    def a_retry_or_a_cleared_run(self, which, kill, only_killed):
        runs = [run for run in self.runs if not (only_killed and run.has_ended)]
        if runs:
            self.run_once(runs[-1 - which % len(runs)], kill)

    def run_once(self, run: Run, kill: tuple[int, bool] | None) -> None:
        self.has_failed = True
        self.check_once(run, kill)
        self.has_failed = False

    def check_once(self, run: Run, kill: tuple[int, bool] | None) -> None:
        before, remembered = self.cursor(), self.remembers()
        expected, known = self.expected(before)
        self.kill.calls_left, self.kill.is_done = kill or (None, False)
        try:
            changes = self.sensor._poll_once(run.context, self.crm)
        except AirflowSkipException:
            changes = []
        except Killed:
            changes = None
        finally:
            self.kill.calls_left = None
        shown = self.crm.shown()
        tried = {key: shown[key[0]] for key in expected}, known
        if (end := self.cursor()) != before:
            assert run.expected is None, "a run that has reported its changes went on"
            # If a try was killed right before its cursor's write, the next try completes it.
            tried = tried if end == int(self.crm.now) - SETTLE else run.tries[end]
            if before is None and changes is None:
                self.known = known
                return  # a first run writes its cursor before it reads; it had nothing to report
            run.expected, self.known = tried
            assert self.reported.isdisjoint(run.expected), "a change is reported by two runs"
            self.reported |= set(run.expected)
        elif changes is None:
            run.tries[int(self.crm.now) - SETTLE] = tried
            if not remembered and self.remembers():  # changes from before its window were not to be reported
                for record_id, times in shown.items():
                    if past := [time for time in times if time < before]:
                        self.known[record_id] = max(past)
        if changes is None:
            return
        run.has_ended = True
        reported = [(c["record_id"], c["event"], seconds_of(c["changed_at"])) for c in changes]
        assert len(set(reported)) == len(reported)
        wanted = run.expected or {}
        assert set(reported) <= set(wanted), "another run was to report this change"
        missing = {key for key in set(wanted) - set(reported) if shown[key[0]] == wanted[key]}
        assert not missing, "a change was passed over"

    def expected(self, cursor: int | None) -> tuple[set[Key], dict[int, int]]:
        """Return what a new window, up to now, must report, and up to when each record is known then."""
        end = int(self.crm.now) - SETTLE
        first = cursor if cursor is not None else end
        remembers = cursor is not None and self.remembers()
        expected, known = set(), dict(self.known)
        for record_id, (created, updated) in self.crm.shown().items():
            times = [time for time in (created, updated) if time < end]
            seen = known.get(record_id, None if remembers else first - 1)
            if not remembers:  # a first run was killed before it stored what it saw: from its cursor on
                seen = max(seen, first - 1)
            if times and seen is None:
                expected.add((record_id, "added", created))
            elif times and max(times) > seen:
                event = "added" if created > seen else "updated"
                expected.add((record_id, event, created if event == "added" else updated))
            if times:
                known[record_id] = max([*times, *([known[record_id]] if record_id in known else [])])
        return expected, known

    def remembers(self) -> bool:
        return any(self.asset_state.get(f"{KEY}~{slot}") for slot in "ab")

    def cursor(self) -> int | None:
        text = self.asset_state.get(KEY)
        return None if text is None else seconds_of(text)

    def teardown(self):
        """At the end, every change has been reported."""
        if self.has_failed:
            return
        for _ in range(2):
            self.crm.now += self.lookback + SETTLE + 2
            self.a_run(None, 0)
        for run in self.runs:
            if not run.has_ended:
                self.run_once(run, None)
        if self.cursor() is not None:
            assert all(
                self.known[record_id] >= max(time for time, _ in record.changes)
                for record_id, record in self.crm.records.items()
            )


def test_every_change_is_told_once_whenever_it_shows_and_whatever_is_killed():
    """This holds within the lookback. A run that is retried or cleared reports the same again."""
    run_state_machine_as_test(
        LateHistory,
        settings=settings(
            max_examples=HISTORIES,
            stateful_step_count=25,
            deadline=None,
            report_multiple_bugs=False,
            phases=(Phase.generate, Phase.shrink),
        ),
    )

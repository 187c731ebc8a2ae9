"""A task reads each webhook once, whatever is late, whatever clocks show, and whoever is killed."""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_insightly_hooks.hooks.entity_store import EntityStore
from airflow_insightly_hooks.hooks.incoming import IncomingSettings
from airflow_insightly_hooks.runs import received_changes
from tests.runs.received import Clock, Reader, StoppedHereError, keep

CLOCKS = st.integers(-140, 140)
"""By how many seconds a clock may be ahead of the true time.

Two clocks differ by less than ``CLOCK_TOLERANCE``.
"""


class Run:
    """A run of the task.

    :ivar returned: the webhooks that it has returned, once it has succeeded.
    """

    def __init__(self, context: dict[str, Any]) -> None:
        self.context = context
        self.returned: list[int] | None = None


class Readings(RuleBasedStateMachine):
    """API servers that store webhooks and workers that read them. All have different clocks."""

    def __init__(self) -> None:
        super().__init__()
        self._patch = pytest.MonkeyPatch()
        self._folder = tempfile.TemporaryDirectory()
        path = f"file://{self._folder.name}/kept"
        # Airflow would mask each folder's name in its logs, and take longer each time.
        settings = IncomingSettings("i", "p", "insightly_default", None, None, 1, 0, path, 7)
        self._patch.setattr(received_changes, "_settings", lambda *_: settings)
        self._patch.setattr(os, "fsync", lambda _: None)
        self.store = EntityStore(path, "insightly_default")
        self.clock = Clock()
        self.true_time = self.clock.now
        self.reader = Reader(self.clock)
        self.received = 0
        self.on_the_way: list[tuple[int, Any]] = []
        self.runs: list[Run] = []
        self.killed: list[Run] = []

    def teardown(self) -> None:
        try:
            self._read_all()
        finally:
            self._patch.undo()
            self._folder.cleanup()

    @initialize()
    def first_run(self) -> None:
        """The task's first run, before any webhook comes."""
        self._run(Run(self.reader.new_run()))

    @rule(seconds=st.integers(0, 120), ahead=CLOCKS)
    def time_passes(self, seconds: int, ahead: int) -> None:
        """Time passes, and the next run is on a machine with another clock."""
        self.true_time += timedelta(seconds=seconds)
        self.clock.now = self.true_time + timedelta(seconds=ahead)
        # No late webhook is listed so late that it would be missed.
        self.on_the_way = [entry for entry in self.on_the_way if not self._is_late(entry)]

    def _is_late(self, entry: tuple[int, Any]) -> bool:
        record_id, received_at = entry
        if self.true_time - received_at < timedelta(seconds=240):
            return False
        keep(self.store, record_id, received_at)
        return True

    @rule(ahead=CLOCKS, is_late=st.booleans())
    def receive(self, ahead: int, is_late: bool) -> None:
        """An API server keeps a webhook, which may be listed only later."""
        self.received += 1
        entry = self.received, self.true_time + timedelta(seconds=ahead, microseconds=self.received)
        if is_late:
            self.on_the_way.append(entry)
        else:
            keep(self.store, *entry)

    @precondition(lambda self: self.on_the_way)
    @rule()
    def arrive(self) -> None:
        """A webhook that was on its way is listed."""
        keep(self.store, *self.on_the_way.pop(0))

    @rule()
    def run(self) -> None:
        """A run reads."""
        self._run(Run(self.reader.new_run()))

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def clear(self, data: st.DataObject) -> None:
        """A run that has ended is cleared. It returns the same webhooks again."""
        run = data.draw(st.sampled_from(self.runs))
        assert sorted(self.reader.ids(run.context)) == sorted(run.returned or [])

    @rule(writes=st.integers(0, 7))
    def kill(self, writes: int) -> None:
        """A run is killed before one of its writes."""
        run = Run(self.reader.new_run())
        self.reader.left[0] = writes
        try:
            run.returned = self.reader.ids(run.context)
            self.runs.append(run)
        except StoppedHereError:
            self.killed.append(run)
        finally:
            self.reader.left[0] = None

    @precondition(lambda self: self.killed)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        """A killed run is tried again, whether or not other runs came after it."""
        run = data.draw(st.sampled_from(self.killed))
        self.killed.remove(run)
        self._run(run)

    def _run(self, run: Run) -> None:
        run.returned = self.reader.ids(run.context)
        self.runs.append(run)

    @invariant()
    def nothing_twice(self) -> None:
        """No two runs return the same webhook."""
        returned = [number for run in self.runs for number in run.returned or []]
        assert len(returned) == len(set(returned))

    def _read_all(self) -> None:
        """At the end, every webhook has been returned."""
        for entry in self.on_the_way:
            keep(self.store, *entry)
        for run in self.killed:
            self._run(run)
        self.clock.now = self.true_time + timedelta(seconds=300)
        self._run(Run(self.reader.new_run()))
        self.nothing_twice()
        returned = {number for run in self.runs for number in run.returned or []}
        assert returned == set(range(1, self.received + 1))


TestReadings = Readings.TestCase
TestReadings.settings = settings(stateful_step_count=25, deadline=None)

"""Each record triggers once: which of a run's records it may let through, whatever stops it and when.

Two stores take part: the memory, which outlasts runs, and the run's own state, which a later try of the run
finds again. No write goes to both, so a decision is committed in the memory first, as a whole, and only then
carried out:

1. the ids that the run lets through, under ``{key}/open/{run}``;
2. the run's name among those under ``{key}/open``: this write commits;
3. the ids into the memory, and into the run's own state;
4. the name out again.

Whoever comes next carries out what is committed: for another run's ids, the memory's part; the rest is left
to that run's next try. What is not committed was never decided.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from airflow_insightly_hooks.core.digest import digest_of
from airflow_insightly_hooks.core.errors import InvalidState
from airflow_insightly_hooks.core.state.id_set import IdSet
from airflow_insightly_hooks.core.state.state_store import StateStore

__all__ = ["TriggerOnce"]

TRIGGERED = "triggered"
"""The first part of the keys of what is remembered."""
OWN = "triggered"
"""The key of the run's state that keeps what it has let through."""
COMMITTED_AT_ONCE = 2_500
"""Ids: as numbers of up to 19 digits they stay below what a store takes under one key."""


class TriggerOnce:
    """The memory of a workflow, for one run of it; one at a time may use it, however many runs there are.

    :param memory: the store that outlasts runs.
    :param state: the run's own store.
    :param key: the memory's key; ``{key}/…`` belongs to it, too.
    :param run: the run's name, the same in all of its tries, of letters and digits.
    """

    def __init__(self, memory: StateStore, state: StateStore, key: str, run: str) -> None:
        self._store = memory
        self._key = key
        self._open_key = f"{key}/open"
        self._run = run
        self._memory = IdSet(memory, key)
        self._own = IdSet(state, OWN)

    @classmethod
    def of_task(
        cls, task: Any, asset_state: StateStore, task_state: StateStore, workflow: str
    ) -> TriggerOnce:
        """Return what one task of a run asks.

        :param task: what has the ids of the DAG, the run and the task.
        :param asset_state: the state of the asset that stands for the records.
        :param task_state: the task's own.
        :param workflow: what is remembered belongs to it.
        """
        run = digest_of(f"{task.dag_id}/{getattr(task, 'run_id', '')}/{task.task_id}")
        return cls(asset_state, task_state, f"{TRIGGERED}/{workflow}", run)

    def admit(self, ids: Iterable[int]) -> set[int]:
        """Return those of the ids whose records may trigger in this run.

        That is: no earlier run has let them through, or an earlier try of this run has.

        :raises InvalidState: if what is remembered can't be read.
        """
        asked = set(ids)
        self._carry_out()
        own = self._own.known(asked)
        new = sorted(asked - own - self._memory.known(asked - own))
        for start in range(0, len(new), COMMITTED_AT_ONCE):
            self._store.set(self._ids_key(self._run), new[start : start + COMMITTED_AT_ONCE])
            self._store.set(self._open_key, {**self._open(), self._run: False})
            self._carry_out()
        return own | set(new)

    def _carry_out(self) -> None:
        """Do what is committed and not yet done."""
        open_runs = self._open()
        for run, is_remembered in list(open_runs.items()):
            if is_remembered and run != self._run:
                continue
            ids = self._store.get(self._ids_key(run))
            if not isinstance(ids, list):
                raise InvalidState(self._ids_key(run), "the ids that a run has let through are missing")
            self._memory.add(ids)
            if run == self._run:
                self._own.add(ids)
                del open_runs[run]
            else:
                open_runs[run] = True
            self._store.set(self._open_key, open_runs)
            if run == self._run:
                self._store.delete(self._ids_key(run))

    def _open(self) -> dict[str, bool]:
        """Return the runs whose decisions are committed, and whether the memory has them already."""
        found = self._store.get(self._open_key)
        if found is None:
            if self._store.get(self._key) is not None:  # nothing is remembered before it was committed there
                raise InvalidState(
                    self._open_key,
                    "it is missing, yet something was remembered: put {} there if no run is open",
                )
            return {}
        if not isinstance(found, dict):
            raise InvalidState(self._open_key, "it is no list of runs")
        return dict(found)

    def _ids_key(self, run: str) -> str:
        return f"{self._open_key}/{run}"

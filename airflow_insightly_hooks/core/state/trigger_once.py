"""Makes each record trigger once, even if a run is stopped at any moment.

There are two stores: the memory, which is kept longer than a run, and the run's own state, which a later try
of the run finds again. No write goes to both. So a decision is first committed in the memory as a whole, and
then carried out:

1. The run's name and the ids whose records may trigger are written under ``{key}/decided``. This write
   commits the decision.
2. The ids are added to the memory, and to the run's own state.
3. The decision is deleted.

The next run or try carries out a committed decision. If it is another run's decision, it is kept for the next
try of that run, under ``{key}/open/{run}``. The run's name and the time are kept under ``{key}/open``. After
30 days the decision is deleted. A decision that is not committed has no effect.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from airflow_insightly_hooks.core.dates import EPOCH, api_time, iso_time
from airflow_insightly_hooks.core.digest import digest_of
from airflow_insightly_hooks.core.errors import InvalidState, InvalidTime
from airflow_insightly_hooks.core.state.id_set import IdSet
from airflow_insightly_hooks.core.state.state_store import StateStore
from airflow_insightly_hooks.core.state.versions import read_value

__all__ = ["TriggerOnce"]

TRIGGERED = "triggered"
"""The first part of the memory's keys."""
OWN = "triggered"
"""The key in the run's state for the ids whose records triggered in the run."""
COMMITTED_AT_ONCE = 2_500
"""How many ids a decision has at most: as numbers of up to 19 digits, they fit under one key of a store."""


DONE = "done"
"""The entry of a stopped run while its ids are being deleted."""
KEPT_FOR = timedelta(days=30)
"""How long a stopped run's decision is kept for its next try. Airflow keeps the state of a task as long."""


class TriggerOnce:
    """The memory of a workflow, as one of its runs uses it. Only one run at a time may use it.

    :param memory: the store that is kept longer than a run.
    :param state: the run's own store.
    :param key: the memory's key; ``{key}/…`` belongs to it, too.
    :param run: the run's name, which is the same in all of its tries: letters and digits.
    :param now: the present time. It is used only to delete old decisions.
    """

    def __init__(
        self, memory: StateStore, state: StateStore, key: str, run: str, now: datetime = EPOCH
    ) -> None:
        self._store = memory
        self._open_key = f"{key}/open"
        self._decided_key = f"{key}/decided"
        self._run = run
        self._now = now
        self._memory = IdSet(memory, key)
        self._own = IdSet(state, OWN)

    @classmethod
    def of_task(
        cls, task: Any, asset_state: StateStore, task_state: StateStore, workflow: str, now: datetime
    ) -> TriggerOnce:
        """Return the memory for one task of a run.

        :param task: an object with the ids of the DAG, the run and the task, and the map index.
        :param asset_state: the state of the asset that represents the records.
        :param task_state: the task's own state.
        :param workflow: the workflow whose memory it is.
        """
        map_index = getattr(task, "map_index", None)
        of_map = "" if map_index is None or map_index < 0 else f"/{map_index}"
        run = digest_of(f"{task.dag_id}/{getattr(task, 'run_id', '')}/{task.task_id}{of_map}")
        return cls(asset_state, task_state, f"{TRIGGERED}/{workflow}", run, now)

    def admit(self, ids: Iterable[int]) -> set[int]:
        """Return those of the ids whose records may trigger in this run.

        These are the records that have not triggered in an earlier run, and the records that have triggered
        in an earlier try of this run.

        :raises InvalidState: if the memory can't be read.
        """
        asked = set(ids)
        self._carry_out()
        own = self._own.known(asked)
        new = sorted(asked - own - self._memory.known(asked - own))
        for start in range(0, len(new), COMMITTED_AT_ONCE):
            decided = new[start : start + COMMITTED_AT_ONCE]
            self._store.set(self._decided_key, {"run": self._run, "ids": decided})
            self._carry_out_decision(self._run, decided)
        return own | set(new)

    def _carry_out(self) -> None:
        """Carry out what is committed and not yet done."""
        if (decision := self._decision()) is not None:
            self._carry_out_decision(*decision)
        open_runs = self._open()
        for run, since in list(open_runs.items()):
            if since is False:  # from an earlier version, which added the ids to the memory last
                self._memory.add(self._ids(run))
            if run == self._run and since != DONE:
                self._own.add(self._ids(run))
        kept = {
            run: iso_time(self._now) if isinstance(since, bool) else since
            for run, since in open_runs.items()
            if run != self._run and not self._is_expired(since)
        }
        if gone := open_runs.keys() - kept.keys():
            self._store.set(self._open_key, {**kept, **dict.fromkeys(gone, DONE)})
            for run in gone:
                self._store.delete(self._ids_key(run))
        if kept != open_runs:
            self._store.set(self._open_key, kept)

    def _carry_out_decision(self, run: str, ids: list[int]) -> None:
        self._memory.add(ids)
        if run == self._run:
            self._own.add(ids)
        else:
            self._store.set(self._ids_key(run), ids)
            self._store.set(self._open_key, {**self._open(), run: iso_time(self._now)})
        self._store.delete(self._decided_key)

    def _decision(self) -> tuple[str, list[int]] | None:
        """Return the decision that is committed and not yet carried out: the run's name, and the ids."""
        match read_value(self._store, self._decided_key):
            case None:
                return None
            case {"run": str(run), "ids": list(ids)}:
                return run, ids
            case _:
                raise InvalidState(self._decided_key, "it is not a run's decision")

    def _open(self) -> dict[str, Any]:
        """Return the stopped runs whose decisions are kept, and since when."""
        found = read_value(self._store, self._open_key, {})
        if not isinstance(found, dict):
            raise InvalidState(self._open_key, "it is not an object with runs")
        return dict(found)

    def _ids(self, run: str) -> list[int]:
        ids = read_value(self._store, self._ids_key(run))
        if not isinstance(ids, list):
            raise InvalidState(self._ids_key(run), "the ids that triggered in a run are missing")
        return ids

    def _is_expired(self, since: object) -> bool:
        """Return whether a decision that has been kept since then is not needed any more."""
        if since == DONE or isinstance(since, bool):
            return since == DONE
        try:
            return api_time(since, self._open_key) < self._now - KEPT_FOR
        except InvalidTime as error:
            raise InvalidState(self._open_key, str(error)) from None

    def _ids_key(self, run: str) -> str:
        return f"{self._open_key}/{run}"

"""The webhooks with a time trigger, in a task that reads its changes batch by batch.

Each batch is handed to the DAG that sends them by runs that hold it in their conf, and the task goes on. No
single write reaches both Airflow's runs and the task's state. So a batch takes these steps:

1. it is noted in the state, as a whole: its last write commits;
2. it is asked which of its records may trigger (``until_triggered`` has a memory of its own for that);
3. for each group of records, a run is triggered, whose id depends on its conf; then the records are
   remembered as scheduled;
4. the note is deleted.

A try that finds a note does the rest of it first, whatever the window holds by then. A record is scheduled
once by a task, however often its window is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.core.detection.changes import NO_ID, RecordChange
from airflow_insightly_hooks.core.errors import InvalidState
from airflow_insightly_hooks.core.state.id_set import IdSet
from airflow_insightly_hooks.core.state.versions import read_value
from airflow_insightly_hooks.core.workflow.parts import Webhook
from airflow_insightly_hooks.operators.common.not_sent import report_not_sent
from airflow_insightly_hooks.operators.common.time_triggers import (
    FROM,
    PENDING,
    UNDELIVERABLE,
    Scheduled,
    TimeTrigger,
    entries_of,
    pending_run_id,
    source_task,
)
from airflow_insightly_hooks.operators.common.triggered_runs import start_run
from airflow_insightly_hooks.runs.airflow_runs import is_test
from airflow_insightly_hooks.runs.task_state import TaskState

if TYPE_CHECKING:
    from airflow.sdk import Context

    Admit = Callable[[Collection[int]], set[int]]

__all__ = ["BatchScheduling"]

NOTE = "to_schedule"
"""The key of the task's state for the batch that is being handed over; its parts stand under
``to_schedule/0/0`` and so on, by group and block."""
SCHEDULED = "scheduled_records"
"""The key of the task's state for the records that it has scheduled."""
REMEDY = (
    f"Delete {NOTE!r} from the task's state, and clear the task: it reads its window again, and schedules "
    "what it finds there"
)
BLOCK_BYTES = 50_000
RECORDS_A_RUN = 1_000
MOST_TOLD = 1_000
"""Records without a date that the task's XCom lists, at most."""


class BatchScheduling:
    """Hands over what is to be sent at a later time; a task has one, for all of its webhooks.

    :param webhooks: those with a time trigger.
    :param pending_dag_id: the DAG that sends them.
    :param context: the run's context.
    :param is_dry_run: whether nothing is to be handed over.
    :param log: where the number of scheduled webhooks goes.
    """

    def __init__(
        self,
        webhooks: Iterable[Webhook],
        pending_dag_id: str,
        context: Context,
        *,
        is_dry_run: bool,
        log: Any,
    ) -> None:
        self._triggers = [TimeTrigger(w.slug, w.after, w.before, w.field) for w in webhooks]
        self._pending_dag_id = pending_dag_id
        self._context, self._log = context, log
        self._is_dry_run = is_dry_run
        self._is_unwritten = is_dry_run or is_test(context)
        self._state = TaskState(context["task_state_store"])
        self._scheduled = IdSet(self._state, SCHEDULED)
        self._groups: list[list[Scheduled]] = []
        self._without_date: list[dict[str, Any]] = []  # of the batch that is being handed over
        self._left_out: list[dict[str, Any]] = []
        self._left_out_count = self._count = 0

    @property
    def webhooks(self) -> list[str]:
        """The names of the webhooks."""
        return sorted(trigger.webhook for trigger in self._triggers)

    @property
    def has_left_out(self) -> bool:
        """Whether records of this try have no date, so that they were not handed over."""
        return self._left_out_count > 0

    def go_on(self, admit: Admit) -> None:
        """Hand over what an earlier try has noted and was stopped at.

        :param admit: returns which records may trigger in this run.
        :raises InvalidState: if it can't be read.
        """
        head = read_value(self._state, NOTE)
        if head is None or self._is_unwritten:
            return
        sizes = head.get("groups") if isinstance(head, dict) else None
        if not isinstance(sizes, list):
            raise InvalidState(NOTE, f"it is no list of groups. {REMEDY}")
        self._groups = [
            [self._block(group, block) for block in range(size)] for group, size in enumerate(sizes)
        ]
        self.hand_over(admit({i for blocks in self._groups for b in blocks for i in _record_ids(b)}))

    def _block(self, group: int, block: int) -> Scheduled:
        found = self._state.get(f"{NOTE}/{group}/{block}")
        if not isinstance(found, dict):
            raise InvalidState(f"{NOTE}/{group}/{block}", f"it is missing, or no object. {REMEDY}")
        return found

    def expect(self, changes: Sequence[RecordChange]) -> None:
        """Note when the changes' webhooks are due, and store that."""
        known = self._scheduled.known({c["record_id"] for c in changes if c["record_id"] != NO_ID})
        _, self._without_date = entries_of(changes, self._triggers)
        self._groups = list(self._grouped([c for c in changes if c["record_id"] not in known]))
        if self._is_unwritten or not self._groups:
            return
        for group, blocks in enumerate(self._groups):
            for number, block in enumerate(blocks):
                self._state.set(f"{NOTE}/{group}/{number}", block)
        self._state.set(NOTE, {"groups": [len(blocks) for blocks in self._groups]})

    def _grouped(self, changes: Sequence[RecordChange]) -> Iterator[list[Scheduled]]:
        """Yield what each run gets, in blocks that a store takes."""
        for start in range(0, len(changes), RECORDS_A_RUN):
            blocks: list[Scheduled] = []
            room = 0
            for change in changes[start : start + RECORDS_A_RUN]:
                entry, _ = entries_of([change], self._triggers)
                size = len(json.dumps(entry))
                if size > room:
                    blocks.append({})
                    room = BLOCK_BYTES
                room -= size
                for name, entries in entry.items():
                    blocks[-1].setdefault(name, []).extend(entries)
            yield blocks

    def hand_over(self, admitted: Collection[int]) -> None:
        """Hand over what was noted.

        :param admitted: the ids of the records that may trigger.
        :raises AirflowRuntimeError: if Airflow refuses; the next try does it.
        """
        for item in self._without_date:
            if item["record_id"] in admitted:
                self._left_out_count += 1
                if len(self._left_out) < MOST_TOLD:
                    self._left_out.append(item)
        self._without_date = []
        groups, self._groups = self._groups, []
        for blocks in groups:
            merged: Scheduled = {}
            for block in blocks:
                for name, entries in block.items():
                    merged.setdefault(name, []).extend(entries)
            self._start_runs(merged, admitted)
        if groups and not self._is_unwritten:
            self._state.delete(NOTE)
            for group, blocks in enumerate(groups):
                for number in range(len(blocks)):
                    self._state.delete(f"{NOTE}/{group}/{number}")

    def _start_runs(self, scheduled: Scheduled, admitted: Collection[int]) -> None:
        undeliverable = scheduled.pop(UNDELIVERABLE, [])
        ids = {*_record_ids(scheduled), *(change["record_id"] for change in undeliverable)} - {NO_ID}
        wanted = {
            webhook: [entry for entry in entries if entry["record_id"] in admitted]
            for webhook, entries in scheduled.items()
        }
        # Only what was not scheduled was noted. So an earlier try has started the run, and was stopped while
        # it remembered that: a run of what is left would have another id.
        has_started = bool(self._scheduled.known(ids))
        self._count += 0 if has_started else sum(map(len, wanted.values()))
        if self._is_unwritten:
            return
        # Those without an id of their own can't be remembered: the same ones make a run of the same id.
        nameless = [change for change in undeliverable if change["record_id"] == NO_ID]
        named = [change for change in undeliverable if change["record_id"] != NO_ID]
        if nameless:
            self._start_run({UNDELIVERABLE: nameless})
        if named:
            wanted[UNDELIVERABLE] = named
        if any(wanted.values()) and not has_started:
            self._start_run(wanted)
        self._scheduled.add(i for entries in wanted.values() for e in entries if (i := e["record_id"]))

    def _start_run(self, scheduled: Scheduled) -> None:
        source = source_task(self._context["ti"])
        run_id = pending_run_id(source, scheduled)
        start_run(self._pending_dag_id, run_id, {FROM: source, PENDING: scheduled})

    def tell(self) -> None:
        """Log how many webhooks were scheduled; push and log which records have no date."""
        if self._is_dry_run:
            self._log.info("Dry run: %d webhooks would be scheduled", self._count)
        elif self._is_unwritten:
            self._log.info("A test schedules nothing; a run would: %d webhooks", self._count)
        else:
            self._log.info("%d webhooks are scheduled in DAG %r", self._count, self._pending_dag_id)
        report_not_sent(self._log, self._context, self._left_out)
        if more := self._left_out_count - len(self._left_out):
            self._log.warning("and %d more have no date", more)


def _record_ids(scheduled: Scheduled) -> set[int]:
    return {
        entry["record_id"]
        for webhook, entries in scheduled.items()
        if webhook != UNDELIVERABLE
        for entry in entries
    }

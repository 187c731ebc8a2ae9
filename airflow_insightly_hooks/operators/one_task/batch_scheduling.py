"""The webhooks with a time trigger, in a task that reads its changes batch by batch.

The task hands each batch to the DAG that sends the messages, and continues. It triggers runs of that DAG that
hold the batch in their conf. No single write reaches both Airflow's runs and the task's state. So a batch
takes these steps:

1. The task stores the whole batch as a note in its state. The last write commits the note.
2. It finds out which of the batch's records may trigger (``until_triggered`` has its own memory for that).
3. For each group of records, it triggers a run, whose id depends on its conf. Then it stores that the records
   are scheduled.
4. It deletes the note.

A try that finds a note completes it first, whatever the window holds by then. A task schedules a record only
once, however often it reads its window.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.core.detection.changes import NO_ID, RecordChange
from airflow_insightly_hooks.core.errors import InvalidState
from airflow_insightly_hooks.core.plurals import counted
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
"""The key of the task's state for the batch that is being handed over. Its parts have the keys
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
"""The most records without a date that the task's XCom lists."""


class BatchScheduling:
    """Hands over the messages that are sent later. A task has one object for all of its webhooks.

    :param webhooks: the webhooks with a time trigger.
    :param pending_dag_id: the DAG that sends them.
    :param context: the run's context.
    :param is_dry_run: whether this is a dry run, which hands nothing over.
    :param log: the logger for the number of scheduled webhooks.
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
        """Complete the note of an earlier try that was stopped.

        :param admit: returns which records may trigger in this run.
        :raises InvalidState: if the note can't be read.
        """
        head = read_value(self._state, NOTE)
        if head is None or self._is_unwritten:
            return
        sizes = head.get("groups") if isinstance(head, dict) else None
        if not isinstance(sizes, list):
            raise InvalidState(NOTE, f"it is not a list of groups. {REMEDY}")
        self._groups = [
            [self._block(group, block) for block in range(size)] for group, size in enumerate(sizes)
        ]
        self.hand_over(admit({i for blocks in self._groups for b in blocks for i in _record_ids(b)}))

    def _block(self, group: int, block: int) -> Scheduled:
        found = self._state.get(f"{NOTE}/{group}/{block}")
        if not isinstance(found, dict):
            raise InvalidState(f"{NOTE}/{group}/{block}", f"it is missing, or not an object. {REMEDY}")
        return found

    def expect(self, changes: Sequence[RecordChange]) -> None:
        """Store the note: when the changes' webhooks are due."""
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
        """Yield the conf of each run, in blocks that are small enough for a state store."""
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
        """Hand over the noted batch.

        :param admitted: the ids of the records that may trigger.
        :raises AirflowRuntimeError: if Airflow refuses a run; the next try hands the batch over.
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
        # The note holds only records that were not scheduled. If some are scheduled now, an earlier try has
        # started the run, and was stopped while it stored that. A run of the others would have another id.
        has_started = bool(self._scheduled.known(ids))
        self._count += 0 if has_started else sum(map(len, wanted.values()))
        if self._is_unwritten:
            return
        # Changes without a record id can't be stored as scheduled. The same changes make the same run id.
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
        """Log the number of scheduled webhooks; push and log the records that have no date."""
        webhooks = counted(self._count, "webhook")
        if self._is_dry_run:
            self._log.info("Dry run: %s would be scheduled", webhooks)
        elif self._is_unwritten:
            self._log.info("A test schedules nothing. A run would schedule %s", webhooks)
        else:
            self._log.info("Scheduled %s in DAG %r", webhooks, self._pending_dag_id)
        report_not_sent(self._log, self._context, self._left_out)
        if more := self._left_out_count - len(self._left_out):
            self._log.warning("no date: %s, which the XCom does not list", counted(more, "more message"))


def _record_ids(scheduled: Scheduled) -> set[int]:
    return {
        entry["record_id"]
        for webhook, entries in scheduled.items()
        if webhook != UNDELIVERABLE
        for entry in entries
    }

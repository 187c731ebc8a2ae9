"""The queue of messages that wait for a failing receiver, in a state store. An entry names the messages'
XCom.

A head, under the key of the queue, says which entries wait. The entries are numbered, and stored in blocks of
40. A block's key is the queue's key, ``/`` and a number. A block is ``[{"dag_id", "run_id", "task_id",
"map_index", "payloads_task_id", "messages", "entered_by"}, …]``. It holds no contents: these stay in the
runs' XCom.

Each change of the queue is one write of the head. A block is written before the head counts its entries, and
deleted after the head doesn't need it any more. What a run takes is noted in the head until the run has noted
it itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.dates import api_time, iso_time
from airflow_insightly_hooks.core.errors import InvalidPayload, InvalidState, InvalidTime, missing_keys
from airflow_insightly_hooks.core.state.state_store import Head, StateStore, count_in

__all__ = ["BLOCK_SIZE", "RETRY", "MessageSource", "RetryQueue"]

RETRY = "retry"
"""The first part of the queue's keys, in the state of the asset."""

BLOCK_SIZE = 40
"""How many entries a block has. With at most 1,400 characters each (ids have 250), it stays below 60 kB."""
BLOCKS_SEARCHED = 8
"""In how many blocks to look for an entry that a run may have added before it was killed."""


class MessageSource(NamedTuple):
    """Where the messages are that a deliver task has left to be sent again.

    :param dag_id: the id of the deliver task's DAG.
    :param run_id: the id of its run.
    :param task_id: its own id.
    :param map_index: its map index.
    :param payloads_task_id: the task of the same run whose XCom has the payloads.
    :param messages: how many messages there are.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    payloads_task_id: str
    messages: int

    @classmethod
    def of(cls, value: object) -> MessageSource:
        """Return the source from a JSON object with its fields.

        :raises InvalidPayload: if the value is not a source.
        """
        if not isinstance(value, Mapping):
            raise InvalidPayload("retry", f"an object is needed, not {type(value).__name__}")
        if missing := missing_keys(value, cls._fields):
            raise InvalidPayload("retry", f"it lacks {missing}")
        source = cls(**{name: value[name] for name in cls._fields})
        for name in cls._fields:
            kind = int if name in ("map_index", "messages") else str
            if type(value[name]) is not kind:
                raise InvalidPayload("retry", f"its {name} must be of type {kind.__name__}")
        return source


class RetryQueue:
    """The messages that wait for one receiver.

    An instance is for one task, and nothing else may write to the queue meanwhile.

    :param store: the store that holds the queue. If there is no value under the key, nothing waits.
    :param key: the head's key.
    :ivar due: when the waiting messages may be taken; ``None`` if nothing waits.
    :ivar waiting: how many messages wait.

    Each method raises ``InvalidState`` if the stored queue can't be read.
    """

    def __init__(self, store: StateStore, key: str) -> None:
        self._store = store
        self._key = key
        self._head = Head(store, key, {"first": 0, "next": 0, "taken": 0})
        head = self._head.read() or self._head.empty
        self._first, self._next, self._taken = (count_in(key, head, n) for n in ("first", "next", "taken"))
        try:
            self.due = api_time(head["due"], key) if head.get("due") else None
        except InvalidTime as error:
            raise InvalidState(key, str(error)) from None
        self.waiting = count_in(key, {"waiting": 0, **head}, "waiting")
        self._being_taken = _being_taken(key, head.get("being_taken", {}))
        if not self._first * BLOCK_SIZE <= self._taken <= self._next:
            raise InvalidState(key, "its numbers contradict each other")

    def enter(self, source: MessageSource, run_id: str, not_before: datetime) -> bool:
        """Add messages, once for each run.

        :param not_before: when they may be taken, unless messages that already wait may be taken earlier.
        :returns: whether they are new in the queue.
        """
        last = self._number(self._next)
        blocks = {n: self._block(n) for n in range(max(self._first, last - BLOCKS_SEARCHED + 1), last + 1)}
        known = (
            entry
            for n, block in blocks.items()
            for seq, entry in enumerate(block, n * BLOCK_SIZE)
            if seq < self._next
        )
        if any(isinstance(entry, Mapping) and entry.get("entered_by") == run_id for entry in known):
            return False
        self._head.prepare()
        counted = blocks[last][: self._next - last * BLOCK_SIZE]
        self._store.set(self._block_key(last), [*counted, {**source._asdict(), "entered_by": run_id}])
        self._next += 1
        self.waiting += source.messages
        self.due = not_before if self.due is None else min(self.due, not_before)
        self._write_head()
        return True

    def take(self, run_id: str, now: datetime) -> list[MessageSource]:
        """Take what waits, if it is due. A run that calls this again gets the same, until ``forget``."""
        if run_id not in self._being_taken:
            if self.due is None or now < self.due:
                return []
            self._being_taken[run_id] = [self._taken, self._next]
            self._taken, self.due, self.waiting = self._next, None, 0
            self._write_head()
        start, end = self._being_taken[run_id]
        blocks = {n: self._block(n) for n in self._numbers(start, end)}
        return [self._entry(blocks[self._number(seq)], seq) for seq in range(start, end)]

    def forget(self, run_id: str) -> None:
        """Delete what the run has taken, because the run has noted it itself."""
        if (taken := self._being_taken.pop(run_id, None)) is None:
            return
        # One more block stays, so that a run that adds its messages again is noticed. Blocks also stay if a
        # run needs them that was stopped before it could note what it has taken.
        first, self._first = self._first, max(self._first, self._number(self._taken) - 1)
        self._write_head()
        needed = {n for part in self._being_taken.values() for n in self._numbers(*part)}
        for number in {*range(first, self._first), *self._numbers(*taken)} - needed:
            if number < self._first:
                self._store.delete(self._block_key(number))

    def _numbers(self, start: int, end: int) -> range:
        """Return the numbers of the blocks that hold these entries."""
        return range(self._number(start), self._number(end - 1) + 1)

    def _number(self, seq: int) -> int:
        return seq // BLOCK_SIZE

    def _block_key(self, number: int) -> str:
        return f"{self._key}/{number}"

    def _block(self, number: int) -> list[dict[str, Any]]:
        block = self._store.get(self._block_key(number), [])
        counted = min(self._next - number * BLOCK_SIZE, BLOCK_SIZE)
        if not isinstance(block, list) or len(block) < counted:
            raise InvalidState(
                self._block_key(number), "a part of the queue is missing, so it is not known what waits"
            )
        return block

    def _entry(self, block: list[dict[str, Any]], seq: int) -> MessageSource:
        try:
            return MessageSource.of(block[seq % BLOCK_SIZE])
        except InvalidPayload as error:
            key = self._block_key(self._number(seq))
            raise InvalidState(key, f"entry {seq} can't be read: {error}") from None

    def _write_head(self) -> None:
        self._head.write(
            {
                "first": self._first,
                "next": self._next,
                "taken": self._taken,
                "due": iso_time(self.due) if self.due else None,
                "waiting": self.waiting,
                "being_taken": self._being_taken,
            },
        )


def _being_taken(key: str, value: object) -> dict[str, list[int]]:
    """Return the numbers at which begins and ends what each run has taken and not yet noted itself."""
    if not isinstance(value, Mapping) or not all(map(_is_span, value.values())):
        raise InvalidState(key, "what runs have taken can't be read")
    return dict(value)


def _is_span(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(number) is int for number in value)

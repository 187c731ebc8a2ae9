"""Message ids, and the ledger of what a deliver task has sent: pure, stored by whoever holds it.

The ledger keeps, for each message id, in which state its payload is and how often it was POSTed:

- ``in doubt``: POSTed, and nothing recorded of the outcome (a crash, or it is under way);
- ``acknowledged``: the receiver took it; it is never POSTed again;
- ``failed``: no positive acknowledgement;
- ``gone``: the receiver said that it will never take it (410); not POSTed again before the task is cleared.

A message that it does not know was not POSTed. It is written as blocks of a bounded size, so that one
entry of a state store stays small however many payloads there are; only changed blocks are written again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from airflow_insightly_hooks.core.errors import InvalidState

__all__ = [
    "ACKNOWLEDGED",
    "FAILED",
    "GONE",
    "HEAD",
    "Ledger",
    "LedgerEntry",
    "Report",
    "UndeliveredPayload",
    "block_keys",
    "message_id",
]

ACKNOWLEDGED = "acknowledged"
FAILED = "failed"
GONE = "gone"
IN_DOUBT = "in doubt"

VERSION = 1
BLOCK_SIZE = 1_000
"""Messages a block: at 37 characters each a block stays well below 60 kB."""

_CODES = {ACKNOWLEDGED: "A", FAILED: "F", GONE: "G", IN_DOUBT: "D"}
_STATES = {code: state for state, code in _CODES.items()}


def message_id(workflow: str, record_type: str, record_id: int, event: str, changed_at: str) -> str:
    """Return the id of the message that tells ``workflow``'s receiver of a change.

    It depends on its arguments alone, so retries, cleared runs and backfills send the same one.

    :returns: ``msg_`` and 24 hexadecimal digits.
    """
    # Lengths keep ("ab", "c") and ("a", "bc") apart.
    parts = (workflow, record_type, str(record_id), event, changed_at)
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return f"msg_{hashlib.sha256(text.encode()).hexdigest()[:24]}"


class UndeliveredPayload(TypedDict):
    """A payload that isn't acknowledged, as a report lists it."""

    message_id: str
    record_type: str
    record_id: int
    event: str
    status: int | None  # the last answer's; None without one
    error: str | None  # why; no contents
    attempts: int  # POSTs since the task was last cleared


class Report(TypedDict):
    """What a deliver task did, as it passes through XCom."""

    total: int
    delivered: int
    undelivered: list[UndeliveredPayload]  # the first of them, where there are many
    attempts: int  # POSTs, of all payloads
    started_at: str  # ISO 8601, UTC: this try's
    ended_at: str


class LedgerEntry(NamedTuple):
    """What is known of a message: its state, and how many POSTs were made of it."""

    state: str
    attempts: int


UNSENT = LedgerEntry("unsent", 0)


class Ledger:
    """The states of a task's messages.

    :param generation: which round of attempts this is; another one when the task is cleared. What failed or
        was gone in an earlier round is tried again, its attempts counted anew.
    """

    def __init__(self, generation: int = 0) -> None:
        self.generation = generation
        self._blocks: list[dict[str, LedgerEntry]] = []
        self._block_of: dict[str, int] = {}
        self._dirty: set[int] = set()
        self._stored_head: object = None

    def __getitem__(self, message: str) -> LedgerEntry:
        block = self._block_of.get(message)
        return UNSENT if block is None else self._blocks[block][message]

    def outstanding(self, messages: Iterable[str]) -> list[str]:
        """Return those of the messages that are to be POSTed, in order."""
        return [message for message in messages if self[message].state not in (ACKNOWLEDGED, GONE)]

    def posting(self, message: str) -> None:
        """Note that a POST of it is about to be made: until its outcome is noted, it is in doubt."""
        self._note(message, IN_DOUBT, self[message].attempts + 1)

    def not_posted(self, message: str) -> None:
        """Take back a ``posting``: nothing left this machine, so it was no attempt."""
        attempts = self[message].attempts - 1
        self._note(message, FAILED, attempts)

    def answered(self, message: str, state: str) -> None:
        """Note the outcome of its POST: acknowledged, failed or gone."""
        self._note(message, state, self[message].attempts)

    def _note(self, message: str, state: str, attempts: int) -> None:
        block = self._block_of.get(message)
        if block is None:
            if not self._blocks or len(self._blocks[-1]) >= BLOCK_SIZE:
                self._blocks.append({})
            block = self._block_of[message] = len(self._blocks) - 1
        self._blocks[block][message] = LedgerEntry(state, attempts)
        self._dirty.add(block)

    def changed(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield what is to be stored, key and JSON value, and count it as stored once it was taken.

        The head comes last, so that it never counts a block that isn't there.
        """
        for block in sorted(self._dirty):
            yield (
                block_key(block),
                {m: f"{_CODES[e.state]}{e.attempts}" for m, e in self._blocks[block].items()},
            )
            self._dirty.discard(block)
        head = {"version": VERSION, "generation": self.generation, "blocks": len(self._blocks)}
        if self._blocks and head != self._stored_head:
            yield HEAD, head
            self._stored_head = head

    @classmethod
    def load(cls, head: object, blocks: Sequence[object], generation: int) -> Ledger:
        """Return the ledger that was stored; blocks as ``block_keys(head)`` name them.

        :param generation: the present round of attempts.
        :raises InvalidState: if it was stored by a version that this one can't read.
        """
        ledger = cls(generation)
        ledger._stored_head = head
        ended_round = bool(blocks) and _number_of(head, "generation") != generation
        for key, block in zip(block_keys(head), blocks, strict=True):
            if not isinstance(block, Mapping):
                raise InvalidState(
                    key, "a part of the ledger is missing: it can't be told what was delivered"
                )
            entries = {message: _entry(key, text) for message, text in block.items()}
            if ended_round and any(entry.state != ACKNOWLEDGED for entry in entries.values()):
                entries = {
                    m: e if e.state == ACKNOWLEDGED else LedgerEntry(FAILED, 0) for m, e in entries.items()
                }
                # Written before the head names this round: else, when the task is tried again, what the
                # store still holds of the earlier round would count as of this one.
                ledger._dirty.add(len(ledger._blocks))
            ledger._blocks.append(entries)
            ledger._block_of.update(dict.fromkeys(entries, len(ledger._blocks) - 1))
        return ledger


HEAD = "delivery"


def block_key(block: int) -> str:
    """Return the key that the ``block``-th part of a ledger is stored under."""
    return f"{HEAD}/{block}"


def block_keys(head: object) -> list[str]:
    """Return the keys of the parts of the ledger whose head was stored under ``HEAD``; none for ``None``.

    :raises InvalidState: if it was stored by a version that this one can't read.
    """
    if head is None:
        return []
    if _number_of(head, "version") != VERSION:
        raise InvalidState(HEAD, "it was written by another version of airflow-insightly-hooks")
    return [block_key(block) for block in range(_number_of(head, "blocks"))]


def _number_of(head: object, key: str) -> int:
    value = head.get(key) if isinstance(head, Mapping) else None
    if not isinstance(value, int):
        raise InvalidState(HEAD, f"its {key} is missing")
    return value


def _entry(key: str, text: object) -> LedgerEntry:
    if isinstance(text, str) and text[:1] in _STATES and text[1:].isdecimal():
        return LedgerEntry(_STATES[text[0]], int(text[1:]))
    raise InvalidState(key, "an entry of the ledger can't be read")

"""Message ids, and the ledger of what a deliver task has sent: pure, stored by whoever holds it.

The ledger keeps, for each message id, in which state its payload is and how often it was POSTed in this round
(a round begins when the task is cleared, or when a redelivery is asked for):

- ``unsent``: no POST was made of it;
- ``in doubt``: a POST is about to be made, or was, and nothing is recorded of its outcome (it is under way,
  or the try was killed); it counts as made;
- ``acknowledged``: the receiver took it; it is not POSTed again unless a redelivery is asked for;
- ``failed``: no positive acknowledgement; POSTed again until its three attempts are used up;
- ``gone``: the receiver said that it will never take it (410); not POSTed again in this round.

What a ledger asks to be stored are blocks of a bounded size, so that one entry of a state store stays small
however many payloads there are, and a head that counts them; only changed blocks are asked for again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, TypedDict

from airflow_insightly_hooks.core.errors import InvalidState

__all__ = [
    "ACKNOWLEDGED",
    "FAILED",
    "GONE",
    "IN_DOUBT",
    "POSTS_A_ROUND",
    "Ledger",
    "LedgerEntry",
    "Report",
    "UndeliveredPayload",
    "message_id",
]

ACKNOWLEDGED = "acknowledged"
FAILED = "failed"
GONE = "gone"
IN_DOUBT = "in doubt"

POSTS_A_ROUND = 3
"""POSTs of one message in a round at most; one whose outcome a crash has hidden counts."""
BLOCK_SIZE = 750
"""Messages a block: at 75 characters each at most a block stays below 60 kB."""

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
    attempts: int  # POSTs in this round


class _WholeReport(TypedDict):
    total: int
    delivered: int
    undelivered: list[UndeliveredPayload]  # the first of them, where there are many
    attempts: int  # POSTs, of all payloads
    started_at: str  # ISO 8601, UTC: this try's
    ended_at: str


class Report(_WholeReport, total=False):
    """What a deliver task did, as it passes through XCom."""

    undelivered_count: int  # where ``undelivered`` doesn't list them all


class LedgerEntry(NamedTuple):
    """What is known of a message: its state, and how many POSTs of it were begun in this round."""

    state: str
    attempts: int

    @property
    def is_settled(self) -> bool:
        """Whether no further POST of it is to be made in this round."""
        return self.state in (ACKNOWLEDGED, GONE) or self.attempts >= POSTS_A_ROUND


UNSENT = LedgerEntry("unsent", 0)
NEW_ROUND = LedgerEntry(FAILED, 0)

_entry = cache(LedgerEntry)  # there are few different ones


class Ledger:
    """The states of a task's messages.

    :param generation: which round of attempts this is; another one when the task is cleared. What isn't
        acknowledged from an earlier round is tried again, its attempts counted anew.
    """

    def __init__(self, generation: int = 0) -> None:
        self.generation = generation
        self.redelivered: list[str] = []  # those begun in this generation
        self._blocks: list[dict[str, LedgerEntry]] = []
        self._block_of: dict[str, int] = {}
        self._before: dict[str, LedgerEntry] = {}  # of those under way: what they were
        self._dirty: set[int] = set()
        self._stored_head: object = None

    def __getitem__(self, message: str) -> LedgerEntry:
        block = self._block_of.get(message)
        return UNSENT if block is None else self._blocks[block][message]

    def outstanding(self, messages: Iterable[str]) -> list[str]:
        """Return those of the messages that are to be POSTed, in order."""
        return [message for message in messages if not self[message].is_settled]

    def posting(self, message: str) -> None:
        """Note that a POST of it is about to be made: until its outcome is noted, it is in doubt."""
        before = self._before[message] = self[message]
        self._note(message, _entry(IN_DOUBT, before.attempts + 1))

    def not_posted(self, message: str) -> None:
        """Take back a ``posting``: nothing left this machine, so it was no attempt.

        A ``posting`` that an interruption kept from its end, or its beginning, is taken back as well.
        """
        before = self._before.pop(message, None)
        if before is None:
            return
        if before == UNSENT:
            block = self._block_of.pop(message, None)
            if block is not None:
                self._blocks[block].pop(message, None)
                self._dirty.add(block)
        else:
            self._note(message, before)

    def answered(self, message: str, state: str) -> None:
        """Note the outcome of its POST: acknowledged, failed or gone."""
        self._before.pop(message, None)
        self._note(message, _entry(state, self[message].attempts))

    def redeliver(self, redelivery: str, messages: Iterable[str]) -> None:
        """Begin new attempts for the messages, even acknowledged ones, once in a generation.

        :param redelivery: a name of it, up to 100 characters; one that was begun isn't begun again.
        """
        if redelivery in self.redelivered:
            return
        self.redelivered.append(redelivery)
        for message in messages:
            if message in self._block_of:
                self._note(message, NEW_ROUND)

    def _note(self, message: str, entry: LedgerEntry) -> None:
        block = self._block_of.get(message)
        if block is None:
            if not self._blocks or len(self._blocks[-1]) >= BLOCK_SIZE:
                self._blocks.append({})
            block = self._block_of[message] = len(self._blocks) - 1
        self._blocks[block][message] = entry
        self._dirty.add(block)

    def changed(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield what is to be stored, name and JSON value, and count it as stored once it was taken.

        The head comes last, so that it never counts a block that isn't there.
        """
        for block in sorted(self._dirty):
            yield str(block), {m: f"{_CODES[e.state]}{e.attempts}" for m, e in self._blocks[block].items()}
            self._dirty.discard(block)
        head = {
            "generation": self.generation,
            "redelivered": list(self.redelivered),
            "blocks": len(self._blocks),
        }
        if self._blocks and head != self._stored_head:
            yield "head", head
            self._stored_head = head

    @classmethod
    def load(cls, head: Mapping[str, Any], blocks: Sequence[object], generation: int) -> Ledger:
        """Return the ledger that was stored; all of it is to be stored again, elsewhere.

        :param head: what was stored as ``head``, checked.
        :param blocks: what was stored as ``0`` and so on, as many as the head counts.
        :param generation: the present round of attempts.
        :raises InvalidState: if a block can't be read; its key is the number.
        """
        ledger = cls(generation)
        is_new_round = head["generation"] != generation
        if not is_new_round:
            ledger.redelivered = [str(redelivery) for redelivery in head.get("redelivered", ())]
        entries: dict[str, LedgerEntry] = {}
        for number, block in enumerate(blocks):
            if not isinstance(block, Mapping):
                raise InvalidState(
                    str(number), "a part of the ledger is missing: it can't be told what was delivered"
                )
            for message, text in block.items():
                entry = _read_entry(str(number), text)
                entries[message] = NEW_ROUND if is_new_round and entry.state != ACKNOWLEDGED else entry
        # What is still to be sent comes together, so that few blocks change while it is.
        for message, entry in sorted(entries.items(), key=lambda item: not item[1].is_settled):
            ledger._note(message, entry)
        return ledger


def _read_entry(key: str, text: object) -> LedgerEntry:
    if isinstance(text, str) and text[:1] in _STATES and text[1:].isdecimal():
        return _entry(_STATES[text[0]], int(text[1:]))
    raise InvalidState(key, "an entry of the ledger can't be read")

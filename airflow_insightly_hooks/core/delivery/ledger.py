"""The ledger of what a deliver task has sent: pure, stored by whoever holds it.

The ledger keeps, for each message id, in which state its payload is and how often it was POSTed in this round
(a round begins when the task is cleared, or when a redelivery is asked for):

- ``unsent``: no POST was made of it;
- ``in doubt``: a POST is about to be made, or was, and nothing is recorded of its outcome (it is under way,
  or the try was killed); it counts as made;
- ``acknowledged``: the receiver took it; it is not POSTed again unless a redelivery is asked for;
- ``failed``: no positive acknowledgement; POSTed again until its attempts are used up;
- ``gone``: the receiver said that it will never take it (410); not POSTed again in this round.

What a ledger asks to be stored are blocks of a bounded size, so that one entry of a state store stays small
however many payloads there are, and a head that counts them; only changed blocks are asked for again.

A task that can't hold all of its messages at once has the ledger move what is acknowledged to a set of ids
(``core.delivery.acknowledged_ids``). Beside each other message, the ledger then keeps what it is about: its
payload may never come again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.delivery.acknowledged_ids import AcknowledgedIds
from airflow_insightly_hooks.core.errors import InvalidState

__all__ = [
    "ACKNOWLEDGED",
    "FAILED",
    "GONE",
    "IN_DOUBT",
    "Ledger",
    "LedgerEntry",
]

ACKNOWLEDGED = "acknowledged"
FAILED = "failed"
GONE = "gone"
IN_DOUBT = "in doubt"

BLOCK_SIZE = 750
"""Messages a block: at 75 characters each at most a block stays below 60 kB."""

ELSEWHERE: Mapping[str, Any] = {}
"""Stands for the head of a ledger that was stored under other keys."""

_CODES = {ACKNOWLEDGED: "A", FAILED: "F", GONE: "G", IN_DOUBT: "D"}
_STATES = {code: state for state, code in _CODES.items()}


class LedgerEntry(NamedTuple):
    """What is known of a message: its state, and how many POSTs of it were begun in this round."""

    state: str
    attempts: int


UNSENT = LedgerEntry("unsent", 0)
NEW_ROUND = LedgerEntry(FAILED, 0)
MOVED = LedgerEntry(ACKNOWLEDGED, 0)

_entry = cache(LedgerEntry)  # there are few different ones


class Ledger:
    """The states of a task's messages.

    :param generation: which round of attempts this is; another one when the task is cleared. What isn't
        acknowledged from an earlier round is tried again, its attempts counted anew.
    :param max_attempts: POSTs of one message in a round at most; one whose outcome a crash has hidden counts.
        It is not stored: each try says how many there may be.
    :ivar acknowledged: acknowledged messages that have no entry any more.
    :ivar acknowledged_attempts: how many POSTs these have taken.
    """

    def __init__(self, generation: int = 0, max_attempts: int = 3) -> None:
        self.generation = generation
        self.max_attempts = max_attempts
        self.redelivered: list[str] = []  # those begun in this generation
        self.acknowledged = AcknowledgedIds()
        self.acknowledged_attempts = 0
        self._about: dict[str, str] = {}  # of messages whose payloads may not come again
        self._blocks: list[dict[str, LedgerEntry]] = []
        self._block_of: dict[str, int] = {}
        self._before: dict[str, LedgerEntry] = {}  # of those under way: what they were
        self._dirty: set[int] = set()
        self._stored_head: object = None

    def __getitem__(self, message: str) -> LedgerEntry:
        block = self._block_of.get(message)
        if block is not None:
            return self._blocks[block][message]
        return MOVED if message in self.acknowledged else UNSENT

    def is_settled(self, message: str) -> bool:
        """Return whether no further POST of it is to be made in this round."""
        return self._settles(self[message])

    def _settles(self, entry: LedgerEntry) -> bool:
        return entry.state in (ACKNOWLEDGED, GONE) or entry.attempts >= self.max_attempts

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

    def text_of(self, message: str) -> str:
        """Return what is known of a message, for another task's ledger to go on from; see ``go_on_from``."""
        entry = self[message]
        return "" if entry == UNSENT else f"{_CODES[entry.state]}{entry.attempts}"

    def go_on_from(self, message: str, text: str) -> None:
        """Note what another task's ledger has of a message, where this one has nothing yet.

        :raises InvalidState: if ``text_of`` can't have returned ``text``.
        """
        if text and self[message] == UNSENT:
            self._note(message, _read_entry(message, text)[0])

    def expect(self, message: str, about: str) -> None:
        """Note a message that is to be POSTed, so that it is missed if its payload never comes again.

        :param about: what to say of it then, up to 30 characters.
        """
        entry = self[message]
        if entry.state == ACKNOWLEDGED:
            return
        self._about[message] = about
        if entry == UNSENT:
            self._note(message, NEW_ROUND)

    def unacknowledged(self) -> Iterator[tuple[str, str]]:
        """Yield the messages that are noted and not acknowledged, and what they are about."""
        for block in self._blocks:
            for message, entry in block.items():
                if entry.state != ACKNOWLEDGED:
                    yield message, self._about.get(message, "")

    def move_acknowledged(self) -> list[str]:
        """Add what is acknowledged to the set of ids; return it, to be forgotten once that is stored."""
        found = [m for block in self._blocks for m, e in block.items() if e.state == ACKNOWLEDGED]
        fresh = [message for message in found if message not in self.acknowledged]
        self.acknowledged.add(fresh)
        self.acknowledged_attempts += sum(self[message].attempts for message in fresh)
        return found

    def forget(self, messages: Iterable[str]) -> None:
        """Drop entries. Those behind them move up: what is written block by block is whole at any moment."""
        dropped = [message for message in messages if message in self._block_of]
        if not dropped:
            return
        first = min(self._block_of[message] for message in dropped)
        moving = {m: entry for block in self._blocks[first:] for m, entry in block.items()}
        del self._blocks[first:]
        self._dirty = {block for block in self._dirty if block < first}
        for message in moving:
            del self._block_of[message]
        for message in dropped:
            del moving[message]
            self._about.pop(message, None)
        for message, entry in moving.items():
            self._note(message, entry)

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

    def changed(self) -> Iterator[tuple[str, Any]]:
        """Yield what is to be stored, name and JSON value, and count it as stored once it was taken.

        The head comes last, so that it never counts a block that isn't there.
        """
        for number, piece in self.acknowledged.unstored():
            yield f"archive/{number}", piece
        for block in sorted(self._dirty):
            yield str(block), {m: self._text(m, e) for m, e in self._blocks[block].items()}
            self._dirty.discard(block)
        head = {
            "generation": self.generation,
            "redelivered": list(self.redelivered),
            "blocks": len(self._blocks),
        }
        if self.acknowledged.pieces:
            head |= {"archive": self.acknowledged.pieces, "archived_attempts": self.acknowledged_attempts}
        has_content = self._blocks or self.acknowledged.pieces or self._stored_head is not None
        if has_content and head != self._stored_head:
            yield "head", head
            self._stored_head = head

    def _text(self, message: str, entry: LedgerEntry) -> str:
        about = self._about.get(message)
        text = f"{_CODES[entry.state]}{entry.attempts}"
        return text if about is None else f"{text} {about}"

    @classmethod
    def load(
        cls,
        head: Mapping[str, Any],
        blocks: Sequence[object],
        generation: int,
        max_attempts: int,
        acknowledged: AcknowledgedIds | None = None,
    ) -> Ledger:
        """Return the ledger that was stored; all of it is to be stored again, elsewhere.

        :param head: what was stored as ``head``, checked.
        :param blocks: what was stored as ``0`` and so on, as many as the head counts.
        :param generation: the present round of attempts.
        :param max_attempts: POSTs of one message in a round at most.
        :param acknowledged: what was stored as ``archive/0`` and so on, as many as the head counts there.
        :raises InvalidState: if a block can't be read; its key is the number.
        """
        ledger = cls(generation, max_attempts)
        ledger._stored_head = ELSEWHERE
        if acknowledged is not None:
            ledger.acknowledged = acknowledged
            ledger.acknowledged_attempts = head["archived_attempts"]
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
                entry, about = _read_entry(str(number), text)
                if about:
                    ledger._about[message] = about
                entries[message] = NEW_ROUND if is_new_round and entry.state != ACKNOWLEDGED else entry
        # What is still to be sent comes together, so that few blocks change while it is.
        for message, entry in sorted(entries.items(), key=lambda item: not ledger._settles(item[1])):
            ledger._note(message, entry)
        return ledger


def _read_entry(key: str, text: object) -> tuple[LedgerEntry, str]:
    state, _, about = text.partition(" ") if isinstance(text, str) else ("", "", "")
    if state[:1] in _STATES and state[1:].isdecimal():
        return _entry(_STATES[state[0]], int(state[1:])), about
    raise InvalidState(key, "an entry of the ledger can't be read")

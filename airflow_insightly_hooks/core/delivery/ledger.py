"""The ledger of what a deliver task has sent: pure, stored by whoever holds it.

The ledger keeps, for each message id, in which state its payload is and how often it was POSTed in this round
(a round begins when the task is cleared, or a message is asked to be sent again):

- ``unsent``: no POST was made of it;
- ``in doubt``: a POST is about to be made, or was, and nothing is recorded of its outcome (it is under way,
  or the try was killed); it counts as made;
- ``acknowledged``: the receiver took it; it is not POSTed again unless it is asked to be sent again;
- ``failed``: no positive acknowledgement; POSTed again until its attempts are used up;
- ``gone``: the receiver said that it will never take it (410); not POSTed again in this round.

What a ledger asks to be stored are blocks of a bounded size, so that one entry of a state store stays small
however many payloads there are, and a head that counts them; only changed blocks are asked for again.

Beside its state, the ledger keeps of each message which change it tells of, and what came of its last POSTs
(``core.delivery.delivery_record``): so the ledger is the delivery record, too, that can be searched after the
run, and it knows what is missing where a payload never comes again.

A task that can't hold all of its messages at once has the ledger move what is acknowledged to a set of ids
(``core.delivery.acknowledged_ids``). What was kept of these messages is written once, in pieces of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.delivery.acknowledged_ids import AcknowledgedIds
from airflow_insightly_hooks.core.delivery.delivery_record import (
    ACKNOWLEDGED,
    FAILED,
    GONE,
    IN_DOUBT,
    LedgerEntry,
    PostOutcome,
    TextTable,
    add_outcome,
    entry_of,
    entry_text,
    read_entry,
)
from airflow_insightly_hooks.core.delivery.resend_requests import LedgerRequest
from airflow_insightly_hooks.core.errors import InvalidState

__all__ = [
    "ACKNOWLEDGED",
    "FAILED",
    "GONE",
    "IN_DOUBT",
    "Ledger",
    "LedgerEntry",
    "read_entry",
]

BLOCK_BYTES = 57_000
"""Of JSON that a block has at most, once all of its messages have as many outcomes as are kept."""
ROOM_FOR_OUTCOMES = 110
"""Bytes that the outcomes of a message, its state and the JSON around it take at most."""
USUAL_DETAILS = 60
"""Bytes that the change of a message takes, where it is not known yet."""

ELSEWHERE: Mapping[str, Any] = {}
"""Stands for the head of a ledger that was stored under other keys."""

UNSENT = LedgerEntry("unsent", 0)
NEW_ROUND = LedgerEntry(FAILED, 0)
MOVED = LedgerEntry(ACKNOWLEDGED, 0)


class Ledger:
    """The states of a task's messages.

    :param generation: which round of attempts this is; another one when the task is cleared. What isn't
        acknowledged from an earlier round is tried again, its attempts counted anew.
    :param max_attempts: POSTs of one message in a round at most; one whose outcome a crash has hidden counts.
        It is not stored: each try says how many there may be.
    :ivar resends: the ids of the requests to send again that were begun, and in which generation.
    :ivar requested: the messages that are sent again in this generation because of a request.
    :ivar is_restricted: whether no others are sent in this generation.
    :ivar acknowledged: acknowledged messages that have no entry any more.
    :ivar acknowledged_attempts: how many POSTs these have taken.
    :ivar texts: the texts of errors and of receivers' answers.
    :ivar about: what is to be known of the task besides, such as its receiver; a small JSON object.
    """

    def __init__(self, generation: int = 0, max_attempts: int = 3) -> None:
        self.generation = generation
        self.max_attempts = max_attempts
        self.resends: dict[str, int] = {}  # the requests that were begun, and in which generation
        self.requested: set[str] = set()  # messages that were asked to be sent again in this round
        self.is_restricted = False
        self.acknowledged = AcknowledgedIds()
        self.acknowledged_attempts = 0
        self._twice = 0  # entries of messages that are among these
        self._acknowledged_at: str | None = None  # the last time that anything was
        self.texts = TextTable()
        self.about: dict[str, Any] = {}
        self._details: dict[str, str] = {}  # which change a message tells of, and what came of its POSTs
        self._counts: Counter[str] = Counter()  # messages by state
        self._done: list[dict[str, str]] = []  # what is to be stored of those that have no entry any more
        self._done_pieces = 0
        self.earlier_pieces: list[tuple[str, int]] = []  # where earlier tries have stored that
        self._blocks: list[dict[str, LedgerEntry]] = []
        self._room = 0  # bytes left in the last block
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
        return self._settles(self[message]) or self.is_held(message)

    def is_held(self, message: str) -> bool:
        """Return whether only others were asked to be sent in this round."""
        return self.is_restricted and message not in self.requested

    def _settles(self, entry: LedgerEntry) -> bool:
        return entry.state in (ACKNOWLEDGED, GONE) or entry.attempts >= self.max_attempts

    def posting(self, message: str) -> None:
        """Note that a POST of it is about to be made: until its outcome is noted, it is in doubt."""
        before = self._before[message] = self[message]
        self._note(message, entry_of(IN_DOUBT, before.attempts + 1))

    def not_posted(self, message: str, outcome: PostOutcome | None = None) -> None:
        """Take back a ``posting``: nothing left this machine, so it was no attempt.

        A ``posting`` that an interruption kept from its end, or its beginning, is taken back as well.

        :param outcome: why nothing was sent, to be kept.
        """
        before = self._before.pop(message, None)
        if before is not None:
            if before == UNSENT:
                self._remove(message)
            else:
                self._note(message, before)
        if outcome is not None:
            self.keep_outcome(message, outcome)

    def answered(self, message: str, state: str, outcome: PostOutcome | None = None) -> None:
        """Note the outcome of its POST: acknowledged, failed or gone.

        :param outcome: more about it, to be kept.
        """
        self._before.pop(message, None)
        if outcome is not None:
            self.keep_outcome(message, outcome)
            if state == ACKNOWLEDGED:
                self._acknowledged_at = iso_time(outcome.at)
        self._note(message, entry_of(state, self[message].attempts))

    def keep_outcome(self, message: str, outcome: PostOutcome) -> None:
        """Keep what came of a POST, or why none was made; the message's state stays as it is."""
        details = self._details.get(message)
        if details is not None:
            self._details[message] = add_outcome(details, outcome, self.texts)
            if (block := self._block_of.get(message)) is not None:
                self._dirty.add(block)

    def text_of(self, message: str) -> str:
        """Return what is known of a message, for another task's ledger to go on from; see ``go_on_from``."""
        entry = self[message]
        return "" if entry in (UNSENT, NEW_ROUND) else entry_text(entry)

    def go_on_from(self, message: str, text: str) -> None:
        """Note what another task's ledger has of a message, where this one has nothing yet.

        :raises InvalidState: if ``text_of`` can't have returned ``text``.
        """
        if text and self[message] == UNSENT:
            self._note(message, read_entry(message, text)[0])

    def expect(self, message: str, about: str) -> None:
        """Note a message that is to be POSTed, so that it is missed if its payload never comes again.

        :param about: which change it tells of, as ``delivery_record.about_of`` writes it.
        """
        entry = self[message]
        if entry == MOVED:
            return
        self._details.setdefault(message, about)
        if entry == UNSENT:
            self._note(message, NEW_ROUND)

    def details_of(self, message: str) -> str:
        """Return what is kept of a message; empty if nothing is."""
        return self._details.get(message, "")

    def unacknowledged(self) -> Iterator[tuple[str, str]]:
        """Yield the messages that are noted and not acknowledged, and what is kept of them."""
        for message, entry, details in self.entries():
            if entry.state != ACKNOWLEDGED:
                yield message, details

    def entries(self) -> Iterator[tuple[str, LedgerEntry, str]]:
        """Yield the messages that have an entry, and what is kept of them."""
        for block in self._blocks:
            for message, entry in block.items():
                yield message, entry, self._details.get(message, "")

    def move_acknowledged(self) -> list[str]:
        """Add what is acknowledged to the set of ids; return it, to be forgotten once that is stored."""
        found = [m for block in self._blocks for m, e in block.items() if e.state == ACKNOWLEDGED]
        fresh = [message for message in found if message not in self.acknowledged]
        self.acknowledged.add(fresh)
        self._twice += len(fresh)
        self.acknowledged_attempts += sum(self[message].attempts for message in fresh)
        self._keep_done(found)
        return found

    def _keep_done(self, messages: Iterable[str]) -> None:
        """Have what is kept of messages stored in pieces of a bounded size."""
        room = 0
        for message in messages:
            text = self._text(message, self[message])
            room -= len(message) + len(text) + 8
            if room < 0:
                self._done.append({})
                self._done_pieces += 1
                room = BLOCK_BYTES - len(message) - len(text) - 8
            self._done[-1][message] = text

    def forget(self, messages: Iterable[str]) -> None:
        """Drop entries. Those behind them move up: what is written block by block is whole at any moment."""
        dropped = [message for message in messages if message in self._block_of]
        if not dropped:
            return
        first = min(self._block_of[message] for message in dropped)
        moving = {m: entry for block in self._blocks[first:] for m, entry in block.items()}
        del self._blocks[first:]
        self._room = 0
        self._dirty = {block for block in self._dirty if block < first}
        for message, entry in moving.items():
            del self._block_of[message]
            self._counts[entry.state] -= 1
        for message in dropped:
            self._twice -= message in self.acknowledged
            del moving[message]
            self._details.pop(message, None)
        for message, entry in moving.items():
            self._note(message, entry)

    def begin_resends(self, requests: Sequence[LedgerRequest], *, is_new_round: bool) -> None:
        """Begin new attempts for the messages of requests that were not begun yet, even acknowledged ones.

        :param requests: all that are kept; the messages of those that this generation has begun go on.
        :param is_new_round: whether this is the first try of the generation.
        """
        fresh = [request for request in requests if request.id not in self.resends]
        if is_new_round:
            self.is_restricted = any(request.clears for request in fresh)
        kept = {request.id for request in requests}
        self.resends = {request: number for request, number in self.resends.items() if request in kept}
        for request in fresh:
            self.resends[request.id] = self.generation
            for message, about in request.messages.items():
                if about:
                    self._details.setdefault(message, about)
                self._twice += message not in self._block_of and message in self.acknowledged
                self._note(message, NEW_ROUND)
        for request in requests:
            if self.resends[request.id] == self.generation:
                self.requested.update(request.messages)

    def _note(self, message: str, entry: LedgerEntry) -> None:
        block = self._block_of.get(message)
        if block is None:
            size = len(message) + len(self._details.get(message) or " " * USUAL_DETAILS) + ROOM_FOR_OUTCOMES
            if not self._blocks or self._room < size:
                self._blocks.append({})
                self._room = BLOCK_BYTES
            self._room -= size
            block = self._block_of[message] = len(self._blocks) - 1
        entries = self._blocks[block]
        if (before := entries.get(message)) is not None:
            self._counts[before.state] -= 1
        entries[message] = entry
        self._counts[entry.state] += 1
        self._dirty.add(block)

    def _remove(self, message: str) -> None:
        block = self._block_of.pop(message, None)
        if block is not None and (before := self._blocks[block].pop(message, None)) is not None:
            self._counts[before.state] -= 1
            self._dirty.add(block)

    def changed(self) -> Iterator[tuple[str, Any]]:
        """Yield what is to be stored, name and JSON value, and count it as stored once it was taken.

        The head comes last, so that it never counts a block that isn't there.
        """
        for number, texts in self.texts.unstored():
            yield f"texts/{number}", texts
        while self._done:
            yield f"done/{self._done_pieces - len(self._done)}", self._done[0]
            del self._done[0]
        for number, piece in self.acknowledged.unstored():
            yield f"archive/{number}", piece
        for block in sorted(self._dirty):
            yield str(block), {m: self._text(m, e) for m, e in self._blocks[block].items()}
            self._dirty.discard(block)
        head = {
            "generation": self.generation,
            "blocks": len(self._blocks),
            "counts": {state: count for state, count in sorted(self._counts.items()) if count},
        }
        if self.resends:
            head |= {"resends": dict(self.resends), "is_restricted": self.is_restricted}
        if self.about:
            head["about"] = dict(self.about)
        if self._done_pieces or self.earlier_pieces:
            head |= {"done": self._done_pieces, "earlier": [list(pieces) for pieces in self.earlier_pieces]}
        if self.acknowledged.pieces:
            head |= {"archive": self.acknowledged.pieces, "archived_attempts": self.acknowledged_attempts}
            head["archived"] = len(self.acknowledged) - self._twice
        if self._acknowledged_at is not None:
            head["acknowledged_at"] = self._acknowledged_at
        has_content = self._blocks or self.acknowledged.pieces or self._stored_head is not None
        if has_content and head != self._stored_head:
            yield "head", head
            self._stored_head = head

    def _text(self, message: str, entry: LedgerEntry) -> str:
        details = self._details.get(message)
        text = entry_text(entry)
        return text if details is None else f"{text} {details}"

    @classmethod
    def load(
        cls,
        head: Mapping[str, Any],
        blocks: Sequence[object],
        generation: int,
        max_attempts: int,
        acknowledged: AcknowledgedIds | None = None,
        texts: TextTable | None = None,
        requests: Sequence[LedgerRequest] = (),
    ) -> Ledger:
        """Return the ledger that was stored; all of it is to be stored again, elsewhere.

        :param head: what was stored as ``head``, checked.
        :param blocks: what was stored as ``0`` and so on, as many as the head counts.
        :param generation: the present round of attempts.
        :param max_attempts: POSTs of one message in a round at most.
        :param acknowledged: what was stored as ``archive/0`` and so on, as many as the head counts there.
        :param texts: what was stored as ``texts/0`` and so on.
        :param requests: the requests to send again.
        :raises InvalidState: if a block can't be read; its key is the number.
        """
        ledger = cls(generation, max_attempts)
        ledger._stored_head = ELSEWHERE
        if acknowledged is not None:
            ledger.acknowledged = acknowledged
            ledger.acknowledged_attempts = head["archived_attempts"]
        if texts is not None:
            ledger.texts = texts
        acknowledged_at = head.get("acknowledged_at")
        ledger._acknowledged_at = acknowledged_at if isinstance(acknowledged_at, str) else None
        is_new_round = head["generation"] != generation
        resends = head.get("resends")
        ledger.resends = dict(resends) if isinstance(resends, Mapping) else {}
        ledger.is_restricted = head.get("is_restricted") is True
        # A task that was cleared for a request leaves all others as they are.
        is_for_requests = any(r.clears and r.id not in ledger.resends for r in requests)
        starts_anew = is_new_round and not is_for_requests
        entries: dict[str, LedgerEntry] = {}
        for number, block in enumerate(blocks):
            if not isinstance(block, Mapping):
                raise InvalidState(
                    str(number), "a part of the ledger is missing: it can't be told what was delivered"
                )
            for message, text in block.items():
                entry, details = read_entry(str(number), text)
                if details:
                    ledger._details[message] = details
                entries[message] = NEW_ROUND if starts_anew and entry.state != ACKNOWLEDGED else entry
        # What is still to be sent comes together, so that few blocks change while it is.
        for message, entry in sorted(entries.items(), key=lambda item: not ledger._settles(item[1])):
            ledger._note(message, entry)
            ledger._twice += message in ledger.acknowledged
        ledger.begin_resends(requests, is_new_round=is_new_round)
        return ledger

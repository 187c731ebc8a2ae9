"""The ledger: which messages a deliver task has sent. It does no I/O itself; its user stores it.

For each message id, the ledger keeps the state and how often the message was POSTed in this round. A round
begins when the task is cleared, or when someone requests to send a message again. The states:

- ``unsent``: the message was not POSTed.
- ``in doubt``: a POST is about to start, or has started, and its outcome is not recorded: it is still
  running, or the try was killed. The POST counts as made.
- ``acknowledged``: the receiver accepted the message. It is not POSTed again, unless that is requested.
- ``failed``: there was no positive acknowledgement. The message is POSTed again until its attempts are used
  up.
- ``gone``: the receiver said that it will never accept the message (410). It is not POSTed again in this
  round.

A ledger is stored as blocks and a head. A block has a limited size, so that each value of a state store stays
small, however many payloads there are. The head counts the blocks. Only changed blocks are stored again.

The ledger also keeps the change that each message reports, and the outcomes of its last POSTs
(``core.delivery.delivery_record``). So the ledger is also the delivery record, which can be searched after
the run. And it knows which messages are missing if a payload is not there any more in a later try.

If a task can't hold all of its messages at once, the ledger moves the acknowledged ones to a set of ids
(``core.delivery.acknowledged_ids``). The records of these messages are written once, in pieces of their own.
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
"""How many bytes of JSON a block has at most, also when all of its messages have the most outcomes."""
ROOM_FOR_OUTCOMES = 110
"""How many bytes the outcomes of a message, its state and the JSON around it take at most."""
USUAL_DETAILS = 60
"""How many bytes to reserve for the change of a message while the change is not known."""

ELSEWHERE: Mapping[str, Any] = {}
"""Stands for the head of a ledger that was stored under other keys."""

UNSENT = LedgerEntry("unsent", 0)
NEW_ROUND = LedgerEntry(FAILED, 0)
MOVED = LedgerEntry(ACKNOWLEDGED, 0)


class Ledger:
    """The states of a task's messages.

    :param generation: the number of the round of attempts. It changes when the task is cleared. Messages that
        an earlier round left unacknowledged are tried again, and their attempts are counted from 0.
    :param max_attempts: how many POSTs of one message a round may have. A POST whose outcome is not known
        because of a crash counts. The number is not stored: each try gives it.
    :ivar resends: the ids of the requests to send again that were begun, and the generation of each.
    :ivar requested: the messages that are sent again in this generation because of a request.
    :ivar is_restricted: whether this generation sends only the requested messages.
    :ivar acknowledged: acknowledged messages that have no entry any more.
    :ivar acknowledged_attempts: how many POSTs these messages took.
    :ivar texts: the texts of errors and of receivers' answers.
    :ivar about: further facts about the task, such as its receiver; a small JSON object.
    """

    def __init__(self, generation: int = 0, max_attempts: int = 3) -> None:
        self.generation = generation
        self.max_attempts = max_attempts
        self.resends: dict[str, int] = {}
        self.requested: set[str] = set()
        self.is_restricted = False
        self.acknowledged = AcknowledgedIds()
        self.acknowledged_attempts = 0
        self._in_both = 0  # how many of these messages have an entry, too
        self._acknowledged_at: str | None = None  # when a message was acknowledged last
        self.texts = TextTable()
        self.about: dict[str, Any] = {}
        self._details: dict[str, str] = {}  # the change of each message, and the outcomes of its POSTs
        self._counts: Counter[str] = Counter()  # messages by state
        self._done: list[dict[str, str]] = []  # to be stored: the records of messages without an entry
        self._done_pieces = 0
        self.earlier_pieces: list[tuple[str, int]] = []  # where earlier tries stored such records
        self._blocks: list[dict[str, LedgerEntry]] = []
        self._room = 0  # bytes left in the last block
        self._block_of: dict[str, int] = {}
        self._before: dict[str, LedgerEntry] = {}  # the earlier entries of messages that are being POSTed
        self._dirty: set[int] = set()
        self._stored_head: object = None

    def __getitem__(self, message: str) -> LedgerEntry:
        block = self._block_of.get(message)
        if block is not None:
            return self._blocks[block][message]
        return MOVED if message in self.acknowledged else UNSENT

    def is_settled(self, message: str) -> bool:
        """Return whether the message is not to be POSTed any more in this round."""
        return self._settles(self[message]) or self.is_held(message)

    def is_held(self, message: str) -> bool:
        """Return whether this round sends only other messages, because of a request."""
        return self.is_restricted and message not in self.requested

    def _settles(self, entry: LedgerEntry) -> bool:
        return entry.state in (ACKNOWLEDGED, GONE) or entry.attempts >= self.max_attempts

    def posting(self, message: str) -> None:
        """Note that a POST of the message is about to start. It is in doubt until the outcome is noted."""
        before = self._before[message] = self[message]
        self._note(message, entry_of(IN_DOUBT, before.attempts + 1))

    def not_posted(self, message: str, outcome: PostOutcome | None = None) -> None:
        """Undo ``posting``: nothing left this machine, so it does not count as an attempt.

        This also works if ``posting`` was interrupted, or was not called.

        :param outcome: why nothing was sent; it is kept.
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
        """Note the outcome of the message's POST: acknowledged, failed or gone.

        :param outcome: more about the outcome; it is kept.
        """
        self._before.pop(message, None)
        if outcome is not None:
            self.keep_outcome(message, outcome)
            if state == ACKNOWLEDGED:
                self._acknowledged_at = iso_time(outcome.at)
        self._note(message, entry_of(state, self[message].attempts))

    def keep_outcome(self, message: str, outcome: PostOutcome) -> None:
        """Keep the outcome of a POST, or why no POST was made. The message's state doesn't change."""
        details = self._details.get(message)
        if details is not None:
            self._details[message] = add_outcome(details, outcome, self.texts)
            if (block := self._block_of.get(message)) is not None:
                self._dirty.add(block)

    def text_of(self, message: str) -> str:
        """Return the message's entry as a text, for another task's ledger (``go_on_from``)."""
        entry = self[message]
        return "" if entry in (UNSENT, NEW_ROUND) else entry_text(entry)

    def go_on_from(self, message: str, text: str) -> None:
        """Take over a message's entry from another task's ledger, if this ledger has no entry yet.

        :param text: what ``text_of`` returned.
        :raises InvalidState: if ``text`` can't be read.
        """
        if text and self[message] == UNSENT:
            self._note(message, read_entry(message, text)[0])

    def expect(self, message: str, about: str) -> None:
        """Note that a message is to be POSTed, so that it is known to be missing if its payload is lost.

        :param about: the change that it reports, as ``delivery_record.about_of`` writes it.
        """
        entry = self[message]
        if entry == MOVED:
            return
        self._details.setdefault(message, about)
        if entry == UNSENT:
            self._note(message, NEW_ROUND)

    def details_of(self, message: str) -> str:
        """Return the record of a message: its change and its outcomes. It is empty if there is none."""
        return self._details.get(message, "")

    def unacknowledged(self) -> Iterator[tuple[str, str]]:
        """Yield the messages that have an entry and are not acknowledged, each with its record."""
        for message, entry, details in self.entries():
            if entry.state != ACKNOWLEDGED:
                yield message, details

    def entries(self) -> Iterator[tuple[str, LedgerEntry, str]]:
        """Yield the messages that have an entry, each with its entry and its record."""
        for block in self._blocks:
            for message, entry in block.items():
                yield message, entry, self._details.get(message, "")

    def move_acknowledged(self) -> list[str]:
        """Add the acknowledged messages to the set of ids, and return them.

        Call ``forget`` with them once the set is stored.
        """
        found = [m for block in self._blocks for m, e in block.items() if e.state == ACKNOWLEDGED]
        fresh = [message for message in found if message not in self.acknowledged]
        self.acknowledged.add(fresh)
        self._in_both += len(fresh)
        self.acknowledged_attempts += sum(self[message].attempts for message in fresh)
        self._keep_done(found)
        return found

    def _keep_done(self, messages: Iterable[str]) -> None:
        """Put the records of messages into pieces of a limited size, to be stored."""
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
        """Drop entries. Later entries move up, so that the stored blocks are consistent at any moment."""
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
            self._in_both -= message in self.acknowledged
            del moving[message]
            self._details.pop(message, None)
        for message, entry in moving.items():
            self._note(message, entry)

    def begin_resends(self, requests: Sequence[LedgerRequest], *, is_new_round: bool) -> None:
        """Begin new attempts for the messages of new requests, also for acknowledged messages.

        :param requests: all requests that are kept. Messages of requests that this generation has begun
            continue.
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
                self._in_both += message not in self._block_of and message in self.acknowledged
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
        """Yield the name and the JSON value of each part to store. A part counts as stored after that.

        The head comes last, so that it never counts a block that isn't stored.
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
            head["archived"] = len(self.acknowledged) - self._in_both
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
        """Return the ledger that was stored. All of its parts are to be stored again, elsewhere.

        :param head: what was stored as ``head``, checked.
        :param blocks: what was stored as ``0`` and so on, as many as the head counts.
        :param generation: the number of the present round of attempts.
        :param max_attempts: how many POSTs of one message a round may have.
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
        # If a task was cleared for a request, all other messages stay as they are.
        is_for_requests = any(r.clears and r.id not in ledger.resends for r in requests)
        starts_anew = is_new_round and not is_for_requests
        entries: dict[str, LedgerEntry] = {}
        for number, block in enumerate(blocks):
            if not isinstance(block, Mapping):
                raise InvalidState(
                    str(number), "a part of the ledger is missing, so it is not known what was delivered"
                )
            for message, text in block.items():
                entry, details = read_entry(str(number), text)
                if details:
                    ledger._details[message] = details
                entries[message] = NEW_ROUND if starts_anew and entry.state != ACKNOWLEDGED else entry
        # Messages that are still to be sent come first, so that sending them changes few blocks.
        for message, entry in sorted(entries.items(), key=lambda item: not ledger._settles(item[1])):
            ledger._note(message, entry)
            ledger._in_both += message in ledger.acknowledged
        ledger.begin_resends(requests, is_new_round=is_new_round)
        return ledger

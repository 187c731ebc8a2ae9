"""What the ledger keeps of a message: its state, the change that it tells of, and its last POSTs.

It is one line of text a message, so that 100,000 messages take about 10 MB::

    A2 Contacts 123 updated 2026-01-31T08:00:00Z 503@1769846401+120!0 200@1769846461+35

First come the state's letter, and the POSTs that were begun in this round. After the change come the last
outcomes: the status (``-``: no answer came; ``~``: nothing was sent), when it ended (seconds since 1970), how
long it took (milliseconds), and the numbers of the error's text and of the text of the receiver's answer in a
``TextTable``. No contents of a record, but for what a kept answer repeats; no credentials.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from functools import cache
from typing import NamedTuple

from airflow_insightly_hooks.core.detection.changes import EVENTS
from airflow_insightly_hooks.core.errors import InvalidState

__all__ = [
    "ACKNOWLEDGED",
    "FAILED",
    "GONE",
    "IN_DOUBT",
    "About",
    "LedgerEntry",
    "PostOutcome",
    "TextTable",
    "about_of",
    "add_outcome",
    "entry_of",
    "entry_text",
    "read_details",
    "read_entry",
]

ACKNOWLEDGED = "acknowledged"
FAILED = "failed"
GONE = "gone"
IN_DOUBT = "in doubt"

MOST_OUTCOMES = 3
"""Outcomes that are kept of a message: as many as it has attempts by default."""
LONGEST_TEXT = 850
"""Characters of an error, or of a receiver's answer."""
PIECE_BYTES = 50_000
MOST_PIECES = 5
"""Bounds of a ``TextTable``: a text that it has no room for is left to the task's log."""
NO_ROOM = 999_999
"""Stands for texts that there was no room for; no text has this number."""
TEXT_IS_GONE = "see the task's log: there were too many different errors"

_TIME = re.compile(r"[0-9TZ:.+-]{0,35}")
_OUTCOME = re.compile(r"([0-9]+|-|~)@([0-9]+)\+([0-9]+)(?:!([0-9]*))?(?:!([0-9]*))?")
_CODES = {ACKNOWLEDGED: "A", FAILED: "F", GONE: "G", IN_DOUBT: "D"}
_STATES = {code: state for state, code in _CODES.items()}


class LedgerEntry(NamedTuple):
    """What is known of a message: its state, and how many POSTs of it were begun in this round."""

    state: str
    attempts: int


entry_of = cache(LedgerEntry)  # there are few different ones


class About(NamedTuple):
    """The change that a message tells of."""

    record_type: str
    record_id: int
    event: str
    changed_at: str  # ISO 8601, as the change has it; "" where it isn't known


class PostOutcome(NamedTuple):
    """What came of one POST, or why none was made."""

    at: datetime  # UTC: when it ended
    elapsed: float  # seconds
    status: int | None
    error: str | None
    response: str | None = None  # the beginning of the answer, where the connection keeps it
    is_sent: bool = True


def entry_text(entry: LedgerEntry) -> str:
    """Return how an entry is stored; ``read_entry`` reads it again."""
    return f"{_CODES[entry.state]}{entry.attempts}"


def read_entry(key: str, text: object) -> tuple[LedgerEntry, str]:
    """Return what a stored text says of a message: its entry, and what is kept of it.

    :raises InvalidState: with the key, if it can't be read.
    """
    state, _, details = text.partition(" ") if isinstance(text, str) else ("", "", "")
    if state[:1] in _STATES and state[1:].isdecimal():
        return entry_of(_STATES[state[0]], int(state[1:])), details
    raise InvalidState(key, "an entry of the ledger can't be read")


def about_of(record_type: str, record_id: int, event: str, changed_at: str) -> str:
    """Return the text for a change."""
    time = str(changed_at)  # a payload of one's own may hold anything
    time = time if _TIME.fullmatch(time) else ""
    return f"{record_type} {record_id} {event} {time}"


def add_outcome(details: str, outcome: PostOutcome, texts: TextTable) -> str:
    """Return the text of a message with one more outcome, the oldest one left out if there are too many."""
    numbers = [texts.add(text) for text in (outcome.error, outcome.response)]
    while numbers and numbers[-1] == "":
        numbers.pop()
    status = "~" if not outcome.is_sent else "-" if outcome.status is None else str(outcome.status)
    at, elapsed = int(outcome.at.timestamp()), round(max(outcome.elapsed, 0.0) * 1000)
    added = f"{status}@{at}+{elapsed}{''.join(f'!{number}' for number in numbers)}"
    words = details.split(" ")
    before = [word for word in words if "@" in word][1 - MOST_OUTCOMES :]
    return " ".join([*(word for word in words if "@" not in word), *before, added])


def read_details(details: str, texts: TextTable) -> tuple[About | None, list[PostOutcome]]:
    """Return what a text says: the change, and the outcomes, the oldest first.

    The change is ``None`` where an earlier version of this package has kept none. That of a task that
    delivers batch by batch had a record's id and its event alone.
    """
    outcomes: list[PostOutcome] = []
    change: list[str] = []
    for word in details.split():
        if "@" not in word:
            change.append(word)
        elif (outcome := _outcome(word, texts)) is not None:
            outcomes.append(outcome)
    if len(change) == 2:
        change = ["", *change, ""]
    if len(change) == 3:  # without the time of the change
        change.append("")
    if len(change) != 4 or not change[1].isdecimal() or change[2] not in EVENTS:
        return None, outcomes
    return About(change[0], int(change[1]), change[2], change[3]), outcomes


def _outcome(word: str, texts: TextTable) -> PostOutcome | None:
    found = _OUTCOME.fullmatch(word)
    if found is None:
        return None
    status, at, elapsed, error, response = found.groups()
    return PostOutcome(
        datetime.fromtimestamp(int(at), timezone.utc),
        int(elapsed) / 1000,
        int(status) if status.isdecimal() else None,
        texts.get(error),
        texts.get(response),
        status != "~",
    )


class TextTable:
    """Texts by numbers: the same error of many messages is kept once. It only grows, up to a bound.

    It is stored in pieces, of which the last one alone changes.
    """

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._numbers: dict[str, int] = {}
        self._pieces: list[list[str]] = []
        self._size = 0  # of the last piece, in bytes
        self._dirty: set[int] = set()

    @property
    def pieces(self) -> int:
        """How many there are, stored or to be stored."""
        return len(self._pieces)

    def add(self, text: str | None) -> str:
        """Return the number of a text as an outcome holds it: empty without a text."""
        if not text:
            return ""
        text = text[:LONGEST_TEXT]
        number = self._numbers.get(text)
        if number is None:
            number = self._append(text)
        return str(number)

    def _append(self, text: str) -> int:
        size = len(json.dumps(text)) + 2
        if not self._pieces or self._size + size > PIECE_BYTES:
            if len(self._pieces) == MOST_PIECES:
                return NO_ROOM
            self._pieces.append([])
            self._size = 0
        self._size += size
        self._pieces[-1].append(text)
        self._dirty.add(len(self._pieces) - 1)
        number = self._numbers[text] = len(self._texts)
        self._texts.append(text)
        return number

    def get(self, number: str | None) -> str | None:
        """Return the text of a number that ``add`` has returned."""
        if not number:
            return None
        place = int(number)
        return self._texts[place] if place < len(self._texts) else TEXT_IS_GONE

    def unstored(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the pieces that are to be stored, number and texts, and count them as stored once taken."""
        for number in sorted(self._dirty):
            yield number, list(self._pieces[number])
            self._dirty.discard(number)

    @classmethod
    def load(cls, pieces: Iterable[object]) -> TextTable:
        """Return the table that was stored; all of it is to be stored again, elsewhere.

        :raises InvalidState: if a piece can't be read; its key is the number.
        """
        table = cls()
        for number, piece in enumerate(pieces):
            if not isinstance(piece, list) or not all(isinstance(text, str) for text in piece):
                raise InvalidState(str(number), "a part of the errors' texts is missing")
            table._pieces.append(list(piece))
            table._dirty.add(number)
            for text in piece:
                table._numbers.setdefault(text, len(table._texts))
                table._texts.append(text)
            table._size = sum(len(json.dumps(text)) + 2 for text in piece)
        return table

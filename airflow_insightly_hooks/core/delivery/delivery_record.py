"""The ledger's record of a message: its state, the change that it reports, and its last POSTs.

A record is one line of text, so 100,000 messages take about 10 MB::

    A2 Contacts 123 updated 2026-01-31T08:00:00Z 503@1769846401+120!0 200@1769846461+35

First come the letter of the state, and the number of POSTs that were started in this round. Then comes the
change. Then come the last outcomes. An outcome has the status (``-``: there was no answer; ``~``: nothing was
sent), the time of its end (seconds since 1970) and its duration (milliseconds). Then come the numbers, in a
``TextTable``, of the error's text and of the text of the receiver's answer.

A record holds no contents of a CRM record, except what a kept answer repeats. It holds no credentials.
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
"""How many outcomes of a message are kept: as many as it has attempts by default."""
LONGEST_TEXT = 850
"""How many characters of an error, or of a receiver's answer, are kept."""
PIECE_BYTES = 50_000
MOST_PIECES = 5
"""The limits of a ``TextTable``. A text that doesn't fit is only in the task's log."""
NO_ROOM = 999_999
"""The number of all texts that didn't fit. No kept text has it."""
TEXT_IS_GONE = "see the task's log: there were too many different errors"

_TIME = re.compile(r"[0-9TZ:.+-]{0,35}")
_OUTCOME = re.compile(r"([0-9]+|-|~)@([0-9]+)\+([0-9]+)(?:!([0-9]*))?(?:!([0-9]*))?")
_CODES = {ACKNOWLEDGED: "A", FAILED: "F", GONE: "G", IN_DOUBT: "D"}
_STATES = {code: state for state, code in _CODES.items()}


class LedgerEntry(NamedTuple):
    """A message's state, and how many POSTs of it were started in this round."""

    state: str
    attempts: int


entry_of = cache(LedgerEntry)  # there are few different entries


class About(NamedTuple):
    """The change that a message reports."""

    record_type: str
    record_id: int
    event: str
    changed_at: str  # ISO 8601, as in the change; "" if it isn't known


class PostOutcome(NamedTuple):
    """The outcome of one POST, or why no POST was made."""

    at: datetime  # UTC: when it ended
    elapsed: float  # seconds
    status: int | None
    error: str | None
    response: str | None = None  # the beginning of the answer, if the connection keeps answers
    is_sent: bool = True


def entry_text(entry: LedgerEntry) -> str:
    """Return the text as which an entry is stored; ``read_entry`` reads it."""
    return f"{_CODES[entry.state]}{entry.attempts}"


def read_entry(key: str, text: object) -> tuple[LedgerEntry, str]:
    """Return the entry in a message's stored text, and the rest of the text: its change and outcomes.

    :raises InvalidState: with the key, if the text can't be read.
    """
    state, _, details = text.partition(" ") if isinstance(text, str) else ("", "", "")
    if state[:1] in _STATES and state[1:].isdecimal():
        return entry_of(_STATES[state[0]], int(state[1:])), details
    raise InvalidState(key, "an entry of the ledger can't be read")


def about_of(record_type: str, record_id: int, event: str, changed_at: str) -> str:
    """Return the text of a change, as a record holds it."""
    time = str(changed_at)  # a payload that a user made may hold anything
    time = time if _TIME.fullmatch(time) else ""
    return f"{record_type} {record_id} {event} {time}"


def add_outcome(details: str, outcome: PostOutcome, texts: TextTable) -> str:
    """Return a message's text with one more outcome. If there are too many, the oldest one is left out."""
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
    """Return the change and the outcomes in a message's text, the oldest outcome first.

    The change is ``None`` if an earlier version of this package did not keep it. For tasks that deliver batch
    by batch, an earlier version kept only the record's id and the event.
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
    """Numbered texts: an error that many messages have is kept once. The table only grows, up to a limit.

    It is stored in pieces. Only the last piece changes.
    """

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._numbers: dict[str, int] = {}
        self._pieces: list[list[str]] = []
        self._size = 0  # of the last piece, in bytes
        self._dirty: set[int] = set()

    @property
    def pieces(self) -> int:
        """How many pieces there are, stored or not yet."""
        return len(self._pieces)

    def add(self, text: str | None) -> str:
        """Add a text and return its number, as an outcome holds it; an empty text if there is no text."""
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
        """Return the text whose number ``add`` returned."""
        if not number:
            return None
        place = int(number)
        return self._texts[place] if place < len(self._texts) else TEXT_IS_GONE

    def unstored(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number and the texts of each piece to store. A piece counts as stored after that."""
        for number in sorted(self._dirty):
            yield number, list(self._pieces[number])
            self._dirty.discard(number)

    @classmethod
    def load(cls, pieces: Iterable[object]) -> TextTable:
        """Return the table that was stored. All of its pieces are to be stored again, elsewhere.

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

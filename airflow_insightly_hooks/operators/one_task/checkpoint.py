"""What a task has read and settled, kept in its state, so that a retry goes on from there.

Under ``checkpoint`` stands what the reading depends on. Under ``checkpoint/0``, ``checkpoint/1`` and so on
stands what was read, in pieces of a bounded size, each written once. A piece names the one before by its
digest. So a piece that another try has left is never taken for the next one. Whatever stops a task, the
pieces before the first one that is missing belong together.

``{"version": 1, "of": "<digest>", "basis": "<digest>", "settled_until": …, "search_from": …, "token": …,
"digest": "<digest>"}``

``{"after": "<digest>", "pages": [<of core.detection.page_log>, …], "met": 990, "undeliverable": [<changes>],
"unknown": ["FRIST_NAME"], "digest": "<digest>"}``
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import count
from typing import Any, NamedTuple, TypeGuard

from airflow_insightly_hooks.core.dates import api_time, iso_time
from airflow_insightly_hooks.core.detection.changes import RecordChange, check_changes
from airflow_insightly_hooks.core.detection.late_changes import LateChanges, SameChanges
from airflow_insightly_hooks.core.detection.page_log import LoggedPage, read_entry
from airflow_insightly_hooks.core.digest import digest_of
from airflow_insightly_hooks.core.errors import InvalidTime
from airflow_insightly_hooks.core.records import RecordType
from airflow_insightly_hooks.core.state.state_store import StateStore

__all__ = ["Checkpoint", "SettledPages"]

KEY = "checkpoint"
VERSION = 1
PIECE_BYTES = 50_000
"""Of JSON that a piece's pages and changes have at most; a state store takes 65,535 in all."""


class SettledPages(NamedTuple):
    """Pages all of whose messages are settled, and their changes.

    :param pages: what ``page_log.page_entry`` keeps of them.
    :param met: how many of their changes have triggered.
    :param undeliverable: those of their changes that can't be delivered, which a report is to name.
    :param unknown: names of fields that no record has had so far.
    """

    pages: list[dict[str, Any]]
    met: int
    undeliverable: list[RecordChange]
    unknown: list[str]


class Checkpoint:
    """What the tries of a task have read and settled so far.

    :param store: the task's state.
    :param kind: the records' type.
    :param of: what decides which messages are to be sent, besides what is read; a JSON value. If it differs
        from that of an earlier try, what that try has read is not used.
    :param log: where it is said if what an earlier try has read is not used.
    """

    def __init__(self, store: StateStore, kind: RecordType, of: object, log: Any) -> None:
        self._store, self._kind = store, kind
        self._of = digest_of(json.dumps(of, sort_keys=True))
        self._pieces = 0
        self._last = ""  # the digest of the last piece, or of the head
        self._log = log
        self._head: dict[str, Any] | None = None
        head = store.get(KEY)
        if _is_head(head) and head["of"] == self._of:
            self._head = dict(head)
        elif head is not None:
            log.info(
                "What an earlier try has read was read for something else, or kept by another release: "
                "reading from the beginning"
            )
        self._is_stored = self._head is not None

    @property
    def settled_until(self) -> datetime | None:
        """Up to when changes had settled when the reading began; ``None`` if nothing is kept of it."""
        return api_time(self._head["settled_until"]) if self._head is not None else None

    def begin(self, detection: LateChanges | SameChanges, settled_until: datetime) -> datetime:
        """Go on with what is kept, if it was read for the same detection; else begin with nothing.

        :return: the bound to search with: that of the try which has begun the search.
        """
        basis = detection.basis
        if self._head is not None and basis not in (None, self._head["basis"]):
            self._log.info("What was seen by other runs has changed: reading from the beginning")
            self._head = None
        if self._head is None:
            self._is_stored = False
            self._head = {
                "version": VERSION,
                "of": self._of,
                "basis": basis,
                "settled_until": iso_time(settled_until),
                "search_from": iso_time(detection.search_from),
                "token": secrets.token_hex(4),  # unlike any that was here before
            }
            self._head["digest"] = _digest(self._head)
        self._pieces, self._last = 0, self._head["digest"]
        return api_time(self._head["search_from"])

    def read(self) -> Iterator[tuple[SettledPages, list[LoggedPage]]]:
        """Yield what is kept, piece by piece; ``add`` adds behind it.

        :raises ValueError: if a piece can't be read.
        """
        while self._is_stored:
            piece = self._store.get(f"{KEY}/{self._pieces}")
            if not isinstance(piece, Mapping) or piece.get("after") != self._last:
                return
            if piece.get("digest") != _digest(piece):
                raise ValueError(f"state {KEY}/{self._pieces}: it is damaged")
            self._pieces, self._last = self._pieces + 1, str(piece["digest"])
            undeliverable = check_changes(piece["undeliverable"])
            settled = SettledPages(piece["pages"], piece["met"], undeliverable, piece["unknown"])
            yield settled, [read_entry(self._kind, entry) for entry in settled.pages]

    def add(self, settled: SettledPages) -> bool:
        """Keep what was read next, unless it is too large; a kill may leave only its first pieces.

        :return: whether it is kept; if not, nothing more may be added.
        """
        if len(json.dumps(settled.undeliverable)) > PIECE_BYTES / 2:
            return False
        if not self._is_stored:
            self._store.set(KEY, self._head)
            self._is_stored = True
        undeliverable = settled.undeliverable
        parts = list(_parts(settled.pages))
        for number, pages in enumerate(parts, 1):
            met = settled.met if number == len(parts) else 0
            self._write(SettledPages(pages, met, undeliverable, settled.unknown))
            undeliverable = []
        return True

    def _write(self, settled: SettledPages) -> None:
        piece = {"after": self._last, **settled._asdict()}
        piece["digest"] = _digest(piece)
        self._store.set(f"{KEY}/{self._pieces}", piece)
        self._pieces, self._last = self._pieces + 1, piece["digest"]

    def forget(self) -> None:
        """Have the next try read from the beginning."""
        self._store.delete(KEY)
        self._is_stored, self._head = False, None

    def clear(self) -> None:
        """Delete all that is kept; a failure is ignored, since no later try reads it."""
        with suppress(Exception):
            if self._store.get(KEY) is None:
                return
            self.forget()
            for number in count():
                key = f"{KEY}/{number}"
                if number >= self._pieces and self._store.get(key) is None:
                    return
                self._store.delete(key)


def _is_head(head: object) -> TypeGuard[Mapping[str, Any]]:
    if not isinstance(head, Mapping) or head.get("version") != VERSION or "basis" not in head:
        return False
    if head.get("digest") != _digest(head):  # changed by hand: what it says decides what is read
        return False
    try:
        return "of" in head and all(api_time(head.get(name)) for name in ("settled_until", "search_from"))
    except InvalidTime:
        return False


def _parts(pages: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the pages, as many together as a piece takes."""
    part: list[dict[str, Any]] = []
    size = 0
    for page in pages:
        length = len(json.dumps(page)) + 2
        if part and size + length > PIECE_BYTES / 2:
            yield part
            part, size = [], 0
        part.append(page)
        size += length
    yield part


def _digest(piece: Mapping[str, Any]) -> str:
    return digest_of(json.dumps({k: v for k, v in piece.items() if k != "digest"}, sort_keys=True))

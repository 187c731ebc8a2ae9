"""Keep in a task's state what it has read and settled, so that a retry continues from there.

The key ``checkpoint`` holds the values on which the reading depends. The keys ``checkpoint/0``,
``checkpoint/1`` and so on hold what was read, in pieces of limited size. Each piece is written once, and
names the piece before it by its digest. So a piece left by another try is never taken for the next one.
However a task was stopped, all pieces before the first missing one belong together.

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
"""The most bytes of JSON in a piece's pages and changes; a state store takes 65,535 bytes in all."""


class SettledPages(NamedTuple):
    """Pages whose messages are all settled, and their changes.

    :param pages: the pages' entries, made by ``page_log.page_entry``.
    :param met: the number of their changes that have triggered.
    :param undeliverable: those of their changes that can't be delivered; the report names them.
    :param unknown: names of fields that no record has had so far.
    """

    pages: list[dict[str, Any]]
    met: int
    undeliverable: list[RecordChange]
    unknown: list[str]


class Checkpoint:
    """The pages that the tries of a task have read and settled so far.

    :param store: the task's state.
    :param kind: the record type.
    :param of: the values, besides the records, that decide which messages are sent; a JSON value. If it
        differs from that of an earlier try, the pages of that try are not used.
    :param log: the logger; it says when the pages of an earlier try are not used.
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
                "The task has changed since an earlier try, or another release stored what that try has "
                "read: reading from the beginning"
            )
        self._is_stored = self._head is not None

    @property
    def settled_until(self) -> datetime | None:
        """The time up to which changes had settled when the reading began; ``None`` if nothing is kept."""
        return api_time(self._head["settled_until"]) if self._head is not None else None

    def begin(self, detection: LateChanges | SameChanges, settled_until: datetime) -> datetime:
        """Continue with the kept pages if they were read for the same detection; otherwise start anew.

        :return: the time from which to search: that of the try that began the search.
        """
        basis = detection.basis
        if self._head is not None and basis not in (None, self._head["basis"]):
            self._log.info("What was seen by other runs has changed since: reading from the beginning")
            self._head = None
        if self._head is None:
            self._is_stored = False
            self._head = {
                "version": VERSION,
                "of": self._of,
                "basis": basis,
                "settled_until": iso_time(settled_until),
                "search_from": iso_time(detection.search_from),
                "token": secrets.token_hex(4),  # differs from all earlier tokens
            }
            self._head["digest"] = _digest(self._head)
        self._pieces, self._last = 0, self._head["digest"]
        return api_time(self._head["search_from"])

    def read(self) -> Iterator[tuple[SettledPages, list[LoggedPage]]]:
        """Yield the kept pages, piece by piece; ``add`` appends to them.

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
        """Keep the next pages, unless they are too large. After a kill, only their first pieces may be kept.

        :return: whether they are kept; if not, the caller must not add more.
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
        """Delete the head, so that the next try reads from the beginning."""
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
    if head.get("digest") != _digest(head):  # changed by hand; it decides what is read
        return False
    try:
        return "of" in head and all(api_time(head.get(name)) for name in ("settled_until", "search_from"))
    except InvalidTime:
        return False


def _parts(pages: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the pages in groups, each as large as a piece may be."""
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

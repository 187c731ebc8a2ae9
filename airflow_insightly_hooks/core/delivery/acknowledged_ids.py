"""The ids of acknowledged messages: a set that only grows. An id takes 12 bytes in memory and 16 in a store.

The set is stored in pieces. A piece is written once and never changed. So to store a batch of ids costs the
same, however many ids there are.
"""

from __future__ import annotations

import base64
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from airflow_insightly_hooks.core.errors import InvalidState

__all__ = ["AcknowledgedIds"]

PREFIX = "msg_"
ID_BYTES = 12
PIECE_IDS = 3_000
"""How many ids a piece has: 48,000 characters, which is less than a store takes under one key."""


class AcknowledgedIds:
    """A set of ids as ``core.delivery.message_id`` makes them.

    :ivar pieces: how many pieces there are, stored or not yet.
    """

    def __init__(self) -> None:
        self.pieces = 0
        self._runs: list[bytes] = []  # ids in order, one run about twice as long as the next
        self._unstored: list[bytes] = []

    def __len__(self) -> int:
        return sum(map(len, self._runs)) // ID_BYTES

    def __contains__(self, message: str) -> bool:
        if not self._runs or not message.startswith(PREFIX):
            return False
        wanted = _packed(message)
        return any(_is_in(run, wanted) for run in self._runs)

    def add(self, messages: Iterable[str]) -> None:
        """Add ids that the set doesn't have yet."""
        self._add(sorted(map(_packed, messages)))

    def unstored(self) -> Iterator[tuple[int, str]]:
        """Yield the number and the text of each piece to store. A piece counts as stored after that."""
        while self._unstored:
            piece = base64.b64encode(self._unstored[0]).decode()
            yield self.pieces - len(self._unstored), piece
            del self._unstored[0]

    @classmethod
    def load(cls, pieces: Iterable[object]) -> AcknowledgedIds:
        """Return the set that was stored. All of its pieces are to be stored again, elsewhere.

        :raises InvalidState: if a piece can't be read; its key is the number.
        """
        ids: set[bytes] = set()
        for number, piece in enumerate(pieces):
            ids.update(_ids(_decoded(number, piece)))
        acknowledged = cls()
        acknowledged._add(sorted(ids))
        return acknowledged

    def _add(self, ids: list[bytes]) -> None:
        if not ids:
            return
        for start in range(0, len(ids), PIECE_IDS):
            self._unstored.append(b"".join(ids[start : start + PIECE_IDS]))
            self.pieces += 1
        self._runs.append(b"".join(ids))
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            merged = sorted([*_ids(self._runs.pop()), *_ids(self._runs.pop())])
            self._runs.append(b"".join(merged))


def _packed(message: str) -> bytes:
    return bytes.fromhex(message.removeprefix(PREFIX))


def _ids(run: bytes) -> Iterator[bytes]:
    return (run[start : start + ID_BYTES] for start in range(0, len(run), ID_BYTES))


def _is_in(run: bytes, wanted: bytes) -> bool:
    def at(place: int) -> bytes:
        return run[place * ID_BYTES : (place + 1) * ID_BYTES]

    return at(bisect_left(range(len(run) // ID_BYTES), wanted, key=at)) == wanted


def _decoded(number: int, piece: object) -> bytes:
    if not isinstance(piece, str):
        raise InvalidState(
            str(number), "a part of the acknowledged ids is missing, so it is not known what was delivered"
        )
    try:
        content = base64.b64decode(piece, validate=True)
    except ValueError:
        content = b"?"
    if len(content) % ID_BYTES:
        raise InvalidState(str(number), "its ids can't be read")
    return content

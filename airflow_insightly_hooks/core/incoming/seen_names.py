"""The names of the kept objects that a task has read, in the form of values for a state store.

Only eight bytes of a digest are kept of each name, so that many names fit into a value. Among a hundred
thousand names, the probability that two are mixed up is one in a billion.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Iterator, Sequence

from airflow_insightly_hooks.core.incoming.kept_entity import KeptName

__all__ = ["BLOCK_NAMES", "SeenNames"]

SIZE = 8
BLOCK_NAMES = 5_000
"""How many names a text holds. It has 53 kB; a value of a state store may have 65 kB."""


class SeenNames:
    """A set of names.

    :param names: the names in it.
    """

    def __init__(self, names: Iterable[KeptName] = ()) -> None:
        # The keys of a mapping, so that the texts depend only on the order of the names.
        self._tokens: dict[bytes, None] = {_token(name): None for name in names}

    def __contains__(self, name: KeptName) -> bool:
        return _token(name) in self._tokens

    def __len__(self) -> int:
        return len(self._tokens)

    def blocks(self) -> Iterator[str]:
        """Yield the set as texts below 60 kB; ``of`` reads them."""
        tokens = list(self._tokens)
        for start in range(0, len(tokens), BLOCK_NAMES):
            yield base64.b64encode(b"".join(tokens[start : start + BLOCK_NAMES])).decode()

    @classmethod
    def of(cls, blocks: Sequence[object]) -> SeenNames:
        """Return the set that ``blocks`` wrote.

        :raises ValueError: if a text can't be read.
        """
        seen = cls()
        for block in blocks:
            if not isinstance(block, str):
                raise ValueError("a part of it is missing")
            try:
                read = base64.b64decode(block, validate=True)
            except (binascii.Error, ValueError):
                raise ValueError("a part of it can't be read") from None
            if len(read) % SIZE:
                raise ValueError("a part of it is not complete")
            seen._tokens |= {read[at : at + SIZE]: None for at in range(0, len(read), SIZE)}
        return seen


def _token(name: KeptName) -> bytes:
    return hashlib.sha256(str(name).encode()).digest()[:SIZE]

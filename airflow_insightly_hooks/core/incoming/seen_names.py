"""The kept objects that a task has read, by their names, as values of a state store hold them.

Of each name, eight bytes are kept: so many names fit into a value, and among a hundred thousand of them the
odds are one in a billion that two are taken for one.
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
"""In a text of 53 kB: a value of a state store takes 65."""


class SeenNames:
    """A set of names, to which further ones can only be added.

    :param names: the first ones.
    """

    def __init__(self, names: Iterable[KeptName] = ()) -> None:
        # As keys of a mapping, so that the texts depend on nothing but the order of the names.
        self._tokens: dict[bytes, None] = {_token(name): None for name in names}

    def __contains__(self, name: KeptName) -> bool:
        return _token(name) in self._tokens

    def __len__(self) -> int:
        return len(self._tokens)

    def blocks(self) -> Iterator[str]:
        """Yield it as texts below 60 kB; ``of`` reads them again."""
        tokens = list(self._tokens)
        for start in range(0, len(tokens), BLOCK_NAMES):
            yield base64.b64encode(b"".join(tokens[start : start + BLOCK_NAMES])).decode()

    @classmethod
    def of(cls, blocks: Sequence[object]) -> SeenNames:
        """Return what ``blocks`` has written.

        :raises ValueError: if it has not.
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
                raise ValueError("a part of it is not whole")
            seen._tokens |= {read[at : at + SIZE]: None for at in range(0, len(read), SIZE)}
        return seen


def _token(name: KeptName) -> bytes:
    return hashlib.sha256(str(name).encode()).digest()[:SIZE]

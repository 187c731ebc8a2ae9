"""Many integers as a short text, for a value of a state store.

Each integer has eight bytes, the low one first; then all low bytes come first, all second bytes next, and so
on, as long runs of zeros; deflated (zlib), in base64.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence

__all__ = ["packed", "unpacked"]

BYTES = 8


def packed(integers: Sequence[int]) -> str:
    """Return the integers, 0 to 2⁶⁴ - 1, as an ASCII text."""
    raw = struct.pack(f"<{len(integers)}Q", *integers)
    planes = b"".join(raw[place::BYTES] for place in range(BYTES))
    # Runs are all that there is to find besides the bytes' frequencies. To look for runs alone is as small
    # as zlib's usual way for any ids, smaller for some, and several times faster.
    deflate = zlib.compressobj(memLevel=9, strategy=zlib.Z_RLE)
    return base64.b64encode(deflate.compress(planes) + deflate.flush()).decode()


def unpacked(text: object, most: int) -> Sequence[int] | None:
    """Return the integers that were packed; ``None`` if the text is none of ``packed``.

    :param most: how many there can be; a text of more is none.
    """
    if not isinstance(text, str):
        return None
    inflate = zlib.decompressobj()
    try:
        # A little text can inflate to anything: no more of it than there can be.
        planes = inflate.decompress(base64.b64decode(text, validate=True), BYTES * most + 1)
    except (ValueError, zlib.error):
        return None
    if not inflate.eof or inflate.unused_data or len(planes) % BYTES:
        return None
    count = len(planes) // BYTES
    raw = bytearray(len(planes))
    for place in range(BYTES):
        raw[place::BYTES] = planes[place * count : (place + 1) * count]
    return struct.unpack(f"<{count}Q", raw)

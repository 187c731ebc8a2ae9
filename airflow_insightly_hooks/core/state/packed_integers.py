"""Many integers as a short text, for a value of a state store.

Each integer is eight bytes, the low byte first. The low bytes of all integers come first, then all second
bytes, and so on. This makes long runs of zeros. The result is deflated (zlib) and written in base64.
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
    # Besides the bytes' frequencies, there are only runs to find. For any ids, looking only for runs gives a
    # result that is as small as with zlib's usual strategy, or smaller, and is several times faster.
    deflate = zlib.compressobj(memLevel=9, strategy=zlib.Z_RLE)
    return base64.b64encode(deflate.compress(planes) + deflate.flush()).decode()


def unpacked(text: object, most: int) -> Sequence[int] | None:
    """Return the integers that were packed; ``None`` if ``packed`` can't have made the text.

    :param most: how many integers there may be; a text with more is refused.
    """
    if not isinstance(text, str):
        return None
    inflate = zlib.decompressobj()
    try:
        # A small text can inflate to any size, so stop after the largest valid size.
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

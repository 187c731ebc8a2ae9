"""Make the beginning of a failing receiver's answer safe to show: without credentials and control characters.

A receiver's answer is kept if its connection has ``keep_response``. A receiver may echo the request. So every
credential of the connection is removed, in each form in which it is likely to be echoed. People read the
answer in terminals. So escape sequences are removed, too.
"""

from __future__ import annotations

import base64
import codecs
import html
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import takewhile
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, quote_plus

from airflow_insightly_hooks.hooks.post.response import Response

if TYPE_CHECKING:
    from airflow_insightly_hooks.hooks.post.receiver import ReceiverSettings

__all__ = ["CONSIDERED", "EXCERPT_LENGTH", "ResponseExcerpts", "credentials_of"]

EXCERPT_LENGTH = 500
"""The most characters of an excerpt."""
CONSIDERED = 4 * 1024
"""The bytes of the body that an excerpt is made of. They are more, because most may be white space."""
SHORTEST_TEXT = 4
"""Values of headers and queries with fewer characters are not hidden: a ``1`` is not a credential."""
SHORTEST_BEGINNING = 8
"""The fewest characters of a credential's beginning that are hidden. A receiver may echo it cut short."""
HIDDEN = "***"

_WIRE_CHARSETS = ("utf-8", "latin-1", "utf-16-le", "utf-16-be")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([A-Za-z0-9._-]{1,40})", re.IGNORECASE)
_TEXT_CHARSETS = re.compile("utf-(8|16|32)|ascii|latin|iso8859|cp[0-9]|mac|koi8|gb|big5|euc|shift|hz$")
"""Python's names of the charsets of pages. Its other decoders may be slow, or do more than decode."""
_ESCAPE_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, the cursor
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"  # OSC and its like: titles, links, the clipboard
    r"|\x1b[ -/]*[0-~]",
    re.DOTALL,
)
_PUBLIC_HEADERS = frozenset(("accept", "accept-encoding", "accept-language", "user-agent"))
_SCHEMES = frozenset(("basic", "bearer", "token", "digest", "apikey"))


def credentials_of(settings: ReceiverSettings, headers: Mapping[str, str]) -> frozenset[str]:
    """Return the texts that an excerpt must not show.

    :param headers: additional headers of the request.
    """
    endpoint = settings.endpoint
    found = {endpoint.password, *settings.signing_secrets}
    proxy = settings.transport.proxy
    for authorization in (endpoint.authorization, proxy.authorization if proxy is not None else None):
        value = (authorization or "").removeprefix("Basic ")
        found |= {value, base64.b64decode(value).decode(errors="replace").partition(":")[2]}
    for name, value in (*settings.headers.items(), *headers.items()):
        if name.lower() not in _PUBLIC_HEADERS:
            found |= {part for part in (value, *value.split()) if _may_be_secret(part)}
    query = endpoint.target.partition("?")[2]
    found |= {value for value in (query, *(v for _, v in parse_qsl(query))) if len(value) >= SHORTEST_TEXT}
    return frozenset(found - {""})


def _may_be_secret(text: str) -> bool:
    return len(text) >= SHORTEST_TEXT and text.lower().rstrip(":") not in _SCHEMES


class ResponseExcerpts:
    """Makes excerpts of a receiver's answers.

    :param credentials: the texts to hide, as returned by ``credentials_of``.
    """

    def __init__(self, credentials: frozenset[str]) -> None:
        self.credentials = credentials
        forms = {form for secret in credentials for form in _forms(secret)}
        self._secrets = sorted(forms, key=len, reverse=True)
        self._on_the_wire: list[tuple[bytes, bytes]] = []
        for secret in self._secrets:
            for charset in _WIRE_CHARSETS:
                with suppress(UnicodeEncodeError):
                    self._on_the_wire.append((secret.encode(charset), HIDDEN.encode(charset)))

    def __repr__(self) -> str:
        return f"<ResponseExcerpts, credentials: {len(self.credentials)}>"

    def excerpt(self, answer: Response) -> str | None:
        """Return the beginning of an answer's body; ``None`` if it has no text.

        :returns: one line of at most ``EXCERPT_LENGTH`` characters, without control characters.
        """
        fields = dict(reversed(answer.headers))  # the first of several equal names counts
        if fields.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            return None  # the request asked for no encoding, so nothing here can decode one
        content = answer.body[:CONSIDERED]
        for secret, hidden in self._on_the_wire:  # before decoding: the stated charset may be wrong
            content = content.replace(secret, hidden)
        text = self._without_secrets(_decoded(content, fields.get("content-type", "")))
        if len(answer.body) > CONSIDERED:
            text = self._without_cut_end(text)
        if not text.isprintable():
            text = _ESCAPE_SEQUENCE.sub(" ", text)
            text = "".join(character if character.isprintable() else " " for character in text)
        text = self._without_secrets(" ".join(text.split()))
        return text[: EXCERPT_LENGTH - 1] + "…" if len(text) > EXCERPT_LENGTH else text or None

    def _without_secrets(self, text: str) -> str:
        """Return a text without the secrets, and without long beginnings of secrets."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
            beginning = secret[:SHORTEST_BEGINNING]
            at = text.find(beginning) if len(secret) > SHORTEST_BEGINNING else -1
            while at >= 0:
                length = _common_length(secret, text[at : at + len(secret)])
                text = text[:at] + HIDDEN + text[at + length :]
                at = text.find(beginning, at + len(HIDDEN))
        return text

    def _without_cut_end(self, text: str) -> str:
        """Return a text without a secret that its end has cut off, even if only one character is left."""
        lengths = (n for s in self._secrets for n in range(1, len(s)) if text.endswith(s[:n]))
        return text[: len(text) - max(lengths, default=0)]


def _forms(secret: str) -> Iterator[str]:
    """Yield the forms that a secret may have in text, JSON, HTML and URIs, and its Base64."""
    encoded = secret.encode(errors="surrogatepass")
    yield secret
    yield from (json.dumps(secret, ensure_ascii=is_ascii)[1:-1] for is_ascii in (True, False))
    yield json.dumps(secret)[1:-1].replace("/", "\\/")
    yield html.escape(secret)
    yield from (quote(encoded, safe=""), quote(encoded), quote_plus(encoded))
    if len(encoded) >= SHORTEST_TEXT:
        yield base64.b64encode(encoded).decode()


def _decoded(content: bytes, content_type: str) -> str:
    charset = _CHARSET.search(content_type)
    if charset is not None:
        try:
            name = codecs.lookup(charset[1]).name
            if _TEXT_CHARSETS.match(name):
                return content.decode(name, errors="replace")
        except (LookupError, ValueError):
            pass  # read as UTF-8
    return content.decode(errors="replace")


def _common_length(one: str, other: str) -> int:
    """Return the length of the beginning that two texts have in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))

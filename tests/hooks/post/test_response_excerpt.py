"""The excerpt of a failing receiver's answer: its beginning, without credentials, in one harmless line."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.hooks.post.response import BODY_LIMIT, Response
from airflow_insightly_hooks.hooks.post.response_excerpt import CONSIDERED, EXCERPT_LENGTH, ResponseExcerpts

SECRET = 'pä:ss/wö"rd & of tests'
PLAIN = "Pa55word-of-the-tests"


def excerpt(body: bytes | str, *secrets: str, **headers: str) -> str | None:
    content = body.encode() if isinstance(body, str) else body
    fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return ResponseExcerpts(frozenset(secrets)).excerpt(Response(422, fields, body=content[:BODY_LIMIT]))


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ('{"error": "field EMAIL missing"}', '{"error": "field EMAIL missing"}'),
        (" a \r\n\tb\u00a0\u2028c ", "a b c"),
        ("\x1b[31mred\x1b[0m\x1b]0;title\x07 \x1b]8;;http://x\x1b\\link\x9b2J", "red link 2J"),
        ("a\x00b\x08c\u202ed\u200be", "a b c d e"),
        ("unclosed \x1b]0;title", "unclosed"),
        ("", None),
        (" \n\x00", None),
        (b"caf\xe9", "caf\ufffd"),
    ],
)
def test_one_harmless_line(body: bytes | str, shown: str | None) -> None:
    """White space is folded, and control characters and escape sequences are removed.

    No text gives ``None``.
    """
    assert excerpt(body) == shown


@pytest.mark.parametrize(
    ("charset", "shown"),
    [
        ("ISO-8859-1", "café"),
        ('"windows-1252"', "café"),
        ("utf-8", "caf\ufffd"),
        ("no-such-charset", "caf\ufffd"),
        ("rot13", "caf\ufffd"),
        ("punycode", "caf\ufffd"),
    ],
)
def test_charset(charset: str, shown: str) -> None:
    """Bytes are decoded with the given charset, if it is one for text, and otherwise as UTF-8."""
    assert excerpt(b"caf\xe9", content_type=f"text/plain; charset={charset}") == shown


def test_length() -> None:
    """500 characters are kept. A longer text is marked as cut."""
    assert excerpt("a" * EXCERPT_LENGTH) == "a" * EXCERPT_LENGTH
    assert excerpt("a" * 501) == "a" * 499 + "…"


def test_packed_answer() -> None:
    """Nothing is shown of a compressed answer, which was not asked for."""
    assert excerpt(b"\x1f\x8b\x08\x00", content_encoding="gzip") is None


@pytest.mark.parametrize("charset", ["utf-8", "latin-1", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("is_named", [True, False])
def test_secret_in_any_charset(charset: str, is_named: bool) -> None:
    """A credential is hidden in any charset, even one that isn't named."""
    headers = {"content_type": f"text/plain; charset={charset}"} if is_named else {}
    shown = excerpt(f"you sent {SECRET}!".encode(charset), SECRET, **headers) or ""
    assert "ss/w" not in shown.replace(" ", "")
    assert "***" in shown.replace(" ", "")


@pytest.mark.parametrize(
    "echoed",
    [
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        json.dumps(SECRET).replace("/", "\\/"),
        html.escape(SECRET),
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        base64.b64encode(SECRET.encode()).decode(),
    ],
)
def test_secret_in_another_form(echoed: str) -> None:
    """A credential is hidden in the forms of JSON, HTML and URIs, and in base64."""
    assert excerpt(f"you sent {echoed}.", SECRET) in ("you sent ***.", 'you sent "***".')


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (f"Basic {PLAIN[:12]}...", "Basic ***..."),
        (f"{PLAIN}{PLAIN} {PLAIN[:-1]}", "****** ***"),
        (f"x {PLAIN[:10]}\x1b[0m{PLAIN[10:]}", f"x *** {PLAIN[10:]}"),
        (f"{PLAIN[:8]}\u200b{PLAIN}", "*** ***"),
        ("Pa55", "Pa55"),
    ],
)
def test_part_of_a_secret(body: str, shown: str) -> None:
    """The beginning of a credential is hidden, too, from eight characters on."""
    assert excerpt(body, PLAIN) == shown


@pytest.mark.parametrize("kept", range(1, len(PLAIN)))
def test_secret_that_the_limit_cuts(kept: int) -> None:
    """If an answer is cut there, a possible beginning of a credential isn't shown."""
    assert excerpt("a" + " " * (CONSIDERED - kept - 1) + PLAIN, PLAIN) in ("a", "a ***")


@given(st.binary(max_size=600) | st.text(max_size=600), st.text(min_size=1, max_size=20))
def test_any_answer(body: bytes | str, secret: str) -> None:
    """Any answer gives one printable line of at most 500 characters, without the credential."""
    try:
        secret.encode()
        content = body.encode() if isinstance(body, str) else body
    except UnicodeEncodeError:
        return
    shown = excerpt(content + secret.encode(), secret)
    if shown is not None:
        assert len(shown) <= EXCERPT_LENGTH
        assert all(character == " " or character.isprintable() for character in shown)
        if not set(secret) & set("*…"):
            assert secret not in shown

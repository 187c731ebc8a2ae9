"""Regular expressions mean what they mean in Python, in linear time.

Patterns that would take longer are refused.
"""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_insightly_hooks.core.criteria.linear_regex import InvalidPattern, compile_pattern
from tests.strategies import any_text


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"^(\w+\s?)*$", "a" * 60 + "!"),
        (r"^(a+)+$", "a" * 100_000 + "b"),
        (r"(x+x+)+y", "x" * 100_000),
        (r"^(([a-z])+.)+[0-9]([a-z])+$", "a" * 100_000),
        (r"(.*)(.*)(.*)(.*)(.*)=", "x" * 100_000),
        (r"\b(?:\w+\s?)*\b!$", "äö " * 30_000),
        (r"(?:x.{0,300}y){3}z", "xy" * 50_000),
    ],
)
def test_no_pattern_takes_long(pattern: str, text: str) -> None:
    """Patterns that would take Python's engine longer than a lifetime are answered at once."""
    started = time.process_time()
    assert not compile_pattern(pattern, case_sensitive=False)(text)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (r"a(?=b)", "look-arounds, such as (?=…)"),
        (r"^(?!.*test)", "look-arounds, such as (?!…)"),
        (r"a(?!)", "look-arounds, such as (?!…)"),
        (r"(?<=a)b", "look-arounds, such as (?=…) and (?<=…)"),
        (r"(?<!a)b", "look-arounds, such as (?!…) and (?<!…)"),
        (r"(a)\1", "back references, such as \\1"),
        (r"(?P<x>a)(?P=x)", "back references, such as \\1"),
        (r"(a)?(?(1)b|c)", "conditional groups"),
        (r"a{1001}", "not a regular expression: it repeats more than 1000 times"),
        (r"(?:(?:a{10}){10}b){11,}", "not a regular expression: it repeats more than 1000 times"),
        (
            r"(?:(?:a{10}){10}b){10,}(?:x{1000}y*)*(?:x{1001})",
            "not a regular expression: it repeats more than",
        ),
        (r"(?:a{500}){2,}b{1,1001}", "not a regular expression: it repeats more than 1000 times"),
        (r"(?:a{500,}){3}", "not a regular expression: it repeats more than 1000 times"),
        (r"\w{900}", "not a regular expression: it is too large: a count such as"),
        ("x" * 10_001, "not a regular expression: it is longer than 10000 characters"),
        ("\ud800", "not a regular expression: it nests too deeply, or holds half a character"),
        ("(" * 300 + ")" * 300, "not a regular expression: it nests too deeply"),
        ("(?au)a", "not a regular expression: bad inline flags"),
        (r"\p{L}", "not a regular expression: bad escape \\p"),
    ],
    ids=lambda value: value[:30],
)
def test_what_is_refused_says_why(pattern: str, reason: str) -> None:
    """The error names the construct that needs backtracking, and what to use instead."""
    with pytest.raises(InvalidPattern) as caught:
        compile_pattern(pattern, case_sensitive=False)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize("pattern", ["a{1000}", "(?:ab?){1000}", "(?:a{10}){100}"])
def test_a_thousand_repetitions_are_allowed(pattern: str) -> None:
    """All counts around a part may repeat it 1,000 times together. An optional part counts once."""
    assert compile_pattern(pattern, case_sensitive=True)("a" * 1_000)


@pytest.mark.parametrize("pattern", ["(?>a)b", "a++b"])
def test_atomic_groups_are_refused(pattern: str) -> None:
    """Python 3.10 doesn't have them; later versions do, and an atomic group matches less than a plain one."""
    with pytest.raises(InvalidPattern):
        compile_pattern(pattern, case_sensitive=True)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("Berlin$", "Berlin\n"),
        (r"Berlin\Z", "Berlin\n"),
        ("^b$", "a\nb\nc"),
        ("(?m)^b$", "a\nb\nc"),
        ("a.b", "a\nb"),
        ("(?s)a.b", "a\nb"),
        ("(?s:a.)b.", "a\nb\n"),
        ("(?x) a b # c", "ab"),
        ("(?x)[ ]", "a b"),
        ("a(?#comment)b", "ab"),
        ("[[]", "["),
        ("[a&&b]", "&"),
        ("[[:alpha:]]", "x"),
        ("[[:alpha:]]", "a]"),
        (r"\<b\>", "a b c"),
        (r"\<b\>", "<b>"),
        ("{x}", "{x}"),
        ("a{,2}b", "aab"),
        (r"\141", "a"),
        (r"\x41\u00e4\N{DIGIT ONE}", "Aä1"),
        (r"^\w+$", "Müller²"),
        (r"^\w+$", "田中"),
        (r"\bäpfel\b", "rote äpfel"),
        (r"(?a)^\w+$", "Müller"),
        (r"(?a)\d", "٣"),
        (r"^\d$", "٣"),
        (r"^\s$", "\x1c"),
        (r"[\W\d]", "_"),
        (r"[^\W\d]", "ä"),
        (r"[^\w\s]", "!"),
        ("(?i)STRASSE", "straße"),
        ("(?-i:A)b", "aB"),
        ("", "x"),
        ("a|", "x"),
        ("^(?:a|bc?)*?$", "abcb"),
        (r"\A\Bx", "x"),
        (r"\Ax", "x"),
        (r"x\B", "xy"),
        ("(?m)^b", "a\nb"),
        ("^b", "a\nb"),
        ("(?m)b$", "b\na"),
        ("b$", "b\na"),
        ("[a-cx-z]+$", "dy"),
        ("^[a-cx-z]+$", "bx"),
        ("^[a-c]$", "b"),
        ("^[^a]$", "X"),
        ("[xX]", "y"),
        ("[ab]", "X"),
        (r"[a\d]", "a"),
        ("(?a)\\bäpfel", "äpfel"),
        ("^a{2,3}$", "aaaa"),
        ("^a{2,}$", "aaaa"),
        ("^a{2,}$", "a"),
        ("(?i:(?s:A.))B", "a\nb"),
    ],
)
def test_a_pattern_means_what_it_means_to_python(pattern: str, text: str) -> None:
    """This holds even where the engine's own syntax differs, so that no pattern silently stops matching."""
    for case_sensitive in (True, False):
        expected = re.search(pattern, text, 0 if case_sensitive else re.IGNORECASE) is not None
        assert compile_pattern(pattern, case_sensitive=case_sensitive)(text) is expected


CHARACTERS = "aAbä_1 \n!]-^"
atoms = st.sampled_from(
    [".", *map(re.escape, CHARACTERS), r"\w", r"\W", r"\d", r"\D", r"\s", r"\S", r"\b", "^"]
)
members = st.sampled_from(
    ["a", "A", "b", "ä", "_", r"\-", r"\]", "0-9", r"\w", r"\W", r"\d", r"\S", "a-b", "&", "["]
)
classes = st.builds(
    lambda sign, found: f"[{sign}{''.join(found)}]",
    st.sampled_from(["", "^"]),
    st.lists(members, min_size=1, max_size=3),
)


def composed(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    quantifiers = st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}", "*?", "+?"])
    return (
        st.lists(inner, min_size=1, max_size=3).map("".join)
        | st.lists(inner, min_size=2, max_size=3).map(lambda found: f"(?:{'|'.join(found)})")
        | st.builds(lambda one, many: f"(?:{one}){many}", inner, quantifiers)
        | st.builds(lambda flag, one: f"(?{flag}:{one})", st.sampled_from(["i", "-i", "s", "m"]), inner)
        | st.builds(lambda one: f"({one})", inner)
    )


patterns = st.recursive(atoms | classes, composed, max_leaves=6)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@settings(max_examples=300)
@given(patterns, st.sampled_from(["", "$", r"\Z"]), st.text(CHARACTERS, max_size=7), st.booleans())
def test_any_pattern_means_what_it_means_to_python(pattern: str, end: str, text: str, case: bool) -> None:
    """Random patterns of all supported constructs are compared with Python's answer, over short texts."""
    expected = re.search(pattern + end, text, 0 if case else re.IGNORECASE) is not None
    assert compile_pattern(pattern + end, case_sensitive=case)(text) is expected


@given(any_text, st.booleans())
def test_any_text_can_be_searched_for_and_in(text: str, case_sensitive: bool) -> None:
    """This includes lone surrogates, which JSON's escapes can produce. Any other text finds itself."""
    holds = compile_pattern(".", case_sensitive=case_sensitive)
    assert holds(text) is bool(re.search(".", text))
    if not re.search("[\ud800-\udfff]", text):
        assert compile_pattern(re.escape(text), case_sensitive=case_sensitive)(text)


@given(st.text(max_size=12) | st.text(st.sampled_from(r"ab\[](){}?*+|^$.<>=!:Pix-1,"), max_size=14))
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300)
def test_any_pattern_is_compiled_or_refused(pattern: Any) -> None:
    """A pattern compiles, or raises the one error. A pattern that Python refuses is refused."""
    try:
        re.compile(pattern, re.IGNORECASE)
    except (re.error, OverflowError, ValueError):
        with pytest.raises(InvalidPattern):
            compile_pattern(pattern, case_sensitive=False)
    else:
        try:
            compile_pattern(pattern, case_sensitive=False)("a b")
        except InvalidPattern as error:
            assert "supported" in str(error) or "repeats" in str(error)  # noqa: PT017 — it may compile

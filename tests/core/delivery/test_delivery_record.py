"""What the ledger keeps of each message: it is written as a line, can be read again, and is bounded."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core.delivery import delivery_record
from airflow_insightly_hooks.core.delivery.delivery_record import (
    TEXT_IS_GONE,
    About,
    PostOutcome,
    TextTable,
    about_of,
    add_outcome,
    read_details,
)
from airflow_insightly_hooks.core.errors import InvalidState

NOW = datetime(2026, 1, 31, 8, tzinfo=timezone.utc)
texts = st.none() | st.text(min_size=1, max_size=900)
outcomes = st.builds(
    PostOutcome,
    at=st.integers(0, 10**9).map(lambda seconds: NOW + timedelta(seconds=seconds)),
    elapsed=st.integers(0, 10**6).map(lambda milliseconds: milliseconds / 1000),
    status=st.none() | st.integers(100, 599),
    error=texts,
    response=texts,
    is_sent=st.just(True),
)


def cut(text: str | None) -> str | None:
    return text and text[:850]


def stored(table: TextTable) -> TextTable:
    """Return the table as it is when it has been stored and read again."""
    pieces = {number: json.loads(json.dumps(piece)) for number, piece in table.unstored()}
    return TextTable.load([pieces[number] for number in range(table.pieces)])


@given(st.lists(outcomes, max_size=5))
def test_what_is_written_is_read_again(given_outcomes: list[PostOutcome]) -> None:
    """The change and the last three outcomes come back in their order. Long texts are cut."""
    table = TextTable()
    about = About("Contacts", 7, "updated", "2026-01-31T08:00:00Z")
    details = about_of(*about)
    for outcome in given_outcomes:
        details = add_outcome(details, outcome, table)
    expected = [
        outcome._replace(error=cut(outcome.error), response=cut(outcome.response))
        for outcome in given_outcomes[-3:]
    ]
    assert read_details(details, stored(table)) == (about, expected)


def test_nothing_sent_is_no_post() -> None:
    """The reason why nothing was sent is kept like an outcome, but differs from a POST without an answer."""
    table = TextTable()
    details = about_of("Contacts", 7, "added", "2026-01-31T08:00:00Z")
    unsent = PostOutcome(NOW, 0.0, None, "not sent: the task was stopped", is_sent=False)
    silent = PostOutcome(NOW, 1.5, None, "no answer")
    for outcome in (unsent, silent):
        details = add_outcome(details, outcome, table)
    assert details == "Contacts 7 added 2026-01-31T08:00:00Z ~@1769846400+0!0 -@1769846400+1500!1"
    assert read_details(details, table)[1] == [unsent, silent]


@pytest.mark.parametrize(
    ("details", "about"),
    [
        ("7 added", About("", 7, "added", "")),
        ("Contacts 7 added ", About("Contacts", 7, "added", "")),
        ("", None),
        ("Contacts seven added x", None),
        ("Contacts 7 told x", None),
        ("200@1769846400+35", None),
    ],
)
def test_what_earlier_versions_have_kept(details: str, about: About | None) -> None:
    """They kept a record's id and the event, or nothing.

    Unreadable values count as unknown, and are no error.
    """
    assert read_details(details, TextTable())[0] == about


@pytest.mark.parametrize("time", ["a b@1", "x" * 40, "2026-01-31 08:00", "\n"])
def test_a_time_that_is_none(time: str) -> None:
    """A payload from a user's own task may have any text as its time. It is not taken for an outcome."""
    about = About("Contacts", 7, "added", time)
    assert read_details(about_of(*about), TextTable())[0] == about._replace(changed_at="")


def test_same_texts_are_kept_once() -> None:
    """If a receiver answers many messages with the same text, the text is stored once."""
    table = TextTable()
    for _ in range(1_000):
        assert table.add("503 Service Unavailable") == "0"
    assert [piece for _, piece in table.unstored()] == [["503 Service Unavailable"]]
    assert list(table.unstored()) == []
    table.add("another")
    again = stored(table)
    list(again.unstored())
    assert [again.add(text) for text in ("another", "503 Service Unavailable", "third")] == ["1", "0", "2"]
    assert table.get("2") == TEXT_IS_GONE


def test_texts_are_bounded() -> None:
    """However many different texts there are, they fit into a few pieces.

    Further texts are replaced by a note.
    """
    table = TextTable()
    numbers = [table.add(f"{number} " + "\x01" * 800) for number in range(1_000)]
    pieces = [json.dumps(piece) for _, piece in table.unstored()]
    assert len(pieces) == delivery_record.MOST_PIECES
    assert max(map(len, pieces)) < 60_000
    assert table.get(numbers[0]) == "0 " + "\x01" * 800
    assert table.get(numbers[-1]) == TEXT_IS_GONE
    table.add("short enough for what is left")
    assert table.get(numbers[-1]) == TEXT_IS_GONE


def test_only_the_last_piece_of_texts_changes() -> None:
    """A new text is stored by writing the last piece alone, even after the texts were read again."""
    table = TextTable()
    for number in range(200):
        table.add(f"{number} " + "x" * 800)
    again = stored(table)
    list(again.unstored())
    again.add("another")
    assert [number for number, _ in again.unstored()] == [table.pieces - 1]


@pytest.mark.parametrize("piece", [None, "x", [1], {}])
def test_a_piece_of_texts_that_is_missing(piece: Any) -> None:
    """The error names the piece."""
    with pytest.raises(InvalidState) as caught:
        TextTable.load([["fine"], piece])
    assert caught.value.key == "1"

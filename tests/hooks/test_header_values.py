"""Headers with numbers and times, or with nonsense."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from airflow_insightly_hooks.hooks.header_values import (
    http_date,
    retry_after,
    shown_value,
    whole_number,
)

NOON = datetime(2026, 7, 11, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("Sat, 11 Jul 2026 12:00:00 GMT", NOON),
        ("Sat, 11 Jul 2026 14:00:00 +0200", NOON),
        ("Sat, 11 Jul 2026 12:00:00 -0000", NOON),
        ("Saturday, 11-Jul-26 12:00:00 GMT", NOON),
        ("Fri, 31 Dec 9999 23:59:59 -0200", None),
        ("noon", None),
        ("", None),
        (None, None),
    ],
)
def test_http_date(text: str | None, date: datetime | None) -> None:
    """A date is converted to UTC. An unreadable one gives ``None``."""
    read = http_date(text)
    assert read == date
    assert read is None or read.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("Authorization", "Basic bWU6cHc=", "Basic ***"),
        ("authorization", "the-token-alone", "***"),
        ("authorization", "the:token and more", "***"),
        ("X-Api-Key", "the-key", "***"),
        ("Cookie", "session=1", "***"),
        ("webhook-signature", "v1,AAAA", "(made for each attempt)"),
        ("webhook-timestamp", "1795690838", "(made for each attempt)"),
        ("webhook-id", "msg_1", "msg_1"),
        ("X-Source", "crm", "crm"),
    ],
)
def test_shown_value(name: str, value: str, shown: str) -> None:
    """Of a header that may authenticate, only the scheme is shown.

    Values that always differ aren't shown either.
    """
    assert shown_value(name, value) == shown
    assert shown_value("X-Source", "crm", is_hidden=True) == "***"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        (" 100000 ", 100_000),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("9" * 5000, None),
        ("", None),
    ],
)
def test_whole_number(text: str, number: int | None) -> None:
    """A count is a whole number in the possible range."""
    assert whole_number(text) == number


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3.0),
        ("1.5", None),
        ("1" * 4301, 111_111_111_111.0),
        ("Sat, 11 Jul 2026 12:01:00 GMT", 60.0),
        ("Sat, 11 Jul 2026 11:01:00 GMT", 0.0),
        ("-5", None),
        ("inf", None),
        ("nan", None),
        ("soon", None),
        (None, None),
    ],
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    """It is seconds, or a date by the server's clock. An unreadable value is ignored."""
    assert retry_after(text, NOON) == seconds

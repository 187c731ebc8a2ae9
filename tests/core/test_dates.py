"""Times as the API writes them, and Microsoft JSON dates."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfoNotFoundError, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core.dates import (
    api_time,
    format_api_time,
    format_ms_date,
    iso_time,
    parse_duration,
    parse_ms_date,
    relative_time,
    time_zone,
)
from airflow_insightly_hooks.core.errors import InvalidDuration, InvalidTime
from tests.strategies import api_text, instants, milliseconds, recent

UTC = timezone.utc
MICROSOFT = json.loads((Path(__file__).parent.parent / "vectors" / "microsoft_dates.json").read_text())[
    "cases"
]
ZONES = sorted(available_timezones())


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2017-03-10 08:00:00", datetime(2017, 3, 10, 8, tzinfo=UTC)),
        ("2017-03-10T08:00:00", datetime(2017, 3, 10, 8, tzinfo=UTC)),
        ("2017-03-10T08:00:00Z", datetime(2017, 3, 10, 8, tzinfo=UTC)),
        ("2017-03-10 08:00", datetime(2017, 3, 10, 8, tzinfo=UTC)),
        ("2017-03-10", datetime(2017, 3, 10, tzinfo=UTC)),
        ("2017-03-10 03:34:10.787", datetime(2017, 3, 10, 3, 34, 10, 787000, tzinfo=UTC)),
        ("2017-03-10 03:34:10.7", datetime(2017, 3, 10, 3, 34, 10, 700000, tzinfo=UTC)),
        ("2017-03-10 03:34:10.123456789", datetime(2017, 3, 10, 3, 34, 10, 123456, tzinfo=UTC)),
        ("2017-03-10T00:00:00-08:00", datetime(2017, 3, 10, 8, tzinfo=UTC)),
        ("2017-03-10T00:00:00-0800", datetime(2017, 3, 10, 8, tzinfo=UTC)),
        ("2017-03-10T13:45:00+05:45", datetime(2017, 3, 10, 8, tzinfo=UTC)),
        ("2020-02-29", datetime(2020, 2, 29, tzinfo=UTC)),
    ],
)
def test_a_time_is_read(text, instant):
    """The API's form and ISO 8601 are read, without an offset as UTC; the result is in UTC."""
    assert api_time(text) == instant
    assert api_time(text).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2017-3-10",
        "2017-02-29",
        "2017-13-01",
        "2017-03-10 24:00:00",
        "2017-03-10 08:60:00",
        "2017-03-10 08:00:60",
        "2017-03-10 08:00:00.",
        "2017-03-10 08:00:00.1234567890",
        "2017-03-10 08",
        "2017-03-10T08:00:00+8",
        "2017-03-10T08:00:00+08:60",
        "2017-03-10 08:00:00 ",
        "2017-03-10 08:00:00\n",
        "2017-03-10  08:00:00",
        "\u0662\u0660\u0661\u0667-03-10",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "/Date(1489132800000-0800)/",
        None,
        1489132800000,
        datetime(2017, 3, 10, tzinfo=UTC),
        ["2017-03-10"],
    ],
)
def test_what_is_no_time_is_refused(text):
    """Anything else raises InvalidTime, which names the field and never the value."""
    with pytest.raises(InvalidTime) as caught:
        api_time(text, "Contacts.DATE_OF_BIRTH")
    assert caught.value.where == "Contacts.DATE_OF_BIRTH"
    assert isinstance(caught.value, ValueError)
    assert str(caught.value) == (
        "Contacts.DATE_OF_BIRTH is not a time such as '2017-03-10 08:00:00' or '2017-03-10T08:00:00Z'"
    )


@given(st.text() | st.from_regex(r"\A\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?\Z"))
def test_any_text_is_a_time_or_refused(text):
    """No text raises anything but InvalidTime."""
    with suppress(InvalidTime):
        assert api_time(text).tzinfo is UTC


@given(milliseconds)
def test_the_apis_times_round_trip(instant):
    """A time that the API has written is read as the same instant, to the millisecond."""
    assert api_time(api_text(instant)) == instant


@given(instants)
def test_iso_times_round_trip(instant):
    """What iso_time writes is read as the same instant, to the microsecond."""
    assert api_time(iso_time(instant)) == instant
    assert iso_time(instant).endswith("Z")


@given(instants, st.timedeltas(timedelta(hours=-14), timedelta(hours=14)).map(timezone))
def test_the_zone_of_an_instant_does_not_matter(instant, zone):
    """An instant is written in UTC, whatever time zone it has."""
    try:
        elsewhere = instant.astimezone(zone)
    except OverflowError:
        return
    assert iso_time(elsewhere) == iso_time(instant)
    assert format_api_time(elsewhere) == format_api_time(instant)
    assert format_ms_date(elsewhere) == format_ms_date(instant)


@given(instants)
def test_api_parameters_are_cut_to_whole_seconds(instant):
    """format_api_time writes whole seconds, never later than the instant, with four digits a year."""
    text = format_api_time(instant)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text)
    assert api_time(text) == instant.replace(microsecond=0)


@pytest.mark.parametrize("case", MICROSOFT, ids=lambda case: f"{case['utc']} {case['timezone']}")
def test_known_microsoft_dates(case):
    """Known instants have the milliseconds and offsets that other programs give them."""
    instant = api_time(case["utc"])
    assert format_ms_date(instant, case["timezone"]) == case["microsoft"]
    assert parse_ms_date(case["microsoft"]) == instant


def test_microsoft_dates_show_los_angeles():
    """Without a zone, the offset is that of Insightly's example: Los Angeles."""
    assert format_ms_date(api_time("2017-03-10 08:00:00")) == "/Date(1489132800000-0800)/"


@given(instants, st.sampled_from(ZONES))
def test_microsoft_dates_round_trip(instant, zone):
    """Any instant in any zone is written, in its form, and read back to the millisecond."""
    text = format_ms_date(instant, zone)
    assert re.fullmatch(r"/Date\(-?\d+[+-]\d{4}\)/", text)
    assert parse_ms_date(text) == instant.replace(microsecond=instant.microsecond // 1000 * 1000)


@given(milliseconds, st.sampled_from(ZONES))
def test_the_offset_is_the_zones_own(instant, zone):
    """The offset is the one of the time zone at that instant, to the minute."""
    shown = format_ms_date(instant, zone)[-7:-2]
    offset = instant.astimezone(time_zone(zone)).utcoffset()
    minutes = int(shown[1:3]) * 60 + int(shown[3:])
    assert abs(offset - timedelta(minutes=-minutes if shown[0] == "-" else minutes)) <= timedelta(seconds=30)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("/Date(0)/", datetime(1970, 1, 1, tzinfo=UTC)),
        ("/Date(1489132800000)/", datetime(2017, 3, 10, 8, tzinfo=UTC)),
        ("/Date(1489132800000+0000)/", datetime(2017, 3, 10, 8, tzinfo=UTC)),
        (r"\/Date(1489132800000-0800)\/", datetime(2017, 3, 10, 8, tzinfo=UTC)),
        ("/Date(-1)/", datetime(1969, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)),
    ],
)
def test_a_microsoft_date_is_read(text, instant):
    """It is read with or without an offset and escaped slashes; the offset doesn't move the instant."""
    assert parse_ms_date(text) == instant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/Date()/",
        "/Date(1.5)/",
        "/Date(+5)/",
        "/Date(5-08)/",
        "/Date(5-08:00)/",
        "/date(5)/",
        "Date(5)",
        "/Date(5)/\n",
        "/Date(\u0665)/",
        "2017-03-10 08:00:00",
        "/Date(253402300800000)/",
        "/Date(-62135596800001)/",
        f"/Date({'9' * 30})/",
        f"/Date({'9' * 5000})/",
    ],
)
def test_what_is_no_microsoft_date_is_refused(text):
    """Anything else raises InvalidTime, without the text."""
    with pytest.raises(InvalidTime) as caught:
        parse_ms_date(text)
    assert caught.value.where == "Microsoft JSON date"
    assert str(caught.value).startswith("Microsoft JSON date is not a time such as '2017-03-10 08:00:00'")


@pytest.mark.parametrize("name", ["", "Nowhere", "America", "../etc", "/etc/passwd", "UTC\0", "Zürich"])
def test_what_is_no_time_zone_is_refused(name):
    """A name that is no IANA zone raises ZoneInfoNotFoundError, whatever is wrong with it."""
    with pytest.raises(ZoneInfoNotFoundError):
        time_zone(name)
    with pytest.raises(ZoneInfoNotFoundError):
        format_ms_date(datetime(2020, 1, 1, tzinfo=UTC), name)


# --- durations and relative times --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("45s", timedelta(seconds=45)),
        ("30m", timedelta(minutes=30)),
        ("2h", timedelta(hours=2)),
        ("3d", timedelta(days=3)),
        ("1w", timedelta(weeks=1)),
        ("0s", timedelta(0)),
        ("007d", timedelta(days=7)),
        ("999999w", timedelta(weeks=999_999)),
    ],
)
def test_a_duration_is_read(text, duration):
    """A whole number and a unit, of seconds to weeks, make a duration."""
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text",
    [
        *("", "7", "d", "7 d", " 7d", "7d ", "7d\n", "7D", "7y", "1.5h", "-7d", "+7d", "1d2h", "1000000s"),
        *("\u0667d", "9" * 5000 + "d", None, 7, 7.0, timedelta(7), ["7d"]),
    ],
)
def test_what_is_no_duration_is_refused(text):
    """Anything else raises InvalidDuration, which names the argument and never the value."""
    with pytest.raises(InvalidDuration) as caught:
        parse_duration(text, "within")
    assert caught.value.where == "within"
    assert isinstance(caught.value, ValueError)
    assert str(caught.value) == "within is not a duration such as '45s', '30m', '2h', '3d' or '1w'"


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("now", datetime(2024, 6, 1, 1, 30, 15, 500, tzinfo=UTC)),
        ("now-7d", datetime(2024, 5, 25, 1, 30, 15, 500, tzinfo=UTC)),
        ("now+2h", datetime(2024, 6, 1, 3, 30, 15, 500, tzinfo=UTC)),
        ("today", datetime(2024, 6, 1, tzinfo=UTC)),
        ("today-1s", datetime(2024, 5, 31, 23, 59, 59, tzinfo=UTC)),
        ("today+1w", datetime(2024, 6, 8, tzinfo=UTC)),
        ("now+0s", datetime(2024, 6, 1, 1, 30, 15, 500, tzinfo=UTC)),
    ],
)
def test_a_relative_time_is_measured(text, instant):
    """It is added to the given time, or to the midnight in UTC before it, whatever the time's zone is."""
    now = datetime(2024, 6, 1, 1, 30, 15, 500, tzinfo=UTC)
    measured = relative_time(text)
    assert measured(now) == instant
    assert measured(now.astimezone(timezone(timedelta(hours=-8)))) == instant


@pytest.mark.parametrize(
    "text",
    [
        *("", "Now", "NOW", "now ", " now", "now - 7d", "now-7", "now-d", "now7d", "now--7d", "now-7d-1h"),
        *("tomorrow", "now\n", "now-\u0667d", "2017-03-10", None, 7, UTC, ["now"]),
    ],
)
def test_what_is_not_relative_is_left_alone(text):
    """Anything else is not relative, and no error is raised."""
    assert relative_time(text) is None


@pytest.mark.parametrize("text", ["now+999999w", "now-999999w", "today+999999w"])
def test_a_relative_time_beyond_the_calendar_overflows(text):
    """If there is no such time, OverflowError says so."""
    with pytest.raises(OverflowError):
        relative_time(text)(datetime(2024, 6, 1, tzinfo=UTC))


@given(recent, st.integers(0, 9999), st.sampled_from("smhdw"), st.sampled_from(["+", "-"]))
def test_a_relative_time_is_its_duration_away(now, number, unit, sign):
    """For any time and duration, the difference is what parse_duration returns."""
    distance = relative_time(f"now{sign}{number}{unit}")(now) - now
    assert distance == parse_duration(f"{number}{unit}") * (1 if sign == "+" else -1)

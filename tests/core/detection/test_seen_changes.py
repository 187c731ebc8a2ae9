"""What is remembered of seen changes is exact, small and bounded, and shows what was given up."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core.detection import seen_changes as module
from airflow_insightly_hooks.core.detection.seen_changes import MOST_BLOCKS, SeenChanges

START = datetime(2026, 3, 29, tzinfo=timezone.utc)
END = START + timedelta(minutes=15)
IDS = st.integers(1, 2**63 - 1)
STATE_LIMIT = 60_000


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def again(seen: SeenChanges) -> SeenChanges:
    blocks = seen.blocks()
    assert all(len(block) < STATE_LIMIT for block in blocks)
    assert len(blocks) <= MOST_BLOCKS
    return SeenChanges.of(seen.since, seen.until, blocks)


def test_a_change_is_unseen_until_it_is_seen():
    """A record counts as seen up to its latest time.

    A later time of it is unseen, and so is another record.
    """
    seen = SeenChanges(START, END)
    assert seen.is_unseen(7, [at(1), at(5)])
    assert seen.is_unseen(7, [START])
    seen.see(7, [at(1), at(5)])
    assert not seen.is_unseen(7, [at(1), at(5)])
    assert not seen.is_unseen(7, [at(4), None])
    assert seen.is_unseen(7, [at(1), at(6)])
    assert seen.is_unseen(8, [at(1)])
    seen.see(7, [at(1), at(2)])
    assert seen.seen_up_to(7) == at(5)


@pytest.mark.parametrize("time", [None, at(-1), at(15 * 60)])
def test_only_what_is_in_the_span_counts(time):
    """Changes outside of the span are neither remembered nor unseen."""
    seen = SeenChanges(START, END)
    seen.see(7, [time])
    assert len(seen) == 0
    assert not seen.is_unseen(7, [time])


@pytest.mark.parametrize("record_id", [0, -1, 2**63, True, None, "7", 7.0, [7]])
def test_what_is_no_id_is_not_remembered(record_id):
    """A record without a usable id never counts as seen."""
    seen = SeenChanges(START, END)
    seen.see(record_id, [at(1)])
    assert len(seen) == 0
    assert seen.seen_up_to(record_id) is None


def test_another_span():
    """Of what was remembered for another span, only the part that both spans have remains."""
    seen = SeenChanges(START, END)
    for second in range(10):
        seen.see(second + 1, [at(second)])
    part = seen.within(at(3), at(6))
    assert (part.since, part.until) == (at(3), at(6))
    assert [part.seen_up_to(record_id) for record_id in range(1, 11)] == [
        at(second) if 3 <= second < 6 else None for second in range(10)
    ]


@given(
    st.dictionaries(IDS, st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1)))  # noqa: DTZ001 — made aware below
)
def test_it_is_read_as_it_was_written(times):
    """Ids of 63 bits, and times of any century to the microsecond, come back exactly."""
    since, until = (datetime(year, 1, 1, tzinfo=timezone.utc) for year in (1900, 2201))
    seen = SeenChanges(since, until)
    for record_id, time in times.items():
        seen.see(record_id, [time.replace(tzinfo=timezone.utc)])
    read = again(seen)
    assert {record_id: read.seen_up_to(record_id) for record_id in times} == {
        record_id: time.replace(tzinfo=timezone.utc) for record_id, time in times.items()
    }
    assert len(read) == len(times)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [31, 63])
def test_an_import_of_a_hundred_thousand_records_fits(bits):
    """100,000 records of one second fit, whatever their ids are, together with the usual 15 minutes."""
    random = Random(1)
    seen = SeenChanges(START, END)
    ids = {random.randrange(1, 2**bits) for _ in range(100_000)}
    for record_id in ids:
        seen.see(record_id, [at(300)])
    for _ in range(9_000):
        seen.see(random.randrange(1, 2**bits), [at(random.randrange(900))])
    read = again(seen)
    assert read.since == START
    assert all(read.seen_up_to(record_id) for record_id in ids)


def test_ten_changes_a_second_fit_in_one_value():
    """A quarter of an hour with ten changes a second is one value of Airflow's state."""
    random = Random(1)
    seen = SeenChanges(START, END)
    for second in range(900):
        for _ in range(10):
            seen.see(random.randrange(1, 2_000_000), [at(second)])
    assert len(seen.blocks()) == 1


def test_the_earliest_are_given_up_where_it_would_not_fit(monkeypatch):
    """If there is too much, ``since`` moves forward, and everything from then on is known."""
    monkeypatch.setattr(module, "MOST_RECORDS", 1_000)
    seen = SeenChanges(START, END)
    for number in range(1, 5_000):
        seen.see(number, [at(number // 10)])
    read = again(seen)
    assert START < read.since <= at(450)
    assert 500 < len(read) <= 1_000
    assert all(read.seen_up_to(n) == at(n // 10) for n in range(1, 5_000) if at(n // 10) >= read.since)


def test_as_many_as_fit_are_kept(monkeypatch):
    """The latest records are kept, as many as are allowed."""
    monkeypatch.setattr(module, "MOST_RECORDS", 100)
    seen = SeenChanges(START, END)
    for number in range(150):
        seen.see(number + 1, [at(number)])
        if number == 99:
            assert (len(again(seen)), seen.since) == (100, START)
    read = again(seen)
    assert (len(read), read.since) == (100, at(49) + timedelta(microseconds=1))


def of_one_second(monkeypatch, records: int) -> SeenChanges:
    """Return so many records that were seen in one second; two blocks of 100 records are allowed."""
    monkeypatch.setattr(module, "MOST_BLOCKS", 2)
    monkeypatch.setattr(module, "BLOCK_RECORDS", 100)
    seen = SeenChanges(START, END)
    for number in range(1, records + 1):
        seen.see(number, [at(5)])
    return seen


def test_as_many_blocks_as_are_allowed_are_kept(monkeypatch):
    """Nothing is forgotten if everything fits exactly."""
    seen = of_one_second(monkeypatch, 200)
    assert len(seen.blocks()) == 2
    assert (len(seen), seen.since) == (200, START)


def test_one_second_that_would_not_fit_is_given_up_as_a_whole(monkeypatch):
    """Either all records of one second are remembered, or none of them."""
    seen = of_one_second(monkeypatch, 999)
    seen.see(1_000, [at(6)])
    blocks = seen.blocks()
    assert len(blocks) == 1
    assert at(5) < seen.since <= at(6)
    read = SeenChanges.of(seen.since, seen.until, blocks)
    assert (len(read), read.seen_up_to(1_000)) == (1, at(6))


@pytest.mark.parametrize("block", [None, "", "x", 7, module.packed([1, 2])])
def test_a_block_that_cannot_be_read(block):
    """Anything but a block is refused."""
    with pytest.raises(ValueError, match=r"^a block of seen changes can't be read$"):
        SeenChanges.of(START, END, [block])


@pytest.mark.parametrize("integers", [[0, 5, 5], [1, 5, 1_000_000], [1, 0, 5, 5, 1, 1], [2**63, 5, 5]])
def test_a_block_of_what_is_no_record(integers):
    """Repeated or invalid ids, and a microsecond of another second, are refused."""
    with pytest.raises(ValueError, match=r"^a block of seen changes can't be read$"):
        SeenChanges.of(START, END, [module.packed(integers)])


def test_a_block_of_too_many_records(monkeypatch):
    """This package writes no such block, and to unpack it could fill the memory."""
    monkeypatch.setattr(module, "BLOCK_RECORDS", 3)
    three, four = (module.packed([1] * n + [5] * n + [0] * n) for n in (3, 4))
    assert len(SeenChanges.of(START, END, [three])) == 3
    with pytest.raises(ValueError, match="can't be read"):
        SeenChanges.of(START, END, [four])

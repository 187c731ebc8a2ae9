"""Reading in a thread, a little ahead of the task that takes the items."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from airflow_insightly_hooks.operators.one_task.read_ahead import ReadAhead, once


def never() -> bool:
    return False


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "insightly-read-ahead"]


def ahead(items: Iterator[int], most: int = 3) -> ReadAhead[int]:
    return ReadAhead(items, lambda _: 1, most, lambda: None)


def test_all_come_in_order() -> None:
    """Each item comes once, and no thread is left."""
    assert list(ahead(iter(range(1_000))).take(never)) == list(range(1_000))
    assert threads() == []


def test_it_reads_so_far_ahead_and_no_further() -> None:
    """While one item is handled, the next ones are read: as many as may wait, and one that doesn't fit."""
    read: list[int] = []
    reading = ahead(iter(lambda: read.append(len(read)) or len(read), 20))  # type: ignore[func-returns-value]
    taken = reading.take(never)
    assert next(taken) == 1
    end = time.monotonic() + 10
    while len(read) < 5 and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(read) == 5
    assert list(taken) == list(range(2, 20))


def test_a_larger_item_comes_alone() -> None:
    """An item that is larger than the limit is still read."""
    reading = ReadAhead(iter([1, 9, 9, 1]), lambda item: item, 3, lambda: None)
    assert list(reading.take(never)) == [1, 9, 9, 1]


def test_an_error_comes_behind_what_was_read_before_it() -> None:
    """It is raised when the items before it have been taken."""

    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("half-way")

    taken = ahead(items()).take(never)
    assert [next(taken), next(taken)] == [1, 2]
    with pytest.raises(OSError, match="half-way"):
        next(taken)
    assert threads() == []


def test_close_ends_what_the_thread_waits_for() -> None:
    """A thread that waits for an answer or for room ends at once."""
    answered = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        answered.wait(30)
        yield 2

    for one in (items(), iter(range(1_000))):
        reading = ReadAhead(one, lambda _: 1, 2, answered.set)
        next(reading.take(never))
        time.sleep(0.05)
        assert len(threads()) == 1
        started = time.monotonic()
        reading.close()
        assert threads() == []
        assert time.monotonic() - started < 2


def test_a_task_that_is_to_end_waits_for_nothing() -> None:
    """A task that waits for an item checks regularly whether it must stop."""
    stopped, answered = threading.Event(), threading.Event()
    reading = ReadAhead(iter(lambda: answered.wait(30) and 1, 1), lambda _: 1, 2, answered.set)
    threading.Timer(0.1, stopped.set).start()
    started = time.monotonic()
    assert list(reading.take(stopped.is_set)) == []
    reading.close()
    assert time.monotonic() - started < 3
    assert threads() == []


def test_once() -> None:
    """Two threads that ask at the same time get one answer."""
    asked: list[int] = []

    def ask() -> int:
        time.sleep(0.1)
        asked.append(1)
        return len(asked)

    answer = once(ask)
    answers: list[int] = []
    workers = [threading.Thread(target=lambda: answers.append(answer())) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (answers, asked) == ([1] * 4, [1])

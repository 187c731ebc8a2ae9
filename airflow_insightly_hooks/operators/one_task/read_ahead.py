"""Reading in a thread of its own, a little ahead of the thread that takes what was read."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

__all__ = ["ReadAhead", "once"]

_T = TypeVar("_T")

MOST_ITEMS = 100
"""Items that wait to be taken, at most, however small they are."""
LOOKS = 0.5
"""Seconds between two looks at whether the task is to end, while it waits for an item."""
LONGEST_END = 5.0
"""Seconds that ``close`` waits for the thread to end."""


class ReadAhead(Generic[_T]):
    """Takes items from an iterator in a thread, until as much as is allowed waits to be taken.

    An error of the iterator is raised when all items before it were taken. The thread starts when the first
    item is asked for. It ends with the iterator, or by ``close``.

    :param items: runs in the thread alone.
    :param size_of: how large an item is, in the unit of ``most``.
    :param most: how much may wait in all, unless a single item is larger.
    :param end: ends what ``items`` waits for; called by ``close`` where the thread has not ended.
    """

    def __init__(
        self, items: Iterator[_T], size_of: Callable[[_T], int], most: int, end: Callable[[], None]
    ) -> None:
        self._items, self._size_of, self._most, self._end = items, size_of, most, end
        self._waiting: deque[_T] = deque()
        self._size = 0
        self._has_ended = self._is_closed = False
        self._error: BaseException | None = None
        self._turn = threading.Condition()
        self._thread: threading.Thread | None = None

    def take(self, is_stopped: Callable[[], bool]) -> Iterator[_T]:
        """Yield the items; end early once ``is_stopped`` returns true.

        :raises Exception: what the iterator has raised.
        """
        self._thread = threading.Thread(target=self._read, name="insightly-read-ahead", daemon=True)
        self._thread.start()
        while True:
            with self._turn:
                while not self._waiting and not self._has_ended and not is_stopped():
                    self._turn.wait(LOOKS)
                if is_stopped():
                    return
                if not self._waiting:
                    break
                item = self._waiting.popleft()
                self._size -= self._size_of(item)
                self._turn.notify_all()
            yield item
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End the thread, whatever it waits for; drop what it has read and nobody took."""
        with self._turn:
            self._is_closed = True
            self._waiting.clear()
            self._turn.notify_all()
        if self._thread is not None and self._thread.is_alive():
            self._end()
            self._thread.join(LONGEST_END)

    def _read(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
        except BaseException as error:  # it is raised where the items are taken
            self._error = error
        finally:
            with self._turn:
                self._has_ended = True
                self._turn.notify_all()

    def _put(self, item: _T) -> bool:
        size = self._size_of(item)
        with self._turn:
            while not self._is_closed and self._is_full(size):
                self._turn.wait()
            self._waiting.append(item)
            self._size += size
            self._turn.notify_all()
            return not self._is_closed

    def _is_full(self, size: int) -> bool:
        return len(self._waiting) >= MOST_ITEMS or (self._size > 0 and self._size + size > self._most)


def once(ask: Callable[[], _T]) -> Callable[[], _T]:
    """Return a function that calls ``ask`` the first time, in whichever thread, and keeps its answer."""
    turn, answers = threading.Lock(), list[_T]()

    def answer() -> _T:
        with turn:
            if not answers:
                answers.append(ask())
            return answers[0]

    return answer

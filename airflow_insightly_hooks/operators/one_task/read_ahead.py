"""Read in a separate thread, a little ahead of the thread that takes the items."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

__all__ = ["ReadAhead", "once"]

_T = TypeVar("_T")

MOST_ITEMS = 100
"""The most items that wait to be taken, however small they are."""
LOOKS = 0.5
"""Seconds between two checks of whether the task must end, while it waits for an item."""
LONGEST_END = 5.0
"""Seconds that ``close`` waits for the thread to end."""


class ReadAhead(Generic[_T]):
    """Takes items from an iterator in a thread, until the items that wait have the size that is allowed.

    An error of the iterator is raised when all items before it were taken. The thread starts when the first
    item is requested. It ends with the iterator, or when ``close`` is called.

    :param items: the iterator; it runs only in the thread.
    :param size_of: returns the size of an item, in the unit of ``most``.
    :param most: the greatest total size of the items that wait, unless a single item is larger.
    :param end: ends the wait of ``items``; ``close`` calls it if the thread has not ended.
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

        :raises Exception: the iterator's error.
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
        """End the thread, whatever it waits for, and drop the items that were not taken."""
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
        except BaseException as error:  # ``take`` raises it
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
    """Return a function that calls ``ask`` once, in any thread, and then returns the same answer."""
    turn, answers = threading.Lock(), list[_T]()

    def answer() -> _T:
        with turn:
            if not answers:
                answers.append(ask())
            return answers[0]

    return answer

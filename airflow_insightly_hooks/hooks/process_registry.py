"""Objects that a whole process shares: one object for each key, such as one limiter for each account."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["ProcessRegistry", "clear_process_registries"]

K = TypeVar("K")
V = TypeVar("V")

_registries: weakref.WeakSet[ProcessRegistry[Any, Any]] = weakref.WeakSet()


class ProcessRegistry(Generic[K, V]):
    """Objects by key. Each is made at its first use. Several threads may use the registry at once.

    :param make: makes the object for a key. It must not use this registry.
    :param most: the most objects that are kept. The one that was unused for the longest time is removed
        first. ``None``: all are kept.
    """

    def __init__(self, make: Callable[[K], V], most: int | None = None) -> None:
        self.most = most
        self._make = make
        self._objects: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()
        _registries.add(self)

    def get(self, key: K) -> V:
        """Return the object of a key."""
        with self._lock:
            if key not in self._objects:
                self._objects[key] = self._make(key)
            self._objects.move_to_end(key)
            if self.most is not None and len(self._objects) > self.most:
                self._objects.popitem(last=False)
            return self._objects[key]

    def items(self) -> list[tuple[K, V]]:
        """Return the keys with their objects, in the order of their last use."""
        with self._lock:
            return list(self._objects.items())

    def clear(self) -> None:
        """Remove all objects. Each is made again at its next use."""
        with self._lock:
            self._objects.clear()


def clear_process_registries() -> None:
    """Clear all registries, so that a test begins like a new process."""
    for registry in list(_registries):
        registry.clear()

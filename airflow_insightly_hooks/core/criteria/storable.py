"""Checks that criteria hold only values that Airflow can store with their DAG.

Airflow's DAG processor packs all DAGs of a file into one message. If one value can't be packed, such as a
very large number or lists that nest a thousand levels deep, none of the file's DAGs is stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

from airflow_insightly_hooks.core.errors import InvalidCriteria

__all__ = ["check_storable"]

DEEPEST = 250
"""How many levels may nest. Groups may nest 100 levels deep, and each group is a mapping and a list."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def check_storable(criteria: object) -> None:
    """Check that criteria, with the templates in them, can be stored. Their meaning is not checked.

    :raises InvalidCriteria: if not; ``path`` is the place of the value.
    """
    level = {id(criteria): ("criteria", criteria)}
    for _ in range(DEEPEST):
        if not level:
            return
        # An object that is in several places is checked once on each level: a few lines can make billions.
        below = {}
        for path, value in level.values():
            if reason := _unstorable(value):
                raise InvalidCriteria(path, reason)
            for step, member in _members(value):
                below[id(member)] = (f"{path}{step}", member)
        level = below
    if level:
        raise InvalidCriteria("criteria", f"they nest more than {DEEPEST} levels deep: use fewer levels")


def _members(value: object) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, member in value.items():
            yield f".{key}", member
            if isinstance(key, str):
                yield "", key
    elif isinstance(value, list | tuple):
        for index, member in enumerate(value):
            yield f"[{index}]", member


def _unstorable(value: object) -> str | None:
    """Return why a value can't be stored; ``None`` if it can."""
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return "a number beyond 64 bits can't be stored: write it as a text"
    if isinstance(value, float) and not isfinite(value):
        return "a number that is not finite can't be stored"
    if isinstance(value, str) and _UNSTORABLE.search(value):
        return "a text with U+0000 or half of a surrogate pair can't be stored"
    return None

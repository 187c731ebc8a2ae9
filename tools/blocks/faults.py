"""The block of the faults that a delivery survives, from the cases in ``tests/faults``.

A case is a test with the mark ``@fault(number, title, requests=…)``. Its docstring says what happens.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from blocks.markdown import table

ROOT = Path(__file__).parent.parent.parent
NUMBERS = range(1, 107)
PLAIN = {"passes": "passes", "fails": "**fails**", None: "-"}


class Case(NamedTuple):
    """A test of a fault."""

    number: int
    title: str
    requests: str | None
    does: str
    test: str


def cases() -> list[Case]:
    """Return the cases, by number and then in the order of the files."""
    found = [
        case for path in sorted((ROOT / "tests" / "faults").glob("test_*.py")) for case in _cases_in(path)
    ]
    return sorted(found, key=lambda case: case.number)


def _cases_in(path: Path) -> Iterator[Case]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == "fault":
                number, title = (ast.literal_eval(argument) for argument in mark.args)
                requests = next(
                    (ast.literal_eval(k.value) for k in mark.keywords if k.arg == "requests"), None
                )
                does = " ".join((ast.get_docstring(node) or "").split())
                name = f"{path.relative_to(ROOT).as_posix()}::{node.name}"
                yield Case(number, title, requests, does, name)


def block(_about: str) -> str:
    """Return the table, after a line with numbers of tests and faults.

    :raises ValueError: if a fault has no case.
    """
    found = cases()
    if lacking := missing(found):
        raise ValueError(f"no case for the faults {', '.join(map(str, lacking))}")
    fails = len({case.number for case in found if case.requests == "fails"})
    faults = len({case.number for case in found})
    rows = (
        (
            str(case.number),
            case.title,
            case.does,
            PLAIN[case.requests],
            f"[`{case.test.rpartition('::')[2]}`](../../{case.test.split('::')[0]})",
        )
        for case in found
    )
    return (
        f"{len(found)} tests of {faults} faults; a plain `requests.post` fails tests of {fails} of them.\n\n"
        + table(("", "fault", "what happens", "a plain `requests.post`", "test"), rows)
    )


def missing(found: list[Case]) -> list[int]:
    """Return the numbers of the faults without a case."""
    return sorted(set(NUMBERS) - {case.number for case in found})

"""Make the table of docs/explanation/delivery.md from the cases in ``tests/faults``.

A case is a test with the mark ``@fault(number, title, requests=…)``; its docstring says what happens. With
``--check`` nothing is written: the exit code is 1 if the table is stale, or a number has no case.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "explanation" / "delivery.md"
BEGIN, END = "<!-- cases: begin -->\n", "<!-- cases: end -->\n"
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


def table(found: list[Case]) -> str:
    """Return the table as Markdown, after a line that counts."""
    fails = len({case.number for case in found if case.requests == "fails"})
    faults = len({case.number for case in found})
    lines = [
        f"{len(found)} tests of {faults} faults; a plain `requests.post` fails tests of {fails} of them.",
        "",
        "| | fault | what happens | a plain `requests.post` | test |",
        "|---|---|---|---|---|",
    ]
    for case in found:
        name = case.test.rpartition("::")[2]
        cells = (
            str(case.number),
            case.title,
            case.does,
            PLAIN[case.requests],
            f"[`{name}`](../../{case.test.split('::')[0]})",
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def missing(found: list[Case]) -> list[int]:
    """Return the numbers that have no case."""
    return sorted(set(NUMBERS) - {case.number for case in found})


def with_table(text: str, found: list[Case]) -> str:
    """Return the document with its table made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table(found) + END + after


def main() -> int:
    """Write the document, or check it."""
    found, text = cases(), DOCUMENT.read_text(encoding="utf-8")
    made = with_table(text, found)
    if "--check" not in sys.argv:
        DOCUMENT.write_text(made, encoding="utf-8")
    elif made != text:
        print("docs/explanation/delivery.md: its table of faults is stale: run tools/fault_table.py")
        return 1
    if lacking := missing(found):
        print(f"no case for the faults {', '.join(map(str, lacking))}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

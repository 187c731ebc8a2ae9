"""Print results on standard output, and everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import yaml
from airflow.cli.simple_table import AirflowConsole, SimpleTable
from rich.cells import cell_len
from rich.text import Text
from tabulate import tabulate  # type: ignore[import-untyped]

__all__ = ["Console", "is_structured", "print_line", "print_rows", "print_value", "say"]

WIDEST_WHOLE = 32
"""A table's columns are not folded if they are no wider than this, in characters."""
NARROWEST_FOLDED = 24
"""The smallest width of a folded column, in characters."""
BETWEEN_COLUMNS = " | "


class Console(AirflowConsole):
    """Airflow's console, with errors of a closed pipe that ``cli.run`` handles."""

    def on_broken_pipe(self) -> NoReturn:
        """Raise the error that rich has caught: rich would end the process with exit code 1."""
        raise BrokenPipeError


def say(text: str) -> None:
    """Print a text for the user at the terminal, to standard error."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 — a command line prints


def is_structured(output: str) -> bool:
    """Return whether ``--output`` is a format for programs: JSON or YAML."""
    return output in ("json", "yaml")


def print_line(text: str) -> None:
    """Print a line to standard output, unchanged."""
    print(text)  # noqa: T201 — a command line prints


def print_rows(rows: Sequence[Mapping[str, Any]], output: str) -> None:
    """Print rows in the format that ``--output`` names: ``table``, ``plain``, ``json`` or ``yaml``.

    Airflow's own function is not used: it turns all values into texts in JSON, reads ``[…]`` in a table's
    cells as markup, and formats texts as numbers in ``plain``.

    :param rows: mappings with the same keys and with JSON values.
    """
    if is_structured(output):
        print_value([dict(row) for row in rows], output)
    elif not rows:
        say("No data found")
    elif output == "plain":
        cells = [[_cell(value) for value in row.values()] for row in rows]
        print_line(tabulate(cells, headers=list(rows[0]), tablefmt="plain", disable_numparse=True))
    else:
        _print_table(list(rows[0]), [[_cell(value) for value in row.values()] for row in rows])


def _print_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in which ids, times and addresses are not folded, so that users can copy them.

    Columns with sentences are folded if the table then fits the terminal. If it doesn't fit, or if there is
    no terminal, nothing is folded: each row is one line.
    """
    columns = list(zip(names, *rows, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    folding = [
        width > WIDEST_WHOLE and any(" " in cell for cell in column[1:])
        for width, column in zip(widths, columns, strict=True)
    ]
    between = len(BETWEEN_COLUMNS) * (len(names) - 1)
    narrowest = between + sum(
        NARROWEST_FOLDED if folds else width for width, folds in zip(widths, folding, strict=True)
    )
    widest = between + sum(widths)
    console = Console()
    if not sys.stdout.isatty() or console.width < narrowest:
        console.width = widest
    table = SimpleTable(show_header=True)
    for name, folds in zip(names, folding, strict=True):
        table.add_column(name, no_wrap=not folds)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table, crop=False)


def print_value(value: Any, output: str) -> None:
    """Print a value as JSON or YAML.

    :param output: ``json`` or ``yaml``.
    """
    if output == "json":
        print_line(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        print_line(yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip())


def _cell(value: Any) -> str:
    """Return a value as the text of a cell: in one line, with control characters escaped."""
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    if value is None:
        return ""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

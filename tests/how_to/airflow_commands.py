"""The ``airflow`` commands of a page, as Airflow's own parser reads them."""

from __future__ import annotations

import argparse
import functools
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

from airflow.cli import cli_parser

__all__ = ["DOCS", "blocks", "commands", "parse", "parsed_commands", "quoted_commands"]

DOCS = Path(__file__).parent.parent.parent / "docs"
BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SUBSTITUTION = re.compile(r'"\$\(date [^)]*\)"')
CODE = re.compile(r"`(airflow [^`]+)`")


def blocks(page: str) -> list[tuple[str, str]]:
    """Return language and text of each code block of a page, such as ``how-to/backfill.md``."""
    return [(kind, textwrap.dedent(code)) for kind, code in BLOCK.findall((DOCS / page).read_text("utf-8"))]


def commands(page: str) -> list[str]:
    """Return the ``airflow`` commands of a page's shell blocks, a line each."""
    found = [text.replace("\\\n", " ") for kind, text in blocks(page) if kind == "bash"]
    lines = [line.strip() for text in found for line in text.splitlines()]
    return [line for line in lines if line.startswith("airflow ")]


def quoted_commands(page: str) -> list[str]:
    """Return the ``airflow`` commands that stand in a page's sentences and tables."""
    return CODE.findall((DOCS / page).read_text("utf-8"))


def parsed_commands(page: str) -> Iterator[argparse.Namespace]:
    """Yield each of the commands in a page's shell blocks as Airflow reads it."""
    return map(parse, commands(page))


def parse(command: str) -> argparse.Namespace:
    """Return a command as Airflow reads it, with a date where the shell would put in one."""
    arguments = shlex.split(SUBSTITUTION.sub("2026-01-31", command), comments=True)[1:]
    try:
        return _parser().parse_args(arguments)
    except SystemExit:
        raise AssertionError(f"Airflow refuses {command!r}") from None


@functools.cache
def _parser() -> argparse.ArgumentParser:
    return cli_parser.get_parser()

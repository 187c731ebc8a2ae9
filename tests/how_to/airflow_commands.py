"""The ``airflow`` commands of a page, as Airflow's own parser reads them."""

from __future__ import annotations

import argparse
import functools
import re
import shlex
from collections.abc import Iterator

from airflow.cli import cli_parser

from tests.how_to.pages import Page

__all__ = ["command_lines", "parse", "parsed_commands", "quoted_commands"]

SUBSTITUTION = re.compile(r'"\$\(date [^)]*\)"')
CODE = re.compile(r"`(airflow [^`]+)`")


def command_lines(page: Page) -> list[str]:
    """Return the ``airflow`` commands of a page's shell blocks, one line for each."""
    found = [text.replace("\\\n", " ") for kind, text in page.blocks if kind == "bash"]
    lines = [line.strip() for text in found for line in text.splitlines()]
    return [line for line in lines if line.startswith("airflow ")]


def quoted_commands(page: Page) -> list[str]:
    """Return the ``airflow`` commands that stand in a page's sentences and tables."""
    return CODE.findall(page.text)


def parsed_commands(page: Page) -> Iterator[argparse.Namespace]:
    """Yield each of the commands in a page's shell blocks as Airflow reads it."""
    return map(parse, command_lines(page))


def parse(command: str) -> argparse.Namespace:
    """Return a command as Airflow reads it, with a date in place of shell substitutions."""
    arguments = shlex.split(SUBSTITUTION.sub("2026-01-31", command), comments=True)[1:]
    try:
        return _parser().parse_args(arguments)
    except SystemExit:
        raise AssertionError(f"Airflow refuses {command!r}") from None


@functools.cache
def _parser() -> argparse.ArgumentParser:
    return cli_parser.get_parser()

"""Asking whether to go on, before a command sends or changes something."""

from __future__ import annotations

import sys

from airflow.exceptions import AirflowConfigException
from airflow.utils.helpers import ask_yesno
from airflow.utils.platform import getuser

from airflow_insightly_hooks.cli.output import say
from airflow_insightly_hooks.cli.run import UsageError

__all__ = ["check_confirmable", "confirm"]


def check_confirmable(question: str = "", *, is_confirmed: bool) -> None:
    """Check that a confirmation is given already, or can be asked for.

    :raises UsageError: if not.
    """
    if not is_confirmed and not sys.stdin.isatty():
        asked = f". The question is: {question}" if question else ""
        raise UsageError(f"there is no terminal to confirm: add --yes{asked}")


def confirm(question: str, *, is_confirmed: bool) -> bool:
    """Return whether to go on: it is confirmed already, or the answer is yes.

    :raises UsageError: if nobody can be asked.
    """
    check_confirmable(question, is_confirmed=is_confirmed)
    return is_confirmed or ask_yesno(f"{question} [y/n]", output_fn=say)


def user_name() -> str:
    """Return the name of the user at the terminal, as Airflow's own commands record it."""
    try:
        return getuser()
    except AirflowConfigException:
        return "unknown"

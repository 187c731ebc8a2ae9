"""Ask for a confirmation before a command sends or changes something."""

from __future__ import annotations

import sys

from airflow.exceptions import AirflowConfigException
from airflow.utils.helpers import ask_yesno
from airflow.utils.platform import getuser

from airflow_insightly_hooks.cli.output import say
from airflow_insightly_hooks.cli.run import UsageError

__all__ = ["check_confirmable", "confirm"]


def check_confirmable(question: str = "", *, is_confirmed: bool) -> None:
    """Check that the user has confirmed already, or that a terminal is there to ask for a confirmation.

    :raises UsageError: if neither is true.
    """
    if not is_confirmed and not sys.stdin.isatty():
        asked = f". The question is: {question}" if question else ""
        raise UsageError(f"there is no terminal to ask for a confirmation: add --yes{asked}")


def confirm(question: str, *, is_confirmed: bool) -> bool:
    """Return whether to continue: the user has confirmed already, or answers yes.

    :raises UsageError: if there is no terminal to ask.
    """
    check_confirmable(question, is_confirmed=is_confirmed)
    return is_confirmed or ask_yesno(f"{question} [y/n]", output_fn=say)


def user_name() -> str:
    """Return the name of the user at the terminal, as Airflow's own commands record it."""
    try:
        return getuser()
    except AirflowConfigException:
        return "unknown"

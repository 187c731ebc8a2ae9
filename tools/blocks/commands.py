"""The blocks of the command line: the arguments of each command, from the definition of its parser."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from airflow.cli.cli_config import ARG_OUTPUT, Arg

from airflow_insightly_hooks.cli.definition import COMMANDS
from blocks.markdown import table

OUTPUT = "the format: `table` (the default), `plain`, `json` or `yaml` ([more](#common-to-all))"


def block(command: str) -> str:
    """Return the arguments of a command, such as ``preview`` or ``pending list``.

    :raises ValueError: if there is no such command, or an argument has no help.
    """
    found: Iterable[Any] = COMMANDS
    one: Any = None
    for name in command.split():
        one = next((each for each in found if each.name == name), None)
        if one is None:
            raise ValueError(f"there is no command {command}")
        found = getattr(one, "subcommands", ())
    if not hasattr(one, "args"):
        raise ValueError(f"{command} has subcommands: make a block for each of them")
    return table(("argument", "meaning", "default"), (_row(argument, command) for argument in one.args))


def command_names() -> list[str]:
    """Return the names of all commands that take arguments."""
    return [
        f"{command.name} {below.name}" if below is not command else command.name
        for command in COMMANDS
        for below in getattr(command, "subcommands", [command])
    ]


def _row(argument: Arg, command: str) -> tuple[str, str, str]:
    options = argument.kwargs
    is_option = argument.flags[0].startswith("-")
    takes_value = "choices" in options or options.get("action", "extend") == "extend"
    value = "" if not takes_value else options.get("metavar") or argument.flags[-1].lstrip("-").upper()
    if argument is ARG_OUTPUT:
        return "`--output FORMAT`, `-o`", OUTPUT, "`table`"
    if not (meaning := options.get("help")):
        raise ValueError(f"{command}: the argument {argument.flags[-1]} has no help")
    meaning = meaning.replace("%(default)s", str(options.get("default")))
    if choices := options.get("choices"):
        meaning += f"; one of {', '.join(f'`{choice}`' for choice in choices)}"
    several = " …" if options.get("nargs") == "+" else ""
    if not is_option:
        return f"`{value}{several}`", meaning, "" if options.get("nargs") == "?" else "required"
    flags = [f"`{flag}`" for flag in argument.flags]
    flags[-1] = f"`{argument.flags[-1]}{' ' if value else ''}{value}{several}`"
    default = options.get("default")
    shown = "required" if options.get("required") else "" if default in (None, [], False) else f"`{default}`"
    return ", ".join(reversed(flags)), meaning, shown

"""The exit codes of the commands. docs/reference/command-line.md lists their meaning for each command."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ExitCode"]


class ExitCode(IntEnum):
    """The exit codes of all commands."""

    OK = 0
    FOUND = 1
    """The command worked, and its answer is no: for example, it found mistakes, the record does not trigger,
    or a message was not acknowledged."""
    USAGE = 2
    """The arguments can't be used: for example, an argument is unknown (argparse uses the same code), or a
    file or workflow does not exist."""
    FAILED = 3
    """The command couldn't do its work: for example, a connection does not exist, Insightly gives no answer,
    or it refuses the API key."""
    INTERRUPTED = 130
    """The user has pressed Ctrl-C; shells use the same code."""
    BROKEN_PIPE = 141
    """The reader of the output has closed the pipe; shells use the same code."""

"""What the commands end with. docs/reference/command-line.md says what each code means for each command."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ExitCode"]


class ExitCode(IntEnum):
    """The exit codes of all commands."""

    OK = 0
    FOUND = 1
    """The command worked, and its answer is no: mistakes, does not trigger, not acknowledged."""
    USAGE = 2
    """The arguments can't be used: unknown ones (as argparse ends), no such file, no such workflow."""
    FAILED = 3
    """The command couldn't do its work: no such connection, no answer, a refused API key."""
    INTERRUPTED = 130
    """Ctrl-C, as shells report it."""
    BROKEN_PIPE = 141
    """Whoever read the output has closed it, as shells report it."""

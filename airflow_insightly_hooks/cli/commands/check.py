"""``check``: print the mistakes of workflow files, one per line."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from airflow_insightly_hooks.cli.exit_codes import ExitCode
from airflow_insightly_hooks.cli.output import print_line, say
from airflow_insightly_hooks.cli.run import UsageError
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.workflows.check import check_workflows
from airflow_insightly_hooks.workflows.files import SUFFIXES

__all__ = ["check"]


def check(args: Namespace) -> int:
    """Print each mistake; a summary goes to standard error."""
    paths = [Path(path) for path in args.paths]
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
        if not path.is_dir() and path.suffix not in SUFFIXES:
            raise UsageError(f"{path}: not a YAML file (*.yaml, *.yml): give workflow files or folders")
    checked = check_workflows(paths)
    if not checked.files:
        raise UsageError(f"no workflow files (*.yaml, *.yml) in {', '.join(map(str, paths))}")
    for error in checked.errors:
        print_line(str(error))
    say(f"{counted(checked.files, 'file')} checked: {counted(checked.mistakes, 'mistake')}")
    return ExitCode.FOUND if checked.errors else ExitCode.OK

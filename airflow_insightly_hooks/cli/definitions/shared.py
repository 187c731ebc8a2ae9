"""Parts that the definitions of commands share: common arguments, and the import of a command's function.

Airflow loads the definitions whenever ``airflow`` starts. So they import only modules that Airflow has loaded
by then. A command's function is imported when the command runs. It takes the parsed arguments and returns an
exit code of ``cli.exit_codes``; ``cli.run`` handles its errors.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from importlib import import_module

from airflow.cli.cli_config import Arg

__all__ = ["ARG_DAG_ID", "ARG_YES", "NEEDS_DATABASE", "lazy"]


def lazy(module: str, name: str) -> Callable[[Namespace], None]:
    """Return a function that imports a command's function and runs it; it ends with ``SystemExit``."""

    def command(args: Namespace) -> None:
        from airflow_insightly_hooks.cli.run import run

        # Import the module inside ``run``, which handles errors and logs of the import, too.
        run(
            lambda args: getattr(import_module(f"airflow_insightly_hooks.cli.commands.{module}"), name)(args),
            args,
        )

    command.__name__ = name
    return command


ARG_YES = Arg(("-y", "--yes"), action="store_true", help="do not ask for confirmation")
ARG_DAG_ID = Arg(
    ("-d", "--dag-id"), nargs="+", action="extend", metavar="DAG_ID", help="only of these workflows"
)
NEEDS_DATABASE = "It needs Airflow's database, so run it where Airflow's scheduler or API server runs."

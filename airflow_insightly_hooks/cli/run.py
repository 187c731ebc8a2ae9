"""Run a command, and handle its errors, Ctrl-C and a closed pipe."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import structlog
from airflow.cli.utils import redirect_stdout_log_handlers_to_stderr
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_insightly_hooks.cli.exit_codes import ExitCode
from airflow_insightly_hooks.cli.output import say
from airflow_insightly_hooks.core.errors import InsightlyHooksError, type_and_place

__all__ = ["UsageError", "run"]

UNDERSCORE_WARNING = (
    "Connection schemes (type: insightly_webhook) shall not contain '_' according to RFC3986."
)
"""A warning that Airflow logs for each ``insightly_webhook`` connection that it reads from its database."""


class UsageError(Exception):
    """A command's arguments can't be used; the text says which argument is wrong, and what to do."""


def run(command: Callable[[Namespace], int], args: Namespace) -> None:
    """Run a command's function.

    An error of this package is printed in one line. For any other error, the class and the traceback are
    printed, without its text: it may hold secrets or personal data.

    :raises SystemExit: always, with an exit code of ``ExitCode``.
    """
    # Airflow's own commands set this, too: then connections are also read from the database, if there is one.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    redirect_stdout_log_handlers_to_stderr()
    try:
        with _logging_to_stderr():
            code = command(args)
        if sys.stdout is not None:  # it may be closed
            sys.stdout.flush()
    except UsageError as error:
        say(f"error: {error}")
        code = ExitCode.USAGE
    except InsightlyHooksError as error:
        say(f"error: {error}")
        code = ExitCode.FAILED
    except AirflowNotFoundException as error:  # its text names the connection
        say(f"error: {error}: add it (airflow connections add), or set AIRFLOW_CONN_… for it")
        code = ExitCode.FAILED
    except KeyboardInterrupt:
        say("interrupted")
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output at its end, and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.BROKEN_PIPE
    except Exception as error:
        say("".join(traceback.format_tb(error.__traceback__)) + f"error: {type_and_place(error)}")
        code = ExitCode.FAILED
    raise SystemExit(int(code))


@contextlib.contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """Make loggers that are first used in the block write to standard error: Airflow's write to stdout.

    Airflow's warning about the ``_`` in a connection type's name is left out: users can't do anything about
    it.
    """
    config = structlog.get_config()
    make_logger, processors = config["logger_factory"], config["processors"]

    def make_logger_for_stderr(*args: Any) -> Any:
        with contextlib.redirect_stdout(sys.stderr):
            return make_logger(*args)

    structlog.configure(
        logger_factory=make_logger_for_stderr, processors=[_without_underscore_warning, *processors]
    )
    try:
        yield
    finally:
        structlog.configure(logger_factory=make_logger, processors=processors)


def _without_underscore_warning(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    if event.get("event") == UNDERSCORE_WARNING:
        raise structlog.DropEvent
    return event

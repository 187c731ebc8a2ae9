"""``python -m airflow_insightly_hooks.sandbox``: run the sandbox until it is interrupted."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import TextIO

from airflow_insightly_hooks.sandbox.server import running_sandbox

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_insightly_hooks.sandbox",
        description="A stand-in for Insightly's REST API v3.1, and a request bin.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=_port, default=8765, help="port; 0 chooses a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further host name that requests may have, such as a container's; can be repeated",
    )
    options = parser.parse_args(arguments)

    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        with running_sandbox(options.port, host=options.host, allowed_hosts=options.allow_host) as sandbox:
            _print_line(f"Insightly sandbox on {sandbox.url} (API {sandbox.api_url}, key {sandbox.api_key})")
            stopped.wait()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        _print_line(f"The sandbox cannot listen on {options.host}:{options.port}: {reason}", sys.stderr)
        return 1
    return 0


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("a port must be a number from 0 to 65535")
    return int(text)


def _print_line(line: str, stream: TextIO | None = None) -> None:
    print(line, file=stream, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""Runs commands in this process, with the results that a shell sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from airflow_insightly_hooks.__main__ import main


class Ran(NamedTuple):
    """The result of a command."""

    code: int
    out: str
    err: str


Command = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take connections from the environment alone, since Airflow's database doesn't exist here."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    """Run a command: ``command("check", path)``."""

    def run(*arguments: object) -> Ran:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        code = ended.value.code
        assert isinstance(code, int)
        return Ran(code, *capfd.readouterr())

    return run

"""The tutorial works: its blocks run in order on a real Airflow, and print the shown output.

``Reader.substitutes`` has the differences from a reader's machine: free ports, and an environment in which
the package is already installed. ``LOOKS`` checks the pages of Airflow's UI that the tutorial opens.
"""

from __future__ import annotations

import difflib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from airflow_insightly_hooks.demo.airflow_stack import (
    AirflowStack,
    Processes,
    StackError,
    free_port,
    wait_for,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "tutorial.md"
REPOSITORY = "https://github.com/your-organisation/airflow-insightly-hooks.git"
UI = "http://127.0.0.1:8080"
SERVERS = ("python -m airflow_insightly_hooks.sandbox", "airflow standalone")
"""Commands that go on, each in a terminal of its own."""
OUTPUTS = ("text", "json")
"""Languages of blocks that show what the block before prints."""
FILES = ("sh", "yaml", "python")
"""Languages of blocks that are files; the sentence before names the file."""
TIMEOUT = 180.0
VARIABLE = (
    (r"^\d{4}-\d\d-\d\dT\S+ \[warning (.|\n)*?\[py\.warnings\] .*\n", ""),  # Airflow's own
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
    (r"msg_[0-9a-f]{24}", "MESSAGE"),
    (r"Date\(\d{13}-0[78]00\)", "DATE"),
    (r'"webhook-timestamp": "\d{10}"', '"webhook-timestamp": "SECONDS"'),
    (r"airflow-insightly-hooks/[\d.]+", "airflow-insightly-hooks/VERSION"),
    (r"(?<=\S)( {2,}|=+)", " "),  # a column's width: a port has four digits, or five
    (r"[ =+|]+$", ""),
)
"""What differs from run to run, and what stands for it."""


class Block(NamedTuple):
    """A block of the page.

    :param before: the text between the block before and this one; ``after``: that up to the next one.
    """

    language: str
    text: str
    before: str
    after: str


def blocks() -> Iterator[Block]:
    parts = re.split(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    for at in range(1, len(parts), 3):
        yield Block(parts[at], parts[at + 1], parts[at - 1], parts[at + 2])


def stable_lines(output: str) -> list[str]:
    """Return the lines of an output without the parts that differ from run to run."""
    for pattern, replacement in VARIABLE:
        output = re.sub(pattern, replacement, output, flags=re.MULTILINE)
    return output.strip().splitlines()


def is_repeated(output: Block) -> bool:
    """Return whether the page says, below an output, to repeat the command until it is shown."""
    return "repeat the command" in output.after.lower()


class Terminal:
    """A shell that runs one block after the other."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._script = folder / "block.sh"
        self._shell = subprocess.Popen(
            ["bash"],
            cwd=folder,
            env=env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, commands: str, may_fail: bool) -> str:
        """Return what the commands print, standard error included.

        :param may_fail: whether the commands may fail, since only their output is checked.
        """
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._script.write_text(commands)
        mode = "+e" if may_fail else "-e"
        self._shell.stdin.write(f"set {mode}; . '{self._script}' </dev/null; echo; echo 'block is done'\n")
        self._shell.stdin.flush()
        lines: list[str] = []
        for line in self._shell.stdout:
            if line == "block is done\n":
                return "".join(lines)
            lines.append(line)
        pytest.fail(f"{commands}failed:\n{''.join(lines)}")

    def close(self) -> None:
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.close()
        self._shell.wait(30)
        self._shell.stdout.close()


class Reader:
    """A reader who follows the page.

    :param folder: the folder in which the reader begins.
    """

    def __init__(self, folder: Path) -> None:
        # Its ports, its calls of Airflow's API and its processes; Airflow itself is the page's own.
        self.airflow = AirflowStack(folder / "airflow", folder, {})
        port = self.airflow.url.rpartition(":")[2]
        self.substitutes = {
            REPOSITORY: f"{ROOT} airflow-insightly-hooks",
            "python3 -m venv venv": f"ln -s {sys.prefix} venv",
            "venv/bin/pip install --quiet --constraint": "cat >/dev/null",
            "./airflow-insightly-hooks\n": "airflow-insightly-hooks/pyproject.toml\n",
            "8765": str(free_port()),
            "127.0.0.1:8080": f"127.0.0.1:{port}",
            "PORT=8080": f"PORT={port}",
        }
        self._unused = set(self.substitutes)
        settings = ("LOGGING__WORKER_LOG_SERVER_PORT", "LOGGING__TRIGGER_LOG_SERVER_PORT")
        self._env = {
            **{k: v for k, v in self.airflow.env.items() if not k.startswith(("AIRFLOW", "COV_"))},
            **{f"AIRFLOW__{name}": self.airflow.env[f"AIRFLOW__{name}"] for name in settings},
            # The test waits less: after each task, the scheduler looks sooner for the next one.
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
            "PYTHONPATH": str(ROOT),
        }
        self.folder = folder / "insightly-tutorial"
        self._terminal = Terminal(folder, self._env)
        self._servers = Processes(folder)
        self._log = folder / "no server.log"
        self._last: Block | None = None

    def follow(self) -> None:
        """Follow all steps of the page."""
        found = list(blocks())
        for block, following in zip(found, [*found[1:], found[-1]], strict=True):
            text = self.substituted(block.text)
            if block.language in FILES:
                (self.folder / re.findall(r"the file `(.*?)`", block.before)[-1]).write_text(text)
            elif block.language in OUTPUTS:
                self.expect(block, text)
            elif any(command in block.text for command in SERVERS):
                self.start(text)
            else:
                self.shown = self._terminal.run(text, may_fail=following.language in OUTPUTS)
            self._last = block
            for address in re.findall(r"<(http\S+)>", block.after):
                LOOKS[address](self)
        assert not self._unused, f"the page no longer has {self._unused}"

    def start(self, commands: str) -> None:
        """Start a server in a terminal of its own."""
        settings, _, command = commands.strip().rpartition("\n")
        name = f"server {command}".replace("/", "_")
        script = f"{settings}\nexec {command}"
        self._servers.start(name, ["bash", "-euc", script], self._env, self.folder)
        self.shown, self._log = "", self.folder.parent / f"{name}.log"

    def expect(self, block: Block, text: str) -> None:
        """Compare an output with the page's. Repeat the command if the page says so."""
        command = self._last
        assert command is not None
        assert command.language == "bash", f"nothing prints this: {text}"
        if any(server in command.text for server in SERVERS):
            wait_for(f"{text} in {self._log}", lambda: self.has_printed(text), TIMEOUT)
            return

        def is_as_shown() -> bool:
            if stable_lines(self.shown) == stable_lines(text):
                return True
            if may_repeat:
                self.shown = self._terminal.run(self.substituted(command.text), may_fail=True)
            return False

        may_repeat = is_repeated(block)
        try:
            wait_for(command.text, is_as_shown, TIMEOUT if may_repeat else 0)
        except StackError:
            pytest.fail(
                "\n".join(difflib.unified_diff(stable_lines(text), stable_lines(self.shown), "page", "shown"))
            )

    def has_printed(self, text: str) -> bool:
        self._servers.check()
        return set(text.splitlines()) <= set(self._log.read_text().splitlines())

    def substituted(self, text: str) -> str:
        for old, new in self.substitutes.items():
            if old in text:
                self._unused.discard(old)
                text = text.replace(old, new)
        return text

    def close(self) -> None:
        self._terminal.close()
        self.airflow.stop()
        self._servers.stop()


def first_run_succeeds(reader: Reader) -> None:
    """Airflow's UI is running, and shows a successful run.

    There may be a second run, since the sandbox has a record that changed shortly before it started.
    """
    reader.airflow.wait_until_healthy(TIMEOUT)

    def has_succeeded() -> bool:
        runs = reader.airflow.api("/dags/opportunity_won/dagRuns")["dag_runs"]
        return bool(runs) and all(run["state"] == "success" for run in runs)

    wait_for("the first run's success", has_succeeded, TIMEOUT)


def deliveries_are_listed(reader: Reader) -> None:
    """The list has both messages, the later one first. A message's page has three attempts and the body."""
    assert "Opportunity won" in reader.airflow.page("/insightly/")
    listed = reader.airflow.page("/insightly/deliveries")
    assert re.findall(r">Opportunities (\d+)<", listed) == ["40000016", "40000004"]
    address = re.findall(r'"(/insightly/delivery\?[^"]*)"', listed)[0].replace("&amp;", "&")
    delivery = reader.airflow.page(address)
    assert re.findall(r">(503|200)<", delivery) == ["503", "503", "200"]
    assert "Training days, Pine Street Dental" in delivery
    assert "Send again" in delivery


LOOKS: dict[str, Callable[[Reader], None]] = {
    f"{UI}/dags/opportunity_won": first_run_succeeds,
    f"{UI}/plugin/insightly-webhooks": deliveries_are_listed,
}
"""What the reader sees at an address that the page names."""


def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    """Every block runs, every output is as shown, and every address shows what the tutorial says."""
    reader = Reader(tmp_path)
    try:
        reader.follow()
    finally:
        reader.close()


def test_no_output_is_unchecked() -> None:
    """The test above knows the languages of all blocks, and has a check for every address."""
    page = PAGE.read_text()
    assert page.count("\n```") == 2 * len(list(blocks()))
    assert {block.language for block in blocks()} == {"bash", *OUTPUTS, *FILES}
    assert set(re.findall(r"<(http\S+)>", page)) == set(LOOKS)

"""docs/reference/sandbox.md: each of its code blocks runs, and does what the page says."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airflow_insightly_hooks.sandbox.server import RunningSandbox, running_sandbox

PAGE = (Path(__file__).parent.parent / "docs" / "reference" / "sandbox.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMAND = "python -m airflow_insightly_hooks.sandbox --port 8765"
CURLS = [text for kind, text in BLOCKS if kind == "bash" and text.startswith("curl")]


def curl(sandbox: RunningSandbox, line: str) -> tuple[int, object]:
    """Run one line of the page against this sandbox; return status and JSON."""
    command = shlex.split(line.replace("http://127.0.0.1:8765", sandbox.url))
    shown = subprocess.run([*command, "-w", "\n%{http_code}"], capture_output=True, text=True, check=True)
    body, _, status = shown.stdout.rpartition("\n")
    return int(status), json.loads(body) if body else None


def test_no_block_is_without_a_test() -> None:
    """The tests below execute every block of the page."""
    kinds = [kind for kind, _ in BLOCKS]
    assert (kinds.count("bash"), kinds.count("python"), len(kinds)) == (5, 2, 7)
    assert BLOCKS[0] == ("bash", f"{COMMAND}\n")
    assert len(CURLS) == 4


def test_the_command_serves_until_it_is_stopped() -> None:
    """The command says where it listens."""
    command = [sys.executable, *shlex.split(COMMAND)[1:-1], "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.terminate()
    assert "http://127.0.0.1:" in line
    assert "sandbox-key" in line


def test_the_lines_play_the_crm_user() -> None:
    """Search, create, change and delete answer as the API does."""
    with running_sandbox() as sandbox:
        answers = [curl(sandbox, line) for line in CURLS[0].splitlines()]
    assert [status for status, _ in answers] == [200, 201, 201, 202]
    assert {contact["ADDRESS_MAIL_COUNTRY"] for contact in answers[0][1]} == {"France"}
    assert answers[2][1]["STATUS"] == "COMPLETED"


def test_the_lines_play_the_receiver() -> None:
    """A bin answers as configured, keeps the requests, and can be emptied."""
    with running_sandbox() as sandbox:
        answers = [curl(sandbox, line) for line in CURLS[1].splitlines()]
    assert [status for status, _ in answers] == [200, 503, 200, 204]
    (kept,) = answers[2][1]
    assert (kept["body"], kept["username"], kept["acknowledged_with"]) == ('{"country": "France"}', "u", 503)


def test_the_lines_play_insightlys_webhooks() -> None:
    """A change is sent as a webhook, and the counts show it. At the end, no more webhooks are sent."""
    with running_sandbox() as sandbox:
        first, added, *others = CURLS[2].replace("http://127.0.0.1:8765", sandbox.url).splitlines()
        answers = [curl(sandbox, line) for line in (first, added)]
        while sandbox.webhooks()[0]["pending"]:
            time.sleep(0.01)
        answers += [curl(sandbox, line) for line in others]
    assert [status for status, _ in answers] == [200, 201, 200, 200, 200]
    (webhook,) = answers[2][1]
    assert (webhook["username"], json.loads(webhook["body"])["entity"]["TITLE"]) == ("insightly", "Call back")
    assert [webhook["acknowledged"] for webhook in answers[3][1]["webhooks"]] == [1]
    assert answers[4][1]["settings"]["webhook"] is None


def test_the_lines_make_trouble() -> None:
    """Settings are accepted and shown, and reset at the end."""
    with running_sandbox() as sandbox:
        *settings, shown, undone = [curl(sandbox, line) for line in CURLS[3].splitlines()]
    assert [status for status, _ in (*settings, shown, undone)] == [200] * 9
    assert '"clock_offset": 600' in json.dumps(shown[1])


@pytest.mark.slow
def test_the_tests_of_ones_own(tmp_path: Path) -> None:
    """The Python blocks run, one after the other."""
    code = "\n".join(text for kind, text in BLOCKS if kind == "python")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"AIRFLOW_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "/bin/billing []" in done.stdout

"""``send-test``: POST a test message to a receiver."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_insightly_hooks.hooks.insightly import InsightlyHook
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.cli.conftest import Command
from tests.conftest import Connect

PASSWORD = "hunter2-password"


@pytest.fixture
def receiver(insightly: RunningSandbox, connect: Connect) -> str:
    return connect("billing", host=insightly.bin_url("billing"), login="me", password=PASSWORD)


def test_a_made_up_record(command: Command, receiver: str, insightly: RunningSandbox) -> None:
    """The receiver gets a webhook's body under a test's id. Each text in it says that it is a test."""
    ran = command("send-test", receiver)
    assert ran.code == 0
    assert ran.out.startswith("acknowledged, status 200, ")
    (request,) = insightly.received("billing")
    assert request["username"] == "me"
    message_id = request["headers"]["webhook-id"]
    assert message_id.startswith("msg_test_")
    assert message_id in ran.out
    entity = json.loads(request["body"])["entity"]
    assert entity["FIRST_NAME"] == "Test first name"
    assert entity["DATE_CREATED_UTC"].startswith("/Date(")
    command("send-test", receiver)
    assert insightly.received("billing")[-1]["headers"]["webhook-id"] != message_id


def test_a_failure_is_explained(command: Command, receiver: str, insightly: RunningSandbox) -> None:
    """Status and remedy are shown, but no credentials. The exit code says that it was not acknowledged."""
    insightly.answer_with("billing", username="me", password="another")
    ran = command("send-test", receiver, "-o", "json")
    assert ran.code == 1
    result = json.loads(ran.out)
    assert (result["acknowledged"], result["status"]) == (False, 401)
    assert "the credentials are refused" in result["error"]
    assert PASSWORD not in ran.out + ran.err


def test_the_answer_of_a_failing_receiver_is_shown(command: Command, connect: Connect) -> None:
    """The beginning of the answer is shown without credentials, whatever ``keep_response`` is."""
    body = f'{{"error": "field EMAIL missing, {PASSWORD}"}}'.encode()
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect("echo", host=f"http://127.0.0.1:{server.getsockname()[1]}", login="me", password=PASSWORD)
        code = (
            "import socket, sys\n"
            f"body = {body!r}\n"
            "server = socket.socket(fileno=int(sys.argv[1]))\n"
            "one = server.accept()[0]\n"
            "one.recv(65536)\n"
            "one.sendall(b'HTTP/1.1 422 X\\r\\nContent-Length: %d\\r\\n\\r\\n%s' % (len(body), body))\n"
        )
        arguments = [sys.executable, "-c", code, str(server.fileno())]
        with subprocess.Popen(arguments, pass_fds=[server.fileno()]):
            ran = command("send-test", "echo")
    assert ran.code == 1
    assert 'it answered: {"error": "field EMAIL missing, ***"}' in ran.out


def test_a_record(
    command: Command,
    receiver: str,
    insightly: RunningSandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A record of Insightly or of a file is sent after a confirmation only."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    record = next(InsightlyHook().iter_records("Contacts"))
    (tmp_path / "r.json").write_text('{"CONTACT_ID": 7}')
    named = ("--record", f"Contacts:{record['CONTACT_ID']}")
    assert command("send-test", receiver, *named).code == 2
    assert insightly.received("billing") == []
    assert command("send-test", receiver, *named, "--yes").code == 0
    assert command("send-test", receiver, "--json", tmp_path / "r.json", "--yes").code == 0
    bodies = [json.loads(request["body"])["entity"] for request in insightly.received("billing")]
    assert [body["CONTACT_ID"] for body in bodies] == [record["CONTACT_ID"], 7]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "one receiver is needed: give either a connection or --uri"),
        (["billing", "--uri", "http://127.0.0.1"], 2, "one receiver is needed"),
        (
            ["billing", "--record", "Contacts:1", "--json", "x"],
            2,
            "--record and --json can't be used together",
        ),
        (["billing", "--record", "Contacts", "--yes"], 2, "a record's id is needed"),
        (
            ["billing", "--record", "Contacts:999", "--yes"],
            3,
            "Contacts have no record 999 in the account",
        ),
        (["nowhere"], 3, "The conn_id `nowhere` isn't defined"),
        (["insightly_default"], 3, "it is 'insightly', and 'insightly_webhook' is needed"),
        (["--uri", "ftp://me:hunter2-password@x"], 3, "connection 'uri'"),
    ],
)
def test_wrong_input(command: Command, receiver: str, arguments: list[str], code: int, said: str) -> None:
    """Nothing is sent, and one line says why."""
    ran = command("send-test", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert PASSWORD not in ran.err


def test_ctrl_c(tmp_path: Path) -> None:
    """A command that waits can be ended, without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        arguments = [sys.executable, "-m", "airflow_insightly_hooks", "send-test", "--uri", uri]
        # A shell may have set SIGINT to be ignored, and a process that is started takes that over.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
        finally:
            signal.signal(signal.SIGINT, before)
        with process:
            connection, _ = server.accept()  # it waits for an answer now
            with connection:
                process.send_signal(signal.SIGINT)
                _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err

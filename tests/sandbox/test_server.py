"""The sandbox on a port: in a thread, and as a command."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from airflow_insightly_hooks.sandbox.__main__ import main
from airflow_insightly_hooks.sandbox.server import running_sandbox

COMMAND = [sys.executable, "-W", "error", "-m", "airflow_insightly_hooks.sandbox"]


def _port(sandbox):
    return int(sandbox.url.rsplit(":", 1)[1])


def _ask(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request(method, path, body)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


def test_a_sandbox_for_the_length_of_a_test():
    """running_sandbox starts and stops in well under a second, and leaves no thread or socket behind."""
    threads, started = set(threading.enumerate()), time.monotonic()
    with running_sandbox() as sandbox:
        assert time.monotonic() - started < 1
        assert sandbox.api_url == f"{sandbox.url}/v3.1"
        assert _ask(_port(sandbox), "GET", "/v3.1/Instance").status == 401
        assert len(_ask(_port(sandbox), "GET", "/").headers.get_all("Date")) == 1
        port = _port(sandbox)
    assert set(threading.enumerate()) <= threads  # one of another test may have ended meanwhile
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_kept_connection():
    """Answers on a connection that is used again come at once: TCP holds none back for an acknowledgement."""
    with running_sandbox() as sandbox:
        connection = http.client.HTTPConnection("127.0.0.1", _port(sandbox), timeout=5)
        started = time.monotonic()
        for _ in range(20):
            connection.request("PUT", "/bin/kept", b"{}")
            assert connection.getresponse().read()
        connection.close()
        assert time.monotonic() - started < 20 * 0.02


def test_a_test_deletes_records_and_puts_the_clock_forward():
    """Any record can be deleted; time passes when a test says so, and only forward from where it is."""
    with running_sandbox(clock=lambda: 1_763_980_000.0) as sandbox:
        user = sandbox.create("Users", FIRST_NAME="Ada")  # the API deletes no users
        sandbox.delete("Users", user["USER_ID"])
        assert sandbox.history()[-1]["what"] == "deleted"
        with pytest.raises(ValueError, match="There is no User"):
            sandbox.delete("Users", user["USER_ID"])
        began = sandbox.now()
        sandbox.advance(days=3)
        sandbox.advance(seconds=0.5)
        assert (sandbox.now() - began).total_seconds() == 3 * 86400 + 0.5


def test_helpers_for_tests():
    """Bins, settings and records can be set and read without writing HTTP."""
    with running_sandbox(clock=lambda: 1_763_980_000.0) as sandbox:
        sandbox.answer_with("billing", status=503, times=1)
        for _ in range(2):
            _ask(_port(sandbox), "POST", "/bin/billing", b"{}")
        assert [kept["acknowledged_with"] for kept in sandbox.received("billing")] == [503, 200]
        assert sandbox.configure(clock_offset=60)["clock"]["now"] == "2025-11-24T10:27:40+00:00"
        contact = sandbox.create("Contacts", FIRST_NAME="Zoë", DATE_CREATED_UTC="2025-01-01 00:00:00")
        assert contact["DATE_CREATED_UTC"] == "2025-01-01 00:00:00"
        changed = sandbox.update("Contacts", contact["CONTACT_ID"], TITLE="Owner")
        assert (changed["TITLE"], changed["DATE_UPDATED_UTC"]) == ("Owner", "2025-11-24 10:27:40")
        with pytest.raises(ValueError, match="FIRST_NAME"):
            sandbox.create("Contacts", FIRST_NAME=5)
        sandbox.reset()
        assert sandbox.received("billing") == []
        sandbox.stop()
        sandbox.stop()


def test_stopping_does_not_wait_for_a_slow_bin():
    """A bin that is told to wait for minutes does not keep the sandbox from stopping."""
    with running_sandbox() as sandbox:
        sandbox.answer_with("slow", delay=600)
        connection = http.client.HTTPConnection("127.0.0.1", _port(sandbox), timeout=5)
        connection.request("POST", "/bin/slow", b"{}")
        while not sandbox.received("slow"):
            time.sleep(0.01)
        started = time.monotonic()
        sandbox.stop()
        assert time.monotonic() - started < 3
        connection.close()


def test_many_at_once():
    """Requests that come at the same time are all answered."""
    with running_sandbox() as sandbox:
        sandbox.answer_with("slow", delay=0.1)
        post = partial(_ask, _port(sandbox), "POST", "/bin/slow", b"{}")
        threads = [threading.Thread(target=post) for _ in range(20)]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - started < 1.5
        assert len(sandbox.received("slow")) == 20


def test_a_port_in_use_is_one_clear_line(capsys):
    """The command says that it cannot listen, in one line, and ends with exit code 1."""
    with running_sandbox() as sandbox:
        port = _port(sandbox)
        assert main(["--port", str(port)]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == f"The sandbox cannot listen on 127.0.0.1:{port}: Address already in use\n"


@pytest.mark.parametrize("port", ["70000", "-1", "x"])
def test_an_invalid_port(capsys, port):
    """An invalid port is refused before anything is opened."""
    with pytest.raises(SystemExit):
        main([f"--port={port}"])
    assert "a port must be a number from 0 to 65535" in capsys.readouterr().err


def test_an_invalid_host(capsys):
    """An address that this machine does not have is one clear line too."""
    assert main(["--host", "192.0.2.1", "--port", "0"]) == 1
    assert capsys.readouterr().err == (
        "The sandbox cannot listen on 192.0.2.1:0: Cannot assign requested address\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_stops_when_asked(number):
    """The command prints where it listens, answers there, and ends with 0 on SIGINT or SIGTERM."""
    with subprocess.Popen(
        [*COMMAND, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},  # noqa: PTH109 - a text for the environment
    ) as process:
        line = process.stdout.readline()
        url = line.split()[3]
        assert _ask(int(url.rsplit(":", 1)[1]), "GET", "/").status == 200
        process.send_signal(number)
        rest, errors = process.communicate(timeout=10)
    assert line.startswith(f"Insightly sandbox on {url} (API {url}/v3.1, key sandbox-key)")
    assert (rest, errors, process.returncode) == ("", "", 0)

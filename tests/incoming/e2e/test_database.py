"""A database that goes away and comes back, a server that is killed, and two servers at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException

import pytest
from sqlalchemy import text

from tests.incoming.asgi import PASSWORD, basic
from tests.incoming.conftest import contact
from tests.incoming.e2e.endpoint import Endpoint, endpoint, second_of, wait_until

pytestmark = pytest.mark.e2e
UNKNOWN = "/insightly/hooks/unknown"


@pytest.fixture
def shaky(server: Endpoint) -> Iterator[Endpoint]:
    """The server, whose database is there again after the test."""
    yield server
    server.database.restore()
    assert wait_until(lambda: server.post()[0] == 200, 30)


def answers(server: Endpoint) -> set[int]:
    """Return what the right, the wrong and an unknown sender are answered."""
    return {server.post()[0], server.post(password="wrong")[0], server.post(path=UNKNOWN)[0]}


def test_cut(shaky: Endpoint) -> None:
    """While the database refuses connections, all are asked to try again; then all is as before."""
    assert shaky.post()[0] == 200
    time.sleep(1.1)  # what was stored tells of the next second, too
    shaky.database.cut()
    for _ in range(3):
        assert answers(shaky) == {503}
    time.sleep(10)  # the connection that the server knows must be read again
    assert answers(shaky) == {503}
    shaky.database.restore()
    assert shaky.post()[0] == 200
    assert shaky.post(password="wrong")[0] == 401
    assert shaky.post(path=UNKNOWN)[0] == 401


def test_hanging(shaky: Endpoint) -> None:
    """While the database doesn't answer, all are told so within the time limit, and Airflow goes on."""
    assert shaky.post()[0] == 200
    time.sleep(1.1)
    shaky.database.hang()
    found: list[tuple[int, float]] = []

    def send(path: str, password: str) -> None:
        started = time.monotonic()
        status, _ = shaky.post(path=path, password=password)
        found.append((status, time.monotonic() - started))

    right = [("/insightly/hooks/crm", "correct horse")] * 10
    wrong = [("/insightly/hooks/crm", "wrong"), (UNKNOWN, "wrong")] * 5
    threads = [threading.Thread(target=send, args=one) for one in right + wrong]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    assert shaky.version_seconds() < 5
    for thread in threads:
        thread.join()
    assert {status for status, _ in found} == {503}
    assert max(seconds for _, seconds in found) < 15
    shaky.database.restore()
    assert wait_until(lambda: shaky.post()[0] == 200, 15)
    assert wait_until(lambda: shaky.post(path=UNKNOWN)[0] == 401, 15)


@pytest.mark.scale
def test_hanging_and_cut(shaky: Endpoint) -> None:
    """A database that hung, and is then another machine's, is found again."""
    time.sleep(1.1)
    shaky.database.hang()
    assert answers(shaky) == {503}
    shaky.database.cut()
    shaky.database.restore()
    assert wait_until(lambda: shaky.post()[0] == 200, 15)


def test_terminated(shaky: Endpoint) -> None:
    """Connections that PostgreSQL ends cost a 503 at most, and never a 401 for right credentials."""
    ended = threading.Event()

    def terminate() -> None:
        while not ended.wait(0.3):
            shaky.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    thread = threading.Thread(target=terminate)
    thread.start()
    try:
        found = []
        for _ in range(100):
            found.append(shaky.post()[0])
            found.append(shaky.post(path="/insightly/hooks/limited", password="wrong")[0])
            time.sleep(0.03)
    finally:
        ended.set()
        thread.join()
    assert set(found[::2]) <= {200, 503}
    assert set(found[1::2]) <= {401, 503}
    assert 200 in found


def test_while_a_scheduler_makes_runs(server: Endpoint) -> None:
    """A webhook that comes while a scheduler makes runs of earlier ones has a run made of its own."""
    assert server.post()[0] == 200
    time.sleep(1.1)
    answers: list[int] = []
    with server.transaction() as scheduler:
        # As it does: it locks the rows, reads the events up to their times, and deletes the rows.
        scheduler.execute(text("SELECT 1 FROM asset_dag_run_queue FOR UPDATE"))
        sender = threading.Thread(target=lambda: answers.append(server.post()[0]))
        sender.start()
        time.sleep(1)
        scheduler.execute(text("DELETE FROM asset_dag_run_queue"))
    sender.join()
    assert answers == [200]
    with server.transaction() as scheduler:
        queued = scheduler.scalars(text("SELECT target_dag_id FROM asset_dag_run_queue")).all()
    assert sorted(queued) == ["own", "push"]


def test_while_a_task_keeps_its_cursor(server: Endpoint) -> None:
    """Whoever writes a new key of the records' state, in a transaction of any length, is in nobody's way."""
    with server.transaction() as task:
        statement = (
            "INSERT INTO asset_state_store (asset_id, key, value, updated_at) SELECT id, 'cursor/new', '1', "
            "now() FROM asset WHERE name = 'insightly/insightly_default/Contacts'"
        )
        assert task.execute(text(statement)).rowcount == 1
        assert server.post()[0] == 200
        task.execute(text("DELETE FROM asset_state_store WHERE key = 'cursor/new'"))


class Flood:
    """Threads that send webhooks until they are told to stop.

    :ivar taken: the times of the changes that were answered with 200.
    """

    def __init__(self, server: Endpoint, count: int = 8) -> None:
        self.taken: list[float] = []
        self.others: list[int] = []
        self._ends = threading.Event()
        self._server = server
        self._threads = [threading.Thread(target=self._send) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        while not self._ends.is_set():
            moment = time.time()
            with suppress(OSError, HTTPException):
                status, _ = self._server.post(contact(record_id=int(moment * 1_000)))
                if status == 200:
                    self.taken.append(moment)
                else:
                    self.others.append(status)
            time.sleep(0.005)

    def end(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def uncovered(self) -> list[float]:
        """Return what was taken, and is in no event of some asset."""
        spans = self._server.spans()
        assert len(spans) == 2
        return [
            moment
            for moment in self.taken
            for events in spans.values()
            if not any(since <= second_of(moment) < until for since, until in events)
        ]


def test_killed(server: Endpoint) -> None:
    """A server that is killed among many webhooks has stored all that it has taken."""
    flood = Flood(server)
    try:
        assert wait_until(lambda: len(flood.taken) > 50, 30)
        server.stack.processes.kill("api-server")
        time.sleep(0.5)
    finally:
        flood.end()
    assert flood.uncovered() == []
    assert set(flood.others) <= {503}
    server.restart()
    assert server.post()[0] == 200


@pytest.mark.scale
def test_restarted(server: Endpoint) -> None:
    """A server that is restarted among many webhooks loses none, either."""
    flood = Flood(server)
    try:
        assert wait_until(lambda: len(flood.taken) > 50, 30)
        server.restart()
        seen = len(flood.taken)
        assert wait_until(lambda: len(flood.taken) > seen, 30)
    finally:
        flood.end()
    assert flood.uncovered() == []
    assert set(flood.others) <= {503}


def test_log(server: Endpoint) -> None:
    """What the server has written of all that holds neither credentials nor contents."""
    log = server.log()
    assert "Airflow's database did not answer within 10 s" in log
    for secret in (PASSWORD, basic()[1], "Zoë", "FIRST_NAME"):
        assert secret not in log


@pytest.mark.scale
def test_two_processes(incoming_template: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Two processes of an API server take webhooks at once, and neither is in the other's way."""
    with endpoint(tmp_path_factory.mktemp("incoming-two"), incoming_template, workers=2) as server:
        flood = Flood(server)
        time.sleep(8)
        flood.end()
        assert len(flood.taken) > 100
        assert flood.others == []
        assert flood.uncovered() == []
        log = server.log()
        assert "Traceback" not in log
        assert "deadlock" not in log.lower()

"""Records of webhooks in a real store: kept before the event, once, for some days, and shown nowhere."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.orm import Session
from starlette.types import ASGIApp

from airflow_insightly_hooks.core.incoming.kept_entity import KeptEntity, KeptName
from airflow_insightly_hooks.hooks.entity_store import EntityStore
from airflow_insightly_hooks.incoming import announcer, entity_keeper, threads
from tests.conftest import Connect, Logged
from tests.incoming.asgi import LOGIN, PASSWORD, ask, basic
from tests.incoming.conftest import Events, Post, contact, entity
from tests.waiting_dags import add_waiting_dag

Files = Callable[[], list[Path]]

NOW = datetime.now(timezone.utc)
SECRET = "Zoë"


@pytest.fixture
def incoming(connect: Connect, tmp_path: Path) -> str:
    """A connection that keeps the records of webhooks."""
    extra = {"accept": "entity", "entity_path": f"file://{tmp_path}/kept"}
    return connect("crm", "insightly_incoming", login=LOGIN, password=PASSWORD, extra=extra)


@pytest.fixture
def kept(tmp_path: Path) -> Files:
    """Return the kept files, in the order of their names."""
    return lambda: sorted(path for path in (tmp_path / "kept").rglob("*") if path.is_file())


def read(path: Path) -> KeptEntity:
    return KeptEntity.of(path.read_bytes())


@pytest.mark.usefixtures("incoming", "contacts")
def test_kept(post: Post, kept: Files, events: Events, tmp_path: Path) -> None:
    """A webhook's record is kept under its account, type and day. The event holds no part of it."""
    before = datetime.now(timezone.utc)
    assert post(contact(NOW, AMOUNT=1)).status == 200
    (path,) = kept()
    folder = tmp_path / "kept" / "insightly_default" / "Contacts"
    name = KeptName.parse(path.name)
    assert name is not None
    assert path == folder / name.received_at.date().isoformat() / path.name
    assert before <= name.received_at <= datetime.now(timezone.utc)
    found = read(path)
    assert (found.received_at, found.record_type, found.record_id) == (name.received_at, "Contacts", 7)
    assert list(found.record) == ["CONTACT_ID", "FIRST_NAME", "DATE_UPDATED_UTC", "AMOUNT"]
    assert found.record["FIRST_NAME"] == SECRET
    assert len(events()) == 1
    assert SECRET not in str(events())
    assert set(json.loads(path.read_bytes())) == {"received_at", "record_type", "record_id", "entity"}


@pytest.mark.usefixtures("incoming", "contacts")
def test_exact(post: Post, kept: Files) -> None:
    """Numbers and characters are kept as they were written."""
    body = b'{"entity": {"CONTACT_ID": 7, "A": 1234567890123456.78, "B": 1E2, "C": "\\ud800\\u0000"}}'
    assert post(body).status == 200
    text = json.loads(kept()[0].read_bytes())["entity"]
    assert text == '{"CONTACT_ID":7,"A":1234567890123456.78,"B":1E2,"C":"\\ud800\\u0000"}'


@pytest.mark.usefixtures("contacts")
def test_dropped(connect: Connect, post: Post, kept: Files, tmp_path: Path) -> None:
    """By default nothing is kept, even if a path is set."""
    for extra in ({}, {"accept": "notice", "entity_path": f"file://{tmp_path}/kept"}):
        connect("crm", "insightly_incoming", login=LOGIN, password=PASSWORD, extra=extra)
        assert post(contact(NOW)).status == 200
    assert kept() == []


@pytest.mark.usefixtures("incoming", "contacts")
def test_each_is_kept(post: Post, kept: Files, events: Events) -> None:
    """Webhooks of one second have an object each. Their event comes later, so a run can list them at once."""
    for number in range(1, 6):
        assert post(contact(NOW, number)).status == 200
        assert [read(path).record_id for path in kept()] == list(range(1, number + 1))
        assert len(events()) == number


@pytest.mark.usefixtures("incoming", "contacts")
def test_kept_once(post: Post, kept: Files) -> None:
    """A record's last message is kept once, even if it is repeated. An older one that is repeated is new."""
    first, second = contact(NOW, FIRST_NAME="A"), contact(NOW, FIRST_NAME="B")
    for body in (first, first, second, first, contact(NOW, 8), first):
        assert post(body).status == 200
    assert [read(path).record["FIRST_NAME"] for path in kept() if read(path).record_id == 7] == [
        "A",
        "B",
        "A",
    ]
    assert post(first, ("webhook-id", "msg_1")).status == 200
    assert post(second, ("webhook-id", "msg_1")).status == 200
    assert len(kept()) == 5


@pytest.mark.usefixtures("incoming", "contacts")
def test_kept_once_by_several_tries(
    post: Post, kept: Files, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A webhook whose event can't be stored is kept, refused, and not kept again by the next try."""
    with monkeypatch.context() as patch:
        patch.setattr(announcer, "announce", _failing)
        assert post(contact(NOW), ("webhook-id", "msg_1")).status == 503
    assert len(kept()) == 1
    assert post(contact(NOW), ("webhook-id", "msg_1")).status == 200
    assert (len(kept()), len(events())) == (1, 1)


@pytest.mark.usefixtures("incoming")
def test_refused(post: Post, kept: Files, session: Session) -> None:
    """Refused webhooks are not kept: those without a record, or with a record that no DAG waits for."""
    add_waiting_dag(session, "tasks", "Tasks")
    assert post(contact(NOW)).status == 404
    assert post(entity(LEAD_ID=1), path="/crm?record_type=Nothing").status == 404
    assert post(entity(NAME=SECRET)).status == 400
    assert post(b"{").status == 400
    assert kept() == []


@pytest.mark.usefixtures("incoming")
def test_taken_after_a_refusal(post: Post, kept: Files, session: Session) -> None:
    """A refused message is kept if it is repeated and a DAG waits by then."""
    assert post(contact(NOW)).status == 404
    assert kept() == []
    add_waiting_dag(session, "contacts", "Contacts")
    assert post(contact(NOW)).status == 200
    assert len(kept()) == 1


@pytest.mark.usefixtures("incoming", "contacts")
def test_last_messages_are_known_for_a_while(
    post: Post, kept: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last messages of some records are known for minutes: for as long as a reader looks back."""
    monkeypatch.setattr(entity_keeper, "MOST_RECORDS", 2)
    for number in (7, 8, 9, 9, 7):
        assert post(contact(NOW, number)).status == 200
    assert [read(path).record_id for path in kept()] == [7, 8, 9, 7]
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + entity_keeper.SAME_LASTS)
    monkeypatch.setattr(entity_keeper, "time", later)
    assert post(contact(NOW, 7)).status == 200
    assert [read(path).record_id for path in kept()] == [7, 8, 9, 7, 7]


@pytest.mark.usefixtures("incoming", "contacts")
def test_refused_later(post: Post, kept: Files, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept message stays, even if it is repeated when no DAG waits any more."""
    assert post(contact(NOW)).status == 200
    monkeypatch.setattr(announcer, "announce", lambda *_: 0)
    monkeypatch.setattr(announcer, "EVENT_LASTS", 0.0)
    assert post(contact(NOW)).status == 404
    assert len(kept()) == 1


@pytest.mark.usefixtures("contacts")
@pytest.mark.parametrize("path", ["file:///dev/null/kept", "s3://nobody@bucket/kept", "nothing://x/y"])
def test_failing_store(
    connect: Connect, post: Post, events: Events, kept: Files, logged: Logged, path: str
) -> None:
    """If the record can't be kept, there is no event, and the sender tries again. The log shows why."""
    extra = {"accept": "entity", "entity_path": path}
    connect("crm", "insightly_incoming", login=LOGIN, password=PASSWORD, extra=extra)
    answer = post(contact(NOW))
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert events() == kept() == []
    assert "can't be kept: " in logged.text
    assert SECRET not in logged.text + answer.detail


@pytest.mark.usefixtures("contacts")
def test_store_is_back(connect: Connect, post: Post, kept: Files, tmp_path: Path) -> None:
    """A store that works again is used without a restart."""
    extra = {"accept": "entity", "entity_path": f"file://{tmp_path}/kept"}
    connect("crm", "insightly_incoming", login=LOGIN, password=PASSWORD, extra=extra)
    (tmp_path / "kept").write_text("a file where a folder should be")
    assert post(contact(NOW)).status == 503
    (tmp_path / "kept").unlink()
    assert post(contact(NOW)).status == 200
    assert len(kept()) == 1


@pytest.mark.usefixtures("incoming", "contacts")
def test_hanging_store(
    app: ASGIApp, post: Post, events: Events, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    """A hanging store takes a few threads only, and each sender is asked in time to try again."""
    assert post(contact(NOW)).status == 200  # from now on the connection is known
    monkeypatch.setattr(threads, "TIMEOUT", 0.3)
    gone, called = threading.Event(), []

    def hang(*_: Any) -> None:
        called.append(1)
        gone.wait(30)

    monkeypatch.setattr(EntityStore, "keep", hang)

    async def many() -> list[int]:
        answers = [ask(app, "/crm", contact(NOW, number), [basic()]) for number in range(101, 131)]
        statuses = [answer.status for answer in await asyncio.gather(*answers)]
        gone.set()
        return statuses

    assert asyncio.run(many()) == [503] * 30
    assert len(called) == entity_keeper.WRITERS
    assert len(events()) == 1
    assert SECRET not in logged.text


@pytest.mark.usefixtures("contacts")
def test_deletion(app: ASGIApp, connect: Connect, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Days older than the connection's limit are deleted for all record types, and nothing else is."""
    extra = {"accept": "entity", "entity_path": f"file://{tmp_path}/kept", "entity_days": 2}
    connect("crm", "insightly_incoming", login=LOGIN, password=PASSWORD, extra=extra)
    today = datetime.now(timezone.utc).date()
    days = [(today - timedelta(days=age)).isoformat() for age in range(5)]
    account = tmp_path / "kept" / "insightly_default"
    for folder in [*(f"Leads/{day}" for day in days), "Leads/mine", f"other/Leads/{days[4]}"]:
        path = account.parent / folder if folder.startswith("other") else account / folder
        path.mkdir(parents=True)
        (path / "x.json").write_text("{}")
    caplog.set_level(logging.INFO)
    asyncio.run(_until_logged(app, caplog, "are deleted"))
    left = sorted(path.name for path in (account / "Leads").iterdir())
    assert left == sorted([*days[:3], "mine"])
    assert (account.parent / "other" / "Leads" / days[4]).exists()
    assert "Contents of webhooks older than 2 days are deleted" in caplog.text


@pytest.mark.usefixtures("contacts", "incoming")
def test_deletion_is_tried_again(
    app: ASGIApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If old days can't be deleted, the webhook is accepted all the same, and the deletion is repeated."""
    monkeypatch.setattr(entity_keeper, "RETRY_AFTER", 0.01)
    delete, failed = EntityStore.delete_before, []

    def fail_first(store: EntityStore, day: date) -> int:
        if not failed:
            failed.append(1)
            raise OSError(SECRET)
        return delete(store, day) + 1

    monkeypatch.setattr(EntityStore, "delete_before", fail_first)
    caplog.set_level(logging.INFO)
    asyncio.run(_until_logged(app, caplog, "are deleted"))
    assert "Old contents of webhooks can't be deleted: OSError" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.usefixtures("contacts", "incoming")
def test_deleted_once_a_day(app: ASGIApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many webhooks make one deletion, and the process makes the next one on the next day."""
    calls: list[date] = []
    waited: list[float] = []
    monkeypatch.setattr(EntityStore, "delete_before", lambda _, day: calls.append(day) or 0)
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        if seconds > 1:
            waited.append(seconds)
        await sleep(0.05 if len(waited) == 1 else seconds)

    monkeypatch.setattr(entity_keeper.asyncio, "sleep", noted)

    async def many() -> None:
        for number in range(1, 6):
            assert (await ask(app, "/crm", contact(NOW, number), [basic()])).status == 200
        while len(calls) < 2:
            await sleep(0.01)

    asyncio.run(asyncio.wait_for(many(), 20))
    assert len(calls) == 2
    assert all(0 < seconds <= 86_401 for seconds in waited)


async def _until_logged(app: ASGIApp, caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Send a webhook, and wait for a log line."""
    assert (await ask(app, "/crm", contact(NOW), [basic()])).status == 200
    for _ in range(500):
        if text in caplog.text:
            return
        await asyncio.sleep(0.01)


def _failing(*_: Any) -> int:
    raise OSError(SECRET)

"""The endpoint's answers, and the order of its checks."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.models import Connection
from airflow.models.asset import AssetDagRunQueue
from airflow.secrets.metastore import MetastoreBackend
from fastapi.routing import APIRoute
from sqlalchemy import delete, func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from starlette.types import ASGIApp

from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.delivery.signing import Signer
from airflow_insightly_hooks.incoming import announcer, request_body, senders, threads
from airflow_insightly_hooks.incoming import app as app_module
from tests.conftest import Connect, Logged
from tests.incoming.asgi import LOGIN, PASSWORD, ask, asked, basic
from tests.incoming.conftest import Events, Post, contact, entity
from tests.waiting_dags import add_waiting_dag

SECRET = "whsec_" + base64.b64encode(b"s" * 24).decode()
SOME = contact(datetime(2026, 1, 31, tzinfo=timezone.utc))
CHANGES = "insightly/insightly_default/Contacts/changes/15s/5s"
pytestmark = pytest.mark.usefixtures("incoming", "contacts")


def senders_of(app: Any) -> Any:
    """Return the endpoint's memory of its senders."""
    (route,) = (route for route in app.routes if isinstance(route, APIRoute))
    return route.endpoint.__self__._senders  # type: ignore[attr-defined]


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (senders, announcer):
        monkeypatch.setattr(module, "time", clock)
    return clock


class AwayError(OperationalError):
    """The error of a database driver without a database, with the statement in its text."""

    def __init__(self) -> None:
        super().__init__("SELECT secret-statement", {}, Exception("connection refused"))


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the database be away."""

    def fail(*_arguments: Any, **_options: Any) -> None:
        raise AwayError

    monkeypatch.setattr(MetastoreBackend, "get_connection", fail)
    monkeypatch.setattr(announcer, "create_session", fail)


# --- what is taken -----------------------------------------------------------------------------------------


def test_taken(post: Post, events: Events) -> None:
    """A webhook makes an event on the DAGs' asset, with the beginning and end of the change's window."""
    now = datetime.now(timezone.utc).replace(microsecond=0)
    answer = post(contact(now), ("Content-Type", "application/json; charset=utf-8"))
    assert (answer.status, answer.detail) == (200, "Airflow knows that Contacts have changed.")
    span = {"since": iso_time(now), "until": iso_time(now + timedelta(seconds=2))}
    assert events() == [(CHANGES, {"from_webhook": True, "payload": span})]


def test_queued_runs(post: Post, session: Session) -> None:
    """The event queues a run of each active DAG. The cursor of a paused DAG has a note of it."""
    add_waiting_dag(session, "paused", "Contacts", is_paused=True)
    assert post(contact()).status == 200
    assert list(session.scalars(select(AssetDagRunQueue.target_dag_id))) == ["contacts"]


def test_only_a_paused_dag(post: Post, session: Session, events: Events) -> None:
    """If the only DAG is paused, the event is stored all the same, so no change is lost."""
    add_waiting_dag(session, "leads", "Leads", is_paused=True)
    assert post(entity(LEAD_ID=7)).status == 200
    assert len(events()) == 1


def test_many_make_one_event(post: Post, events: Events) -> None:
    now = datetime.now(timezone.utc)
    for number in range(1, 21):
        assert post(contact(now, number)).status == 200
    assert len(events()) == 1


def test_several_assets(post: Post, session: Session, events: Events) -> None:
    """All assets of the account's record type get an event, also those with a cursor, and no others do."""
    own = add_waiting_dag(session, "own", "Contacts", cursor="own/detect")
    pushed = add_waiting_dag(session, "push", "Contacts", poll_interval=900.0, push=True)
    both = add_waiting_dag(session, "both", names=[CHANGES, *own])
    add_waiting_dag(session, "other", "Contacts", insightly_conn_id="insightly_other")
    add_waiting_dag(session, "leads", "Leads")
    assert post(contact()).status == 200
    stored = dict(events())
    assert stored.keys() == {CHANGES, *own, *pushed, *both}
    cursors = {name: extra["payload"].get("cursor") for name, extra in stored.items()}
    assert cursors == {CHANGES: None, own[0]: "own%2Fdetect", pushed[0]: None}


def test_no_content_type(post: Post) -> None:
    """A body without a content type is treated as JSON."""
    assert post(contact()).status == 200


@pytest.mark.parametrize(
    "media_type", ["application/json", 'APPLICATION/JSON ; Charset="UTF-8"', "application/vnd.x+json"]
)
def test_content_types(post: Post, media_type: str) -> None:
    assert post(contact(), ("Content-Type", media_type)).status == 200


def test_body_in_parts(post: Post) -> None:
    body = contact()
    assert post([body[n : n + 1] for n in range(len(body))]).status == 200


# --- who may send ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "")],
        [("Authorization", "Basic")],
        [("Authorization", "Basic !!!")],
        [("Authorization", "Basic Zm9v")],  # no colon
        [("Authorization", b"Basic \xff\xfe")],
        [("Authorization", "Bearer " + basic()[1].split()[1])],
        [("Authorization", basic()[1] + ",")],
        [basic(), basic()],
        [basic(password="correct horsf")],
        [basic(password=PASSWORD + " ")],
        [basic(login=LOGIN.upper())],
        [basic("", "")],
        [basic(PASSWORD, LOGIN)],
        [("Proxy-Authorization", basic()[1])],
    ],
)
@pytest.mark.parametrize("path", ["/crm", "/unknown", "/insightly_default", "/%00", "/crm%0a", "/.."])
def test_unauthorized(app: ASGIApp, headers: Any, path: str, events: Events) -> None:
    """All wrong credentials get the same answer, for missing connections and connections of other types."""
    answer = asked(app, path, contact(), headers)
    assert (answer.status, answer.detail) == (401, "The credentials are missing or wrong.")
    assert answer.headers["www-authenticate"] == 'Basic realm="Insightly webhooks", charset="UTF-8"'
    assert answer.headers["connection"] == "close"
    assert answer.read == 0, "the body is not read"
    assert events() == []


def test_right_credentials_of_no_connection(app: ASGIApp, connect: Connect) -> None:
    """Only connections of the endpoint's own type can be used."""
    for conn_type in ("insightly", "insightly_webhook", "http"):
        connect("other", conn_type, host="127.0.0.1", login=LOGIN, password=PASSWORD)
        assert asked(app, "/other", contact(), [basic()]).status == 401
    assert asked(app, "/none", contact(), [basic()]).status == 401


@pytest.mark.parametrize("charset", ["utf-8", "latin-1"])
def test_charsets(app: ASGIApp, connect: Connect, charset: str) -> None:
    """Credentials beyond ASCII may be in UTF-8 or, from some senders, in Latin-1."""
    connect("umlaut", "insightly_incoming", login="Zoë", password="Motörhead: ½")
    assert asked(app, "/umlaut", contact(), [basic("Zoë", "Motörhead: ½", charset)]).status == 200
    assert asked(app, "/umlaut", contact(), [basic("Zoë", "Motorhead: ½", charset)]).status == 401


def test_header_of_airflow(app: ASGIApp) -> None:
    """Airflow's simple auth manager adds a header of its own to each request if all are administrators."""
    bearer = ("Authorization", "Bearer e30.e30.e30")
    assert asked(app, "/crm", contact(), [basic(), bearer]).status == 200
    assert asked(app, "/crm", contact(), [bearer]).status == 401


def test_beyond_latin_1(app: ASGIApp, connect: Connect) -> None:
    connect("cyrillic", "insightly_incoming", login="Зоя", password="\N{SNOWMAN}")
    assert asked(app, "/cyrillic", contact(), [basic("Зоя", "\N{SNOWMAN}")]).status == 200
    assert asked(app, "/cyrillic", contact(), [basic("Зоя", "?", "utf-8")]).status == 401


@pytest.mark.parametrize(
    "fields", [{"password": PASSWORD}, {"login": LOGIN}, {"login": "a:b", "password": "c"}]
)
def test_incomplete_connection(app: ASGIApp, connect: Connect, fields: Any, logged: Logged) -> None:
    """A connection without credentials accepts no request. The log names the missing field, and no secret."""
    connect("half", "insightly_incoming", **fields)
    for given in (("", ""), (LOGIN, PASSWORD), (LOGIN, ""), ("", PASSWORD), ("a:b", "c"), ("a", "b:c")):
        assert asked(app, "/half", contact(), [basic(*given)]).status == 401
    assert "Webhooks are refused, since their connection can't be used" in logged.text
    assert PASSWORD not in logged.text


def test_in_the_database(app: ASGIApp, session: Session, clock: Clock) -> None:
    """An added, changed or deleted connection takes effect within 10 s."""
    assert asked(app, "/stored", contact(), [basic()]).status == 401
    session.add(Connection("stored", "insightly_incoming", login=LOGIN, password=PASSWORD))
    session.commit()
    assert asked(app, "/stored", contact(), [basic()]).status == 200
    session.scalars(select(Connection)).one().set_password("changed")
    session.commit()
    assert asked(app, "/stored", contact(), [basic(password="changed")]).status == 401
    assert asked(app, "/stored", contact(), [basic()]).status == 200
    clock.now += 10
    assert asked(app, "/stored", contact(), [basic()]).status == 401
    assert asked(app, "/stored", contact(), [basic(password="changed")]).status == 200
    session.execute(delete(Connection))
    session.commit()
    assert asked(app, "/stored", contact(), [basic(password="changed")]).status == 200
    clock.now += 10
    assert asked(app, "/stored", contact(), [basic(password="changed")]).status == 401


def test_undecryptable_connection(app: ASGIApp, session: Session, logged: Logged) -> None:
    """A connection that was encrypted with another key is treated as missing."""
    session.add(Connection("stored", "insightly_incoming", login=LOGIN, password=PASSWORD))
    session.commit()
    row = session.scalars(select(Connection)).one()
    row._password, row.is_encrypted = "gAAAAABnonsense", True
    session.commit()
    assert asked(app, "/stored", contact(), [basic()]).status == 401
    assert "MetastoreBackend can't read the connections of incoming webhooks: " in logged.text


@pytest.mark.usefixtures("incoming", "contacts")
def test_refused_while_a_connection_is_read_again(
    app: ASGIApp, post: Post, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong password takes the time of one lookup, even when a used connection is being read again."""
    assert post(contact()).status == 200
    clock.now += senders.CONNECTION_LASTS
    looks = senders._look_up
    both = threading.Barrier(2, timeout=10)

    def look_up(conn_id: str) -> Any:
        both.wait()  # broken, hence a 503, if one is made after the other
        return looks(conn_id)

    monkeypatch.setattr(senders, "_look_up", look_up)
    assert asked(app, "/crm", contact(), [basic(password="wrong")]).status == 401


def test_lookups_of_a_refusal(app: ASGIApp, post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal asks the database once, with or without a connection, so both take the same time."""
    asked_for: list[str] = []
    monkeypatch.setattr(MetastoreBackend, "get_connection", lambda self, conn_id: asked_for.append(conn_id))
    assert asked(app, "/unknown", contact(), [basic()]).status == 401
    assert len(asked_for) == 1
    assert asked(app, "/crm", contact(), [basic(password="wrong")]).status == 401
    assert len(asked_for) == 2
    assert post(contact()).status == 200
    assert len(asked_for) == 3
    assert asked(app, "/crm", contact(), [basic(password="wrong")]).status == 401
    assert len(asked_for) == 4
    assert "crm" not in asked_for, "it is in the environment, and another id is asked for"


def test_known_senders_do_not_wait_behind_guessers(
    app: ASGIApp, post: Post, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lookups of guessed ids may take all their threads. Known senders have their own."""
    assert post(contact()).status == 200
    clock.now += senders.CONNECTION_LASTS
    ended = threading.Event()
    look_up = senders._look_up

    def slow_for_others(conn_id: str) -> Any:
        return look_up(conn_id) if conn_id == "crm" else ended.wait(30) and None

    monkeypatch.setattr(senders, "_look_up", slow_for_others)

    async def scene() -> None:
        guesses = [
            asyncio.create_task(ask(app, f"/guess_{number}", contact(), [basic()]))
            for number in range(senders.LOOKUPS)
        ]
        await asyncio.sleep(0.1)
        try:
            answer = await asyncio.wait_for(ask(app, "/crm", contact(), [basic()]), 5)
        finally:
            ended.set()
        assert answer.status == 200
        assert [(await guess).status for guess in guesses] == [401] * senders.LOOKUPS

    asyncio.run(scene())


def test_refusals_come_at_steps_of_time(app: ASGIApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a refusal doesn't show what was looked up for it."""
    monkeypatch.setattr(senders, "STEP", 0.3)
    began = time.monotonic()
    assert asked(app, "/crm", contact()).status == 401
    assert time.monotonic() - began >= 0.3


def test_impossible_id(app: ASGIApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """An impossible connection id is not looked up, since a database or a vault may fail on it."""
    asked_for: list[str] = []
    monkeypatch.setattr(MetastoreBackend, "get_connection", lambda self, conn_id: asked_for.append(conn_id))
    for conn_id in ("a%00b", "a%20b", "crm%0a", "%F0%9F%98%80", "x" * 251):
        assert asked(app, f"/{conn_id}", contact(), [basic()]).status == 401
    assert len(asked_for) == 5
    assert all(conn_id.isalnum() and len(conn_id) == 16 for conn_id in asked_for)


def test_nobody_known_by_wrong_credentials(app: ASGIApp, connect: Connect) -> None:
    """Requests with wrong credentials leave nothing in memory, for any spelling of an id."""
    known = senders_of(app)._known
    for conn_id in ("crm", "Crm", "CRM", "cRM"):
        assert asked(app, f"/{conn_id}", contact(), [basic(password="wrong")]).status == 401
    assert known == {}


# --- the body ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ([("Content-Type", "text/plain")], "must be JSON"),
        ([("Content-Type", "")], "must be JSON"),
        ([("Content-Type", "application/x-www-form-urlencoded")], "must be JSON"),
        ([("Content-Type", "application/json; charset=utf-16")], "in UTF-8"),
        ([("Content-Type", "application/json;charset=iso-8859-1")], "in UTF-8"),
        ([("Content-Encoding", "gzip")], "not be compressed"),
    ],
)
def test_unsupported(post: Post, headers: Any, detail: str) -> None:
    answer = post(contact(), *headers)
    assert answer.status == 415
    assert detail in answer.detail
    assert answer.read == 0


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "must be JSON in UTF-8"),
        (b"{", "must be JSON in UTF-8"),
        (b"\xff\xfe{}", "must be JSON in UTF-8"),
        (SOME.decode().encode("utf-16"), "must be JSON in UTF-8"),
        (SOME.decode().encode("latin-1"), "must be JSON in UTF-8"),
        (b'{"entity": {"CONTACT_ID": NaN}}', "must be JSON in UTF-8"),
        (b"null", 'under "entity"'),
        (b"[]", 'under "entity"'),
        (b'"entity"', 'under "entity"'),
        (b'{"entity": []}', 'under "entity"'),
        (b'{"Entity": {"CONTACT_ID": 7}}', 'under "entity"'),
        (entity(FIRST_NAME="Zoë"), "no field with a record's id"),
        (entity(RECORD_ID=7), "?record_type=Invoice__c"),
        *((entity(CONTACT_ID=n), "CONTACT_ID must be") for n in (0, -1, 7.0, 7.5, "7", None, True, 2**63)),
        (b'{"entity": {"CONTACT_ID": 7, "X": ' + b"[" * 500_000 + b"]" * 100 + b"}}", "must be JSON"),
        (b'{"entity": {"CONTACT_ID": 7, "X": ' + b"[" * 200 + b"]" * 200 + b"}}", "nest deeper"),
        (b'{"entity": {"CONTACT_ID": 7, "X": ' + b"[" * 200_000 + b"]" * 200_000 + b"}}", "nest deeper"),
        (b'{"entity": {"CONTACT_ID": ' + b"9" * 5_000 + b"}}", "CONTACT_ID must be"),
        (b'{"entity": {"CONTACT_ID": 1e400}}', "CONTACT_ID must be"),
    ],
)  # fmt: skip
def test_no_entity(post: Post, body: bytes, detail: str, events: Events) -> None:
    answer = post(body)
    assert answer.status == 400
    assert answer.detail.startswith("The body is not a webhook of Insightly: ")
    assert detail in answer.detail
    assert events() == []


@pytest.mark.parametrize("declared", [True, False])
def test_too_large(app: ASGIApp, connect: Connect, declared: bool) -> None:
    """A body that is too large isn't read to its end, and not at all if it says its size."""
    connect("small", "insightly_incoming", login=LOGIN, password=PASSWORD, extra={"max_body_bytes": 1_000})
    parts = [b"x" * 400] * 100
    headers = [basic(), ("Content-Length", "40000")] if declared else [basic()]
    answer = asked(app, "/small", parts, headers)
    assert (answer.status, answer.read) == (413, 0 if declared else 3)
    assert (
        answer.detail
        == "The body has more than 1000 bytes, the limit in the connection's field max_body_bytes."
    )
    most = contact(LAST_NAME="x" * (1_000 - len(contact(LAST_NAME=""))))
    assert asked(app, "/small", most, [basic()]).status == 200
    assert asked(app, "/small", most + b" ", [basic()]).status == 413


def test_length_that_is_none(post: Post) -> None:
    """Servers refuse such a request themselves. A length that is not a number is ignored."""
    for length in ("-1", "1e3", "x", "", "²", "0" * 5_000 + "99"):
        assert post(contact(), ("Content-Length", length)).status == 200
    for length in ("1000001", "9" * 13, "9" * 5_000):
        answer = post(contact(), ("Content-Length", length))
        assert (answer.status, answer.read) == (413, 0)


def test_too_slow(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body must arrive within 30 s (less in the test)."""
    monkeypatch.setattr(request_body, "TIMEOUT", 0.2)
    answer = post([b"x"] * 100, pause=0.05)
    assert (answer.status, answer.detail) == (408, "The body did not arrive within 0.2 s: send it again.")
    assert answer.read < 10


def test_broken_off(post: Post, events: Events) -> None:
    answer = post([contact(), b""], breaks_off=True)
    assert (answer.status, answer.detail) == (400, "The body ended early: send it again.")
    assert events() == []


# --- which records -----------------------------------------------------------------------------------------


def test_accepted_types(app: ASGIApp, connect: Connect, session: Session) -> None:
    """Only contents that the connection accepts are taken. The reason names the setting."""
    add_waiting_dag(session, "leads", "Leads")
    connect(
        "some", "insightly_incoming", login=LOGIN, password=PASSWORD, extra={"record_types": "Leads, Tasks"}
    )
    assert asked(app, "/some", entity(LEAD_ID=7), [basic()]).status == 200
    answer = asked(app, "/some", contact(), [basic()])
    assert (answer.status, answer.detail) == (
        404,
        "The connection does not accept Contacts: add it to the field record_types.",
    )


def test_no_dag(post: Post, events: Events, logged: Logged) -> None:
    """A webhook that no DAG waits for is refused, and the log says which."""
    answer = post(entity(LEAD_ID=7))
    assert (answer.status, answer.detail) == (
        404,
        "No DAG is scheduled by changes of Leads: check the DAGs' schedules.",
    )
    assert events() == []
    assert "Connection 'crm' received a webhook, but no DAG is scheduled by changes of Leads" in logged.text


def test_no_dag_any_more(post: Post, session: Session) -> None:
    """A DAG that was added counts at once."""
    assert post(entity(LEAD_ID=7)).status == 404
    add_waiting_dag(session, "leads", "Leads")
    assert post(entity(LEAD_ID=7)).status == 200


def test_custom_object(post: Post, session: Session, events: Events) -> None:
    """The webhook's URI names the type of custom objects."""
    (name,) = add_waiting_dag(session, "invoices", "Invoice__c")
    assert post(entity(RECORD_ID=7), path="/crm?record_type=Invoice__c").status == 200
    assert [stored for stored, _ in events()] == [name]


@pytest.mark.parametrize(
    "name", ["", "Contact", "contacts", "__c", "In%voice__c", "In/voice__c", "%00__c", "x" * 5_000]
)
def test_unknown_type(post: Post, name: str) -> None:
    answer = post(contact(), path=f"/crm?record_type={name}")
    assert (answer.status, answer.detail) == (
        404,
        "The query's record_type is not a record type of Insightly. A custom object's name ends in __c.",
    )


def test_names_of_other_connections(post: Post, session: Session, connect: Connect, events: Events) -> None:
    """A connection's id may contain placeholders of SQL's LIKE, and its case matters."""
    names = {
        conn_id: add_waiting_dag(session, f"of_{number}", "Contacts", insightly_conn_id=conn_id)[0]
        for number, conn_id in enumerate(["a_b", "axb", "A_B", "a%b", "a\\b"])
    }
    for conn_id, name in names.items():
        connect(
            "one", "insightly_incoming", login=LOGIN, password=PASSWORD, extra={"insightly_conn_id": conn_id}
        )
        before = len(events())
        assert asked(app_module.make_app(), "/one", contact(), [basic()]).status == 200
        assert [stored for stored, _ in events()[before:]] == [name]


# --- other methods and paths -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "x"])
def test_method(post: Post, method: str) -> None:
    answer = post(contact(), method=method)
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("path", ["/", "", "/crm/", "/crm/x", "//crm", "/a%2Fb", "/docs/x", "/../crm"])
def test_path(post: Post, path: str) -> None:
    answer = post(contact(), path=path)
    assert (answer.status, answer.detail) == (404, "POST to /insightly/hooks/{connection}.")


# --- ids and signatures ------------------------------------------------------------------------------------


def test_same_id(post: Post, events: Events, clock: Clock) -> None:
    """A message that was taken within the last hour makes no further event."""
    assert post(contact(), ("webhook-id", "msg_1")).status == 200
    clock.now += 3_599
    answer = post(contact(), ("webhook-id", "msg_1"))
    assert (answer.status, answer.detail) == (200, "The webhook was accepted before.")
    assert len(events()) == 1
    clock.now += 2
    assert post(contact(), ("webhook-id", "msg_1")).status == 200
    assert len(events()) == 2


@pytest.mark.parametrize("message_id", ["", "a b", "ä", "\t", "x" * 257])
def test_invalid_id(post: Post, message_id: str) -> None:
    answer = post(contact(), ("webhook-id", message_id))
    assert answer.status == 400
    assert answer.detail.startswith("webhook-id must be 1 to 256 printable ASCII characters")


def test_id_that_was_not_taken(post: Post, session: Session, events: Events) -> None:
    """An id counts as seen only once its event is stored."""
    assert post(b"{}", ("webhook-id", "msg_1")).status == 400
    assert post(entity(LEAD_ID=7), ("webhook-id", "msg_1")).status == 404
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(announcer, "announce", lambda *_: 1 / 0)
        assert post(contact(), ("webhook-id", "msg_1")).status == 503
    assert events() == []
    assert post(contact(), ("webhook-id", "msg_1")).detail.startswith("Airflow knows")
    assert len(events()) == 1


def test_ids_are_bounded(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senders, "MOST_IDS", 2)
    for message_id in ("msg_1", "msg_2", "msg_3"):
        post(contact(), ("webhook-id", message_id))
    assert post(contact(), ("webhook-id", "msg_3")).detail == "The webhook was accepted before."
    assert post(contact(), ("webhook-id", "msg_1")).detail != "The webhook was accepted before."


def signed(body: bytes, *, secret: str = SECRET, age: float = 0, **changed: str) -> list[tuple[str, str]]:
    timestamp = int(datetime.now(timezone.utc).timestamp() - age)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": Signer(secret).sign("msg_1", timestamp, body),
    }
    return [*(headers | {name.replace("_", "-"): value for name, value in changed.items()}).items()]


@pytest.fixture
def signing(connect: Connect) -> None:
    """A connection that accepts signed webhooks only, with an old and a new secret."""
    newer = "whsec_" + base64.b64encode(b"t" * 24).decode()
    extra = {"signing_secret": f"{SECRET} {newer}"}
    connect("signed", "insightly_incoming", login=LOGIN, password=PASSWORD, extra=extra)


@pytest.mark.usefixtures("signing")
def test_signed(app: ASGIApp) -> None:
    """One valid signature by one of the secrets is enough. The time may differ by 300 s."""
    body = contact()
    newer = base64.b64encode(b"t" * 24).decode()
    for headers in (
        signed(body),
        signed(body, secret=newer, webhook_id="msg_1"),
        signed(body, secret=f"{base64.b64encode(b'u' * 24).decode()} {SECRET}"),
        signed(body, age=285),
        signed(body, age=-285),
    ):
        assert asked(app_module.make_app(), "/signed", body, [basic(), *headers]).status == 200


@pytest.mark.usefixtures("signing")
@pytest.mark.parametrize(
    "change",
    [
        {"age": 302},
        {"age": -302},
        {"secret": base64.b64encode(b"u" * 24).decode()},
        {"webhook_id": "msg_2"},
        {"webhook_timestamp": "0"},
        {"webhook_timestamp": ""},
        {"webhook_timestamp": "now"},
        {"webhook_timestamp": "9" * 5_000},
        {"webhook_signature": ""},
        {"webhook_signature": "v1,"},
        {"webhook_signature": "v1,é"},
        {"webhook_signature": "v1a," + "A" * 44},
    ],
)
def test_wrongly_signed(app: ASGIApp, events: Events, change: dict[str, Any]) -> None:
    body = contact()
    answer = asked(app, "/signed", body, [basic(), *signed(body, **change)])
    assert answer.status == 401
    assert answer.detail.startswith("A signed webhook is needed: ")
    assert "www-authenticate" in answer.headers
    assert events() == []


@pytest.mark.usefixtures("signing")
def test_signed_body(app: ASGIApp) -> None:
    """The signature must match the body. A webhook without a signature or an id is refused."""
    body = contact()
    assert asked(app, "/signed", body + b" ", [basic(), *signed(body)]).status == 401
    assert asked(app, "/signed", body, [basic()]).status == 401
    assert asked(app, "/signed", body, signed(body)).status == 401, "the credentials are needed, too"
    assert asked(app, "/signed", body, [basic(), *signed(body)]).status == 200
    assert asked(app, "/signed", body + b" ", [basic(), *signed(body)]).status == 401, "its id is known"


# --- limits, and the database ------------------------------------------------------------------------------


def test_requests_per_minute(app: ASGIApp, connect: Connect, clock: Clock) -> None:
    connect("few", "insightly_incoming", login=LOGIN, password=PASSWORD, extra={"requests_per_minute": 2})
    for _ in range(2):
        assert asked(app, "/few", contact(), [basic()]).status == 200
    for _ in range(5):
        assert asked(app, "/few", contact(), [basic(password="wrong")]).status == 401, "these don't count"
    clock.now += 20
    answer = asked(app, "/few", contact(), [basic()])
    assert (answer.status, answer.headers["retry-after"], answer.read) == (429, "40", 0)
    clock.now += 40
    assert asked(app, "/few", contact(), [basic()]).status == 200


@pytest.mark.usefixtures("away")
@pytest.mark.parametrize("path", ["/crm", "/unknown", "/%00"])
@pytest.mark.parametrize("password", [PASSWORD, "wrong"])
def test_database_away(app: ASGIApp, path: str, password: str, logged: Logged) -> None:
    """Without the database, all senders are asked to try again. No answer shows which connections exist."""
    answer = asked(app, path, contact(), [basic(password=password)])
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert answer.detail == "Airflow can't store the webhook at the moment: send it again."
    assert "AwayError" in logged.text
    assert "secret-statement" not in logged.text


def test_database_goes_away(
    post: Post, app: ASGIApp, events: Events, request: pytest.FixtureRequest, clock: Clock
) -> None:
    """A known sender gets the same answer, at once and when its connection must be read again."""
    assert post(contact()).status == 200
    request.getfixturevalue("away")
    for _ in range(2):
        clock.now += 6
        assert post(contact()).status == 503
        assert asked(app, "/crm", contact(), [basic(password="wrong")]).status == 503


def test_database_hangs(app: ASGIApp, request: pytest.FixtureRequest, clock: Clock) -> None:
    """While the database hangs, no sender waits longer than the time limit (10 s outside of tests)."""
    ended = threading.Event()
    request.addfinalizer(ended.set)

    async def ask_all() -> list[int]:
        wrong = [ask(app, "/crm", contact(), [basic(password="wrong")]) for _ in range(5)]
        unknown = [ask(app, f"/unknown{n}", contact(), [basic()]) for n in range(5)]
        right = [ask(app, "/crm", contact(), [basic()]) for _ in range(5)]
        return [answer.status for answer in await asyncio.gather(*wrong, *unknown, *right)]

    async def check() -> None:
        assert (await ask(app, "/crm", contact(), [basic()])).status == 200
        clock.now += 2
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(threads, "TIMEOUT", 0.2)
            patch.setattr(announcer, "TIMEOUT", 0.2)
            patch.setattr(MetastoreBackend, "get_connection", lambda *_, **__: ended.wait(30) and None)
            patch.setattr(announcer, "_announce", lambda *_: ended.wait(30) and 0)
            started = time.monotonic()
            assert set(await ask_all()) == {503}
            assert time.monotonic() - started < 5
        ended.set()
        assert (await ask(app, "/crm", contact(), [basic(password="wrong")])).status == 401
        assert (await ask(app, "/unknown", contact(), [basic()])).status == 401
        assert (await ask(app, "/crm", contact(), [basic()])).status == 200

    asyncio.run(check())


def test_failing_secrets_backend(app: ASGIApp, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a secrets backend doesn't answer, the connection may exist. Without another source it is a 503."""

    class Vault:
        def get_connection(self, conn_id: str) -> None:
            raise ConnectionError("of a vault")

    backends = [Vault(), *senders.ensure_secrets_loaded()]
    monkeypatch.setattr(senders, "ensure_secrets_loaded", lambda: backends)
    assert asked(app, "/crm", contact(), [basic()]).status == 200
    assert asked(app, "/crm", contact(), [basic(password="wrong")]).status == 503
    assert asked(app, "/unknown", contact(), [basic()]).status == 503


def test_bug(post: Post, monkeypatch: pytest.MonkeyPatch, logged: Logged) -> None:
    """A bug is answered like a missing database, and its text stays out of the log."""

    def fail(*_: object) -> None:
        raise KeyError("contents")

    monkeypatch.setattr(app_module, "read_entity", fail)
    assert post(contact()).status == 503
    assert "A webhook can't be accepted, the endpoint failed: KeyError at test_app.py:" in logged.text
    assert "contents" not in logged.text.replace("test_app", "")


# --- the order of checks, and secrets ----------------------------------------------------------------------


def test_order_of_checks(app: ASGIApp, connect: Connect, session: Session) -> None:
    """The order is: the sender, the rate of its requests, the headers, the body, the record."""
    extra = {
        "requests_per_minute": 5,
        "max_body_bytes": 500,
        "signing_secret": SECRET,
        "record_types": "Leads",
    }
    connect("strict", "insightly_incoming", login=LOGIN, password=PASSWORD, extra=extra)
    good, large = contact(), b"x" * 600

    def send(body: bytes, *headers: tuple[str, str]) -> int:
        return asked(app, "/strict", body, headers).status

    assert send(large, ("Content-Type", "text/html")) == 401
    assert send(large, basic(), ("Content-Type", "text/html")) == 415
    assert send(large, basic(), ("webhook-id", "a b")) == 413
    assert send(good, basic(), ("webhook-id", "a b")) == 400
    assert send(b"{}", basic(), ("webhook-id", "msg_1")) == 401
    assert send(b"{}", basic(), *signed(b"{}")) == 400
    assert send(good, basic(), *signed(good)) == 429


def test_nothing_is_told(post: Post, app: ASGIApp, logged: Logged) -> None:
    """Answers and logs of all levels hold neither credentials nor contents."""
    secret = "Wichtelmann"
    bodies = [
        contact(LAST_NAME=secret),
        contact()[:-1] + secret.encode(),
        entity(**{secret: secret}),
        entity(CONTACT_ID=secret),
        entity(CONTACT_ID=7, **{secret: {secret: [secret] * 3}}),
        json.dumps({"entity": secret}).encode(),
        b'{"entity": {"CONTACT_ID": 7, "' + secret.encode() + b'": ' + b"[" * 200 + b"]" * 200 + b"}}",
    ]
    for body in bodies:
        answer = post(body, ("webhook-id", secret))
        assert secret.encode() not in answer.body
        assert secret not in str(answer.headers)
        assert secret.encode() not in asked(app, "/crm", body, [basic(secret, secret)]).body
    assert secret not in logged.text
    assert PASSWORD not in logged.text


def test_representations(post: Post, app: ASGIApp) -> None:
    """A sender's representation, as in a debugger or a traceback with values, holds no secret."""
    post(contact(), ("webhook-id", "msg_1"))
    shown = repr(senders_of(app)._known)
    assert "crm" in shown
    assert PASSWORD not in shown
    assert LOGIN + "'" not in shown


def test_counted(post: Post, app: ASGIApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metric counts each answer by its status."""
    counted: list[int] = []
    monkeypatch.setattr(app_module, "count_webhook", counted.append)
    post(contact())
    post(b"")
    asked(app, "/crm", contact())
    post(contact(), method="GET")
    assert counted == [200, 400, 401, 405]


def test_one_row_in_the_queue(post: Post, session: Session) -> None:
    """A DAG that waits for two assets is queued once by each of them."""
    add_waiting_dag(session, "leads", "Leads", "Contacts")
    for _ in range(3):
        assert post(contact()).status == 200
    count = session.scalar(select(func.count()).select_from(AssetDagRunQueue))
    assert count == 2

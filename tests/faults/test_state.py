"""Faults of retries and state: which messages are sent again, and under which id."""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_insightly_hooks import triggers
from airflow_insightly_hooks.core.delivery.ledger_store import HEAD
from airflow_insightly_hooks.core.delivery.message_id import message_id
from airflow_insightly_hooks.core.errors import (
    InvalidConnection,
    InvalidPayload,
    InvalidState,
    SupersededError,
    UndeliveredError,
)
from airflow_insightly_hooks.hooks.webhook import WebhookHook
from airflow_insightly_hooks.operators.delivery import ledger_writer
from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.operators.webhook import UndeliverableError, WebhookOperator
from tests.conftest import Connect, Logged, StateStore, TaskInstance, run_context
from tests.deliveries import ask_again, deliver, payloads, recorded, undelivered
from tests.faults.conftest import fault
from tests.servers import RESET, Request, Server, answer, serving

SECRETS = [b"k" * 24, b"another key of 32 bytes, as it is"]
SIGNING_SECRETS = [f"whsec_{base64.b64encode(secret).decode()}" for secret in SECRETS]
CHANGE = {
    "record_type": "Contacts",
    "record_id": 7,
    "event": "updated",
    "changed_at": "2026-01-01T00:00:00Z",
    "record": {"CONTACT_ID": 7, "FIRST_NAME": "A"},
}


def ids(server: Server) -> list[str]:
    return [request.headers["webhook-id"] for request in server.requests]


def signatures_of(request: Request, secrets: list[bytes]) -> str:
    """Return the signature header that Standard Webhooks asks for."""
    headers = request.headers
    content = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), request.body])
    digests = [hmac.new(secret, content, hashlib.sha256).digest() for secret in secrets]
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


class TroubledStore(StateStore):
    """A state store that fails from time to time.

    :ivar fails: says for each call of ``set`` whether it fails.
    """

    def __init__(self, fails: Callable[[str], bool]) -> None:
        super().__init__()
        self.fails = fails

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        if self.fails(key):
            raise ConnectionError("the API server is down")
        super().set(key, value)


@pytest.fixture
def quick_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the ledger, and repeat failed writes, ten times as often."""
    monkeypatch.setattr(ledger_writer, "LEDGER_INTERVAL", 0.1)
    monkeypatch.setattr(ledger_writer, "WRITE_AGAIN_AFTER", (0.02, 0.05, 0.1))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that shifts the wall clock by some seconds."""
    real, offset = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + offset)

    def jump(seconds: float) -> None:
        nonlocal offset
        offset = seconds

    return jump


# --- killed, overtaken, without a store ------------------------------------------------------------------


@fault(78, "killed between a POST and its record")
def test_killed_between_post_and_record(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is POSTed again under the same id, as another attempt. Recorded messages are not POSTed again."""
    context, left = run_context(), StateStore()
    store = context["task_state_store"]

    def snapshot(_: object) -> None:
        if len(server.requests) == 3:  # with one at a time: two are acknowledged, the third is under way
            left.values = dict(store.values)

    with serving([snapshot, 0.05, answer()]) as server:
        connect("webhook_default", host=server.url)
        monkeypatch.setattr(ledger_writer, "LEDGER_INTERVAL", 0.0)  # answers are recorded at once
        deliver(context, payloads(3), concurrency=1)
        report = deliver(run_context(task_state_store=left), payloads(3))
    assert ids(server) == ["msg_0", "msg_1", "msg_2", "msg_2"]
    assert (report["delivered"], report["attempts"]) == (3, 4)


@fault(79, "the record can't be written after a 2xx")
@pytest.mark.usefixtures("quick_writes")
def test_record_cannot_be_written_after_a_2xx(connect: Connect) -> None:
    """The write is repeated, not the POST."""
    failures = 0

    def fails(_: str) -> bool:
        nonlocal failures
        failures += bool(server.requests) and failures < 3
        return bool(server.requests) and failures < 3

    context = run_context(task_state_store=TroubledStore(fails))
    with serving([answer()]) as server:
        connect("webhook_default", host=server.url)
        assert deliver(context, payloads(1))["delivered"] == 1
    assert failures == 3
    assert ids(server) == ["msg_0"]
    assert recorded(context["task_state_store"]) == {"msg_0": "A1"}


@fault(79, "a record outgrows its store")
def test_records_stay_small(connect: Connect) -> None:
    """The ledger is stored in parts, each well below the limit of a state store."""
    context = run_context()
    store = context["task_state_store"]
    given = payloads(1600)
    for payload in given:
        payload["message_id"] = f"{payload['record_id']:064}"
    with serving([answer()]) as server:
        connect("webhook_default", host=server.url)
        deliver(context, given, concurrency=16)
    assert len(recorded(store)) == 1600
    assert max(map(len, store.values.values())) < 60_000


@fault(80, "two tries of one task alive at once")
@pytest.mark.usefixtures("quick_writes")
def test_two_tries_at_once(connect: Connect) -> None:
    """The later try wins. The earlier try stops POSTing at its next write, and its error says why."""
    store = StateStore()
    contexts = [run_context(task_state_store=store, ti=TaskInstance()) for _ in range(2)]
    with serving([0.03, answer()]) as server, ThreadPoolExecutor(1) as pool:
        connect("webhook_default", host=server.url)
        early = pool.submit(deliver, contexts[0], payloads(400), concurrency=4)
        while len(server.requests) < 20:
            time.sleep(0.005)
        report = deliver(contexts[1], payloads(400), concurrency=4)
        with pytest.raises(SupersededError, match="later try"):
            early.result(10)
    assert report["delivered"] == 400
    # Both tries sent the messages that were under way or not yet recorded when the later one began, and
    # until the earlier one noticed. In the 0.1 s between writes, four threads make about 15 POSTs.
    assert 400 <= len(server.requests) < 460
    assert "return_value" not in contexts[0]["ti"].xcom, "the later try's report isn't overwritten"


class AbandonedStore:
    """The store of a try that Airflow has abandoned: it shows no values and refuses writes."""

    def __init__(self, store: StateStore) -> None:
        self.store, self.is_abandoned = store, False

    def get(self, key: str, default: Any = None) -> Any:
        return default if self.is_abandoned else self.store.get(key, default)

    def set(self, key: str, value: Any, **how: Any) -> None:
        if self.is_abandoned:
            raise ConnectionError("the API server answers 404: no such task instance")
        self.store.set(key, value, **how)

    def delete(self, key: str) -> None:
        self.store.delete(key)


@fault(80, "a try that Airflow has abandoned: its store is closed")
@pytest.mark.usefixtures("quick_writes")
def test_try_that_was_given_up(connect: Connect) -> None:
    """It stops POSTing at its next write, says why, and doesn't overwrite the later try's report."""
    context = run_context(task_state_store=AbandonedStore(StateStore()), ti=TaskInstance())
    store = context["task_state_store"]

    def abandon(_: object) -> None:
        store.is_abandoned = len(server.requests) >= 20

    with serving([abandon, 0.03, answer()]) as server:
        connect("webhook_default", host=server.url)
        with pytest.raises(SupersededError, match="later try"):
            deliver(context, payloads(400), concurrency=4)
    assert 20 <= len(server.requests) < 80  # in 0.1 s between writes, four threads make about 15 POSTs
    assert "return_value" not in context["ti"].xcom


# --- one message, one id ---------------------------------------------------------------------------------


def built(run_id: str) -> list[dict[str, Any]]:
    """Return the payloads that the build task makes for a change in a run."""
    operator = BuildPayloadOperator(task_id="build", changes=[CHANGE], custom_date_fields=[], workflow="w")
    return operator.execute(run_context(ti=TaskInstance(run_id=run_id)))  # type: ignore[no-any-return]


@fault(81, "two runs cover one window")
def test_two_runs_of_one_window(connect: Connect) -> None:
    """Both runs send, under the same ids, so that receivers can drop duplicates."""
    with serving([answer()]) as server:
        connect("webhook_default", host=server.url)
        for run_id in ("scheduled__1", "backfill__1"):
            deliver(run_context(), built(run_id))
    assert len(ids(server)) == 2
    assert len(set(ids(server))) == 1
    assert len({request.body for request in server.requests}) == 1


@fault(82, "a request to send again while the task retries")
def test_request_while_the_task_retries(connect: Connect) -> None:
    """All messages keep their ids, and a retry does not repeat a message that was sent on request."""
    context = run_context()
    with serving(lambda n: [answer("500 X" if n == 1 else "200 OK")]) as server:
        connect("webhook_default", host=server.url)
        undelivered(context, payloads(2), concurrency=1)
        ask_again(context, 0, 1, clears=False)
        deliver(context, payloads(2), concurrency=1)
        deliver(context, payloads(2))
    assert ids(server) == ["msg_0", "msg_1", "msg_0", "msg_1"]


@fault(83, "a message is sent again on request")
def test_sent_again_on_request(connect: Connect, clock: Callable[[float], None]) -> None:
    """It has the same id and body, and a new timestamp and signature."""
    context = run_context()
    with serving([answer()]) as server:
        connect("webhook_default", host=server.url, extra={"signing_secret": SIGNING_SECRETS[0]})
        deliver(context, payloads(1))
        clock(3600)
        ask_again(context, 0)
        deliver(context, payloads(1))
    first, second = server.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) in (3600, 3601)
    for request in server.requests:
        assert request.headers["webhook-signature"] == signatures_of(request, SECRETS[:1])


@fault(84, "the wall clock jumps")
@pytest.mark.parametrize("seconds", [-86_400, 86_400])
def test_wall_clock_jumps(connect: Connect, clock: Callable[[float], None], seconds: float) -> None:
    """Deadlines are measured with a monotonic clock. A jump neither ends a POST nor lets it hang."""
    with serving(lambda n: [lambda _: clock(seconds), 0.2, answer()] if n == 0 else [5]) as server:
        connect("webhook_default", host=server.url, extra={"timeout": 0.5})
        started = time.monotonic()
        error = undelivered(run_context(), payloads(2), concurrency=1)
    assert (error.report["delivered"], error.report["undelivered"][0]["record_id"]) == (1, 1)
    assert 0.6 < time.monotonic() - started < 3


@fault(84, "the receiver's clock is off")
@pytest.mark.parametrize(("date", "warnings"), [("Tue, 15 Nov 1994 08:12:31 GMT", 1), ("nonsense", 0)])
def test_clocks_apart(connect: Connect, logged: Logged, date: str, warnings: int) -> None:
    """If its ``Date`` is more than five minutes off, one warning says so."""
    with serving([answer("200 OK", f"Date: {date}")]) as server:
        connect("webhook_default", host=server.url)
        deliver(run_context(), payloads(3))
    assert len([m for m in logged.messages("warning") if "clock" in m]) == warnings


@fault(85, "timestamp and signature of a second attempt")
def test_signed_per_attempt(connect: Connect, clock: Callable[[float], None]) -> None:
    """Each attempt has its own timestamp and signature."""
    context = run_context()
    with serving(lambda n: [answer("500 X" if n == 0 else "200 OK")]) as server:
        connect("webhook_default", host=server.url, extra={"signing_secret": SIGNING_SECRETS[0]})
        undelivered(context, payloads(1))
        clock(60)
        deliver(context, payloads(1))
    first, second = (request.headers for request in server.requests)
    assert first["webhook-id"] == second["webhook-id"]
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) in (60, 61)
    assert first["webhook-signature"] != second["webhook-signature"]


@fault(85, "a POST that waits for its turn")
def test_timestamp_after_a_wait(connect: Connect) -> None:
    """A POST that waits because of ``requests_per_second`` gets its timestamp after the wait."""
    arrived = []
    with serving([lambda _: arrived.append(time.time()), answer()]) as server:
        connect("webhook_default", host=server.url, extra={"requests_per_second": 1})
        deliver(run_context(), payloads(5), concurrency=5)
        hook = WebhookHook("webhook_default")
        with ThreadPoolExecutor(5) as pool:
            list(pool.map(lambda n: hook.send("{}", message_id=f"msg_{n}"), range(5)))
    made = sorted(int(request.headers["webhook-timestamp"]) for request in server.requests)
    assert len(made) == 10
    assert all(at - timestamp < 3 for at, timestamp in zip(sorted(arrived), made, strict=True))


@fault(86, "an id with a dot, or from outside")
def test_ids_are_ours(connect: Connect) -> None:
    """Ids are hashes. Other characters than letters, digits, '-' and '_' are refused before sending."""
    made = message_id("work.flow", "Contacts", 1, "added", "2026-01-01T00:00:00.5Z")
    assert made.removeprefix("msg_").isalnum()
    with serving([answer()]) as server:
        connect("webhook_default", host=server.url)
        for text in ("msg.1", "msg 1", "msg_1\n", ""):
            with pytest.raises(InvalidPayload, match="message_id"):
                deliver(run_context(), [{**payloads(1)[0], "message_id": text}])
    assert server.connections == 0


@fault(87, "key rotation")
def test_key_rotation(connect: Connect) -> None:
    """A message is signed with every key of the connection, in their order."""
    with serving([answer()]) as server:
        connect("webhook_default", host=server.url, extra={"signing_secret": " ".join(SIGNING_SECRETS)})
        deliver(run_context(), payloads(1))
    (request,) = server.requests
    assert request.headers["webhook-signature"] == signatures_of(request, SECRETS)


@fault(88, "an unusable signing secret")
@pytest.mark.parametrize("secret", ["whsec_", "whsec_c2hvcnQ=", "whsec_!!!", "  "])
def test_unusable_signing_secret(connect: Connect, secret: str) -> None:
    """It is refused before anything is sent, in an error that doesn't show it. No POST goes unsigned."""
    with serving([answer()]) as server:
        connect("webhook_default", host=server.url, extra={"signing_secret": secret})
        with pytest.raises(InvalidConnection, match="signing_secret") as caught:
            deliver(run_context(), payloads(1))
    assert "c2hvcnQ" not in str(caught.value)
    assert server.connections == 0


# --- between tries -----------------------------------------------------------------------------------------


@fault(89, "the connection is edited or deleted between tries")
def test_connection_edited_between_tries(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current connection is used. Without one the task fails and names it, and nothing is lost."""
    context = run_context()
    with serving([answer("500 X")]) as old, serving([answer()]) as new:
        connect("webhook_default", host=old.url)
        undelivered(context, payloads(1))
        monkeypatch.delenv("AIRFLOW_CONN_WEBHOOK_DEFAULT")
        with pytest.raises(AirflowNotFoundException, match="webhook_default"):
            deliver(context, payloads(1))
        connect("webhook_default", host=new.url)
        assert deliver(context, payloads(1))["attempts"] == 2
    assert (ids(old), ids(new)) == (["msg_0"], ["msg_0"])


@fault(90, "one payload that can't be sent")
def test_one_payload_that_cannot_be_sent(connect: Connect) -> None:
    """It is not sent, and is listed as undelivered with the reason. The other payloads are sent."""
    given = payloads(3)
    given[1]["body"] = '{"entity":"\ud800"}'
    with serving([answer()]) as server:
        connect("webhook_default", host=server.url)
        error = undelivered(run_context(), given)
    (item,) = error.report["undelivered"]
    assert (item["message_id"], item["attempts"]) == ("msg_1", 0)
    assert "surrogate" in item["error"]
    assert sorted(ids(server)) == ["msg_0", "msg_2"]


@fault(91, "a dead endpoint and 10,000 payloads")
def test_dead_endpoint(connect: Connect) -> None:
    """After 20 failures in a row without anything sent, the try ends. No attempt is counted."""
    context = run_context()
    with serving([]) as server:
        pass
    connect("webhook_default", host=server.url)
    started = time.monotonic()
    error = undelivered(context, payloads(10_000))
    assert time.monotonic() - started < 10
    errors = [item["error"] for item in error.report["undelivered"]]
    assert 20 <= errors.count("connection refused") <= 27
    assert set(errors) == {
        "connection refused",
        f"not sent: the receiver couldn't be reached {errors.count('connection refused')} times in a row",
    }
    assert error.report["attempts"] == 0
    assert error.report["undelivered_count"] == 10_000
    assert set(recorded(context["task_state_store"])) == set()


@fault(91, "an endpoint that fails now and then")
def test_an_endpoint_that_fails_now_and_then(connect: Connect) -> None:
    """An answer resets the count of failures. ``give_up_after=None`` never ends a try."""
    with serving([]) as server:
        pass
    connect("webhook_default", host=server.url)
    for never in (None, 0):
        error = undelivered(run_context(), payloads(50), give_up_after=never)
        assert {item["error"] for item in error.report["undelivered"]} == {"connection refused"}
    error = undelivered(run_context(), payloads(50), give_up_after=3, concurrency=1)
    assert [item["error"] for item in error.report["undelivered"]].count("connection refused") == 3


@fault(92, "attempts multiplied: a client's retries by the task's")
def test_one_attempt_and_one_for_each_retry(connect: Connect) -> None:
    """A message is POSTed ``1 + retries`` times at most (the task's ``retries``), however its tries end."""
    for retries in (0, 1, 2, 5):
        context = run_context()
        context["ti"].max_tries = 9
        with serving(lambda n: [0.05, answer("503 X")] if n % 2 == 0 else [RESET]) as server:
            connect("webhook_default", host=server.url)
            for _ in range(retries):
                assert type(undelivered(context, payloads(1), retries=retries)) is UndeliveredError
            for _ in range(3):
                with pytest.raises(UndeliverableError):
                    deliver(context, payloads(1), retries=retries)
        assert ids(server) == ["msg_0"] * (1 + retries)


@fault(92, "attempts multiplied: by a try that is killed, or by another task")
def test_attempts_made_before(connect: Connect) -> None:
    """POSTs of a killed try count, and so do POSTs of a task that handed its message over to this one."""
    for retries in (0, 1, 2, 5):
        context = run_context()
        store = context["task_state_store"]
        store.set("delivery", {"version": 2, "epoch": 1, "token": "killed", "of": []})
        store.set("delivery/killed/head", {"generation": 2, "blocks": 1})
        store.set("delivery/killed/0", {"msg_0": "D1"})
        given = [*payloads(1), {**payloads(1, first=1)[0], "earlier": "F1"}]
        with serving(lambda n: [answer("503 X")]) as server:
            connect("webhook_default", host=server.url)
            for _ in range(2 + retries):
                undelivered(context, given, retries=retries)
        assert sorted(ids(server)) == ["msg_0"] * retries + ["msg_1"] * retries


@fault(93, "SIGTERM in mid-POST")
def test_sigterm(connect: Connect) -> None:
    """No POST begins after it. POSTs under way end and are recorded, and no thread outlives the task."""
    context = run_context()
    operator = WebhookOperator(task_id="deliver", payloads=payloads(50), concurrency=3)
    is_stopped = threading.Event()

    def terminated(*_: object) -> None:
        operator.on_kill()
        is_stopped.set()

    def terminate_at_the_third(_: object) -> None:
        if len(server.requests) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        assert is_stopped.wait(30)

    before = signal.signal(signal.SIGTERM, terminated)
    try:
        with serving([terminate_at_the_third, answer()]) as server:
            connect("webhook_default", host=server.url)
            with pytest.raises(UndeliveredError):
                operator.execute(context)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(server.requests) == 3
    assert recorded(context["task_state_store"]) == {f"msg_{n}": "A1" for n in range(3)}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("webhook")]


@fault(94, "Airflow's API server is down for a while")
@pytest.mark.usefixtures("quick_writes")
def test_api_server_down(connect: Connect) -> None:
    """POSTs stop if they can't be recorded within the interval. The try fails, and the next one resumes."""
    context = run_context(task_state_store=TroubledStore(lambda _: len(server.requests) >= 10))
    store = context["task_state_store"]
    with serving([0.03, answer()]) as server:
        connect("webhook_default", host=server.url)
        with pytest.raises(ConnectionError):
            deliver(context, payloads(100), concurrency=2)
        sent = len(server.requests)
        assert 10 <= sent < 25
        assert (
            context["ti"].xcom["return_value"]["undelivered"][0]["error"].startswith("not sent: the ledger")
        )
        store.fails = lambda _: False
        assert deliver(context, payloads(100), concurrency=8)["delivered"] == 100
    assert set(ids(server)) == {f"msg_{n}" for n in range(100)}


@fault(95, "Airflow's tables grow")
def test_what_is_kept(connect: Connect) -> None:
    """A report lists failures and counts successes. A try deletes the earlier ledger that it has read."""
    context = run_context()
    with serving(lambda n: [answer("500 X" if n == 0 else "200 OK")]) as server:
        connect("webhook_default", host=server.url)
        report = undelivered(context, payloads(50)).report
        assert (report["delivered"], len(report["undelivered"])) == (49, 1)
        report = deliver(context, payloads(50))
    assert (report["delivered"], report["undelivered"]) == (50, [])
    assert len(json.dumps(report)) < 300
    token = context["task_state_store"].get(HEAD)["token"]
    assert sorted(context["task_state_store"].values) == [
        "delivery",
        f"delivery/{token}/0",
        f"delivery/{token}/head",
        f"delivery/{token}/texts/0",
    ]


@fault(96, "the triggerer restarts")
def test_triggers_send_nothing() -> None:
    """Triggers never POST, so a restart loses nothing and sends nothing twice."""
    sources = list(Path(triggers.__file__).parent.glob("*.py"))
    assert sources
    assert not [path.name for path in sources if "hooks.webhook" in path.read_text(encoding="utf-8")]


@fault(97, "retry, clear and backfill")
def test_one_id_for_one_change() -> None:
    """An id depends on workflow, record, event and time of change, and not on the run."""
    made = [built(run_id)[0] for run_id in ("scheduled__1", "scheduled__1", "manual__2", "backfill__3")]
    assert len({(payload["message_id"], payload["body"]) for payload in made}) == 1


@fault(98, "a message is made twice")
def test_made_twice(connect: Connect) -> None:
    """Both have the same id, so the task sends the message once."""
    context = run_context()
    with serving([answer()]) as server:
        connect("webhook_default", host=server.url)
        for _ in range(2):
            assert deliver(context, built("scheduled__1"))["delivered"] == 1
    assert len(ids(server)) == 1


@fault(99, "an upgrade between two tries")
def test_upgrade_between_tries(connect: Connect) -> None:
    """A ledger of the previous version is continued. A later version's is refused, and nothing is sent."""
    context = run_context()
    store = context["task_state_store"]
    store.set("delivery/0", {"msg_0": "A1", "msg_1": "F2", "msg_2": "D3"})
    store.set("delivery", {"version": 1, "generation": 2, "blocks": 1})
    with serving([answer()]) as server:
        connect("webhook_default", host=server.url)
        error = undelivered(context, payloads(4))
        assert sorted(ids(server)) == ["msg_1", "msg_3"]
        assert [item["message_id"] for item in error.report["undelivered"]] == ["msg_2"]
        store.set("delivery", {**store.get("delivery"), "version": 3})
        with pytest.raises(InvalidState, match="a newer release"):
            deliver(context, payloads(4))
    assert len(server.requests) == 2


@fault(100, "the caller's values are changed")
def test_callers_values_stay(connect: Connect) -> None:
    """Payloads and headers stay unchanged, even while several threads send them."""
    given, headers = payloads(30), {"X-Team": " billing "}
    before = copy.deepcopy((given, headers))
    with serving(lambda n: [answer("500 X" if n % 3 == 0 else "200 OK")]) as server:
        connect("webhook_default", host=server.url)
        undelivered(run_context(), given, headers=headers, ordered=True)
        undelivered(run_context(), tuple(given), headers=headers)
    assert (given, headers) == before

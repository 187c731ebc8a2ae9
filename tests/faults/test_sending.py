"""Faults 13 to 19, and 106: while the message goes out."""

from __future__ import annotations

import contextlib
import copy
import json
import socket
from typing import Any

import pytest

from airflow_insightly_hooks.core.errors import InvalidPayload, UndeliveredError
from airflow_insightly_hooks.core.payload import build_body
from tests import deliveries
from tests.conftest import Connect, run_context
from tests.faults.conftest import BODY, MESSAGE_ID, Send, fault
from tests.servers import READ, RESET, answer, serving

TIMEOUT = 0.5
MORE = 0.5
"""Seconds that a busy machine may add."""
BIG = json.dumps({"entity": {"BACKGROUND": "x" * 8_000_000}})
"""More than the buffers between two sockets of one machine hold."""


def read_head(connection: socket.socket) -> None:
    """Read the headers and the beginning of the body."""
    connection.recv(65536)


def drain(connection: socket.socket) -> None:
    """Read until nothing comes for a moment."""
    connection.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        while connection.recv(1 << 20):
            pass


def deliver(context: dict[str, Any], body: str) -> dict[str, Any]:
    return dict(deliveries.deliver(context, [deliveries.payload_of(MESSAGE_ID, 1, body)]))


@fault(13, "reset while the body is sent", requests="passes")
def test_reset(send: Send) -> None:
    """Whether the message has arrived is in doubt. The client doesn't send it again by itself."""
    with serving([read_head, RESET], reads=False) as server:
        outcome = send(server.url, body=BIG)
    assert outcome.is_in_doubt()
    assert server.connections == 1


@fault(13, "reset while the body is sent: retry")
def test_reset_is_retried(connect: Connect) -> None:
    """The message in doubt counts as an attempt. The task's next try sends the same bytes and id."""
    context = run_context()
    with serving(lambda n: [read_head, RESET] if n == 0 else [READ, answer()], reads=False) as server:
        connect("webhook_default", host=server.url, extra={"timeout": 2})
        with pytest.raises(UndeliveredError) as caught:
            deliver(context, BIG)
        report = deliver(context, BIG)
    assert [item["attempts"] for item in caught.value.report["undelivered"]] == [1]
    assert (report["delivered"], report["attempts"], server.connections) == (1, 2, 2)
    assert server.requests[0].headers["webhook-id"] == MESSAGE_ID
    assert server.requests[0].body == BIG.encode()


@fault(14, "the peer never reads", requests="passes")
def test_peer_never_reads(send: Send) -> None:
    """The POST ends at the deadline, and whether the message has arrived is in doubt."""
    with serving([3], reads=False) as server:
        outcome = send(server.url, body=BIG, timeout=TIMEOUT)
    assert outcome.is_in_doubt()
    assert TIMEOUT * 0.9 <= outcome.elapsed < TIMEOUT + MORE
    assert outcome.error_has(f"no answer within {TIMEOUT:g} s", "timed out")


@fault(14, "the peer reads very slowly", requests="passes")
def test_peer_reads_slowly(send: Send) -> None:
    """The POST ends at the deadline, however slowly the receiver reads."""
    sip = [lambda connection: connection.recv(20_000), 0.05]
    with serving(sip * 60, reads=False) as server:
        outcome = send(server.url, body=BIG, timeout=TIMEOUT)
    assert outcome.is_in_doubt()
    assert TIMEOUT * 0.9 <= outcome.elapsed < TIMEOUT + MORE


@fault(15, "an early refusal, and close, while the body is sent", requests="passes")
@pytest.mark.parametrize("status", ["401 Unauthorized", "413 Content Too Large"])
def test_early_refusal(send: Send, status: str) -> None:
    """The refusal counts, and the rest of the message is not sent."""
    with serving([read_head, answer(status), 0.1], reads=False) as server:
        outcome = send(server.url, body=BIG, timeout=3)
    assert (outcome.acknowledged, outcome.status) == (False, int(status[:3]))
    assert outcome.elapsed < MORE
    assert server.connections == 1


@fault(15, "an early refusal while the body is sent, and no close", requests="fails")
@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 102 Processing\r\n\r\n"], ids=["at once", "after a 102"])
def test_early_refusal_without_a_close(send: Send, interim: bytes) -> None:
    """The refusal counts at once, even if the receiver neither reads on nor closes the connection."""
    with serving([read_head, interim + answer("413 Content Too Large"), 2], reads=False) as server:
        outcome = send(server.url, body=BIG, timeout=TIMEOUT)
    assert (outcome.acknowledged, outcome.status) == (False, 413)
    assert outcome.elapsed < TIMEOUT


@fault(106, "a 200 before the message was completely sent", requests="fails")
@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 102 Processing\r\n\r\n"], ids=["at once", "after a 102"])
@pytest.mark.parametrize("then", [[], [0.3, drain]], ids=["close", "reads on"])
def test_early_acknowledgement(send: Send, interim: bytes, then: list[Any]) -> None:
    """A 2xx before the whole message was sent is no acknowledgement. It counts as an attempt."""
    with serving([read_head, interim + answer(), *then], reads=False) as server:
        outcome = send(server.url, body=BIG, timeout=3)
    assert (outcome.acknowledged, outcome.sent) == (False, True)
    assert outcome.status == 200
    assert outcome.error_has("answered 200 before the message was completely sent")
    assert server.connections == 1


@fault(106, "a 200 before the message was completely sent: retry")
def test_early_acknowledgement_is_retried(connect: Connect) -> None:
    """After a 2xx that came too early, the task's next try sends the same bytes and id."""
    context = run_context()
    scripts = [[read_head, answer()], [READ, answer()]]
    with serving(lambda n: scripts[n], reads=False) as server:
        connect("webhook_default", host=server.url)
        with pytest.raises(UndeliveredError, match="before the message was completely sent") as caught:
            deliver(context, BIG)
        assert caught.value.report["attempts"] == 1
        assert deliver(context, BIG)["delivered"] == 1
    assert server.requests[0].body == BIG.encode()
    assert server.requests[0].headers["webhook-id"] == MESSAGE_ID


@fault(15, "a close without an answer while the body is sent", requests="passes")
def test_early_close(send: Send) -> None:
    """Whether the message has arrived is in doubt."""
    with serving([read_head], reads=False) as server:
        outcome = send(server.url, body=BIG, timeout=3)
    assert outcome.is_in_doubt()
    assert outcome.elapsed < MORE
    assert server.connections == 1


@fault(15, "an interim answer while the body is sent", requests="fails")
def test_early_interim_answer(send: Send) -> None:
    """After a 102 or 103 the rest of the message is sent, even if the receiver reads it later."""
    interim = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    with serving([interim, 0.2, READ, answer()], reads=False) as server:
        outcome = send(server.url, body=BIG, timeout=3)
    assert (outcome.acknowledged, outcome.status) == (True, 200)
    assert server.requests[0].body == BIG.encode()


@fault(16, "Expect: 100-continue", requests="passes")
def test_no_expectation(send: Send) -> None:
    """The body follows the headers at once, without asking the receiver first."""
    with serving([answer()]) as server:  # it never says 100
        outcome = send(server.url, body=BIG, timeout=3)
    assert outcome.acknowledged
    assert "expect" not in server.requests[0].headers
    assert server.requests[0].body == BIG.encode()
    assert server.requests[0].headers["content-length"] == str(len(BIG))


@fault(17, "a message over the connection's limit", requests="fails")
def test_message_too_large(send: Send) -> None:
    """A body over the connection's limit is refused before anything is sent, and never cut."""
    with serving([answer()]) as server:
        outcome = send(server.url, body="é" * 50 + "x", extra={"max_body_bytes": 100})
    assert outcome.is_certainly_undelivered()
    assert server.connections == 0
    assert outcome.error_has("has 101 bytes, 100 are allowed (max_body_bytes)")


@fault(17, "a message over the default limit")
def test_message_over_the_default(send: Send) -> None:
    """The limit is 25 MB if the connection sets none."""
    with serving([answer()]) as server:
        outcome = send(server.url, body="x" * 25_000_001)
    assert outcome.is_certainly_undelivered()
    assert server.connections == 0
    assert outcome.error_has("has 25000001 bytes, 25000000 are allowed (max_body_bytes)")


@fault(17, "a message at the limit", requests="passes")
def test_message_at_the_limit(send: Send) -> None:
    """A body of exactly ``max_body_bytes`` goes out whole."""
    with serving([answer()]) as server:
        assert send(server.url, body="é" * 50, extra={"max_body_bytes": 100}).acknowledged
    assert server.requests[0].body == ("é" * 50).encode()


@fault(18, "NaN and infinities")
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("custom", [False, True], ids=["field", "custom field"])
def test_no_number(number: float, custom: bool) -> None:
    """A number that JSON can't hold is refused before anything is sent. The error names its field."""
    field = {"FIELD_NAME": "SIZE__c", "FIELD_VALUE": number}
    record = {"CUSTOMFIELDS": [field]} if custom else {"SIZE__c": number}
    with pytest.raises(InvalidPayload, match="not finite") as caught:
        build_body({"CONTACT_ID": 1, **record})
    assert caught.value.where == "SIZE__c"


@fault(18, "integers beyond 53 bits, lone surrogates, the order of fields")
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2**53 + 1, "9007199254740993"),
        (-(2**63), "-9223372036854775808"),
        (10**30, "1" + 30 * "0"),
        (0.1, "0.1"),
        ("\ud800", '"\\ud800"'),
        ("\U0001f600 é \u2028 \x00", '"\U0001f600 é \u2028 \\u0000"'),
        ({"b": 1, "a": 2}, '{"b":1,"a":2}'),
    ],
)
def test_exact_values(connect: Connect, value: Any, text: str) -> None:
    """Integers keep all digits, lone surrogates arrive as JSON escapes, and fields keep their order."""
    record = {"CONTACT_ID": 1, "VALUE__c": value}
    body = build_body(copy.deepcopy(record))
    assert body == build_body(record)
    with serving([answer()]) as server:
        connect("webhook_default", host=server.url)
        assert deliver(run_context(), body)["delivered"] == 1
    assert server.requests[0].body == f'{{"entity":{{"CONTACT_ID":1,"VALUE__c":{text}}}}}'.encode()
    assert json.loads(server.requests[0].body)["entity"]["VALUE__c"] == value


@fault(19, "a body that is built again for each attempt")
def test_same_bytes(connect: Connect) -> None:
    """The body is built once: all attempts of a message send the same bytes and id."""
    context = run_context()
    record = {"CONTACT_ID": 1, "FIRST_NAME": "Zoë", "DATE_UPDATED_UTC": "2017-03-10 08:00:00", "N": 1.0}
    body = build_body(record)
    with serving(lambda n: [answer("503 Service Unavailable" if n < 2 else "200 OK")]) as server:
        connect("webhook_default", host=server.url)
        for _ in range(2):
            with pytest.raises(UndeliveredError):
                deliver(context, body)
        record.clear()  # the body stays as it was built
        assert deliver(context, body)["delivered"] == 1
    assert [request.body for request in server.requests] == [body.encode()] * 3
    assert {request.headers["webhook-id"] for request in server.requests} == {MESSAGE_ID}


@fault(19, "white space and escapes of a body", requests="passes")
def test_body_is_sent_as_it_is(send: Send) -> None:
    """A body goes out byte for byte, however its JSON is written."""
    body = BODY.replace(":", " : ") + "\r\n\t "
    with serving([answer()]) as server:
        assert send(server.url, body=body).acknowledged
    assert server.requests[0].body == body.encode()

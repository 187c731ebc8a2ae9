"""Advice for failures, wherever they are shown: results, reports, errors, logs, and connection tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_insightly_hooks.core.errors import InvalidConnection
from airflow_insightly_hooks.hooks.api.api_errors import InsightlyAPIError, InsightlyUnreachable
from airflow_insightly_hooks.hooks.hints import UNKNOWN_HOST, api_hint, receiver_hint
from airflow_insightly_hooks.hooks.insightly import InsightlyHook
from airflow_insightly_hooks.hooks.webhook import WebhookHook
from tests.certificates import Authority
from tests.conftest import Connect, Logged, run_context
from tests.deliveries import payloads, undelivered
from tests.insightly import KEY, as_json, hook_for
from tests.servers import answer, serving


@pytest.mark.parametrize(
    ("why", "words"),
    [
        (401, "check login and password"),
        (403, "check login and password"),
        (404, "check the path"),
        (405, "check the path"),
        (500, None),
        (302, None),
        ("TLS: self-signed certificate", "as verify"),
        ("TLS: self signed certificate", "as verify"),
        ("TLS: self-signed certificate in certificate chain", "as verify"),
        ("TLS: unable to get local issuer certificate", "as verify"),
        ("TLS: Hostname mismatch, certificate is not valid for 'x'.", "check the host"),
        ("TLS: IP address mismatch, certificate is not valid for '10.0.0.1'.", "check the host"),
        ("TLS: certificate has expired", "renew"),
        ("TLS: tlsv13 alert certificate required", "as cert"),
        ("the host can't be looked up: name or service not known", "check the host"),
        ("connection refused", None),
        ("no answer within 30 s", None),
    ],
)
def test_receiver(why: str | int, words: str | None) -> None:
    """A receiver's failure has its advice, or none if nothing can be advised."""
    hint = receiver_hint(why)
    assert hint is None if words is None else words in (hint or "")


@pytest.mark.parametrize(
    ("why", "words"),
    [
        (302, "redirects are not followed"),
        (400, None),
        (200, None),
        (UNKNOWN_HOST, "is the pod right?"),
        ("TLS: self-signed certificate", "REQUESTS_CA_BUNDLE"),
        ("TLS: certificate has expired", "renew"),
        ("connection refused", "check host and port"),
        ("the connection broke", None),
    ],
)
def test_api(why: str | int, words: str | None) -> None:
    """The API's failures have advice, too."""
    hint = api_hint(why)
    assert hint is None if words is None else words in (hint or "")


def test_in_the_report(connect: Connect, logged: Logged) -> None:
    """The delivery report and the deliver task's log contain the advice."""
    with serving([answer("404 Not Found")]) as server:
        connect("webhook_default", host=server.url)
        error = undelivered(run_context(), payloads(1))
    assert error.report["undelivered"][0]["error"] == "answered 404; check the path"
    assert "answered 404; check the path" in str(error)
    assert any("answered 404; check the path" in line for line in logged.messages("warning", "error"))


def test_self_signed_receiver(connect: Connect, tmp_path: Path) -> None:
    """For a self-signed certificate of a receiver, the advice names the field to set."""
    authority = Authority(tmp_path)
    with serving([answer()], tls=authority.server()) as server:
        connect("webhook_default", host=server.url)
        error = undelivered(run_context(), payloads(1))
        connect("webhook_default", host=server.url, extra={"verify": str(authority.file)})
        assert WebhookHook("webhook_default").send("{}", message_id="msg_1").acknowledged
    assert "as verify" in error.report["undelivered"][0]["error"]


@pytest.mark.parametrize("status", [301, 302, 307, 400, 410, 418])
def test_refused_answer_names_the_host(connect: Connect, status: int) -> None:
    """An error of the API names the address of the request."""
    with serving([as_json({}, f"{status} Refused", "Location: https://elsewhere.example.com/")]) as server:
        with pytest.raises(InsightlyAPIError) as caught:
            hook_for(connect, server).custom_fields("Contacts")
    assert f"{server.url}/v3.1/CustomFields/Contacts: it answered {status}" in str(caught.value)
    assert ("redirects are not followed" in str(caught.value)) == (status < 400)
    assert "elsewhere" not in str(caught.value)


@pytest.mark.parametrize("headers", [[], ["X-RateLimit-Remaining: 0", "Retry-After: 9999"]])
def test_429_names_the_host(connect: Connect, headers: list[str]) -> None:
    """So does the error of a 429, whether for a second or for the day."""
    with serving([as_json({}, "429 Too Many Requests", *headers)]) as server:
        hook = hook_for(connect, server)
        hook.patience = 0
        with pytest.raises(InsightlyAPIError, match=f"127.0.0.1:{server.port} answers 429"):
            hook.custom_fields("Contacts")


def test_self_signed_api(connect: Connect, tmp_path: Path) -> None:
    """For a self-signed certificate of the API, the advice names the variable to set."""
    with serving([as_json([])], tls=Authority(tmp_path).server()) as server:
        connect("crm", "insightly", host=f"{server.url}/v3.1", password=KEY)
        with pytest.raises(InsightlyUnreachable, match="REQUESTS_CA_BUNDLE"):
            InsightlyHook("crm").custom_fields("Contacts")


def test_the_wrong_one_of_two_types(connect: Connect) -> None:
    """An API key must not be sent to a receiver, nor a receiver's password to the API."""
    connect("crm", "insightly", host="na1", password=KEY)
    connect("receiver", "insightly_webhook", host="https://receiver.example.com")
    with pytest.raises(InvalidConnection, match="'crm', type: it is 'insightly', and 'insightly_webhook' is"):
        WebhookHook("crm").get_conn()
    with pytest.raises(InvalidConnection, match="'receiver', type: it is 'insightly_webhook', and"):
        InsightlyHook("receiver").get_conn()


def test_another_type(connect: Connect, logged: Logged) -> None:
    """A connection of another type is logged once as a warning, and used."""
    connect("crm", "http", host="na1", password=KEY)
    hook = InsightlyHook("crm")
    assert hook.base_url == "https://api.na1.insightly.com/v3.1"
    hook.get_conn()
    (warning,) = logged.messages("warning")
    assert "'crm' is of type 'http'" in warning
    assert "'insightly'" in warning


def test_another_type_of_receiver(connect: Connect, logged: Logged) -> None:
    """A receiver's connection of another type is logged, too.

    One without a type, or of the right type, is not.
    """
    connect("a", "http", host="https://receiver.example.com")
    connect("b", "insightly_webhook", host="https://receiver.example.com")
    connect("c", "", host="https://receiver.example.com")
    for conn_id in "abc":
        WebhookHook(conn_id).get_conn()
    (warning,) = logged.messages("warning")
    assert "'a' is of type 'http'" in warning


@pytest.mark.parametrize(
    ("conn_id", "shown"),
    [("crm_test", "connection 'crm_test', host"), ("aB3dE5gH", "this connection, host")],
)
def test_id_in_a_test(connect: Connect, conn_id: str, shown: str) -> None:
    """The test of a connection shows its id, unless Airflow's form has made the id up."""
    connect(conn_id, "insightly", password=KEY)
    ok, text = InsightlyHook(conn_id).test_connection()
    assert not ok
    assert text.startswith(shown)
    connect(conn_id, host="no host")
    ok, text = WebhookHook(conn_id).test_connection()
    assert not ok
    assert text.startswith(shown)

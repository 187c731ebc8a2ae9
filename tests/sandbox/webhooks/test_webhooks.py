"""The sandbox plays Insightly's webhooks: over real sockets, to a receiver on this machine."""

from __future__ import annotations

import base64
import json
import threading
import time

import pytest
import requests

from airflow_insightly_hooks.sandbox.server import running_sandbox
from tests.certificates import Authority
from tests.servers import RESET, answer, serving

OK, REFUSED = [answer()], [answer("503 Service Unavailable")]
HANGS = [60]


@pytest.fixture
def crm():
    with running_sandbox() as crm:
        yield crm


def set_webhook(crm, receiver, **more):
    crm.configure(webhook={"uri": f"{receiver.url}/hook", "record_type": "Tasks", "delay": 0.05, **more})


def wait_until(look):
    """Wait until something is so, for ten seconds at most."""
    end = time.monotonic() + 10
    while not look():
        assert time.monotonic() < end
        time.sleep(0.01)


def settled(crm):
    """Wait until nothing is pending; return the counts of the only webhook."""
    wait_until(lambda: not any(webhook["pending"] for webhook in crm.webhooks()))
    (counts,) = crm.webhooks()
    return {name: counts[name] for name in ("acknowledged", "given_up", "attempts")}


def entities(receiver):
    return [json.loads(request.body)["entity"] for request in receiver.requests]


def api(crm, method, path, body=None):
    """Ask the sandbox's API as a client does."""
    with requests.Session() as session:
        session.trust_env = False
        answered = session.request(method, f"{crm.api_url}{path}", json=body, auth=(crm.api_key, ""))
    answered.raise_for_status()
    return answered.json() if answered.content else None


def test_the_request(crm):
    """It is a POST of JSON with Basic authentication, and the body is the record as it was made."""
    with serving(OK) as receiver:
        set_webhook(crm, receiver, username="ada", password="sécret")
        task = crm.create("Tasks", TITLE="Zoë")
        assert settled(crm) == {"acknowledged": 1, "given_up": 0, "attempts": 1}
    (request,) = receiver.requests
    assert request.request_line == "POST /hook HTTP/1.1"
    credentials = base64.b64encode("ada:sécret".encode()).decode()
    assert request.headers == {
        "host": f"127.0.0.1:{receiver.port}",
        "content-type": "application/json",
        "content-length": str(len(request.body)),
        "connection": "close",
        "authorization": f"Basic {credentials}",
    }
    assert b"Zo\xc3\xab" in request.body
    (entity,) = entities(receiver)
    assert list(entity) == list(task)
    assert (entity["TASK_ID"], entity["TITLE"]) == (task["TASK_ID"], "Zoë")


def test_no_credentials_are_made_up(crm):
    """Without user name and password there is no Authorization header."""
    with serving(OK) as receiver:
        set_webhook(crm, receiver)
        crm.create("Tasks", TITLE="x")
        settled(crm)
    assert "authorization" not in receiver.requests[0].headers


def test_which_changes_are_told(crm):
    """All ways of creating and updating a record of the type, in order; no deletions, no other types."""
    with serving(OK) as receiver:
        set_webhook(crm, receiver)
        first = api(crm, "POST", "/Tasks", {"TITLE": "1", "COMPLETED": False})["TASK_ID"]
        api(crm, "PUT", "/Tasks", {"TASK_ID": first, "TITLE": "2"})
        crm.create("Contacts", FIRST_NAME="x")
        crm.update("Tasks", first, TITLE="3")
        crm.create_many("Tasks", [{"TITLE": "4"}, {"TITLE": "5"}])
        api(crm, "DELETE", f"/Tasks/{first}")
        crm.delete("Tasks", first + 1)
        crm.create("Tasks", TITLE="6")
        assert settled(crm)["acknowledged"] == 6
    assert [entity["TITLE"] for entity in entities(receiver)] == ["1", "2", "3", "4", "5", "6"]


def test_changes_of_tags_and_between_pages_are_told(crm):
    """So are the updates that a change of tags makes, and what a user of the CRM does between pages."""
    with serving(OK) as receiver:
        set_webhook(crm, receiver, record_type="Contacts")
        contact = crm.create("Contacts", FIRST_NAME="Ada")["CONTACT_ID"]
        api(crm, "POST", f"/Contacts/{contact}/Tags", {"TAG_NAME": "VIP"})
        crm.configure(between_pages={"update": 1, "create": 1, "delete": 1, "times": 1})
        api(crm, "GET", "/Contacts/Search?top=5")
        assert settled(crm)["acknowledged"] == 4
    assert entities(receiver)[1]["TAGS"] == [{"TAG_NAME": "VIP"}]


def test_several_webhooks(crm):
    """Each tells of its own record type; two of one type both tell."""
    with serving(OK) as tasks, serving(OK) as contacts, serving(OK) as contacts_too:
        crm.configure(
            webhook=[
                {"uri": tasks.url, "record_type": "Tasks"},
                {"uri": contacts.url, "record_type": "Contacts"},
                {"uri": contacts_too.url, "record_type": "Contacts"},
            ]
        )
        crm.create("Tasks", TITLE="x")
        crm.create("Contacts", FIRST_NAME="y")
        wait_until(lambda: [webhook["acknowledged"] for webhook in crm.webhooks()] == [1, 1, 1])
    assert [len(server.requests) for server in (tasks, contacts, contacts_too)] == [1, 1, 1]
    assert entities(contacts) == entities(contacts_too)


FOUND = [answer("302 Found", "Location: /elsewhere")]
TEMPORARY = [answer("307 Temporary Redirect", "Location: /elsewhere")]
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"


@pytest.mark.parametrize(
    ("scripts", "timeout", "acknowledged", "attempts"),
    [
        ([REFUSED, OK], 10, 1, 2),
        ([REFUSED, [answer("401 Unauthorized")], [answer("204 No Content")]], 10, 1, 3),
        ([REFUSED, REFUSED, REFUSED, OK], 10, 0, 3),
        ([FOUND, TEMPORARY, OK], 10, 1, 3),
        ([[RESET], [HALF], [b"no HTTP\r\n\r\n"], OK], 10, 0, 3),
        ([[HALF, *HANGS], HANGS, HANGS, OK], 0.5, 0, 3),
    ],
)
def test_attempts(crm, scripts, timeout, acknowledged, attempts):
    """Without a whole answer of 2xx there are two more attempts, with the same body, and then no more."""
    with serving(lambda number: scripts[number]) as receiver:
        set_webhook(crm, receiver, timeout=timeout)
        crm.create("Tasks", TITLE="x")
        expected = {"acknowledged": acknowledged, "given_up": 1 - acknowledged, "attempts": attempts}
        assert settled(crm) == expected
    assert {request.request_line for request in receiver.requests} == {"POST /hook HTTP/1.1"}
    assert len(receiver.requests) == attempts
    assert len({request.body for request in receiver.requests}) == 1


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:1/", "https://127.0.0.1:{port}/", f"http://{'a' * 70}.invalid/"]
)
def test_a_receiver_that_is_not_there(crm, uri):
    """No connection, no TLS, no such name: three attempts, then the webhook is given up."""
    with serving(OK) as receiver:
        uri = uri.format(port=receiver.port)
        crm.configure(webhook={"uri": uri, "record_type": "Tasks", "delay": 0, "timeout": 0.3})
        crm.create("Tasks", TITLE="x")
        assert settled(crm) == {"acknowledged": 0, "given_up": 1, "attempts": 3}


def test_what_waits_for_an_attempt_holds_up_no_other(crm):
    """A change that was not acknowledged is tried again later; those after it are sent before."""
    with serving(lambda number: OK if number else REFUSED) as receiver:
        set_webhook(crm, receiver, delay=0.5)
        crm.create_many("Tasks", [{"TITLE": "1"}, {"TITLE": "2"}, {"TITLE": "3"}])
        assert settled(crm)["attempts"] == 4
    assert [entity["TITLE"] for entity in entities(receiver)] == ["1", "2", "3", "1"]


def test_a_body_is_made_when_the_change_is(crm):
    """What waits behind a slow receiver has the record as it was then, whatever has become of it since."""
    with serving([0.1, *OK]) as receiver:
        set_webhook(crm, receiver)
        task = crm.create("Tasks", TITLE="1")["TASK_ID"]
        crm.update("Tasks", task, TITLE="2")
        crm.update("Tasks", task, TITLE="3")
        crm.delete("Tasks", task)
        settled(crm)
    assert [entity["TITLE"] for entity in entities(receiver)] == ["1", "2", "3"]


def test_the_sandbox_answers_while_a_receiver_does_not(crm):
    """A receiver that hangs keeps no request to the sandbox waiting; the counts show what is pending."""
    with serving(HANGS) as receiver:
        set_webhook(crm, receiver)
        crm.create_many("Tasks", [{"TITLE": str(number)} for number in range(5)])
        wait_until(lambda: receiver.requests)
        assert api(crm, "GET", "/Tasks/Search?field_name=TITLE&field_value=4")
        (counts,) = crm.webhooks()
        assert (counts["pending"], counts["attempts"], counts["acknowledged"]) == (5, 1, 0)


@pytest.mark.parametrize("stop", ["stop", "reset", "set anew", "take away"])
def test_what_is_pending_is_dropped(crm, stop):
    """At the sandbox's end, at a reset and with a new setting, at once, and nothing is sent any more."""
    ended = []
    hangs = [lambda connection: ended.append(connection.recv(1))]
    with serving(lambda number: hangs if number else REFUSED) as receiver, serving(OK) as other:
        set_webhook(crm, receiver, delay=0.3, timeout=60)
        crm.create_many("Tasks", [{"TITLE": str(number)} for number in range(5)])
        wait_until(lambda: len(receiver.requests) == 2)  # one waits for its second attempt
        started = time.monotonic()
        if stop == "stop":
            crm.stop()
        elif stop == "reset":
            crm.reset()
        else:
            uri = {"uri": other.url, "record_type": "Tasks"}
            crm.configure(webhook=uri if stop == "set anew" else None)
        assert time.monotonic() - started < 5
        wait_until(lambda: ended == [b""])  # the attempt that was being made
        if stop != "stop":
            crm.create("Tasks", TITLE="later")
            wait_until(lambda: stop != "set anew" or other.requests)
            found = [webhook["attempts"] for webhook in crm.webhooks()]
            assert found == ([1] if stop == "set anew" else [])
        time.sleep(0.4)
        assert len(receiver.requests) == 2


def test_stopping_leaves_no_thread():
    """A sandbox whose webhooks hang ends its threads all the same."""
    with serving(HANGS) as receiver:
        threads = threading.active_count()
        with running_sandbox() as crm:
            crm.configure(
                webhook={"uri": receiver.url.replace("127.0.0.1", "localhost"), "record_type": "Tasks"}
            )
            crm.create("Tasks", TITLE="x")
            wait_until(lambda: receiver.requests)
            receivers = 1  # its own thread for the connection
        assert threading.active_count() <= threads + receivers


def test_other_settings_leave_webhooks_alone(crm):
    """A change of another setting neither drops what is pending nor begins the counts anew."""
    with serving([0.1, *OK]) as receiver:
        set_webhook(crm, receiver)
        crm.create_many("Tasks", [{"TITLE": "1"}, {"TITLE": "2"}])
        crm.configure(order="updated")
        assert settled(crm)["acknowledged"] == 2


def test_neither_proxies_nor_a_netrc_are_used(crm, monkeypatch, tmp_path):
    """What the user's environment says of proxies and passwords has no effect."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with serving(OK) as receiver, serving(OK) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        set_webhook(crm, receiver)
        crm.create("Tasks", TITLE="x")
        assert settled(crm)["acknowledged"] == 1
    assert proxy.requests == []
    assert "authorization" not in receiver.requests[0].headers


def test_tls(crm, monkeypatch, tmp_path):
    """An https receiver is reached if its certificate is one that this machine trusts."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with serving(OK, tls=authority.server()) as receiver, serving(OK, tls=authority.server("other")) as other:
        for server, acknowledged in ((receiver, 1), (other, 0)):
            set_webhook(crm, server)
            crm.create("Tasks", TITLE="x")
            assert settled(crm)["acknowledged"] == acknowledged
    assert (len(receiver.requests), len(other.requests)) == (1, 0)


def test_its_own_bin(crm):
    """A webhook may lead to a request bin of the sandbox itself, as the documentation's does."""
    crm.answer_with("told", status=503, times=2, username="u", password="p")
    crm.configure(
        webhook={
            "uri": crm.bin_url("told"),
            "record_type": "Tasks",
            "username": "u",
            "password": "p",
            "delay": 0,
        }
    )
    crm.create("Tasks", TITLE="x")
    assert settled(crm) == {"acknowledged": 1, "given_up": 0, "attempts": 3}
    assert [kept["acknowledged_with"] for kept in crm.received("told")] == [503, 503, 200]


def test_the_setting_is_shown_without_its_password(crm):
    """As it was given, one webhook or a list, with what was left out."""
    webhook = {"uri": "http://127.0.0.1:9/x", "record_type": "Site__c", "username": "u", "password": "sesame"}
    state = crm.configure(webhook=webhook)
    shown = {**webhook, "password": "***", "delay": 1.0, "timeout": 10.0}
    assert state["settings"]["webhook"] == shown
    assert "sesame" not in json.dumps(state)
    counts = {"acknowledged": 0, "given_up": 0, "attempts": 0, "pending": 0}
    assert state["webhooks"] == [{"uri": webhook["uri"], "record_type": "Site__c", **counts}]
    state = crm.configure(webhook=[{**webhook, "password": None, "delay": 0, "timeout": 2}])
    assert state["settings"]["webhook"] == [{**shown, "password": None, "delay": 0.0, "timeout": 2.0}]
    state = crm.configure(webhook=None)
    assert (state["settings"]["webhook"], state["webhooks"]) == (None, [])


HOOK = {"uri": "http://127.0.0.1:9/", "record_type": "Tasks"}


@pytest.mark.parametrize(
    ("webhook", "named"),
    [
        (5, "webhook"),
        ("http://127.0.0.1/", "webhook"),
        ({}, "webhook"),
        ({"uri": HOOK["uri"]}, "record_type"),
        ({"record_type": "Tasks"}, "uri"),
        ({**HOOK, "url": "x"}, "webhook"),
        ({**HOOK, "uri": None}, "webhook.uri"),
        ({**HOOK, "uri": "ftp://127.0.0.1/"}, "webhook.uri"),
        ({**HOOK, "uri": "127.0.0.1:9"}, "webhook.uri"),
        ({**HOOK, "uri": "http:///hook"}, "webhook.uri"),
        ({**HOOK, "uri": "http://127.0.0.1:x/"}, "webhook.uri"),
        ({**HOOK, "uri": "http://127.0.0.1:99999/"}, "webhook.uri"),
        ({**HOOK, "uri": "http://[::1/"}, "webhook.uri"),
        ({**HOOK, "uri": "http://127.0.0.1/a b"}, "webhook.uri"),
        ({**HOOK, "uri": "http://127.0.0.1/\r\nX: y"}, "webhook.uri"),
        ({**HOOK, "uri": "http://127.0.0.1/é"}, "webhook.uri"),
        ({**HOOK, "uri": "http://u:p@127.0.0.1/"}, "webhook.uri"),
        ({**HOOK, "uri": "http://@127.0.0.1/"}, "webhook.uri"),
        ({**HOOK, "record_type": 5}, "webhook.record_type"),
        ({**HOOK, "record_type": "Task"}, "webhook.record_type"),
        ({**HOOK, "record_type": "Other__c"}, "webhook.record_type"),
        ({**HOOK, "username": 5}, "webhook.username"),
        ({**HOOK, "username": "a:b"}, "webhook.username"),
        ({**HOOK, "password": ["p"]}, "webhook.password"),
        ({**HOOK, "delay": -1}, "webhook.delay"),
        ({**HOOK, "delay": "1"}, "webhook.delay"),
        ({**HOOK, "timeout": 0}, "webhook.timeout"),
        ({**HOOK, "timeout": 1e9}, "webhook.timeout"),
        ([HOOK, 5], "webhook[1]"),
        ([HOOK, {**HOOK, "delay": True}], "webhook[1].delay"),
    ],
)
def test_invalid_settings(still, webhook, named):
    """They are 400, the key is named, no value is shown, and nothing is set."""
    before = still.ask("GET", "/_sandbox").json()
    response = still.ask("PUT", "/_sandbox", json={"requests_per_day": 7, "webhook": webhook})
    assert response.status_code == 400
    message = response.json()["Message"]
    assert named in message
    assert "127.0.0.1" not in message
    assert still.ask("GET", "/_sandbox").json() == before

"""Reading Insightly's API, against the sandbox and servers that misbehave."""

from __future__ import annotations

import base64
import json
import pickle
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
import requests

from airflow_insightly_hooks.core.errors import (
    IncompleteScan,
    InvalidConnection,
    StoppedError,
    UnknownRecordType,
)
from airflow_insightly_hooks.core.exact_json import dumps
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.hooks.api import answer_limits, client
from airflow_insightly_hooks.hooks.api.api_errors import (
    InsightlyAccessError,
    InsightlyAPIError,
    InsightlyRateLimitError,
    InsightlyUnreachable,
)
from airflow_insightly_hooks.hooks.insightly import InsightlyHook, record_page, records_page
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.conftest import API_KEY, Connect
from tests.insightly import ENCODED_KEY, KEY, as_json, hook_for
from tests.servers import answer, serving

pytestmark = pytest.mark.usefixtures("no_key_logged")


# --- the connection --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "base_url"),
    [
        ({"host": "na1"}, "https://api.na1.insightly.com/v3.1"),
        ({"host": " eu1 "}, "https://api.eu1.insightly.com/v3.1"),
        ({"host": "na1", "extra": {"api_version": "v2.3"}}, "https://api.na1.insightly.com/v2.3"),
        ({"host": "api.na1.insightly.com"}, "https://api.na1.insightly.com/v3.1"),
        ({"host": "crm.example.com", "port": 8443}, "https://crm.example.com:8443/v3.1"),
        (
            {"host": "crm.example.com", "schema": "http", "extra": {"allow_insecure_http": True}},
            "http://crm.example.com/v3.1",
        ),
        (
            {"host": "http://crm.example.com/v3.1", "extra": {"allow_insecure_http": "true"}},
            "http://crm.example.com/v3.1",
        ),
        ({"host": "localhost", "schema": "http", "port": 8765}, "http://localhost:8765/v3.1"),
        ({"host": "localhost"}, "https://localhost/v3.1"),
        ({"host": "crm", "schema": "HTTPS"}, "https://crm/v3.1"),
        ({"host": "crm", "port": 8765}, "https://crm:8765/v3.1"),
        ({"host": "[::1]", "port": 8765, "schema": "http"}, "http://[::1]:8765/v3.1"),
        ({"host": "http://127.0.0.1:8765/v3.1"}, "http://127.0.0.1:8765/v3.1"),
        ({"host": "http://127.0.0.1:8765/v3.1/"}, "http://127.0.0.1:8765/v3.1"),
        ({"host": "https://gateway.example.com/insightly"}, "https://gateway.example.com/insightly"),
        ({"host": "http://[::1]:8765/v3.1"}, "http://[::1]:8765/v3.1"),
        ({"host": "http://[::ffff:127.0.0.1]:8765/v3.1"}, "http://[::ffff:127.0.0.1]:8765/v3.1"),
        ({"host": "EU1"}, "https://api.eu1.insightly.com/v3.1"),
        ({"host": "EU1", "port": 0}, "https://api.eu1.insightly.com/v3.1"),
        ({"host": "eu1", "schema": "https"}, "https://api.eu1.insightly.com/v3.1"),
        ({"host": "https://EU1/"}, "https://api.eu1.insightly.com/v3.1"),
        ({"host": "API.EU1.Insightly.com"}, "https://api.eu1.insightly.com/v3.1"),
        ({"host": "api.eu1.insightly.com/"}, "https://api.eu1.insightly.com/v3.1"),
        ({"host": "api.eu1.insightly.com/v3.1"}, "https://api.eu1.insightly.com/v3.1"),
        ({"host": "api.eu1.insightly.com/v3.1/", "port": 443}, "https://api.eu1.insightly.com:443/v3.1"),
        ({"host": "https://api.eu1.insightly.com"}, "https://api.eu1.insightly.com/v3.1"),
        ({"host": "HTTPS://API.eu1.insightly.com/"}, "https://api.eu1.insightly.com/v3.1"),
        (
            {"host": "api.eu1.insightly.com", "extra": {"api_version": "v2.3"}},
            "https://api.eu1.insightly.com/v2.3",
        ),
        (
            {"host": "https://api.eu1.insightly.com", "extra": {"api_version": "v2.3"}},
            "https://api.eu1.insightly.com/v2.3",
        ),
        (
            {"host": "https://gateway.example.com/v2.3", "extra": {"api_version": "v2.3"}},
            "https://gateway.example.com/v2.3",
        ),
        (
            {"host": "https://gateway.example.com/insightly", "extra": {"api_version": "v3.1"}},
            "https://gateway.example.com/insightly",
        ),
        ({"host": "gateway.example.com/insightly"}, "https://gateway.example.com/insightly/v3.1"),
    ],
)
def test_base_url(connect: Connect, given: dict[str, Any], base_url: str) -> None:
    """A pod or a URL is recognized in any case, with or without a scheme. Anything else is a host name."""
    connect("crm", "insightly", password=KEY, **given)
    assert InsightlyHook("crm").base_url == base_url


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "host"),
        ({"host": "  "}, "host"),
        ({"host": f"https://{KEY}@api.na1.insightly.com/v3.1"}, "host"),
        ({"host": f"https://api.na1.insightly.com/v3.1?key={KEY}"}, "host"),
        ({"host": "https://api.na1.insightly.com/v3.1#x"}, "host"),
        ({"host": "https://api.na1.insightly.com/v3.1", "schema": "https"}, "host"),
        ({"host": "https://api.na1.insightly.com/v3.1", "port": 443}, "host"),
        ({"host": "ftp://api.na1.insightly.com/"}, "host"),
        ({"host": "api.na1.insightly.com", "schema": "ftp"}, "host"),
        ({"host": "api.na1.insightly.com\r\nX: 1"}, "host"),
        ({"host": "na 1"}, "host"),
        ({"host": "https://api..insightly.com/v3.1"}, "host"),
        ({"host": "https://.insightly.com/v3.1"}, "host"),
        ({"host": f"https://{'a' * 64}.insightly.com/v3.1"}, "host"),
        ({"host": "https://crm.example.com:70000/v3.1"}, "host"),
        ({"host": "https://crm.example.com:0/v3.1"}, "host"),
        ({"host": "http://crm.example.com/v3.1"}, "host"),
        ({"host": "crm", "schema": "http"}, "host"),
        ({"host": "http://10.0.0.5/v3.1"}, "host"),
        ({"host": "http://localhost.example.com/v3.1"}, "host"),
        ({"host": "http://169.254.169.254/", "extra": {"allow_insecure_http": True}}, "host"),
        ({"host": "https://169.254.169.254/v3.1"}, "host"),
        ({"host": "http://2852039166/v3.1", "extra": {"allow_insecure_http": True}}, "host"),
        ({"host": "https://[fd00:ec2::254]/v3.1"}, "host"),
        ({"host": "https://[64:ff9b::a9fe:a9fe]/v3.1"}, "host"),
        ({"host": "https://www.insightly.com"}, "host"),
        ({"host": "api.insightly.com"}, "host"),
        ({"host": "na1", "extra": {"allow_insecure_http": "perhaps"}}, "extra.allow_insecure_http"),
        ({"host": "https://na1/v2.3", "extra": {"api_version": "v3.1"}}, "extra.api_version"),
        (
            {"host": "https://gateway.example.com/x", "extra": {"api_version": "v2.3"}},
            "extra.api_version",
        ),
        ({"host": "gateway.example.com/v3.0", "extra": {"api_version": "v2.3"}}, "extra.api_version"),
        ({"host": "na1", "extra": {"api_version": "3.1"}}, "extra.api_version"),
        ({"host": "na1", "extra": {"api_version": "v3.1/.."}}, "extra.api_version"),
        ({"host": "na1", "extra": {"api_version": 3.1}}, "extra.api_version"),
        ({"host": "na1", "extra": {"timeout": 0}}, "extra.timeout"),
        ({"host": "na1", "extra": {"timeout": "soon"}}, "extra.timeout"),
        ({"host": "na1", "extra": {"timeout": True}}, "extra.timeout"),
        ({"host": "na1", "extra": {"requests_per_second": 0}}, "extra.requests_per_second"),
        ({"host": "na1", "extra": {"requests_per_second": "NaN"}}, "extra.requests_per_second"),
        ({"host": "na1", "extra": {"request_per_second": 5}}, "extra.request_per_second"),
        ({"host": "na1", "extra": {"requests_per_day": -1}}, "extra.requests_per_day"),
        ({"host": "na1", "extra": {"requests_per_day": 0.5}}, "extra.requests_per_day"),
        ({"host": "na1", "extra": {"requests_per_day": "many"}}, "extra.requests_per_day"),
    ],
)
def test_refused_connection(connect: Connect, given: dict[str, Any], field: str) -> None:
    """An invalid connection is refused before any request. The error names the field."""
    connect("crm", "insightly", password=KEY, **given)
    with pytest.raises(InvalidConnection) as caught:
        InsightlyHook("crm").server_time()
    assert (caught.value.conn_id, caught.value.field) == ("crm", field)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        "https://crm.eu1.insightly.com/home",
        "https://crm.EU1.insightly.com/list/Contact/?page=1#top",
        "crm.eu1.insightly.com",
        "http://crm.eu1.insightly.com/details/Contact/7",
        "eu1.insightly.com",
    ],
)
def test_address_of_the_browser(connect: Connect, host: str) -> None:
    """The address of Insightly's web pages is not the API's. The error names the pod to give."""
    connect("crm", "insightly", password=KEY, host=host)
    with pytest.raises(InvalidConnection, match="give the pod alone, 'eu1'") as caught:
        InsightlyHook("crm").get_conn()
    assert caught.value.field == "host"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "password"),
        ({"password": "  "}, "password"),
        ({"login": KEY, "password": KEY}, "login"),
        ({"password": f"{KEY}:"}, "password"),
        ({"login": f"{KEY}é"}, "login"),
        ({"password": f"{KEY}\r\nX: 1"}, "password"),
    ],
)
def test_refused_key(connect: Connect, given: dict[str, Any], field: str) -> None:
    """An API key is printable, without ':', and only one. No message shows it."""
    connect("crm", "insightly", host="na1", **given)
    with pytest.raises(InvalidConnection) as caught:
        InsightlyHook("crm").get_conn()
    assert (caught.value.conn_id, caught.value.field) == ("crm", field)
    assert KEY not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize("field", ["login", "password"])
def test_authorization(connect: Connect, field: str) -> None:
    """The key is sent as the user name of Basic authentication, with an empty password."""
    with serving([as_json({"CONTACT_ID": 7})]) as server:
        connect("crm", "insightly", host=f"{server.url}/v3.1", **{field: f" {KEY} "})
        InsightlyHook("crm").get_record("Contacts", 7)
    (request,) = server.requests
    assert request.request_line == "GET /v3.1/Contacts/7 HTTP/1.1"
    assert request.headers["authorization"] == f"Basic {ENCODED_KEY}"
    assert request.headers["accept"] == "application/json"
    assert request.headers["user-agent"].startswith("airflow-insightly-hooks/")


@pytest.mark.parametrize("field", ["login", "password"])
def test_key_is_masked(connect: Connect, redact: Callable[[str], str], field: str) -> None:
    """Airflow masks the key in all logs, as it is and as it is sent."""
    key = f"key-in-the-{field}"
    encoded = base64.b64encode(f"{key}:".encode()).decode()
    connect("crm", "insightly", host="na1", **{field: key})
    InsightlyHook("crm").get_conn()
    assert redact(f"a {key} b {encoded} c") == "a *** b *** c"


def test_proxy_password_is_masked(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, redact: Callable[[str], str]
) -> None:
    """Airflow also masks the password of the environment's proxy: as written, decoded, and as sent."""
    monkeypatch.setenv("https_proxy", "http://user:pr0xy%2Fword@proxy.example.com:3128")
    connect("crm", "insightly", host="na1", password=KEY)
    InsightlyHook("crm").get_conn()
    encoded = base64.b64encode(b"user:pr0xy/word").decode()
    for secret in ("pr0xy%2Fword", "pr0xy/word", encoded):
        assert redact(f"a {secret} b") == "a *** b"
    monkeypatch.setenv("https_proxy", "us:n0-sch\u00e9me@proxy.example.com:3128")
    InsightlyHook("crm").get_conn()
    for charset in ("utf-8", "latin-1"):
        encoded = base64.b64encode("us:n0-sch\u00e9me".encode(charset)).decode()
        assert redact(f"a {encoded} b") == "a *** b"
    assert redact("a n0-sch\u00e9me b") == "a *** b"
    monkeypatch.setenv("https_proxy", "http://t0ken-alone@proxy.example.com:3128")
    InsightlyHook("crm").get_conn()
    assert redact("a t0ken-alone b") == "a *** b"
    for odd in ("http://[no-uri", "http://u:\udcff@proxy.example.com"):
        monkeypatch.setenv("https_proxy", odd)
        InsightlyHook("crm").get_conn()


def test_netrc_is_never_read(connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A .netrc that names the host changes nothing."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with serving([as_json({"CONTACT_ID": 7})]) as server:
        hook_for(connect, server).get_record("Contacts", 7)
    assert server.requests[0].headers["authorization"] == f"Basic {ENCODED_KEY}"


@pytest.mark.parametrize("form", ["json", "uri", "uri_with_extra"])
def test_forms_of_a_connection(insightly: RunningSandbox, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """The JSON and URI forms of an environment variable are equivalent. Numbers may be text."""
    host = insightly.api_url.replace(":", "%3A").replace("/", "%2F")
    extra = {"timeout": "5", "requests_per_second": "1000", "api_version": ""}
    forms = {
        "json": json.dumps(
            {
                "conn_type": "insightly",
                "login": API_KEY,
                "host": insightly.api_url,
                "extra": json.dumps(extra),
            }
        ),
        "uri": f"insightly://{API_KEY}@{host}?timeout=5&requests_per_second=1000",
        "uri_with_extra": f"insightly://{API_KEY}@{host}?__extra__={json.dumps(extra).replace(' ', '')}",
    }
    monkeypatch.setenv("AIRFLOW_CONN_INSIGHTLY_DEFAULT", forms[form])
    assert InsightlyHook().test_connection() == (True, "Connected to Insightly account 'Sandbox Trading'")


# --- reading ---------------------------------------------------------------------------------------------


def test_count(insightly: RunningSandbox) -> None:
    """One small request returns how many records a search finds."""
    hook = InsightlyHook()
    assert hook.count_records("Contacts") == len(list(InsightlyHook().iter_records("Contacts")))
    assert hook.count_records("Contacts", datetime.now(timezone.utc) + timedelta(days=1)) == 0
    assert hook.requests_made == 2


def test_pages(insightly: RunningSandbox) -> None:
    """Records come page by page, each once. An empty page is the end."""
    everything = list(InsightlyHook().iter_records("Contacts"))
    hook = InsightlyHook()
    size = len(everything) // 3
    records = list(hook.iter_records("Contacts", page_size=size))
    assert [r["CONTACT_ID"] for r in records] == [r["CONTACT_ID"] for r in everything]
    assert len({r["CONTACT_ID"] for r in records}) == len(records) > size
    assert hook.requests_made == -(-len(everything) // size) + 1


def test_pages_are_asked_for_as_needed(connect: Connect) -> None:
    """A page is read when the one before was taken. It starts at that page's last record."""
    pages = [[{"CONTACT_ID": n} for n in ids] for ids in ([1, 2], [2, 3], [3], [])]
    with serving(lambda n: [as_json(pages[n])]) as server:
        records = hook_for(connect, server).iter_records("Contacts", page_size=2)
        assert server.requests == []
        next(records)
        assert len(server.requests) == 1
        assert [record["CONTACT_ID"] for record in records] == [2, 3]
    assert [request.request_line.split()[1] for request in server.requests] == [
        f"/v3.1/Contacts/Search?top=2&skip={skip}&count_total=true" for skip in (0, 1, 2, 3)
    ]


def test_the_same_page_again_is_an_error(connect: Connect) -> None:
    """A server that ignores ``skip`` causes an error, not an endless loop."""
    page = as_json([{"CONTACT_ID": 1}, {"CONTACT_ID": 2}])
    with serving(lambda _: [page]) as server:
        hook = hook_for(connect, server, requests_per_second=1000)
        with pytest.raises(IncompleteScan):
            list(hook.iter_records("Contacts", page_size=2))


def test_the_next_page_is_asked_for_while_one_is_handled(insightly: RunningSandbox) -> None:
    """This is done if more than a page is left. An error is raised when its page is taken."""
    insightly.create_many("Tasks", [{"TITLE": str(n)} for n in range(20)])
    total = sum(1 for _ in InsightlyHook().iter_records("Tasks"))
    hook = InsightlyHook()
    records = hook.iter_records("Tasks", page_size=total // 3)
    next(records)
    end = time.monotonic() + 10
    while hook.requests_made < 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert hook.requests_made == 2
    insightly.configure(fault={"path": "/v3.1/Tasks/Search", "status": 400, "times": 1})
    with pytest.raises(InsightlyAPIError, match="400"):
        list(records)

    hook = InsightlyHook()
    records = hook.iter_records("Tasks", page_size=total - 1)
    next(records)
    time.sleep(0.2)
    assert hook.requests_made == 1


def test_records_deleted_while_they_are_read_hide_no_others(insightly: RunningSandbox) -> None:
    """Between any two pages, three records that were already read are deleted."""
    insightly.create_many("Contacts", [{"FIRST_NAME": str(n)} for n in range(200)])
    before = {record["CONTACT_ID"] for record in InsightlyHook().iter_records("Contacts")}
    insightly.configure(between_pages={"record_type": "Contacts", "delete": 3, "where": "first"})
    found = [record["CONTACT_ID"] for record in InsightlyHook().iter_records("Contacts", page_size=20)]
    assert sorted(found) == sorted(before)


@pytest.mark.parametrize(
    ("arguments", "query"),
    [
        ({}, "top=500&skip=0&count_total=true"),
        ({"page_size": 1}, "top=2&skip=0&count_total=true"),
        (
            {"updated_after": datetime(2017, 3, 10, 8, 0, 0, 999_999, tzinfo=timezone.utc)},
            "top=500&updated_after_utc=2017-03-10T08%3A00%3A00Z&skip=0&count_total=true",
        ),
        (
            {"updated_after": pendulum.datetime(2017, 3, 10, 9, tz="Europe/Paris")},
            "top=500&updated_after_utc=2017-03-10T08%3A00%3A00Z&skip=0&count_total=true",
        ),
        (
            {"updated_after": "2017-03-10 08:00:00"},
            "top=500&updated_after_utc=2017-03-10+08%3A00%3A00&skip=0&count_total=true",
        ),
        (
            {"field_name": "FIRST_NAME", "field_value": "Zoë & Co"},
            "top=500&field_name=FIRST_NAME&field_value=Zo%C3%AB+%26+Co&skip=0&count_total=true",
        ),
        (
            {"field_name": "A__c", "field_value": True},
            "top=500&field_name=A__c&field_value=true&skip=0&count_total=true",
        ),
        ({"brief": True}, "top=500&brief=true&skip=0&count_total=true"),
        ({"brief": False}, "top=500&brief=false&skip=0&count_total=true"),
    ],
)
def test_search_parameters(connect: Connect, arguments: dict[str, Any], query: str) -> None:
    """Each argument is sent as the API's parameter of the same meaning."""
    with serving([as_json([])]) as server:
        assert list(hook_for(connect, server).iter_records("Contacts", **arguments)) == []
    assert server.requests[0].request_line == f"GET /v3.1/Contacts/Search?{query} HTTP/1.1"


@pytest.mark.parametrize(
    "arguments",
    [
        {"page_size": 0},
        {"page_size": 501},
        {"field_name": "FIRST_NAME"},
        {"field_value": "x"},
        {"count_total": True},
        {"Brief": True},
    ],
)
def test_refused_search(insightly: RunningSandbox, arguments: dict[str, Any]) -> None:
    """A parameter that the API doesn't have is refused before any request."""
    hook = InsightlyHook()
    with pytest.raises(ValueError, match=r"page_size|field_name|no parameter"):
        hook.iter_records("Contacts", **arguments)
    assert hook.requests_made == 0


def test_unknown_record_type(insightly: RunningSandbox) -> None:
    """An unknown record type is refused before any request."""
    hook = InsightlyHook()
    for ask in (
        lambda: hook.iter_records("Contact"),
        lambda: hook.get_record("Contact", 1),
        lambda: hook.custom_fields("Contact"),
    ):
        with pytest.raises(UnknownRecordType, match="did you mean 'Contacts'"):
            ask()
    assert hook.requests_made == 0


def test_updated_after(insightly: RunningSandbox) -> None:
    """Only records that were updated after the given time come."""
    old = insightly.create("Tasks", TITLE="old", DATE_UPDATED_UTC="2031-01-01 00:00:00")
    new = insightly.create("Tasks", TITLE="new", DATE_UPDATED_UTC="2031-01-01 00:00:02")
    after = datetime(2031, 1, 1, 0, 0, 1, tzinfo=timezone.utc)
    ids = [record["TASK_ID"] for record in InsightlyHook().iter_records("Tasks", updated_after=after)]
    assert new["TASK_ID"] in ids
    assert old["TASK_ID"] not in ids


def test_one_record_and_custom_fields(insightly: RunningSandbox) -> None:
    """A record can be read by its id. A record type's custom fields come with their types."""
    created = insightly.create("Contacts", FIRST_NAME="Ann")
    assert InsightlyHook().get_record("Contacts", created["CONTACT_ID"])["FIRST_NAME"] == "Ann"
    fields = {f["FIELD_NAME"]: f["FIELD_TYPE"] for f in InsightlyHook().custom_fields("Contacts")}
    assert fields["Customer_since__c"] == "DATE"
    assert InsightlyHook().custom_fields("Tags" if "Tags" in RECORD_TYPES else "Users") == []


def test_custom_objects(insightly: RunningSandbox) -> None:
    """Custom objects are read by their own names."""
    created = insightly.create("Invoice__c", RECORD_NAME="Invoice 1")
    records = list(InsightlyHook().iter_records("Invoice__c"))
    assert created["RECORD_ID"] in [record["RECORD_ID"] for record in records]


# --- the server's clock ----------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [-3600.0, 0.0, 86_400.0])
def test_server_time(insightly: RunningSandbox, offset: float) -> None:
    """The time is the server's, in UTC, never ahead of it and less than two seconds behind."""
    insightly.configure(clock_offset=offset)
    before = datetime.now(timezone.utc)
    read = InsightlyHook().server_time()
    after = datetime.now(timezone.utc)
    assert isinstance(read, pendulum.DateTime)
    assert read.utcoffset() == timedelta(0)
    shift = timedelta(seconds=offset)
    assert before + shift - timedelta(seconds=2) < read <= after + shift


def test_server_time_is_carried_on(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any answer gives the time. It is carried on for five minutes, and then asked for again."""
    now = [1000.0]
    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=lambda: now[0]))
    dates = ["Fri, 10 Mar 2017 08:00:00 GMT", "Fri, 10 Mar 2017 09:00:00 GMT"]
    with serving(lambda n: [as_json({"CONTACT_ID": 1}, "200 OK", f"Date: {dates[n]}")]) as server:
        hook = hook_for(connect, server)
        hook.get_record("Contacts", 1)
        now[0] += 299.5
        assert hook.server_time().isoformat() == "2017-03-10T08:04:59.500000+00:00"
        assert len(server.requests) == 1
        now[0] += 1
        assert hook.server_time().isoformat() == "2017-03-10T09:00:00+00:00"
    assert server.requests[1].request_line == "GET /v3.1/Instance HTTP/1.1"


@pytest.mark.parametrize(
    ("ahead", "asked", "expected"),
    [
        ([0], 1, 0),
        ([-30], 1, -30),
        ([50, 0, 0], 3, 0),
        ([50, 0, 50], 3, 0),
        ([50, 50, 50], 3, 50),
        ([50, None, None], 3, 50),
    ],
    ids=["right", "behind", "one wrong", "two servers", "our own clock is behind", "without dates"],
)
def test_one_answer_ahead_of_our_own_clock_is_not_believed(
    connect: Connect, ahead: list[float | None], asked: int, expected: float
) -> None:
    """More answers are asked for, once, on other connections. Then the slowest clock counts."""
    started = datetime.now(timezone.utc)

    def answer_ahead(seconds: float | None) -> bytes:
        dates = [] if seconds is None else [started + timedelta(seconds=seconds)]
        return as_json({}, "200 OK", *(f"Date: {format_datetime(date, usegmt=True)}" for date in dates))

    with serving(lambda n: [answer_ahead(ahead[min(n, len(ahead) - 1)])]) as server:
        hook = hook_for(connect, server)
        times = [hook.server_time() for _ in range(3)]
    assert len(server.requests) == asked
    assert all(abs((time - started).total_seconds() - expected) < 2 for time in times)


@pytest.mark.parametrize(
    "headers",
    [[], ["Date: yesterday"], ["Date: Fri, 10 Mar 2017 08:00:00 +99999999999999999999"]],
)
def test_server_without_a_clock(connect: Connect, headers: list[str]) -> None:
    """If a server sends no readable date, an error says so. No other clock is used instead."""
    with serving([as_json({}, "200 OK", *headers)]) as server, pytest.raises(InsightlyAPIError) as caught:
        hook_for(connect, server).server_time()
    assert (caught.value.conn_id, caught.value.path) == ("crm", "/Instance")
    assert "Date" in caught.value.expected


# --- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "API key"), (403, "permissions"), (404, "plan"), (405, "record type's name")],
)
def test_access_errors(
    insightly: RunningSandbox, connect: Connect, naps: list[float], status: int, words: str
) -> None:
    """401, 403, 404 and 405 raise one typed error each, with advice, and are not retried."""
    insightly.configure(fault={"path": "/v3.1/Contacts/Search", "status": status})
    hook = InsightlyHook()
    with pytest.raises(InsightlyAccessError, match=words) as caught:
        list(hook.iter_records("Contacts"))
    assert (caught.value.status, caught.value.conn_id) == (status, "insightly_default")
    assert (caught.value.path, caught.value.base_url) == ("/Contacts/Search", insightly.api_url)
    assert hook.requests_made == 1
    assert naps == []


def test_wrong_key(insightly: RunningSandbox, connect: Connect) -> None:
    """A wrong key is a 401 that Airflow does not retry. The error doesn't show it."""
    from airflow.sdk.exceptions import AirflowFailException

    connect("crm", "insightly", host=insightly.api_url, password=KEY)
    with pytest.raises(InsightlyAccessError) as caught:
        InsightlyHook("crm").get_record("Contacts", 1)
    assert isinstance(caught.value, AirflowFailException)
    assert caught.value.status == 401
    assert KEY not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(connect: Connect, status: int) -> None:
    """A redirect is an unexpected answer. The key is not sent to another server."""
    with serving([as_json({})]) as other:
        moved = as_json({}, f"{status} Moved", f"Location: {other.url}/v3.1/Contacts/1")
        with serving([moved]) as server, pytest.raises(InsightlyAPIError) as caught:
            hook_for(connect, server).get_record("Contacts", 1)
    assert type(caught.value) is InsightlyAPIError
    assert caught.value.status == status
    assert other.connections == 0
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("ask", "body", "status"),
    [
        ("get_record", b"<html>Welcome</html>", 200),
        ("get_record", b"", 200),
        ("get_record", b"[]", None),
        ("get_record", b"\xff\xfe{}", 200),
        ("get_record", b'{"Message": "Secret"}', None),
        ("get_record", b'{"CONTACT_ID": 2, "FIRST_NAME": "Secret"}', None),
        ("get_record", b'{"CONTACT_ID": "1"}', None),
        ("get_record", b'{"CONTACT_ID": true}', None),
        ("custom_fields", b"{}", None),
        ("custom_fields", b"[null]", None),
        ("custom_fields", b'["Secret"]', None),
        ("custom_fields", b'[{"FIELD_NAME": "A__c"}, {"FIELD_TYPE": "Secret"}]', None),
        ("custom_fields", b'[{"FIELD_NAME": ["Secret"]}]', None),
        ("custom_fields", b'[{"FIELD_NAME": ""}]', None),
        ("custom_fields", b'[{"FIELD_NAME": "A__c", "FIELD_TYPE": {"Secret": 1}}]', None),
        ("custom_fields", b"[" * 100_000, 200),
        ("iter_records", b"{}", None),
        ("iter_records", b"null", None),
        ("iter_records", b"[1]", None),
        ("iter_records", b'["Secret"]', None),
    ],
)
def test_odd_answers(connect: Connect, ask: str, body: bytes, status: int | None, naps: list[float]) -> None:
    """A 200 that isn't as the API documents raises a typed error that shows nothing of it."""
    with serving([answer("200 OK", body=body)]) as server:
        hook = hook_for(connect, server)
        asked = {
            "get_record": lambda: hook.get_record("Contacts", 1),
            "custom_fields": lambda: hook.custom_fields("Contacts"),
            "iter_records": lambda: list(hook.iter_records("Contacts")),
        }[ask]
        with pytest.raises(InsightlyAPIError) as caught:
            asked()
    assert type(caught.value) is InsightlyAPIError
    assert caught.value.status == status
    assert "Welcome" not in str(caught.value)
    assert "Secret" not in str(caught.value)
    assert len(server.requests) == (1 if status is None else 4)  # a text that isn't JSON may have been cut


@pytest.mark.parametrize("odd", ["null", '"x"', "[]", '{"A":1}', '{"CONTACT_ID":"7"}', '{"CONTACT_ID":[1]}'])
def test_a_record_without_a_usable_id_stops_only_itself(connect: Connect, odd: str) -> None:
    """Other records are read once each, over overlapping pages.

    This one comes unchanged; a non-object comes empty.
    """
    records = [odd, '{"CONTACT_ID": 1}', odd, '{"CONTACT_ID": 2}', '{"CONTACT_ID": 3}']

    def page(connection: Any) -> None:
        skip = int(server.requests[-1].request_line.split("skip=")[1].split("&")[0])
        body = f"[{','.join(records[skip : skip + 4])}]"
        connection.sendall(answer("200 OK", "X-Total-Count: 5", body=body.encode()))

    with serving([page]) as server:
        found = list(hook_for(connect, server).iter_records("Contacts", page_size=4))
    assert [record["CONTACT_ID"] for record in found if record.get("CONTACT_ID") in (1, 2, 3)] == [1, 2, 3]
    assert len(server.requests) == 2
    record = json.loads(odd)
    others = [record for record in found if record.get("CONTACT_ID") not in (1, 2, 3)]
    assert others == [record if isinstance(record, dict) else {}] * 2


@pytest.mark.parametrize(
    "value", ["[" * 950 + "]" * 950, "[" * 9_000 + "]" * 9_000, "9" * 5_000, "NaN", "1e400"]
)
def test_a_value_that_python_cannot_read_stops_only_its_record(connect: Connect, value: str) -> None:
    """However deeply it nests, or long it is, the other records are read."""
    page = f'[{{"CONTACT_ID": 1}}, {{"CONTACT_ID": 2, "A": {value}}}, {{"CONTACT_ID": 3}}]'
    with serving([answer("200 OK", "X-Total-Count: 3", body=page.encode())]) as server:
        plain = list(hook_for(connect, server).iter_records("Contacts"))
        found = list(InsightlyHook("crm", exact_numbers=True).iter_records("Contacts"))
    assert [record["CONTACT_ID"] for record in plain] == [1, 2, 3]
    assert [record["CONTACT_ID"] for record in found] == [1, 2, 3]
    # Python 3.13 can read a deep list; pytest would then compare long texts for minutes.
    if value[0].isdigit():
        assert dumps(found[1]["A"]) == value


def test_numbers_keep_their_text(connect: Connect) -> None:
    """On request, decimals keep the API's exact text. In calculations they are floats."""
    body = b'{"CONTACT_ID": 1, "A": 1234567890123456.78, "B": 1.10, "C": 1E2, "D": 5, "E": 0.5}'
    with serving([answer("200 OK", body=body)]) as server:
        plain = hook_for(connect, server).get_record("Contacts", 1)
        record = InsightlyHook("crm", exact_numbers=True).get_record("Contacts", 1)
    assert plain == record
    assert [type(plain[name]) for name in "ABCDE"] == [float, float, float, int, float]
    assert dumps(record).encode() == body.replace(b" ", b"")
    assert record["A"] == 1234567890123456.78
    assert [type(record[name]) for name in "DE"] == [int, float]


def test_bad_request(connect: Connect, naps: list[float]) -> None:
    """The error of a 400 has its status, without its text."""
    refusal = as_json({"Message": f"no field {KEY}"}, "400 Bad Request")
    with serving([refusal]) as server, pytest.raises(InsightlyAPIError) as caught:
        hook_for(connect, server).get_record("Contacts", 1)
    assert caught.value.status == 400
    assert KEY not in str(caught.value)


def test_undecodable_answer(connect: Connect, naps: list[float]) -> None:
    """If the client can't read an answer, the error names the kind of failure."""
    bad = answer("200 OK", "Content-Encoding: gzip", body=b"no gzip")
    with serving([bad]) as server, pytest.raises(InsightlyAPIError, match="ContentDecodingError") as caught:
        hook_for(connect, server).get_record("Contacts", 1)
    assert type(caught.value) is InsightlyAPIError
    assert caught.value.__suppress_context__


# --- for people ------------------------------------------------------------------------------------------


def test_connection_test(insightly: RunningSandbox, connect: Connect) -> None:
    """The test of a connection names the account, or says what is wrong. It never raises."""
    assert InsightlyHook().test_connection() == (True, "Connected to Insightly account 'Sandbox Trading'")
    connect("wrong", "insightly", host=insightly.api_url, password=KEY)
    ok, text = InsightlyHook("wrong").test_connection()
    assert not ok
    assert "refuses the API key (401)" in text
    assert KEY not in text
    ok, text = InsightlyHook("missing").test_connection()
    assert not ok
    assert "missing" in text
    connect("empty", "insightly", password=KEY)
    ok, text = InsightlyHook("empty").test_connection()
    assert not ok
    assert "the pod is needed" in text


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"INSTANCE_NAME": null}', b"3"])
def test_connection_test_without_a_name(connect: Connect, body: bytes) -> None:
    """An account without a name is no error."""
    with serving([answer(body=body)]) as server:
        assert hook_for(connect, server).test_connection() == (True, "Connected to Insightly")


@pytest.mark.parametrize(
    ("host", "all_records", "one"),
    [
        (
            "na1",
            "https://crm.na1.insightly.com/list/Contact/",
            "https://crm.na1.insightly.com/details/Contact/7",
        ),
        (
            "http://127.0.0.1:8765/v3.1",
            "http://127.0.0.1:8765/v3.1/Contacts",
            "http://127.0.0.1:8765/v3.1/Contacts/7",
        ),
    ],
)
def test_records_page(connect: Connect, host: str, all_records: str, one: str) -> None:
    """Users see records on Insightly's own pages, or as the API's answers if there is no page."""
    connect("crm", "insightly", host=host, password=KEY)
    assert (records_page("crm", "Contacts"), record_page("crm", "Contacts", 7)) == (all_records, one)


@pytest.mark.parametrize(
    "error",
    [
        InsightlyAPIError("crm", "/Contacts", "JSON was expected", 200),
        InsightlyUnreachable("crm", "api.na1.insightly.com", "there is no such host"),
        InsightlyUnreachable("crm", "api.na1.insightly.com", 503),
        InsightlyAccessError("crm", "api.na1.insightly.com", "/Contacts", 403),
        InsightlyRateLimitError("crm", day_is_spent=True),
        InsightlyRateLimitError("crm", True, datetime(2026, 7, 12, tzinfo=timezone.utc)),
        InsightlyRateLimitError("crm", True, datetime(2026, 7, 12, tzinfo=timezone.utc), share=500),
        InsightlyRateLimitError("crm", day_is_spent=False),
    ],
)
def test_errors_survive_pickling(error: InsightlyAPIError) -> None:
    """Errors keep their attributes from process to process."""
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 — made in the line itself
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
    assert copy.args == error.args


@pytest.mark.parametrize("script", [[3], [as_json([], "503 Unavailable", "Retry-After: 60")]])
def test_close_ends_what_is_under_way(connect: Connect, script: list[object]) -> None:
    """A request that waits in another thread, for an answer or its turn, ends at once. No other follows."""
    with serving(lambda _: script) as server, ThreadPoolExecutor(1) as pool:
        hook = hook_for(connect, server, timeout=30)
        asked = pool.submit(hook.custom_fields, "Contacts")
        while not server.requests:
            time.sleep(0.01)
        time.sleep(0.1)
        started = time.monotonic()
        hook.close()
        assert isinstance(asked.exception(timeout=10), StoppedError)
        assert time.monotonic() - started < 1
        with pytest.raises(StoppedError):
            hook.account_name()
        assert len(server.requests) == 1


def test_a_connection_that_is_opened_after_the_end_asks_nothing() -> None:
    """A thread that was connecting when the hook was closed sends no request."""
    with serving([as_json([])]) as server, requests.Session() as session:
        adapter = answer_limits.LimitedAdapter(5)
        session.mount("http://", adapter)
        assert session.get(f"http://127.0.0.1:{server.port}/", timeout=5).ok
        adapter.end_connections()
        with pytest.raises(requests.ConnectionError):
            session.get(f"http://127.0.0.1:{server.port}/", timeout=5)
        assert len(server.requests) == 1

"""The request bin: what it keeps, how it answers, what its page shows."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re

import pytest

from airflow_insightly_hooks.sandbox.http import bin_paths, request_bin


def _post(sandbox, body=b'{"entity":{}}', name="billing", **options):
    return sandbox.ask("POST", f"/bin/{name}", content=body, **options)


def _kept(sandbox, name="billing"):
    return sandbox.ask("GET", f"/bin/{name}/requests").json()


def _tell(sandbox, **answer):
    response = sandbox.ask("PUT", "/bin/billing", json=answer)
    assert response.status_code == 200, response.text
    return response.json()


def test_what_is_posted_is_kept_exactly(sandbox):
    """A bin keeps time, headers, exact body, user name and the status answered, and never a password."""
    body = '{"entity": {"DUE": "\\/Date(1489132800000-0800)\\/", "NAME": "日本"}}'
    headers = {"Webhook-Id": "msg_1", "Content-Type": "application/json", "Proxy-Authorization": "Basic eA=="}
    response = _post(sandbox, body.encode(), auth=("user", "secret"), headers=headers)
    assert (response.status_code, response.json()) == (200, {"received": True})
    (kept,) = _kept(sandbox)
    assert list(kept) == ["received_at", "headers", "body", "username", "acknowledged_with"]
    assert kept["received_at"] == "2025-11-24T10:26:40.250Z"
    assert (kept["body"], kept["username"], kept["acknowledged_with"]) == (body, "user", 200)
    assert kept["headers"]["webhook-id"] == "msg_1"
    assert not {"authorization", "proxy-authorization"} & kept["headers"].keys()
    everything = sandbox.ask("GET", "/bin/billing/requests").text + sandbox.ask("GET", "/bin/billing").text
    assert "secret" not in everything
    assert base64.b64encode(b"user:secret").decode() not in everything


def test_requests_are_listed_oldest_first(sandbox):
    """The JSON list is in the order of arrival; bins are apart; without credentials there is no user."""
    for body in (b"1", b"2"):
        _post(sandbox, body, auth=None)
        sandbox.clock.tick(1)
    assert [(kept["body"], kept["username"]) for kept in _kept(sandbox)] == [("1", None), ("2", None)]
    assert _kept(sandbox, "other") == []


def test_bytes_that_are_no_text_are_kept_readable(sandbox):
    """A body that is not UTF-8 is shown with its bytes escaped."""
    _post(sandbox, b"a\xffb")
    assert _kept(sandbox)[0]["body"] == "a\\xffb"


def test_only_the_last_ones_are_kept(sandbox, monkeypatch):
    """A bin keeps the last 10,000 requests: here, so that it is quick, the last hundred."""
    assert request_bin.MAX_REQUESTS == 10_000
    monkeypatch.setattr(request_bin, "MAX_REQUESTS", 100)
    for number in range(103):
        _post(sandbox, str(number).encode())
    kept = _kept(sandbox)
    assert (len(kept), kept[0]["body"], kept[-1]["body"]) == (100, "3", "102")


def test_a_bin_fails_as_often_as_it_is_told(sandbox):
    """status with times answers so many POSTs so, and the rest with 200; the bin remembers which."""
    _tell(sandbox, status=503, times=2, headers={"Retry-After": "1"})
    answers = [_post(sandbox) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert [answer.headers.get("Retry-After") for answer in answers] == ["1", "1", None]
    assert answers[0].json() == {"received": False}
    assert [kept["acknowledged_with"] for kept in _kept(sandbox)] == [503, 503, 200]


def test_a_bin_fails_until_told_otherwise(sandbox):
    """status without times answers all POSTs so, until the next PUT or a DELETE."""
    _tell(sandbox, status=400)
    assert [_post(sandbox).status_code for _ in range(3)] == [400] * 3
    _tell(sandbox)
    assert _post(sandbox).status_code == 200
    _tell(sandbox, status=307, headers={"Location": "http://sandbox/bin/other"})
    assert _post(sandbox).headers["Location"] == "http://sandbox/bin/other"
    assert sandbox.ask("DELETE", "/bin/billing").status_code == 204
    assert _kept(sandbox) == []
    assert _post(sandbox).status_code == 200


def test_a_bin_fails_for_some_bodies_only(sandbox):
    """match restricts the answer to the POSTs whose body contains the text; only they count."""
    _tell(sandbox, status=503, times=1, match='"TASK_ID":2')
    bodies = [b'{"TASK_ID":%d}' % number for number in (1, 2, 2, 3)]
    assert [_post(sandbox, body).status_code for body in bodies] == [200, 503, 200, 200]


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body(sandbox, status):
    """A status that has no body is answered without one."""
    _tell(sandbox, status=status)
    assert (_post(sandbox).status_code, _post(sandbox).content) == (status, b"")


def test_a_bin_can_ask_for_credentials(sandbox):
    """With username or password set, a POST with other credentials gets 401; the password is not told."""
    told = _tell(sandbox, username="user", password="secret", status=202)
    assert (told["username"], told["password"]) == ("user", "***")
    for auth, status in (
        (("user", "secret"), 202),
        (("user", "x"), 401),
        (("x", "secret"), 401),
        (None, 401),
    ):
        assert _post(sandbox, auth=auth).status_code == status
    assert [kept["username"] for kept in _kept(sandbox)] == ["user", "user", "x", None]


def test_refused_credentials_do_not_use_up_the_answer(sandbox):
    """A POST that is refused for its credentials is not one of the times."""
    _tell(sandbox, username="user", password="x", status=503, times=1)
    statuses = [_post(sandbox, auth=auth).status_code for auth in (None, ("user", "x"), ("user", "x"))]
    assert statuses == [401, 503, 200]


def test_a_bin_waits(sandbox, monkeypatch):
    """delay waits so many seconds before answering; what came is kept at once."""
    waited = []

    async def sleep(seconds):
        waited.append((seconds, len(sandbox_bins["billing"].requests)))

    monkeypatch.setattr(bin_paths.asyncio, "sleep", sleep)
    monkeypatch.setattr(bin_paths.BinPaths, "_bin", _remembering(sandbox_bins := {}))
    _tell(sandbox, delay=2.5)
    _post(sandbox)
    assert waited == [(2.5, 1)]
    assert asyncio.sleep is sleep


def _remembering(bins):
    original = bin_paths.BinPaths._bin

    def bin_of(self, name):
        bins[name] = original(self, name)
        return bins[name]

    return bin_of


@pytest.mark.parametrize(
    "answer",
    [
        {"statuses": [503]},
        {"status": "503"},
        {"status": 100},
        {"status": 600},
        {"status": True},
        {"times": -1},
        {"delay": -1},
        {"delay": 1e9},
        {"match": 5},
        {"username": 5},
        {"password": 5},
        {"headers": []},
        {"headers": {"A": 5}},
        {"headers": {"A": "x\r\nB: y"}},
        {"headers": {"A B": "x"}},
        {"headers": {"Content-Length": "5"}},
        [],
    ],
)
def test_invalid_answers_are_refused(sandbox, answer):
    """Unknown keys and values of the wrong kind are 400, and the bin answers as before."""
    response = sandbox.ask("PUT", "/bin/billing", json=answer)
    assert (response.status_code, list(response.json())) == (400, ["Message"])
    assert _post(sandbox).status_code == 200


@pytest.mark.parametrize("name", ["a b", "<script>", "x" * 101, "a%2Fb"])
def test_names_of_bins(still, name):
    """A bin's name is a simple word; anything else is 404."""
    assert _post(still, name=name).status_code == 404


def test_the_page_shows_the_newest_first(sandbox):
    """The page shows time, status, user, headers and the body with line breaks, the newest on top."""
    _post(sandbox, b'{"entity":{"TITLE":"Tr\xc3\xa8s"}}', headers={"webhook-id": "msg_1"})
    sandbox.clock.tick(1)
    _tell(sandbox, status=503)
    _post(sandbox, b"no json", auth=None)
    page = sandbox.ask("GET", "/bin/billing").text
    assert page.index("10:26:41.250") < page.index("503") < page.index("no json") < page.index("10:26:40.250")
    assert "&quot;entity&quot;: {\n    &quot;TITLE&quot;: &quot;Très&quot;" in page
    assert "user sandbox-key" in page
    assert "no user name" in page
    assert "msg_1" in page
    assert '<meta http-equiv="refresh"' in page


def test_the_page_of_an_empty_bin(still):
    """A bin that nothing has come to has a page, and looking does not make it."""
    assert "No request yet" in still.ask("GET", "/bin/empty").text
    assert still.ask("GET", "/_sandbox").json()["bins"] == {}


def test_the_page_shows_the_last_100(sandbox):
    """A long list is cut, and the page says so."""
    for number in range(103):
        _post(sandbox, f"body-{number}.".encode())
    page = sandbox.ask("GET", "/bin/billing").text
    assert page.count("<article>") == 100
    assert "body-3." in page
    assert "body-2." not in page
    assert "3 older requests" in page


def test_the_page_is_harmless(sandbox):
    """Everything that came is escaped; the page runs no script and loads nothing, and says so."""
    evil = "<script>alert(1)</script>\"'&"
    _post(sandbox, evil.encode(), auth=(evil, "x"), headers={"x-evil": evil, "webhook-id": "<b>"})
    answer = sandbox.ask("GET", "/bin/billing")
    assert "<script" not in answer.text
    assert "<b>" not in answer.text
    assert answer.text.count("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;") == 3
    assert not re.search(r"\s(on\w+|src|style)=", answer.text)
    policy = answer.headers["Content-Security-Policy"]
    style = re.search("<style>(.*)</style>", answer.text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("body", ["[" * 100_000, '{"a": "\\ud800"}', "NaN", ""])
def test_bodies_that_only_look_like_json_are_shown_as_they_are(sandbox, body):
    """The page shows any body, also one that cannot be read or written again."""
    _post(sandbox, body.encode())
    assert sandbox.ask("GET", "/bin/billing").status_code == 200


def test_the_index_lists_bins_and_how_to_use_them(sandbox):
    """The page at / says what this is, with curl lines for this very address, and links the bins."""
    _post(sandbox)
    page = sandbox.ask("GET", "/", auth=None)
    assert "curl -u sandbox-key: &#x27;http://sandbox/v3.1/Contacts/Search" in page.text
    assert '<a href="/bin/billing">billing</a>: 1 request<' in page.text
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")

"""The suite of faults. Each case has its fault's number, and says whether a plain ``requests.post`` passes.

``@fault(21, "headers come a byte at a time", requests="fails")`` marks a test. The test's docstring says what
this project does. The table in docs/reference/faults.md is made from marks and docstrings. A test with the
fixture ``send`` runs twice: with ``WebhookHook``, and with a plain ``requests.post``, which must pass or fail
as the mark says. A test without this fixture is about something that ``requests`` does not do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import requests as plain_requests

from airflow_insightly_hooks.core.errors import InsightlyHooksError
from airflow_insightly_hooks.hooks.webhook import WebhookHook
from tests.conftest import Connect
from tests.faults.ways import Way

__all__ = ["Outcome", "Send", "fault"]

BODY = '{"entity":{"TASK_ID":1}}'
MESSAGE_ID = "msg_0123456789abcdef01234567"


@dataclass
class Outcome:
    """A sender's result of one POST.

    :ivar error: why the POST isn't acknowledged; with a plain ``requests.post`` the text of its error.
    :ivar sent: whether the receiver may have read anything; ``None`` if the sender can't tell.
    """

    acknowledged: bool
    status: int | None
    error: str | None
    elapsed: float
    sent: bool | None = None
    retry_after: float | None = None
    gone: bool | None = None

    def is_certainly_undelivered(self) -> bool:
        """Return whether the sender reports that nothing was sent, as far as it can know."""
        return (self.acknowledged, self.status) == (False, None) and self.sent is not True

    def is_in_doubt(self) -> bool:
        """Return whether the sender reports no answer to a message, as far as it can know."""
        return (self.acknowledged, self.status) == (False, None) and self.sent is not False

    def error_has(self, words: str, words_of_requests: str | None = None) -> bool:
        """Return whether the error holds these words.

        :param words_of_requests: the words of a plain ``requests.post``, if they differ.
        """
        expected = words if self.sent is not None or words_of_requests is None else words_of_requests
        return expected.lower() in (self.error or "").lower()


Send = Callable[..., Outcome]


def fault(number: int, title: str, *, requests: Literal["passes", "fails"] | None = None) -> Any:
    """Mark a test with the fault that it plays.

    :param number: the fault's number in the list of faults; several tests may share it.
    :param title: the fault, in a few words.
    :param requests: whether a plain ``requests.post`` passes the test; ``None`` if it can't be asked.
    """
    return pytest.mark.fault(number, title, requests)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(number, title, requests): a case of the list of faults")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "send" not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker("fault")
    assert mark is not None, "a test that sends is a case of a fault"
    fails = pytest.mark.xfail(strict=True, reason="what a plain requests.post does wrong", raises=Exception)
    plain = [pytest.param("requests", marks=[fails] if mark.args[2] == "fails" else [])]
    metafunc.parametrize("send", ["hook", *(plain if mark.args[2] else [])], indirect=True)


@pytest.fixture(params=["http", "https", "tunnel"])
def way(
    request: pytest.FixtureRequest, tmp_path: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> Way:
    """Return a way to a receiver that keeps its connections open. A test runs once with each way."""
    return Way(request.param, tmp_path, connect, monkeypatch)


@pytest.fixture
def send(request: pytest.FixtureRequest, connect: Connect) -> Iterator[Send]:
    """Return a function for one POST: ``send(url, timeout=1, body=…, login=…, password=…, extra={…})``.

    With ``session=True`` the plain POSTs of a test share a ``requests.Session``.
    """
    if request.param == "hook":
        yield _by_hook(connect)
        return
    with plain_requests.Session() as session:
        yield partial(_by_requests, session)


def _by_hook(connect: Connect) -> Send:
    hooks: dict[str, WebhookHook] = {}  # one for all POSTs to a receiver, as a task has it

    def send(
        url: str,
        *,
        timeout: float = 1.0,
        body: str = BODY,
        session: bool = False,
        **connection: Any,
    ) -> Outcome:
        extra = {"timeout": timeout, "allow_insecure_http": True, **connection.pop("extra", {})}
        connect("receiver", host=url, extra=extra, **connection)
        hook = hooks.setdefault(repr((url, extra, connection)), WebhookHook("receiver"))
        started = time.monotonic()
        try:
            result = hook.send(body, message_id=MESSAGE_ID)
        except InsightlyHooksError as error:
            return Outcome(False, None, str(error), time.monotonic() - started, sent=False)
        return Outcome(
            result.acknowledged,
            result.status,
            result.error,
            time.monotonic() - started,
            result.sent,
            result.retry_after,
            result.gone,
        )

    return send


def _by_requests(
    shared: plain_requests.Session,
    url: str,
    *,
    timeout: float = 1.0,
    body: str = BODY,
    session: bool = False,
    extra: Mapping[str, Any] | None = None,
    **connection: Any,
) -> Outcome:
    """POST as a program without this project does. An error of ``requests`` is no acknowledgement."""
    auth = (connection["login"], connection.get("password", "")) if "login" in connection else None
    given = {name: value for name, value in (extra or {}).items() if name in ("headers", "verify")}
    started = time.monotonic()
    status = None
    try:
        post = shared.post if session else plain_requests.post
        answer = post(url, data=body.encode(), auth=auth, timeout=timeout, **given)
        status = answer.status_code
        answer.raise_for_status()
    except plain_requests.RequestException as error:
        text = f"{type(error).__name__}: {error}"
        return Outcome(False, status, text, time.monotonic() - started)
    return Outcome(True, status, None, time.monotonic() - started)

"""Send one authenticated GET to Insightly's API: wait for the rate limit, retry, and read the answer."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeAlias

import requests
from urllib3.exceptions import HTTPError

from airflow_insightly_hooks.core import exact_json
from airflow_insightly_hooks.core.errors import InvalidConnection, StoppedError
from airflow_insightly_hooks.hooks.api.account import Account
from airflow_insightly_hooks.hooks.api.answer_limits import (
    AddressRefused,
    AnswerTooLarge,
    AnswerTooSlow,
    LimitedAdapter,
    read_body,
)
from airflow_insightly_hooks.hooks.api.api_errors import (
    InsightlyAccessError,
    InsightlyAPIError,
    InsightlyRateLimitError,
    InsightlyUnreachable,
)
from airflow_insightly_hooks.hooks.api.limiter import Spent, limiter_for
from airflow_insightly_hooks.hooks.api.server_clock import ServerClock
from airflow_insightly_hooks.hooks.connection_failures import causes, own_fault, own_look_up_fault, tls_reason
from airflow_insightly_hooks.hooks.header_values import http_date, retry_after, whole_number
from airflow_insightly_hooks.hooks.hints import UNKNOWN_HOST
from airflow_insightly_hooks.hooks.masking import mask_user_information
from airflow_insightly_hooks.version import __version__

if TYPE_CHECKING:
    from airflow.sdk.types import Logger

__all__ = ["Answer", "Client"]

QUICK_RETRIES = 3
"""How often a GET without a usable answer is repeated within seconds."""
QUICK_DELAY = 0.5
"""The longest delay of the first quick retry, in seconds. It doubles each time; half of it is random."""
BACKOFF, LONGEST_BACKOFF = 1.0, 60.0
"""The most seconds of the first wait, and of all waits, without ``Retry-After``. The wait is random."""
SHORTEST_WAIT, LONGEST_WAIT = 0.1, 3600.0
"""The bounds, in seconds, of a wait after 429 or 503."""
SHORT_WAIT = 60.0
"""The most seconds in ``Retry-After`` for a 429 that is about the last second, and not about the day."""

_BROKEN_CONNECTIONS = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)


@dataclass(frozen=True)
class Answer:
    """The answer to a GET.

    :param content: the parsed JSON.
    :param total: the number of all records (``X-Total-Count``); ``None`` unless the request asked for it.
    :param date: the time of the answer by the server's clock, in whole seconds; ``None`` if it has no date.
    """

    content: Any
    total: int | None
    date: datetime | None


@dataclass(frozen=True)
class _TooManyRequests:
    """429: the account's requests of this second are used up.

    :param retry_after: seconds that the API asks to wait; ``None`` if it does not say.
    """

    retry_after: float | None


@dataclass(frozen=True)
class _ServiceUnavailable:
    """503: the API can't answer now.

    :param retry_after: seconds that the API asks to wait; ``None`` if it does not say.
    """

    retry_after: float | None


@dataclass(frozen=True)
class _TransientFailure:
    """No usable answer, for a reason that may pass within seconds.

    :param reason: for the log.
    :param error: what to raise when the quick retries are used up.
    """

    reason: str
    error: InsightlyAPIError


_Outcome: TypeAlias = Answer | _TooManyRequests | _ServiceUnavailable | _TransientFailure | InsightlyAPIError
"""The outcome of one request. An error is final: the request is not repeated, because that would not help."""


class Client:
    """Sends requests to the API of one account. Several threads may use it at once.

    :param conn_id: the connection's id, for errors and logs.
    :param exact_numbers: whether a number that Python would write differently is an ``ExactNumber``.
    :ivar session: the session of the requests; it authenticates them and keeps connections.
    :ivar limiter: the limiter that all clients of the account share in this process.
    :ivar requests_made: the number of requests that were sent.
    """

    def __init__(self, conn_id: str, account: Account, log: Logger, *, exact_numbers: bool = False) -> None:
        self.conn_id = conn_id
        self.account = account
        self.limiter = limiter_for(account.base_url, account.api_key)
        self.limiter.configure(account.requests_per_second, account.requests_per_day)
        self.session = requests.Session()
        self._adapter = LimitedAdapter(account.answer_timeout)
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, self._adapter)
        self.session.auth = (account.api_key, "")
        self.session.headers.update(
            {"Accept": "application/json", "User-Agent": f"airflow-insightly-hooks/{__version__}"}
        )
        for proxy in requests.utils.get_environ_proxies(account.base_url).values():
            mask_user_information(proxy)
        self.requests_made = 0
        self._counting = threading.Lock()
        self._closed = threading.Event()
        self._log = log
        self._exact_numbers = exact_numbers
        self._clock = ServerClock()

    def server_time(self) -> datetime | None:
        """Return the time by the server's clock, never ahead of it; ``None`` without a recent answer."""
        return self._clock.time(time.monotonic(), datetime.now(timezone.utc))

    def answers_wanted(self) -> int:
        """Return how many more answers are needed to trust the server's time. The caller must get them."""
        return self._clock.answers_wanted(time.monotonic(), datetime.now(timezone.utc))

    def get(
        self,
        path: str,
        parameters: dict[str, Any] | None = None,
        *,
        patience: float,
        quick_retries: int = QUICK_RETRIES,
    ) -> Answer:
        """Return the answer to a GET, and repeat the request where that can help.

        :param path: the path below the base URL; starts with ``/``.
        :param patience: the most seconds to wait in total after 429 and 503.
        :param quick_retries: how often to repeat the request within seconds if there was no usable answer.
        :raises InsightlyAPIError: or one of its subclasses, which ``InsightlyHook`` describes.
        :raises StoppedError: if the client was closed.
        """
        waits = _Waits(patience)
        while True:
            self._wait_while_held(waits)
            match self._ask(path, parameters):
                case Answer() as answer:
                    return answer
                case InsightlyAPIError() as error:
                    raise error from None  # without its cause, which could show the complete URL
                case _TooManyRequests(seconds):
                    self.limiter.hold(waits.after_refusal(seconds))  # for all threads
                    continue
                case _ServiceUnavailable(seconds):
                    delay, why = waits.after_refusal(seconds), "it answered 503"
                    if not waits.may_wait(delay):
                        raise InsightlyUnreachable(self.conn_id, self.account.host, 503)
                case _TransientFailure(why, error):
                    if waits.failures >= quick_retries:
                        raise error from None
                    delay = waits.after_failure()
            self._log.info("Asking %s again in %.1f s: %s", path, delay, why)
            self._wait(delay)

    def close(self) -> None:
        """End the current requests and waits of all threads, and refuse further requests."""
        self._closed.set()
        self._adapter.end_connections()

    def _wait(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise StoppedError

    def _wait_while_held(self, waits: _Waits) -> None:
        """Wait as long as the latest 429 asked, even if another thread got it."""
        while (delay := self.limiter.held()) > 0:
            if not waits.may_wait(delay):
                raise InsightlyRateLimitError(self.conn_id, day_is_spent=False, host=self.account.host)
            self._log.info("Insightly answered 429: asking again in %.1f s", delay)
            self._wait(delay)

    def _ask(self, path: str, parameters: dict[str, Any] | None) -> _Outcome:
        """Send one request when the rate limit allows it, and return its outcome."""
        if (spent := self.limiter.take()) is not None:
            return self._spent(spent)
        if self._closed.is_set():
            raise StoppedError
        with self._counting:
            self.requests_made += 1
        sent_at = time.monotonic()
        body = b""
        try:
            with self.session.get(
                self.account.base_url + path,
                params=parameters,
                timeout=self.account.timeout,
                allow_redirects=False,
                stream=True,
            ) as response:
                if response.status_code == 200:  # of other answers, only status and headers are used
                    body = read_body(response, self.account.max_answer_bytes)
        except AddressRefused as refusal:
            raise InvalidConnection(self.conn_id, "host", str(refusal)) from None
        except AnswerTooLarge:
            limit = self.account.max_answer_bytes
            return self._unexpected(path, f"at most {limit} bytes were expected (max_answer_bytes)", 200)
        except (OSError, ValueError, HTTPError) as error:  # the errors of requests are OSErrors
            if self._closed.is_set():
                raise StoppedError from None
            return self._no_answer(error, path)
        self._read_headers(response, sent_at)
        status = response.status_code
        if status == 200:
            return self._answer(response, body, path)
        if status == 429:
            return self._too_many_requests(response)
        if status == 503:
            return _ServiceUnavailable(_asked_wait(response))
        if status >= 500:
            unreachable = InsightlyUnreachable(self.conn_id, self.account.host, status)
            return _TransientFailure(f"it answered {status}", unreachable)
        if status in (401, 403, 404, 405):
            return InsightlyAccessError(self.conn_id, self.account.base_url, path, status)
        return self._unexpected(path, "200 was expected", status)

    def _read_headers(self, response: requests.Response, sent_at: float) -> None:
        """Read the server's clock and the day's counts from the headers; warn if few requests are left."""
        headers = response.headers
        date = http_date(headers.get("Date"))
        if date is not None:
            self._clock.answered(date, sent_at, time.monotonic())
        few_left = self.limiter.answered(
            date,
            limit=whole_number(headers.get("X-RateLimit-Limit")),
            remaining=whole_number(headers.get("X-RateLimit-Remaining")),
        )
        if few_left is not None:
            self._log.warning(
                "Connection %r: %d of %d requests to Insightly %s left until %s UTC",
                self.conn_id,
                few_left.left,
                few_left.total,
                "is" if few_left.left == 1 else "are",
                f"{few_left.resets_at:%Y-%m-%d %H:%M}",
            )

    def _no_answer(self, error: Exception, path: str) -> _Outcome:
        """Return the outcome of a request that got no complete answer; it says whether to send it again."""
        if any(isinstance(cause, AnswerTooSlow) for cause in causes(error)):
            seconds = self.account.answer_timeout
            return self._unexpected(
                path, f"a complete answer was expected within {seconds:g} s (answer_timeout)"
            )
        if isinstance(error, _BROKEN_CONNECTIONS):
            reason = _reason(error, self.account.timeout)
            unreachable = InsightlyUnreachable(self.conn_id, self.account.host, reason)
            return _TransientFailure(reason, unreachable)
        # The text of a requests error can hold the complete URL, so only its class is shown.
        reason = f"{type(error).__name__} while asking"
        unexpected = self._unexpected(path, reason)
        if isinstance(error, requests.exceptions.ContentDecodingError):
            return _TransientFailure(reason, unexpected)
        return unexpected

    def _answer(self, response: requests.Response, body: bytes, path: str) -> _Outcome:
        """Return the answer of a 200; a failure that may pass if it isn't JSON."""
        try:
            encoding = response.encoding or json.detect_encoding(body)
            content = exact_json.loads(body.decode(encoding, errors="replace"), exact=self._exact_numbers)
        except (ValueError, LookupError, RecursionError):  # it may have been cut off on its way
            unexpected = self._unexpected(path, "JSON was expected", response.status_code)
            return _TransientFailure("the answer is not JSON", unexpected)
        headers = response.headers
        return Answer(content, whole_number(headers.get("X-Total-Count")), http_date(headers.get("Date")))

    def _too_many_requests(self, response: requests.Response) -> _Outcome:
        """Return whether a 429 is about the last second, or about the day."""
        seconds = _asked_wait(response)
        nothing_left = whole_number(response.headers.get("X-RateLimit-Remaining")) == 0
        if nothing_left and (seconds is None or seconds > SHORT_WAIT):
            return self._spent(self.limiter.refuse_day())
        return _TooManyRequests(seconds)

    def _spent(self, spent: Spent) -> InsightlyRateLimitError:
        return InsightlyRateLimitError(self.conn_id, True, spent.resets_at, spent.share, self.account.host)

    def _unexpected(self, path: str, expected: str, status: int | None = None) -> InsightlyAPIError:
        return InsightlyAPIError(self.conn_id, path, expected, status, self.account.base_url)


class _Waits:
    """Count the failures of one request, and the seconds that it may still wait."""

    def __init__(self, patience: float) -> None:
        self.failures = 0
        self._refusals = 0
        self._patience = patience

    def after_failure(self) -> float:
        """Return the seconds before the next quick retry."""
        longest = QUICK_DELAY * 2**self.failures
        self.failures += 1
        return random.uniform(longest / 2, longest)

    def after_refusal(self, seconds: float | None) -> float:
        """Return the seconds to wait after a 429 or 503.

        :param seconds: the seconds that the API asks to wait. If the first wait did not help, a later one can
            be longer. ``None`` if it asks for none.
        """
        backoff = random.uniform(0, min(BACKOFF * 2**self._refusals, LONGEST_BACKOFF))
        self._refusals += 1
        if seconds is not None and self._refusals == 1:
            backoff = 0.0
        return min(max(seconds or 0.0, backoff, SHORTEST_WAIT), LONGEST_WAIT)

    def may_wait(self, seconds: float) -> bool:
        """Return whether the request may wait so long, and subtract the wait from its patience."""
        if seconds > self._patience:
            return False
        self._patience -= seconds
        return True


def _asked_wait(response: requests.Response) -> float | None:
    """Return the seconds that ``Retry-After`` asks to wait; the answer's date counts as now if it has one."""
    now = http_date(response.headers.get("Date")) or datetime.now(timezone.utc)
    return retry_after(response.headers.get("Retry-After"), now)


def _reason(error: BaseException, timeout: float) -> str:
    """Return why a request got no answer. The error's own text is left out: it can hold the complete URL."""
    if isinstance(error, requests.Timeout):
        return f"no answer within {timeout:g} s"
    for cause in causes(error):
        if isinstance(cause, socket.gaierror):
            return own_look_up_fault(cause) or UNKNOWN_HOST
        if isinstance(cause, OSError) and (lack := own_fault(cause)):
            return lack
        if reason := tls_reason(cause):
            return reason
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
    return "the connection broke"

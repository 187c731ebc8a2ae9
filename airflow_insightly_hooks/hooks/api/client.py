"""One authenticated GET to Insightly's API: its turn, its retries, what its answer says."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import requests

from airflow_insightly_hooks.hooks.api.account import Account
from airflow_insightly_hooks.hooks.api.api_errors import (
    UNKNOWN_HOST,
    InsightlyAccessError,
    InsightlyAPIError,
    InsightlyRateLimitError,
    InsightlyUnreachable,
)
from airflow_insightly_hooks.hooks.api.limiter import Spent, limiter_for
from airflow_insightly_hooks.hooks.connection_failures import causes, tls_reason
from airflow_insightly_hooks.hooks.header_values import http_date, retry_after, whole_number
from airflow_insightly_hooks.version import __version__

if TYPE_CHECKING:
    from airflow.sdk.types import Logger

__all__ = ["Answer", "Client"]

QUICK_RETRIES = 3
"""How often a GET that got no usable answer is repeated within seconds."""
QUICK_DELAY = 0.5
"""Seconds before the first of them, half of it by chance; each time twice as many."""
BACKOFF, LONGEST_BACKOFF = 1.0, 60.0
"""Seconds of the first and the longest wait, all of it by chance, where the API does not say how long."""
SHORTEST_WAIT, LONGEST_WAIT = 0.1, 3600.0
"""The bounds, in seconds, of what ``Retry-After`` may ask."""
SHORT_WAIT = 60.0
"""Up to so many seconds in ``Retry-After``, a 429 is about the last second, not about the day."""
CLOCK_VALID_FOR = 300.0
"""Seconds for which a reading of the server's clock is carried on by our own monotonic one."""


@dataclass(frozen=True)
class Answer:
    """What a GET was answered.

    :param content: the parsed JSON.
    :param total: how many records there are in all (``X-Total-Count``); ``None`` unless it was asked for.
    :param date: when it was answered, by the server's clock, to the second; ``None`` if it doesn't say.
    """

    content: Any
    total: int | None
    date: datetime | None


class Client:
    """Asks the API of one account; several threads may do so at once.

    :param conn_id: names the connection in errors and logs.
    :ivar session: what the requests go through: authenticated, connections kept.
    :ivar limiter: what all clients of the account in this process share.
    :ivar requests_made: how many requests were sent.
    """

    def __init__(self, conn_id: str, account: Account, log: Logger) -> None:
        self.conn_id = conn_id
        self.account = account
        self.limiter = limiter_for(account.base_url, account.api_key)
        self.limiter.configure(account.requests_per_second, account.requests_per_day)
        self.session = requests.Session()
        self.session.auth = (account.api_key, "")
        self.session.headers.update(
            {"Accept": "application/json", "User-Agent": f"airflow-insightly-hooks/{__version__}"}
        )
        self.requests_made = 0
        self._counting = threading.Lock()
        self._log = log
        self._clock: tuple[datetime, float] | None = None

    def server_time(self) -> datetime | None:
        """Return the time by the server's clock, never ahead of it; ``None`` if it was not read lately."""
        if self._clock is None:
            return None
        date, read_at = self._clock
        since = time.monotonic() - read_at
        return date + timedelta(seconds=since) if since <= CLOCK_VALID_FOR else None

    def get(self, path: str, parameters: dict[str, Any] | None = None, *, patience: float) -> Answer:
        """Return what a GET is answered; ask again where asking again can help.

        :param path: below the base URL; starts with ``/``.
        :param patience: seconds to wait in all for 429s and 503s to end.
        :raises InsightlyAPIError: of the classes that ``InsightlyHook`` describes.
        """
        waits = _Waits(patience)
        while True:
            self._wait_while_held(waits)
            try:
                response = self._ask(path, parameters)
                if response.status_code == 200:
                    return self._answer(response, path)
                if response.status_code == 429:
                    self.limiter.hold(self._told(response, waits))
                    continue
                if response.status_code != 503:
                    raise self._refusal(response, path)
                delay, why = self._told(response, waits), "it answered 503"
                if not waits.may_wait(delay):
                    raise InsightlyUnreachable(self.conn_id, self.account.host, 503)
            except _Failure as failure:
                if waits.failures >= QUICK_RETRIES:
                    raise failure.error from None
                delay, why = waits.after_failure(), str(failure)
            self._log.info("Asking %s again in %.1f s: %s", path, delay, why)
            time.sleep(delay)

    def _wait_while_held(self, waits: _Waits) -> None:
        """Wait as the latest 429 asks, whichever thread it was that got it."""
        while (delay := self.limiter.held()) > 0:
            if not waits.may_wait(delay):
                raise InsightlyRateLimitError(self.conn_id, day_is_spent=False)
            self._log.info("Insightly answered 429; asking again in %.1f s", delay)
            time.sleep(delay)

    def _ask(self, path: str, parameters: dict[str, Any] | None) -> requests.Response:
        """Send one request when it is its turn, and take account of what the headers say.

        :raises _Failure: if there is no answer, and asking again may help.
        """
        if (spent := self.limiter.take()) is not None:
            raise self._spent(spent)
        with self._counting:
            self.requests_made += 1
        timeout = self.account.timeout
        try:
            response = self.session.get(
                self.account.base_url + path, params=parameters, timeout=timeout, allow_redirects=False
            )
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ) as error:
            reason = _reason(error, timeout)
            unreachable = InsightlyUnreachable(self.conn_id, self.account.host, reason)
            raise _Failure(unreachable, reason) from None
        except requests.RequestException as error:
            # The text of a requests error can hold the whole URL: only its class is told.
            why = f"{type(error).__name__} while asking"
            unexpected = self._unexpected(path, why)
            if isinstance(error, requests.exceptions.ContentDecodingError):
                raise _Failure(unexpected, why) from None
            raise unexpected from None
        self._read(response)
        return response

    def _read(self, response: requests.Response) -> None:
        headers = response.headers
        date = http_date(headers.get("Date"))
        if date is not None:
            self._clock = date, time.monotonic()
        few_left = self.limiter.answered(
            date,
            limit=whole_number(headers.get("X-RateLimit-Limit")),
            remaining=whole_number(headers.get("X-RateLimit-Remaining")),
        )
        if few_left is not None:
            self._log.warning(
                "Connection %r: %d of %d requests to Insightly are left until %s UTC",
                self.conn_id,
                few_left.left,
                few_left.total,
                f"{few_left.resets_at:%Y-%m-%d %H:%M}",
            )

    def _answer(self, response: requests.Response, path: str) -> Answer:
        try:
            content = response.json()
        except (ValueError, RecursionError):  # it may have been cut on its way
            unexpected = self._unexpected(path, "JSON was expected", response.status_code)
            raise _Failure(unexpected, "the answer is no JSON") from None
        headers = response.headers
        return Answer(content, whole_number(headers.get("X-Total-Count")), http_date(headers.get("Date")))

    def _told(self, response: requests.Response, waits: _Waits) -> float:
        """Return how long to wait after a 429 or 503.

        :raises InsightlyRateLimitError: if it is the day that is spent.
        """
        headers = response.headers
        now = http_date(headers.get("Date")) or datetime.now(timezone.utc)
        told = retry_after(headers.get("Retry-After"), now)
        nothing_left = whole_number(headers.get("X-RateLimit-Remaining")) == 0
        if response.status_code == 429 and nothing_left and (told is None or told > SHORT_WAIT):
            raise self._spent(self.limiter.refuse_day())
        return waits.after_refusal(told)

    def _spent(self, spent: Spent) -> InsightlyRateLimitError:
        return InsightlyRateLimitError(self.conn_id, True, spent.resets_at, spent.share)

    def _refusal(self, response: requests.Response, path: str) -> Exception:
        status = response.status_code
        if status in (401, 403, 404, 405):
            return InsightlyAccessError(self.conn_id, self.account.base_url, path, status)
        if status >= 500:
            unreachable = InsightlyUnreachable(self.conn_id, self.account.host, status)
            return _Failure(unreachable, f"it answered {status}")
        return self._unexpected(path, "200 was expected", status)

    def _unexpected(self, path: str, expected: str, status: int | None = None) -> InsightlyAPIError:
        return InsightlyAPIError(self.conn_id, path, expected, status)


class _Failure(Exception):
    """A request has failed in a way that may pass; ``error`` is what to raise if it doesn't."""

    def __init__(self, error: InsightlyAPIError, why: str) -> None:
        super().__init__(why)
        self.error = error


class _Waits:
    """How often one request was put off, and how long it may still wait."""

    def __init__(self, patience: float) -> None:
        self.failures = 0
        self._refusals = 0
        self._patience = patience

    def after_failure(self) -> float:
        """Return the seconds before the next quick retry."""
        longest = QUICK_DELAY * 2**self.failures
        self.failures += 1
        return random.uniform(longest / 2, longest)

    def after_refusal(self, told: float | None) -> float:
        """Return the seconds to wait after a 429 or 503: as told, and longer where that has not helped."""
        backoff = random.uniform(0, min(BACKOFF * 2**self._refusals, LONGEST_BACKOFF))
        self._refusals += 1
        if told is not None and self._refusals == 1:
            backoff = 0.0
        return min(max(told or 0.0, backoff, SHORTEST_WAIT), LONGEST_WAIT)

    def may_wait(self, seconds: float) -> bool:
        """Spend so much of the patience, if it is left."""
        if seconds > self._patience:
            return False
        self._patience -= seconds
        return True


def _reason(error: BaseException, timeout: float) -> str:
    """Return why a request got no answer, without the error's own text, which can hold the whole URL."""
    if isinstance(error, requests.Timeout):
        return f"no answer within {timeout:g} s"
    if "NameResolutionError" in repr(error):
        return UNKNOWN_HOST
    for cause in causes(error):
        if reason := tls_reason(cause):
            return reason
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
    return "the connection broke"

"""Insightly's REST API v3.1, for reading."""

from __future__ import annotations

import base64
import math
import re
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pendulum
import requests
from airflow.sdk import BaseHook
from airflow.sdk.log import mask_secret

from airflow_insightly_hooks import __version__
from airflow_insightly_hooks.core.dates import format_api_time
from airflow_insightly_hooks.core.errors import InvalidConnection
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.hooks.causes import causes, tls_reason
from airflow_insightly_hooks.hooks.errors import (
    UNKNOWN_HOST,
    InsightlyAccessError,
    InsightlyAPIError,
    InsightlyRateLimitError,
    InsightlyUnreachable,
)
from airflow_insightly_hooks.hooks.extras import Extras
from airflow_insightly_hooks.hooks.pace import Pace

if TYPE_CHECKING:
    from airflow.sdk import Connection

__all__ = ["InsightlyHook", "records_page"]

EXTRAS = ("api_version", "timeout", "requests_per_second")
LARGEST_PAGE = 500
QUICK_RETRIES = 3
RATE_LIMIT_PATIENCE = 120.0
"""Seconds that a hook waits in all for 429s to end before it gives up on a request."""
CLOCK_VALID_FOR = 300.0
"""Seconds for which a reading of the server's clock is carried on by our own monotonic one."""

_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_BASE_URL = re.compile(
    rf"https?://({_LABEL}(\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{{1,5}}))?(/[\w.\-/]*)?",
    re.ASCII,
)


class InsightlyHook(BaseHook):
    """Reads records of an Insightly account.

    :param insightly_conn_id: an Airflow connection of type ``insightly``: password or login is the API
        key; host the pod (``na1``) or a base URL; extra ``api_version`` (``v3.1``), ``timeout`` (30,
        seconds) and ``requests_per_second`` (10, Insightly's limit).

    Every method that asks the API raises:

    :raises InvalidConnection: if the connection can't be used.
    :raises InsightlyUnreachable: if there is no answer after three quick retries.
    :raises InsightlyAccessError: on 401, 403, 404 and 405; it fails a task without a retry.
    :raises InsightlyRateLimitError: on 429 for two minutes, or when the day's quota is spent.
    :raises InsightlyAPIError: on any other answer that is none of the documented ones.
    """

    conn_name_attr = "insightly_conn_id"
    default_conn_name = "insightly_default"
    conn_type = "insightly"
    hook_name = "Insightly"

    def __init__(self, insightly_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.insightly_conn_id = insightly_conn_id
        self.requests_made = 0
        self._clock: tuple[datetime, float] | None = None

    @cached_property
    def _settings(self) -> _Settings:
        return _Settings(self.get_connection(self.insightly_conn_id))

    @cached_property
    def _session(self) -> requests.Session:
        session = requests.Session()
        session.auth = (self._settings.api_key, "")
        session.headers.update(
            {"Accept": "application/json", "User-Agent": f"airflow-insightly-hooks/{__version__}"}
        )
        return session

    @property
    def base_url(self) -> str:
        """The API's address, such as ``https://api.na1.insightly.com/v3.1``."""
        return self._settings.base_url

    def get_conn(self) -> requests.Session:
        """Return the session that the hook's requests go through: authenticated, connections kept."""
        return self._session

    def iter_records(
        self,
        record_type: str,
        updated_after: datetime | str | None = None,
        page_size: int = LARGEST_PAGE,
        **search: Any,
    ) -> Iterator[dict[str, Any]]:
        """Yield records page by page, in the order the API gives them.

        :param record_type: a name of ``RECORD_TYPES``, or a custom object's (``Name__c``).
        :param updated_after: ask only for records updated later; a time, or its text for the API.
        :param page_size: how many a request asks for, 1 to 500.
        :param search: further parameters of the search: ``field_name`` with ``field_value``, ``brief``.
        :raises UnknownRecordType: if there is no such record type.
        :raises ValueError: if a parameter is none, or out of range; before anything is asked.
        """
        kind = RECORD_TYPES[record_type]
        parameters = _search_parameters(page_size, updated_after, search)
        return self._pages(kind.path, kind.id_field, parameters)

    def _pages(self, path: str, id_field: str, parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
        skip = 0
        before: list[int] = []
        while True:
            page = self._get(f"{path}/Search", {**parameters, "skip": skip})
            if not isinstance(page, list) or not all(
                isinstance(r, dict) and isinstance(r.get(id_field), int) for r in page
            ):
                raise self._unexpected(path, f"a list of records with {id_field} was expected")
            if not page:  # a short page may have been cut by a limit of the server's own
                return
            ids = [record[id_field] for record in page]
            if ids == before:
                raise self._unexpected(path, "the next page was expected, not the same one again")
            before = ids
            yield from page
            skip += len(page)

    def get_record(self, record_type: str, record_id: int) -> dict[str, Any]:
        """Return one record.

        :raises UnknownRecordType: if there is no such record type.
        """
        path = f"{RECORD_TYPES[record_type].path}/{int(record_id)}"
        record = self._get(path)
        if not isinstance(record, dict):
            raise self._unexpected(path, "a record was expected")
        return record

    def custom_fields(self, record_type: str) -> list[dict[str, Any]]:
        """Return the metadata of a record type's custom fields: ``FIELD_NAME``, ``FIELD_TYPE`` and so on.

        :raises UnknownRecordType: if there is no such record type.
        """
        path = f"/CustomFields/{RECORD_TYPES[record_type].name}"
        fields = self._get(path)
        if not isinstance(fields, list):
            raise self._unexpected(path, "a list of custom fields was expected")
        return fields

    def server_time(self) -> pendulum.DateTime:
        """Return the time by the API server's clock, to the second and never ahead of it.

        It comes from the ``Date`` header of the latest answer, carried on by a monotonic clock for five
        minutes; without one, a small request is made.

        :raises InsightlyAPIError: if the server sends no date.
        """
        if self._clock is None or time.monotonic() - self._clock[1] > CLOCK_VALID_FOR:
            self._get("/Instance")
        if self._clock is None:
            raise self._unexpected("/Instance", "a Date header was expected")
        date, read_at = self._clock
        return pendulum.instance(date + timedelta(seconds=time.monotonic() - read_at))

    def test_connection(self) -> tuple[bool, str]:
        """Return whether the connection works, and a sentence for the person who pressed the button."""
        try:
            instance = self._get("/Instance")
        except Exception as error:  # Airflow shows the text; nothing may be raised here
            return False, str(error)
        name = instance.get("INSTANCE_NAME") if isinstance(instance, dict) else None
        return True, f"Connected to Insightly account {name!r}" if name else "Connected to Insightly"

    # --- one request ------------------------------------------------------------------------------------

    def _get(self, path: str, parameters: dict[str, Any] | None = None) -> Any:
        """Return the JSON that a GET answers; ask again where asking again can help."""
        failures = 0
        waited = 0.0
        while True:
            response = self._ask(path, parameters)
            status = response if isinstance(response, str) else response.status_code
            if isinstance(response, str) or response.status_code >= 500:
                failures += 1
                if failures > QUICK_RETRIES:
                    raise InsightlyUnreachable(self.insightly_conn_id, self._settings.host, status)
                delay = 0.5 * 2 ** (failures - 1)
            elif response.status_code == 200:
                return self._json(response, path)
            elif response.status_code == 429:
                delay = self._delay_after_429(response, waited)
                waited += delay
            else:
                raise self._refusal(response, path)
            time.sleep(delay)

    def _ask(self, path: str, parameters: dict[str, Any] | None) -> requests.Response | str:
        """Return the response, or why there is none."""
        settings = self._settings
        settings.pace.wait()
        self.requests_made += 1
        try:
            response = self._session.get(
                settings.base_url + path,
                params=parameters,
                timeout=settings.timeout,
                allow_redirects=False,
            )
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ) as error:
            return _reason(error, settings.timeout)
        except requests.RequestException as error:
            # The text of a requests error can hold the whole URL: only its class is told.
            raise self._unexpected(path, f"{type(error).__name__} while asking") from None
        self._read_clock(response)
        return response

    def _read_clock(self, response: requests.Response) -> None:
        try:
            self._clock = parsedate_to_datetime(response.headers["Date"]), time.monotonic()
        except (KeyError, TypeError, ValueError, OverflowError):
            return

    def _json(self, response: requests.Response, path: str) -> Any:
        try:
            return response.json()
        except ValueError:
            raise self._unexpected(path, "JSON was expected", response.status_code) from None

    def _delay_after_429(self, response: requests.Response, waited: float) -> float:
        told = _seconds(response.headers.get("Retry-After"))
        if told is None and response.headers.get("X-RateLimit-Remaining") == "0":
            raise InsightlyRateLimitError(self.insightly_conn_id, day_is_spent=True)
        delay = max(told if told is not None else 1.0, 0.1)
        if waited + delay > RATE_LIMIT_PATIENCE:
            raise InsightlyRateLimitError(self.insightly_conn_id, day_is_spent=False)
        return delay

    def _refusal(self, response: requests.Response, path: str) -> InsightlyAPIError:
        status = response.status_code
        if status in (401, 403, 404, 405):
            return InsightlyAccessError(self.insightly_conn_id, self.base_url, path, status)
        return self._unexpected(path, "200 was expected", status)

    def _unexpected(self, path: str, expected: str, status: int | None = None) -> InsightlyAPIError:
        return InsightlyAPIError(self.insightly_conn_id, path, expected, status)


class _Settings:
    """What a connection of type ``insightly`` says."""

    def __init__(self, connection: Connection) -> None:
        extras = Extras(connection, EXTRAS)
        self.api_key = _api_key(connection)
        version = extras.text("api_version", "v3.1")
        if not re.fullmatch(r"v\d+(\.\d+)?", version):
            raise extras.invalid("api_version", "a version such as 'v3.1' is needed")
        self.base_url = base_url(connection, version)
        self.host = re.split(r"://|/", self.base_url)[1]
        self.timeout = extras.number("timeout", 30, at_least=0.1)
        self.pace = Pace(extras.number("requests_per_second", 10, at_least=0.01))


def _api_key(connection: Connection) -> str:
    """Return the API key: the password, which Airflow encrypts and masks, or the login, which it doesn't.

    :raises InvalidConnection: if there is none, or two, or what can be none.
    """
    conn_id = connection.conn_id
    login, password = (connection.login or "").strip(), (connection.password or "").strip()
    if login and password:
        raise InvalidConnection(conn_id, "login", "an API key stands here and in the password: give one")
    key = login or password
    field = "login" if login else "password"
    if not key:
        raise InvalidConnection(conn_id, field, "the API key is needed (Insightly: User Settings > API)")
    if not key.isascii() or not key.isprintable() or ":" in key:
        raise InvalidConnection(conn_id, field, "an API key has printable ASCII characters and no ':'")
    mask_secret(key)
    mask_secret(base64.b64encode(f"{key}:".encode()).decode())
    return key


def base_url(connection: Connection, version: str = "v3.1") -> str:
    """Return the API's base URL that a connection names.

    The one rule: a host with ``://`` is the whole base URL, its version included; a bare label without
    schema and port is a pod (``na1``); anything else is a host name, to which schema (``https``), port and
    version are added.

    :raises InvalidConnection: if it names none.
    """
    conn_id, host = connection.conn_id, (connection.host or "").strip().rstrip("/")
    if not host:
        raise InvalidConnection(
            conn_id, "host", "the pod is needed, such as 'na1' (Insightly: User Settings > API)"
        )
    if "://" in host:
        if connection.schema or connection.port:
            raise InvalidConnection(conn_id, "host", "it is a whole URL: leave schema and port empty")
        url = host
    elif (
        re.fullmatch(r"[a-z0-9]+", host)
        and not connection.schema
        and not connection.port
        and host != "localhost"
    ):
        url = f"https://api.{host}.insightly.com/{version}"
    else:
        port = f":{connection.port}" if connection.port else ""
        url = f"{connection.schema or 'https'}://{host}{port}/{version}"
    match = _BASE_URL.fullmatch(url)
    if match is None or not 0 < int(match["port"] or 443) < 65536:
        raise InvalidConnection(
            conn_id, "host", "a pod, a host name or an http(s) URL without user information is needed"
        )
    return url


def records_page(insightly_conn_id: str, record_type: str) -> str:
    """Return the address of the page that lists a record type in Insightly.

    For an account on a pod it is that of Insightly's own screens, as people see it there
    (``https://crm.na1.insightly.com/list/Contact/``); for another base URL the API's list.

    :raises InvalidConnection: if the connection can't be used.
    :raises UnknownRecordType: if there is no such record type.
    """
    hook = InsightlyHook(insightly_conn_id)
    kind = RECORD_TYPES[record_type]
    pod = re.match(r"https://api\.([a-z0-9]+)\.insightly\.com/", hook.base_url)
    return f"https://crm.{pod[1]}.insightly.com/list/{kind.title}/" if pod else hook.base_url + kind.path


def _search_parameters(
    page_size: int, updated_after: datetime | str | None, search: dict[str, Any]
) -> dict[str, Any]:
    if not 1 <= page_size <= LARGEST_PAGE:
        raise ValueError(f"page_size must be 1 to {LARGEST_PAGE}, not {page_size}")
    if unknown := sorted(set(search) - {"field_name", "field_value", "brief"}):
        raise ValueError(f"Insightly's search has no parameter {', '.join(unknown)}")
    if ("field_name" in search) != ("field_value" in search):
        raise ValueError("field_name and field_value go together")
    parameters = {"top": page_size, **search}
    if "brief" in search:
        parameters["brief"] = "true" if search["brief"] else "false"
    if updated_after is not None:
        parameters["updated_after_utc"] = (
            updated_after if isinstance(updated_after, str) else format_api_time(updated_after)
        )
    return parameters


def _seconds(retry_after: str | None) -> float | None:
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


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

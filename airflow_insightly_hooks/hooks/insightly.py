"""Read records through Insightly's REST API v3.1."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import pendulum
import requests
from airflow.sdk import BaseHook

from airflow_insightly_hooks.core.dates import format_api_time
from airflow_insightly_hooks.core.detection.scan import PageRequest, Scan
from airflow_insightly_hooks.core.digest import digest_of
from airflow_insightly_hooks.core.records import RECORD_TYPES, RecordType, is_record_id
from airflow_insightly_hooks.hooks.api.account import Account
from airflow_insightly_hooks.hooks.api.api_errors import InsightlyAPIError
from airflow_insightly_hooks.hooks.api.client import QUICK_RETRIES, Answer, Client
from airflow_insightly_hooks.hooks.api.limiter import RequestsLeft
from airflow_insightly_hooks.hooks.connection_extras import check_type
from airflow_insightly_hooks.hooks.hints import for_a_test

__all__ = ["InsightlyHook", "SearchPage", "record_page", "records_page"]

LARGEST_PAGE = 500


class SearchPage(NamedTuple):
    """A page of a search.

    :param records: the records that no earlier page has had, as the API delivers them.
    :param answered: all records of the page, as they were given to the scan.
    :param total: the number of all records; ``None`` if the answer does not tell.
    :param date: the time of the answer by the server's clock; ``None`` if it is unknown.
    """

    records: list[dict[str, Any]]
    answered: list[dict[str, Any]]
    total: int | None
    date: datetime | None


class InsightlyHook(BaseHook):
    """Reads records of an Insightly account.

    :param insightly_conn_id: the id of an Airflow connection of type ``insightly``. Its password or login is
        the API key. Its host is the pod (``na1``) or a base URL. The reference lists the fields of its extra.
    :param exact_numbers: whether a number that Python would write differently (``1.10``) becomes an
        ``ExactNumber``, which is a float that keeps its text, and not a plain float. XComs can't hold
        ``ExactNumber``.
    :ivar patience: the most seconds that a request may wait in total after 429 and 503.
    :ivar quick_retries: how often a request without a usable answer is sent again within seconds.

    Several threads may use it at once. All hooks of a process that read the same account share its limits.

    The errors below can come from every method that sends requests to the API.

    :raises InvalidConnection: if the connection can't be used.
    :raises InsightlyUnreachable: if there is no answer after three quick retries, or 503 for too long.
    :raises InsightlyAccessError: on 401, 403, 404 and 405; it fails a task without a retry.
    :raises InsightlyRateLimitError: on 429 for too long, or when today's requests are used up.
    :raises InsightlyAPIError: on any other unexpected answer.
    """

    conn_name_attr = "insightly_conn_id"
    default_conn_name = "insightly_default"
    conn_type = "insightly"
    hook_name = "Insightly"

    patience: float = 120.0
    quick_retries: int = QUICK_RETRIES

    def __init__(self, insightly_conn_id: str = default_conn_name, *, exact_numbers: bool = False) -> None:
        super().__init__()
        self.insightly_conn_id = insightly_conn_id
        self.exact_numbers = exact_numbers
        self._opened: Client | None = None
        self._opening = threading.Lock()

    @property
    def _client(self) -> Client:
        with self._opening:  # all threads share one client, which counts the requests
            if self._opened is None:
                connection = self.get_connection(self.insightly_conn_id)
                check_type(connection, self.conn_type, self.log)
                self._opened = Client(
                    self.insightly_conn_id, Account(connection), self.log, exact_numbers=self.exact_numbers
                )
            return self._opened

    @property
    def base_url(self) -> str:
        """The API's address, such as ``https://api.na1.insightly.com/v3.1``."""
        return self._client.account.base_url

    def get_conn(self) -> requests.Session:
        """Return the session of the hook's requests. It authenticates them and keeps connections."""
        return self._client.session

    def close(self) -> None:
        """End the current requests of all threads. Later requests raise ``StoppedError``."""
        self._client.close()

    @property
    def requests_made(self) -> int:
        """The number of requests that this hook has sent."""
        return self._opened.requests_made if self._opened else 0

    def spaced(self, interval: float, requests: int = 1) -> float:
        """Return the seconds to leave between two polls, so that the day's requests last until the day ends.

        :param interval: the least seconds between two polls. It is returned if there are enough requests.
        :param requests: the requests in each interval: those of one poll, times the number of parallel polls.
        :raises InvalidConnection: if the connection can't be used.
        """
        return self._client.limiter.spaced(interval, requests)

    def iter_records(
        self,
        record_type: str,
        updated_after: datetime | str | None = None,
        page_size: int = LARGEST_PAGE,
        **search: Any,
    ) -> Iterator[dict[str, Any]]:
        """Yield records in the API's order, as the API delivers them, each once.

        Some records may have no usable id. A value that is not an object becomes an empty record.

        The search is read to its end, even if records change while it is read. If that isn't possible, an
        error is raised, and the records so far are not all. ``docs/explanation/detection.md`` describes how.

        :param record_type: a name of ``RECORD_TYPES``, or the name of a custom object (``Name__c``).
        :param updated_after: a time, or its text for the API. Only records that were updated later are read;
            ``None`` for all records.
        :param page_size: the number of records in a request, 1 to 500. 1 counts as 2, because pages overlap.
        :param search: other parameters of the search: ``field_name`` with ``field_value``, ``brief``.
        :raises UnknownRecordType: if ``record_type`` is not a known record type.
        :raises ValueError: if a parameter is unknown or out of range; no request was sent.
        :raises IncompleteScan: if too many records change for the search to be read to its end.
        """
        kind = RECORD_TYPES[record_type]
        parameters = _search_parameters(page_size, updated_after, search)
        pages = self._pages(kind, parameters, Scan(kind, max(2, parameters["top"])))
        return (record for page in pages for record in page.records)

    def read_pages(
        self, record_type: str, scan: Scan, updated_after: datetime | None = None
    ) -> Iterator[SearchPage]:
        """Yield the pages that a scan has not read yet; see ``iter_records``.

        :param scan: a scan of the same record type. If it has read some pages, reading continues after them.
        :param updated_after: the same value as for the scan's first page.
        :raises UnknownRecordType: if ``record_type`` is not a known record type.
        :raises IncompleteScan: if too many records change for the search to be read to its end.
        """
        return self._pages(
            RECORD_TYPES[record_type], _search_parameters(scan.page_size, updated_after, {}), scan
        )

    def _pages(self, kind: RecordType, parameters: dict[str, Any], scan: Scan) -> Iterator[SearchPage]:
        ahead: Future[Answer] | None = None
        without_id: dict[object, dict[str, Any]] = {}
        while scan.request is not None:
            answer = ahead.result() if ahead else self._page(kind, parameters, scan.request)
            ahead = None
            content = answer.content
            if not isinstance(content, list) or (content and not any(isinstance(r, dict) for r in content)):
                raise self._unexpected(kind.path, f"a list of records with {kind.id_field} was expected")
            page = list(_with_ids(content, kind.id_field, scan.request.skip, without_id))
            records = scan.feed(page, answer.total, answer.date)
            if scan.request is not None and scan.left > parameters["top"]:
                ahead = _in_background(partial(self._page, kind, parameters, scan.request))
            fresh = [without_id.get(record[kind.id_field], record) for record in records]
            yield SearchPage(fresh, page, answer.total, answer.date)

    def _page(self, kind: RecordType, parameters: dict[str, Any], request: PageRequest) -> Answer:
        asked = {**parameters, "skip": request.skip, "top": request.top}
        if request.count_total:
            asked["count_total"] = "true"
        if request.updated_after is not None:
            asked["updated_after_utc"] = format_api_time(request.updated_after)
        return self._get(f"{kind.path}/Search", asked)

    def count_records(self, record_type: str, updated_after: datetime | None = None) -> int | None:
        """Return how many records a search finds, with one small request; ``None`` if the API doesn't tell.

        :raises UnknownRecordType: if ``record_type`` is not a known record type.
        """
        parameters = _search_parameters(1, updated_after, {"brief": True})
        return self._page(RECORD_TYPES[record_type], parameters, PageRequest(0, 1, count_total=True)).total

    def get_record(self, record_type: str, record_id: int) -> dict[str, Any]:
        """Return one record.

        :raises UnknownRecordType: if ``record_type`` is not a known record type.
        :raises InsightlyAPIError: if the answer is not the record with this id.
        """
        kind = RECORD_TYPES[record_type]
        path = f"{kind.path}/{int(record_id)}"
        record = self._get(path).content
        answered = record.get(kind.id_field) if isinstance(record, dict) else None
        if not isinstance(record, dict) or not is_record_id(answered) or answered != int(record_id):
            raise self._unexpected(path, f"a record with {kind.id_field} {int(record_id)} was expected")
        return record

    def custom_fields(self, record_type: str) -> list[dict[str, Any]]:
        """Return the metadata of a record type's custom fields: ``FIELD_NAME``, ``FIELD_TYPE`` and so on.

        :raises UnknownRecordType: if ``record_type`` is not a known record type.
        """
        path = f"/CustomFields/{RECORD_TYPES[record_type].name}"
        fields = self._get(path).content
        if not isinstance(fields, list) or not all(map(_is_custom_field, fields)):
            raise self._unexpected(path, "a list of custom fields with FIELD_NAME was expected")
        return fields

    def server_time(self) -> pendulum.DateTime:
        """Return the time by the API server's clock, to the second and never ahead of it.

        The time comes from the ``Date`` headers of the answers of the last five minutes. This machine's
        monotonic clock continues it. Without such an answer, a small request is sent. If the answers differ,
        the slowest clock counts. A single answer that is ahead of this machine's clock is not trusted: two
        more requests are sent.

        :raises InsightlyAPIError: if the server sends no date.
        """
        now = self._client.server_time()
        if now is None:
            self._get("/Instance")
            now = self._client.server_time()
        for _ in range(self._client.answers_wanted()):
            self._client.session.close()  # another connection may lead to another server
            self._get("/Instance")
            now = self._client.server_time()
        if now is None:
            raise self._unexpected("/Instance", "a Date header was expected")
        return pendulum.instance(now)

    def account_name(self) -> str | None:
        """Return the account's name, as Insightly shows it; ``None`` if the API doesn't tell it."""
        instance = self._get("/Instance").content
        name = instance.get("INSTANCE_NAME") if isinstance(instance, dict) else None
        return str(name) if name else None

    def check_access(self, record_type: str) -> None:
        """Read one record of a type, and raise ``InsightlyAccessError`` if the key may not read it.

        :raises UnknownRecordType: if ``record_type`` is not a known record type.
        """
        self._get(f"{RECORD_TYPES[record_type].path}/Search", {"top": 1, "brief": "true"})

    def requests_left(self) -> RequestsLeft | None:
        """Return how many requests are left today, as ``left``, ``total`` and ``resets_at``.

        ``None`` if no answer has told it yet.
        """
        return self._client.limiter.requests_left()

    def test_connection(self) -> tuple[bool, str]:
        """Return whether the connection works, and a sentence for the user who tests it."""
        try:
            name = self.account_name()
        except Exception as error:  # Airflow shows the text; nothing may be raised here
            return False, for_a_test(error, self.insightly_conn_id)
        return True, f"Connected to Insightly account {name!r}" if name else "Connected to Insightly"

    def _get(self, path: str, parameters: dict[str, Any] | None = None) -> Answer:
        return self._client.get(path, parameters, patience=self.patience, quick_retries=self.quick_retries)

    def _unexpected(self, path: str, expected: str) -> InsightlyAPIError:
        return InsightlyAPIError(self.insightly_conn_id, path, expected, base_url=self.base_url)


def records_page(insightly_conn_id: str, record_type: str) -> str:
    """Return the address of the page that lists a record type in Insightly.

    For an account on a pod, it is a page of Insightly (``https://crm.na1.insightly.com/list/Contact/``). For
    another base URL, it is the list in the API.

    :raises InvalidConnection: if the connection can't be used.
    :raises UnknownRecordType: if ``record_type`` is not a known record type.
    """
    kind = RECORD_TYPES[record_type]
    return _page(insightly_conn_id, f"list/{kind.title}/", kind.path)


def record_page(insightly_conn_id: str, record_type: str, record_id: int) -> str:
    """Return the address of a record's page in Insightly, or in the API, as ``records_page`` does.

    :raises InvalidConnection: if the connection can't be used.
    :raises UnknownRecordType: if ``record_type`` is not a known record type.
    """
    kind = RECORD_TYPES[record_type]
    return _page(insightly_conn_id, f"details/{kind.title}/{record_id}", f"{kind.path}/{record_id}")


def _page(insightly_conn_id: str, screen: str, path: str) -> str:
    base_url = InsightlyHook(insightly_conn_id).base_url
    pod = re.match(r"https://api\.([a-z0-9]+)\.insightly\.com/", base_url)
    return f"https://crm.{pod[1]}.insightly.com/{screen}" if pod else base_url + path


def _with_ids(
    page: list[Any], id_field: str, skip: int, without_id: dict[object, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield a page's records. If a record has no usable id, a text of its contents and place becomes its id.

    :param skip: the number of records before the page.
    :param without_id: the original records without an id are added to it, by these texts.
    """
    for place, record in enumerate(page, skip):
        if isinstance(record, dict) and is_record_id(record.get(id_field)):
            yield record
            continue
        try:
            digest = digest_of(repr(record))
        except RecursionError:
            digest = "nested too deep"
        stand_in = f"{digest} {place}"
        without_id[stand_in] = record if isinstance(record, dict) else {}
        yield {**without_id[stand_in], id_field: stand_in}


def _is_custom_field(value: object) -> bool:
    """Return whether a value describes a custom field: it has a name, and its type is a text."""
    if not isinstance(value, dict) or not isinstance(value.get("FIELD_TYPE", ""), str | None):
        return False
    name = value.get("FIELD_NAME")
    return isinstance(name, str) and name != ""


def _in_background(ask: Callable[[], Answer]) -> Future[Answer]:
    """Send a request in a thread of its own. It may wait for long, so it doesn't keep the process alive."""
    answer: Future[Answer] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:  # raised in the thread that waits for the answer
            answer.set_exception(error)

    threading.Thread(target=run, name="insightly-page", daemon=True).start()
    return answer


def _search_parameters(
    page_size: int, updated_after: datetime | str | None, search: dict[str, Any]
) -> dict[str, Any]:
    if not 1 <= page_size <= LARGEST_PAGE:
        raise ValueError(f"page_size must be 1 to {LARGEST_PAGE}, not {page_size}")
    if unknown := sorted(set(search) - {"field_name", "field_value", "brief"}):
        raise ValueError(f"Insightly's search has no parameter {', '.join(unknown)}")
    if ("field_name" in search) != ("field_value" in search):
        raise ValueError("field_name and field_value go together")
    # The API writes true and false in lower case.
    texts = {name: str(value).lower() for name, value in search.items() if isinstance(value, bool)}
    parameters = {"top": page_size, **search, **texts}
    if updated_after is not None:
        parameters["updated_after_utc"] = (
            updated_after if isinstance(updated_after, str) else format_api_time(updated_after)
        )
    return parameters

"""Forms that are sent: whether they come from our own pages, and what they hold."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from airflow.configuration import conf
from fastapi import Depends, Request

from airflow_insightly_hooks.ui.problems import BadRequest, ForeignOrigin

__all__ = ["Form", "FormDep", "check_origin"]

LARGEST = 4_000_000
"""Bytes of a form: a record, or the keys of many deliveries."""
MOST_FIELDS = 10_000


class Form:
    """What a form holds.

    :param fields: its fields' names and values, in their order; a name may come several times.
    """

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self._fields = fields

    def get(self, name: str) -> str:
        """Return a field's value without blanks around it; empty if it is missing."""
        return next((value.strip() for key, value in self._fields if key == name), "")

    def all(self, name: str) -> list[str]:
        """Return the values of all fields of a name."""
        return [value for key, value in self._fields if key == name]


def check_origin(request: Request) -> None:
    """Refuse a request that another site's page has sent with the person's cookie.

    A browser names the origin of the page with every POST. It must be the address that Airflow was asked
    under, or the one that it is configured with: behind a reverse proxy these may differ.

    :raises ForeignOrigin: if it is another one, or none.
    """
    try:
        origin = urlsplit(request.headers.get("origin", ""))
    except ValueError:  # such as half an IPv6 address
        raise ForeignOrigin from None
    own = {request.headers.get("host"), urlsplit(conf.get("api", "base_url", fallback="")).netloc}
    is_own = origin.scheme in ("http", "https") and origin.netloc in own - {None, ""}
    if not is_own or request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise ForeignOrigin


async def _form(request: Request) -> Form:
    check_origin(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise BadRequest("A form of these pages is needed (application/x-www-form-urlencoded).")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST:
            raise BadRequest(f"The form is larger than {LARGEST // 1_000_000} MB.")
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError:
        raise BadRequest("The form can't be read: it must be UTF-8, and of 10,000 fields at most.") from None
    if any("\0" in name + value for name, value in fields):
        raise BadRequest("The form holds a NUL character.")
    return Form(fields)


FormDep = Annotated[Form, Depends(_form)]
"""A route's parameter: the form that was sent, once its origin has been checked."""

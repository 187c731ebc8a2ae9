"""Reads forms that browsers send, and checks that they come from these pages."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from airflow.configuration import conf
from fastapi import Depends, Request

from airflow_insightly_hooks.ui.problems import BadRequest, ForeignOrigin

__all__ = ["Form", "FormDep", "check_origin"]

LARGEST = 4_000_000
"""How many bytes a form may have. It holds a record, or the keys of many deliveries."""
MOST_FIELDS = 10_000


class Form:
    """The fields of a form.

    :param fields: their names and values, in their order. A name may occur several times.
    """

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self._fields = fields

    def get(self, name: str) -> str:
        """Return a field's value without blanks around it; empty if the field is missing."""
        return next((value.strip() for key, value in self._fields if key == name), "")

    def all(self, name: str) -> list[str]:
        """Return the values of all fields with a name."""
        return [value for key, value in self._fields if key == name]


def check_origin(request: Request) -> None:
    """Check that the page of another site did not send the request with the person's cookie.

    With every POST, a browser sends the origin of the page. It must be the host of the request, or the
    address in Airflow's configuration. Behind a reverse proxy, these may differ.

    :raises ForeignOrigin: if the origin is missing, or is another one.
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
        raise BadRequest(
            "The request is not a form of these pages. Send one as application/x-www-form-urlencoded."
        )
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST:
            raise BadRequest(f"The form is larger than {LARGEST // 1_000_000} MB. Send a smaller one.")
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError:
        raise BadRequest("The form can't be read. Use UTF-8, and at most 10,000 fields.") from None
    if any("\0" in name + value for name, value in fields):
        raise BadRequest("The form holds a NUL character. Remove it, and send the form again.")
    return Form(fields)


FormDep = Annotated[Form, Depends(_form)]
"""A route's parameter: the form that was sent. Its origin is checked first."""

"""Every request is answered, never with 500. Answer and log hold no part of body or sender."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from tests.conftest import Logged
from tests.incoming.asgi import PASSWORD, asked, basic
from tests.incoming.conftest import contact

MARK = "Wichtelmann"
ANSWERS = {200, 400, 401, 404, 405, 408, 413, 415, 503}

methods = st.sampled_from(["POST"] * 9 + ["GET", "HEAD", "OPTIONS", "DELETE", "PURGE", ""])
paths = st.sampled_from(
    ["/crm"] * 9
    + ["/", "", "//", "/crm/", "/CRM", "/crm?record_type=Contacts", "/crm?record_type=%00", "/crm?&=&&%ff"]
    + ["/..", "/%2e%2e/crm", "/crm;x=1", "/%00", "/%ff", "/" + "x" * 9_000, "/crm%0d%0aX: y", "/😀"]
) | st.text(st.characters(codec="ascii"), max_size=20).map(lambda text: f"/{text}")
header_values = st.one_of(
    st.sampled_from(
        (
            *(
                "application/json",
                "application/json; charset=utf-16",
                "text/plain;",
                ";;;=",
                "gzip",
                "identity",
            ),
            *("chunked", "0", "-1", "9" * 30, "1e5", "msg_1", "v1,", "v1, v1,=", "", " ", "\0", "a" * 9_000),
        )
    ),
    st.binary(max_size=20),
    st.just(f"Basic {MARK}"),
)
header_names = st.sampled_from(
    (
        *(
            "content-type",
            "content-length",
            "content-encoding",
            "transfer-encoding",
            "expect",
            "host",
            "cookie",
        ),
        *("webhook-id", "webhook-timestamp", "webhook-signature", "authorization", "x-request-id", "origin"),
    )
)
headers = st.lists(st.tuples(header_names, header_values), max_size=5)
SOME = contact(LAST_NAME=MARK)
parts = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [contact(LAST_NAME=MARK), contact(LAST_NAME=MARK)[:-2], MARK.encode(), b"{", b"[" * 5_000]
    ),
    st.just(b'{"entity": {"CONTACT_ID": 7, "LAST_NAME": "' + MARK.encode() + b'"}}'),
)
bodies = st.lists(parts, min_size=1, max_size=3)


@pytest.mark.usefixtures("incoming", "contacts")
def test_anything(app: ASGIApp, logged: Logged) -> None:
    @settings(deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        methods,
        paths,
        headers,
        st.lists(parts, min_size=1, max_size=3),
        st.sampled_from([1, 1, 1, 0]),
        st.booleans(),
    )
    def send(
        method: str,
        path: str,
        headers: Sequence[tuple[str, str | bytes]],
        body: Sequence[bytes],
        is_right: bool,
        breaks_off: bool,
    ) -> None:
        credentials = [basic()] if is_right else [basic(MARK, MARK)]
        answer = asked(app, path, body, [*credentials, *headers], method=method, breaks_off=breaks_off)
        assert answer.status in ANSWERS
        assert MARK.encode() not in answer.body
        assert MARK not in str(answer.headers)

    send()
    assert MARK not in logged.text
    assert PASSWORD not in logged.text
    assert "A webhook can't be accepted" not in logged.text, "the endpoint itself has failed"

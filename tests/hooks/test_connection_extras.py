"""Connections with any contents: each one can be used, or the error names the invalid field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk import Connection
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_insightly_hooks.core.errors import InvalidConnection
from airflow_insightly_hooks.hooks.connection_fields import CONNECTION_FIELDS
from airflow_insightly_hooks.hooks.insightly import InsightlyHook
from airflow_insightly_hooks.hooks.webhook import WebhookHook

HALF = "\ud800"
SECRET = "the-secret-of-the-tests"

texts = st.text(st.characters(), max_size=8) | st.sampled_from(
    ["", "\0", HALF, "\udcff", "\r\nX: 1", "true", "é"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
HOSTS = ["na1", "https://receiver.example.com/x", "http://127.0.0.1:8765/v3.1", "receiver.example.com"]


def hook_for(conn_type: str, fields: dict[str, Any]) -> InsightlyHook | WebhookHook:
    """Return a hook with this connection, as if it came from Airflow's API server.

    A connection from the environment would be written as a URI first, which can't contain all of the odd
    texts.
    """
    hook = InsightlyHook("odd") if conn_type == "insightly" else WebhookHook("odd")
    extra = fields.pop("extra", None)
    connection = Connection(conn_id="odd", conn_type=conn_type, **fields)
    connection.extra = extra if isinstance(extra, str | None) else json.dumps(extra)
    hook.get_connection = lambda *_: connection
    return hook


@st.composite
def connections(draw: st.DrawFn, conn_type: str) -> dict[str, Any]:
    """Draw a connection in which one or two fields may be invalid."""
    connection: dict[str, Any] = {"host": draw(st.sampled_from(HOSTS)), "password": SECRET}
    names = st.sampled_from([field.name for field in CONNECTION_FIELDS[conn_type]])
    connection["extra"] = draw(st.dictionaries(names, values, max_size=2))
    odd = st.dictionaries(
        st.sampled_from(["host", "login", "password", "schema", "extra"]), values, max_size=1
    )
    return (
        connection | draw(odd) | draw(st.fixed_dictionaries({}, optional={"port": st.integers(-1, 70_000)}))
    )


@pytest.mark.parametrize("conn_type", CONNECTION_FIELDS)
@settings(deadline=None)
@given(data=st.data())
def test_anything(conn_type: str, data: st.DataObject) -> None:
    """Whatever a connection contains, it is used, or refused with the name of a field, without its value."""
    hook = hook_for(conn_type, data.draw(connections(conn_type)))
    refused: list[InvalidConnection] = []
    try:
        hook.get_conn()
    except InvalidConnection as error:
        refused.append(error)
    for one in refused:
        assert one.conn_id == "odd"
        assert SECRET not in str(one)
        str(one).encode()  # the host is shown in logs


@pytest.mark.parametrize(
    ("conn_type", "given", "field"),
    [
        ("insightly", {"password": f"{SECRET}{HALF}"}, "password"),
        ("insightly", {"password": None, "login": f"{SECRET}{HALF}"}, "login"),
        ("insightly", {"password": 5}, "password"),
        ("insightly", {"host": 5}, "host"),
        ("insightly", {"host": HALF}, "host"),
        ("insightly", {"schema": HALF}, "schema"),
        ("insightly", {"extra": {"api_version": HALF}}, "extra.api_version"),
        ("insightly", {"extra": {HALF: 1}}, "extra.\\ud800"),
        ("insightly_webhook", {"login": f"user{HALF}"}, "login"),
        ("insightly_webhook", {"login": "user", "password": f"{SECRET}{HALF}"}, "password"),
        ("insightly_webhook", {"login": 5}, "login"),
        ("insightly_webhook", {"host": f"https://receiver.example.com/{HALF}"}, "host"),
        ("insightly_webhook", {"host": f"https://user{HALF}:x@receiver.example.com/"}, "host"),
        ("insightly_webhook", {"host": ["receiver.example.com"]}, "host"),
        ("insightly_webhook", {"extra": {"path": f"/{HALF}"}}, "extra.path"),
        ("insightly_webhook", {"extra": {"verify": "\0"}}, "extra.verify"),
        ("insightly_webhook", {"extra": {"verify": f"/{HALF}"}}, "extra.verify"),
        ("insightly_webhook", {"extra": {"cert": "a\0,b"}}, "extra.cert"),
        ("insightly_webhook", {"extra": {"cert": HALF}}, "extra.cert"),
        ("insightly_webhook", {"extra": {"web_url": f"https://x/{HALF}"}}, "extra.web_url"),
        ("insightly_webhook", {"extra": {"expect_body": HALF}}, "extra.expect_body"),
        ("insightly_webhook", {"extra": {"signing_secret": HALF}}, "extra.signing_secret"),
        ("insightly_webhook", {"extra": {"headers": {"X-A": HALF}}}, "extra.headers"),
        ("insightly_webhook", {"extra": {"headers": "[" * 100_000}}, "extra.headers"),
        ("insightly_webhook", {"extra": "[" * 100_000}, "extra"),
    ],
)
def test_odd_text(conn_type: str, given: dict[str, Any], field: str) -> None:
    """Texts that UTF-8 can't encode, NULs and values that are no text are refused with the field's name."""
    host = "na1" if conn_type == "insightly" else "https://receiver.example.com/"
    password = SECRET if conn_type == "insightly" else None
    hook = hook_for(conn_type, {"host": host, "password": password, **given})
    with pytest.raises(InvalidConnection) as caught:
        hook.get_conn()
    assert (caught.value.conn_id, caught.value.field) == ("odd", field)
    assert SECRET not in str(caught.value)
    str(caught.value).encode()


def test_uri_with_odd_text() -> None:
    """A URI from an operator's argument is refused in the same way."""
    with pytest.raises(InvalidConnection, match="lone surrogate"):
        WebhookHook(uri=f"https://user:{SECRET}{HALF}@receiver.example.com/").get_conn()

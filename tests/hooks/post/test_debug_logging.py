"""What libraries log about a POST at level DEBUG."""

from __future__ import annotations

import base64
import contextlib
import logging
from pathlib import Path

import pytest

from airflow_insightly_hooks.hooks.webhook import WebhookHook
from tests.certificates import Authority
from tests.conftest import Connect, Logged
from tests.network import NameService, tunnel
from tests.servers import answer, serving

RECEIVER = "receiver.example.com"
SECRETS = [
    *("path-of-the-hook", "token-of-the-query", "user-of-the-tests", "word-of-the-tests"),
    *("header-of-ours", "header-of-theirs", "contents-of-a-record", "contents-of-an-answer"),
    *("user-of-the-proxy", "word-of-the-proxy"),
    base64.b64encode(b"user-of-the-tests:word-of-the-tests").decode(),
    base64.b64encode(b"user-of-the-proxy:word-of-the-proxy").decode(),
]


@pytest.mark.parametrize("way", ["directly", "by a proxy", "by a proxy over TLS"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_libraries_log_no_details(
    connect: Connect,
    logged: Logged,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    scheme: str,
    way: str,
) -> None:
    """Even at DEBUG, no library logs an address, path, header, credential or body."""
    caplog.set_level(logging.DEBUG, logger="httpcore")
    NameService(monkeypatch, {RECEIVER: ["127.0.0.1"]})
    for name in ("receiver", "proxy"):
        (tmp_path / name).mkdir()
    for_receiver, for_proxy = Authority(tmp_path / "receiver"), Authority(tmp_path / "proxy")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(for_receiver.file.read_bytes() + for_proxy.file.read_bytes())
    reply = answer("200 OK", "X-Reply: header-of-theirs", body=b"contents-of-an-answer")
    with contextlib.ExitStack() as running:
        tls = for_receiver.server(RECEIVER) if scheme == "https" else None
        servers = [running.enter_context(serving([reply], tls=tls))]
        if way != "directly":
            steps = tunnel(servers[0].port) if scheme == "https" else [reply]
            proxy = running.enter_context(
                serving(steps, tls=for_proxy.server() if way == "by a proxy over TLS" else None)
            )
            uri = proxy.url.replace("//", "//user-of-the-proxy:word-of-the-proxy@")
            monkeypatch.setenv(f"{scheme}_proxy", uri)
            servers.append(proxy)
        connect(
            "receiver",
            host=f"{scheme}://{RECEIVER}:{servers[0].port}/path-of-the-hook?token=token-of-the-query",
            login="user-of-the-tests",
            password="word-of-the-tests",
            extra={
                "timeout": 2,
                "verify": str(trusted),
                "allow_insecure_http": True,
                "headers": {"X-Api-Key": "header-of-ours"},
            },
        )
        result = WebhookHook("receiver").send('{"a": "contents-of-a-record"}', message_id="msg_1")
    assert result.acknowledged
    assert servers[-1].connections == 1
    logging.getLogger("httpcore.connection").debug("this is seen")
    text = logged.text
    assert "this is seen" in text
    addresses = [RECEIVER, "127.0.0.1", *(f":{server.port}" for server in servers)]
    assert [detail for detail in (*addresses, *SECRETS) if detail in text] == []

"""Which addresses messages may go to. A host is judged by its addresses, when it is dialled."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from airflow_insightly_hooks.hooks.webhook import WebhookHook
from tests.certificates import Authority
from tests.conftest import Connect
from tests.faults.conftest import BODY, Send, fault
from tests.network import NameService, dialled_addresses
from tests.servers import answer, serving

RECEIVER = "receiver.example.com"
METADATA = [
    "169.254.169.254",  # Amazon, Google, Azure, Oracle and others
    "169.254.170.2",  # Amazon: credentials of containers
    "168.63.129.16",  # Azure's wire server
    "100.100.100.200",  # Alibaba
    "192.0.0.192",  # Oracle
    "fd00:ec2::254",  # Amazon
    "fd20:ce::254",  # Google
    "fe80::a9fe:a9fe",  # OpenStack
]


def bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


@fault(74, "a cloud's metadata service", requests="fails")
@pytest.mark.parametrize("address", METADATA)
def test_metadata(send: Send, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Link-local and cloud metadata addresses are never dialled."""
    dialled = dialled_addresses(monkeypatch)
    outcome = send(f"http://{bracketed(address)}/latest/meta-data/")
    assert outcome.is_certainly_undelivered()
    assert dialled == []
    assert "metadata" in (outcome.error or "")


@fault(74, "a name that resolves to a metadata service", requests="fails")
def test_name_of_metadata(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each address that a name resolves to is checked."""
    NameService(monkeypatch, {RECEIVER: ["169.254.169.254"]})
    dialled = dialled_addresses(monkeypatch)
    outcome = send(f"http://{RECEIVER}/")
    assert outcome.is_certainly_undelivered()
    assert dialled == []


@fault(
    75, "127.1, 2130706433, 0x7f.1, 0, ::ffff:127.0.0.1 where private networks are refused", requests="fails"
)
@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "2130706433",
        "0x7f.1",
        "0177.1",
        "0",
        "localhost",
        "[::ffff:127.0.0.1]",
        "[::1]",
    ],
)
def test_spellings(send: Send, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """With ``allow_private_networks`` off, no spelling of this machine's addresses is dialled."""
    dialled = dialled_addresses(monkeypatch)
    with serving([answer()]) as server:
        outcome = send(f"http://{host}:{server.port}/", extra={"allow_private_networks": False})
    assert outcome.is_certainly_undelivered()
    assert "private network" in (outcome.error or "")
    assert (dialled, server.connections) == ([], 0)


@fault(75, "a private network where it is allowed", requests="passes")
@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.1", "0", "[::ffff:127.0.0.1]"])
def test_private_by_default(send: Send, host: str) -> None:
    """By default messages may go to private networks and this machine, in any spelling."""
    with serving([answer()]) as server:
        assert send(f"http://{host}:{server.port}/").acknowledged
    assert [request.body.decode() for request in server.requests] == [BODY]


@fault(75, "a metadata address within an IPv6 one: mapped, NAT64, 6to4", requests="fails")
@pytest.mark.parametrize(
    "address", ["::ffff:168.63.129.16", "64:ff9b::169.254.169.254", "2002:a9fe:a9fe::1", "64:ff9b::a9fe:a9fe"]
)
def test_embedded(send: Send, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """An IPv6 address that contains an IPv4 address is judged by the IPv4 address."""
    dialled = dialled_addresses(monkeypatch)
    outcome = send(f"http://[{address}]/")
    assert "metadata" in (outcome.error or "")
    assert outcome.is_certainly_undelivered()
    assert dialled == []


@fault(75, "names of private networks", requests="fails")
@pytest.mark.parametrize("address", ["10.1.2.3", "100.64.0.1", "fd12:3456::1", "64:ff9b::10.1.2.3"])
def test_private_name(send: Send, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """With ``allow_private_networks`` off, only addresses of the public internet are dialled."""
    NameService(monkeypatch, {RECEIVER: [address]})
    dialled = dialled_addresses(monkeypatch)
    outcome = send(f"http://{RECEIVER}/", extra={"allow_private_networks": False})
    assert outcome.is_certainly_undelivered()
    assert "private network" in (outcome.error or "")
    assert dialled == []


@fault(76, "a name that resolves to another address at its second look-up", requests="passes")
def test_rebinding(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is looked up once, and the address that was checked is the one that is dialled."""
    names = NameService(monkeypatch, {RECEIVER: [["127.0.0.1"], ["169.254.169.254"]]})
    dialled = dialled_addresses(monkeypatch)
    with serving([answer()]) as server:
        assert send(f"http://{RECEIVER}:{server.port}/").acknowledged
    assert (names.asked, dialled) == ([RECEIVER], ["127.0.0.1"])
    assert server.requests[0].headers["host"] == f"{RECEIVER}:{server.port}"


@fault(76, "a name that resolves to several addresses, one of them refused", requests="fails")
def test_mixed_addresses(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused address of a name is never dialled, even if the other addresses are dead."""
    NameService(monkeypatch, {RECEIVER: ["127.0.0.2", "169.254.169.254"]})
    dialled = dialled_addresses(monkeypatch)
    outcome = send(f"http://{RECEIVER}:1/")
    assert outcome.is_certainly_undelivered()
    assert "169.254.169.254" not in dialled


@fault(76, "SNI, Host and certificate of a name that was resolved", requests="passes")
def test_sni(send: Send, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SNI, ``Host`` and the certificate's check use the name, whatever address is dialled."""
    authority = Authority(tmp_path)
    tls = authority.server(RECEIVER)
    asked_for: list[str | None] = []

    def note(_socket: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        asked_for.append(name)

    tls.sni_callback = note
    NameService(monkeypatch, {RECEIVER: [["127.0.0.1"], ["169.254.169.254"]]})
    with serving([answer()], tls=tls) as server:
        assert send(f"https://{RECEIVER}:{server.port}/", extra={"verify": str(authority.file)}).acknowledged
    assert asked_for == [RECEIVER]
    assert server.requests[0].headers["host"] == f"{RECEIVER}:{server.port}"


@fault(76, "a name that changes between two messages", requests=None)
def test_judged_each_time(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses are checked for each message. A name that later resolves to metadata is refused then."""
    NameService(monkeypatch, {RECEIVER: [["127.0.0.1"], ["169.254.169.254"]]})
    dialled = dialled_addresses(monkeypatch)
    with serving([answer()]) as server:
        connect("receiver", host=f"http://{RECEIVER}:{server.port}/", extra={"timeout": 1})
        hook = WebhookHook("receiver")
        results = [hook.send(BODY, message_id="msg_1") for _ in range(2)]
    assert [(result.acknowledged, result.sent) for result in results] == [(True, True), (False, False)]
    assert dialled == ["127.0.0.1"]


@fault(77, "a name behind a proxy", requests="passes")
def test_name_behind_a_proxy(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy gets the name unresolved, so its address can't be checked. The reference says so."""
    names = NameService(monkeypatch, {RECEIVER: ["169.254.169.254"]})
    with serving([answer()]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        outcome = send(f"http://{RECEIVER}/hook", extra={"allow_private_networks": False})
    assert outcome.acknowledged
    assert names.asked == []
    assert [request.request_line for request in proxy.requests] == [f"POST http://{RECEIVER}/hook HTTP/1.1"]
    assert (
        "through a proxy" in (Path(__file__).parents[2] / "docs" / "reference" / "connections.md").read_text()
    )


@fault(77, "an address behind a proxy", requests="fails")
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("host", "strict"),
    [("169.254.169.254", False), ("2852039166", False), ("[::ffff:a9fe:a9fe]", False), ("10.0.0.1", True)],
)
def test_address_behind_a_proxy(
    send: Send, monkeypatch: pytest.MonkeyPatch, scheme: str, host: str, strict: bool
) -> None:
    """A literal address that is not allowed is refused through a proxy, too. The proxy isn't asked."""
    with serving([answer()]) as proxy:
        monkeypatch.setenv(f"{scheme}_proxy", proxy.url)
        outcome = send(f"{scheme}://{host}/", extra={"allow_private_networks": not strict})
    assert outcome.is_certainly_undelivered()
    assert "are not allowed" in (outcome.error or "")
    assert proxy.connections == 0

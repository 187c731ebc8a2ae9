"""Faults 1 to 12: from the look-up of a receiver's name to the first byte of the message."""

from __future__ import annotations

import errno
import ipaddress
import os
import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from airflow_insightly_hooks.core.errors import UndeliveredError, WorkerExhausted
from airflow_insightly_hooks.hooks.post import transport
from airflow_insightly_hooks.hooks.webhook import WebhookHook
from airflow_insightly_hooks.operators.webhook import UndeliverableError
from tests import deliveries
from tests.certificates import Authority
from tests.conftest import Connect, run_context
from tests.faults.conftest import Send, fault
from tests.servers import Server, answer, repeat, serving

NAME = "receiver.example.com"
TIMEOUT = 0.6
MORE = 0.5
"""Seconds that a busy machine may add."""
UNREACHABLE = ["224.0.0.1", "[ff0e::1]"]
"""Multicast addresses: TCP can't reach any of them, and Linux says so at once."""


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have the receiver's name resolve to these addresses, or its look-up do something else."""
    look_up = socket.getaddrinfo

    def make(*addresses: str, instead: Callable[[], Any] = lambda: None) -> None:
        def answer_with(host: Any, *arguments: Any, **more: Any) -> Any:
            if host != NAME:
                return look_up(host, *arguments, **more)
            instead()
            return [found for address in addresses for found in look_up(address, *arguments, **more)]

        monkeypatch.setattr(socket, "getaddrinfo", answer_with)

    return make


@pytest.fixture
def closed_port() -> int:
    """Return a port that nobody listens on."""
    with serving([]) as server:
        pass
    return server.port


@pytest.fixture
def black_holes() -> Iterator[Server]:
    """Return a server at 127.0.0.11 to 13 that takes no connection and says nothing: its queues are full."""
    listeners: list[socket.socket] = []
    waiting: list[socket.socket] = []
    port = 0
    for last in (11, 12, 13):
        listener = socket.socket()
        listener.bind((f"127.0.0.{last}", port))
        listener.listen(0)
        port = listener.getsockname()[1]
        listeners.append(listener)
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
            waiting.append(one)
    yield Server(port, host="127.0.0.11")
    for each in (*waiting, *listeners):
        each.close()


def failed_try(connect: Connect, url: str, **extra: Any) -> UndeliveredError:
    """Return the error of a task's first try to send one payload to this address."""
    connect("webhook_default", host=url, extra={"timeout": TIMEOUT, **extra})
    return deliveries.undelivered(run_context(), [deliveries.payload_of("msg_1", 1, "{}")])


def is_retried_unattempted(error: UndeliveredError, reason: str) -> bool:
    """Return whether the task will be retried, has counted no attempt, and says why."""
    (item,) = error.report["undelivered"]
    return (
        not isinstance(error, UndeliverableError)
        and (item["attempts"], item["status"], error.report["attempts"]) == (0, None, 0)
        and reason in (item["error"] or "")
    )


# --- names and addresses ---------------------------------------------------------------------------------


@fault(1, "DNS: no such name", requests="passes")
def test_no_such_name(send: Send) -> None:
    """Nothing is sent, and the error says that the name can't be resolved."""
    outcome = send("http://no-such-host.invalid/")
    assert outcome.is_certainly_undelivered()
    assert outcome.error_has("name")


@fault(1, "DNS: the server fails", requests="passes")
def test_name_server_fails(send: Send, resolve: Any) -> None:
    """Nothing is sent, and the error says that the name service failed."""

    def fail() -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    resolve(instead=fail)
    outcome = send(f"http://{NAME}/")
    assert outcome.is_certainly_undelivered()
    assert outcome.error_has("temporary failure in name resolution")


@fault(1, "DNS: no answer", requests="fails")
def test_name_server_hangs(send: Send, resolve: Any) -> None:
    """The time of a name's look-up counts towards the deadline. The system's look-up has no limit."""
    ended = threading.Event()
    resolve("127.0.0.1", instead=lambda: ended.wait(1.5))
    outcome = send(f"http://{NAME}:9/", timeout=TIMEOUT)
    ended.set()
    assert outcome.is_certainly_undelivered()
    assert TIMEOUT <= outcome.elapsed < TIMEOUT + MORE


@fault(1, "DNS: retry")
def test_unknown_name_is_retried(connect: Connect) -> None:
    """A name that can't be looked up costs no attempt, and the task is retried."""
    error = failed_try(connect, "http://no-such-host.invalid/")
    assert is_retried_unattempted(error, "the host can't be looked up: ")


@fault(2, "the first of several addresses refuses", requests="passes")
def test_first_address_refuses(send: Send, resolve: Any) -> None:
    """If the first address refuses, the next one gets the POST, once."""
    resolve("127.0.0.2", "127.0.0.1")
    with serving([answer()]) as server:
        outcome = send(f"http://{NAME}:{server.port}/")
    assert (outcome.acknowledged, len(server.requests)) == (True, 1)
    assert server.requests[0].headers["host"] == f"{NAME}:{server.port}"


@fault(2, "the first of several addresses says nothing", requests="fails")
def test_first_address_is_a_black_hole(send: Send, resolve: Any, black_holes: Server) -> None:
    """If an address does not answer, the next one is tried before the deadline."""
    resolve("127.0.0.11", "127.0.0.1")
    with serving([answer()], port=black_holes.port) as server:
        outcome = send(f"http://{NAME}:{server.port}/", timeout=TIMEOUT)
    assert (outcome.acknowledged, len(server.requests)) == (True, 1)
    assert outcome.elapsed < TIMEOUT


@fault(2, "all addresses say nothing", requests="fails")
def test_all_addresses_are_black_holes(send: Send, resolve: Any, black_holes: Server) -> None:
    """All addresses share one deadline."""
    resolve("127.0.0.11", "127.0.0.12", "127.0.0.13")
    outcome = send(f"http://{NAME}:{black_holes.port}/", timeout=TIMEOUT)
    assert outcome.is_certainly_undelivered()
    assert TIMEOUT * 0.9 <= outcome.elapsed < TIMEOUT + MORE


@fault(3, "connection refused", requests="passes")
def test_connection_refused(send: Send, closed_port: int) -> None:
    """The message is reported at once as certainly not delivered."""
    outcome = send(f"http://127.0.0.1:{closed_port}/")
    assert outcome.is_certainly_undelivered()
    assert outcome.error_has("connection refused")
    assert outcome.elapsed < MORE


@fault(3, "connection refused: retry")
def test_refused_connection_is_retried(connect: Connect, closed_port: int) -> None:
    """A refused connection costs no attempt, the task is retried, and its report says why."""
    error = failed_try(connect, f"http://127.0.0.1:{closed_port}/")
    assert is_retried_unattempted(error, "connection refused")


@fault(4, "SYN black hole", requests="fails")
def test_black_hole(send: Send, monkeypatch: pytest.MonkeyPatch, black_holes: Server) -> None:
    """The attempt to connect ends after 5 s (0.3 s in the test), even if the deadline is later."""
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT", 0.3)
    outcome = send(black_holes.url, timeout=1.2)
    assert outcome.is_certainly_undelivered()
    assert 0.3 <= outcome.elapsed < 0.3 + MORE
    assert outcome.error_has("no connection within 0.3 s")


@fault(5, "network unreachable", requests="passes")
@pytest.mark.parametrize("host", UNREACHABLE)
def test_unreachable(send: Send, host: str) -> None:
    """Nothing is sent, and the error says at once that the network is unreachable."""
    outcome = send(f"http://{host}/")
    assert outcome.is_certainly_undelivered()
    assert outcome.error_has("unreachable")
    assert outcome.elapsed < MORE


@fault(5, "network unreachable: retry")
@pytest.mark.parametrize("host", UNREACHABLE)
def test_unreachable_is_retried(connect: Connect, host: str) -> None:
    """An unreachable network costs no attempt, and the task is retried."""
    assert is_retried_unattempted(failed_try(connect, f"http://{host}/"), "network is unreachable")


@fault(5, "no IPv6 route", requests="passes")
def test_no_ipv6_route(send: Send, resolve: Any) -> None:
    """If a receiver's IPv6 address can't be reached, its IPv4 address is used."""
    resolve("ff0e::1", "127.0.0.1")
    with serving([answer()]) as server:
        assert send(f"http://{NAME}:{server.port}/").acknowledged
    assert len(server.requests) == 1


@fault(5, "one address is unreachable, the other one refuses", requests="fails")
def test_reasons_of_all_addresses(send: Send, resolve: Any, closed_port: int) -> None:
    """If all addresses fail, the error gives the reason for each."""
    resolve("127.0.0.1", "ff0e::1")
    outcome = send(f"http://{NAME}:{closed_port}/")
    assert outcome.is_certainly_undelivered()
    assert outcome.error_has("connection refused")
    assert outcome.error_has("network is unreachable")


@fault(5, "IPv6 is off, and the IPv4 address refuses")
@pytest.mark.parametrize("addresses", [("::1", "127.0.0.1"), ("127.0.0.1", "::1")])
def test_ipv6_is_off(
    connect: Connect, resolve: Any, closed_port: int, monkeypatch: pytest.MonkeyPatch, addresses: Any
) -> None:
    """The error says that the IPv4 address refuses. It does not blame this worker for a lack of IPv6."""
    dial = socket.socket.connect

    def without_ipv6(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        dial(self, address)

    monkeypatch.setattr(socket.socket, "connect", without_ipv6)
    resolve(*addresses)
    connect("receiver", host=f"http://{NAME}:{closed_port}/")
    result = WebhookHook("receiver").send("{}", message_id="msg_1")
    assert "connection refused" in str(result.error)
    assert (result.sent, result.is_own_fault) == (False, False)


# --- faults of this machine ------------------------------------------------------------------------------


@pytest.fixture
def without_file_descriptors() -> Callable[[Callable[[], Any]], Any]:
    """Return what calls a function while the process has no file descriptor left."""

    def call(function: Callable[[], Any]) -> Any:
        lowest = os.open(os.devnull, os.O_RDONLY)
        os.close(lowest)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            return function()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    return call


@fault(6, "file descriptors used up", requests="passes")
def test_file_descriptors_used_up(send: Send, without_file_descriptors: Any) -> None:
    """The error says that this worker has no file descriptor left. It does not blame the receiver."""
    with serving([answer()]) as server:
        assert send(server.url).acknowledged  # reads the files that are read only once
        outcome = without_file_descriptors(lambda: send(server.url))
    assert outcome.is_certainly_undelivered()
    assert outcome.error_has("this worker has no more file descriptors", "too many open files")
    assert server.connections == 1


LOOK_UP_FAILURES = [
    *(OSError(number, os.strerror(number)) for number in (errno.EBUSY, errno.EINVAL, errno.EMFILE, 0)),
    socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
    socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
]
"""Errors that ``getaddrinfo`` raises without a file descriptor, as seen on different machines."""


@fault(6, "file descriptors used up, and a name to look up")
@pytest.mark.parametrize("failure", LOOK_UP_FAILURES, ids=repr)
def test_no_file_descriptor_to_look_up(
    send: Send, without_file_descriptors: Any, resolve: Any, failure: OSError
) -> None:
    """The error says that no file descriptor is left, whatever error the look-up of the name raises."""

    def fail() -> None:
        raise failure

    with serving([answer()]) as server:
        url = f"http://{NAME}:{server.port}/"
        resolve("127.0.0.1")
        assert send(url).acknowledged
        resolve(instead=fail)
        outcome = without_file_descriptors(lambda: send(url))
        assert outcome.is_certainly_undelivered()
        assert outcome.error_has("this worker has no more file descriptors")
        with_descriptors = send(url)
    assert with_descriptors.error_has("no more file descriptors") == (failure.errno == errno.EMFILE)
    assert server.connections == 1


@fault(6, "memory used up while a name is looked up")
def test_no_memory_to_look_up(connect: Connect, resolve: Any) -> None:
    """If a look-up runs out of memory, the error blames this worker, not the receiver."""

    def fail() -> None:
        raise socket.gaierror(socket.EAI_MEMORY, "Memory allocation failure")

    resolve(instead=fail)
    connect("receiver", host=f"http://{NAME}:9/")
    result = WebhookHook("receiver").send("{}", message_id="msg_1")
    assert (result.error, result.is_own_fault) == ("this worker has no more memory", True)


@fault(6, "ports used up", requests="passes")
def test_ports_used_up(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this machine has no free port, the error blames this worker, not the receiver."""

    def no_port(*_: Any) -> None:
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))

    monkeypatch.setattr(socket.socket, "connect", no_port)
    with serving([answer()]) as server:
        outcome = send(server.url)
    assert outcome.is_certainly_undelivered()
    assert outcome.error_has("this worker has no free port or address", "cannot assign requested address")
    assert server.connections == 0


@fault(6, "threads used up")
def test_threads_used_up(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this machine can't start a thread, the error blames this worker, not the receiver."""
    with serving([answer()]) as server:
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            if thread.name == "webhook-dns":
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)
        outcome = send(server.url.replace("127.0.0.1", "localhost"))
    assert outcome.is_certainly_undelivered()
    assert outcome.error_has("this worker has no more threads")
    assert server.connections == 0


@fault(6, "ports or file descriptors used up: retry")
def test_own_fault_burns_no_attempt(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shortage on this machine costs no attempt, and the task is retried."""

    def no_descriptor(*_: Any) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket.socket, "connect", no_descriptor)
    error = failed_try(connect, "http://127.0.0.1:9/")
    assert is_retried_unattempted(error, "this worker has no more file descriptors")


@fault(6, "no file descriptor is left for the trusted certificates")
def test_no_file_descriptor_for_certificates(connect: Connect, without_file_descriptors: Any) -> None:
    """If no file of certificates can be opened, the error blames this worker, not the connection."""
    with serving([answer()]) as server:
        connect("receiver", host=server.url, extra={"verify": certifi.where()})
        assert (
            WebhookHook("receiver").send("{}", message_id="msg_1").acknowledged
        )  # loads what is loaded once
        hook = WebhookHook("receiver")
        result = without_file_descriptors(lambda: hook.send("{}", message_id="msg_2"))
        assert (result.acknowledged, result.sent, result.is_own_fault) == (False, False, True)
        assert result.error == "this worker has no more file descriptors"
        with pytest.raises(WorkerExhausted, match="this worker has no more file descriptors"):
            without_file_descriptors(hook.get_conn)
        assert hook.send("{}", message_id="msg_2").acknowledged, "the file is read again when it can be"
    assert len(server.requests) == 2


@fault(6, "file descriptors used up, and 1,000 payloads")
def test_own_faults_end_the_try(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 20 failures in a row the try ends. No attempt is counted, and the receiver is not blamed."""

    def no_descriptor(*_: Any) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket.socket, "connect", no_descriptor)
    connect("webhook_default", host="http://127.0.0.1:9/")
    error = deliveries.undelivered(run_context(), deliveries.payloads(1000), give_up_after=5)
    errors = [item["error"] for item in error.report["undelivered"]]
    lack = "this worker has no more file descriptors"
    assert set(errors) == {lack, f"not sent: {lack}"}
    assert 20 <= errors.count(lack) < 28
    assert error.report["attempts"] == 0


# --- TLS -------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def self_signed(folder: Path) -> ssl.SSLContext:
    """Return the TLS settings of a server whose certificate is self-signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(timezone.utc)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    certificate = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    file = folder / "self-signed.pem"
    file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def is_refused(send: Send, tls: ssl.SSLContext, words: str, **extra: Any) -> None:
    """Assert that the server's TLS is refused once, for this reason."""
    with serving([answer()], tls=tls) as server:
        outcome = send(server.url, timeout=TIMEOUT, login="user", password="secret-word", extra=extra)
        time.sleep(0.05)  # for a second try without verification
    assert outcome.is_certainly_undelivered()
    assert words in (outcome.error or "").lower().replace("_", " ")
    assert (server.connections, server.requests) == (1, [])


@fault(7, "TLS certificate expired, or not yet valid", requests="passes")
@pytest.mark.parametrize(
    ("given", "words"),
    [({"until": timedelta(hours=-1)}, "expired"), ({"since": timedelta(hours=1)}, "not yet valid")],
    ids=["expired", "not yet valid"],
)
def test_certificate_out_of_date(send: Send, authority: Authority, given: dict[str, Any], words: str) -> None:
    """An expired or not yet valid certificate is refused with that reason, and nothing is sent."""
    is_refused(send, authority.server(**given), words, verify=str(authority.file))


@fault(8, "TLS certificate for another host", requests="passes")
@pytest.mark.parametrize("address", ["192.0.2.1", NAME])
def test_certificate_of_another_host(send: Send, authority: Authority, address: str) -> None:
    """A certificate for another host is refused with that reason, and nothing is sent."""
    is_refused(send, authority.server(address), "mismatch", verify=str(authority.file))


@fault(8, "TLS certificate of an unknown authority", requests="passes")
def test_unknown_authority(send: Send, authority: Authority) -> None:
    """A certificate of an unknown authority is refused with that reason, and nothing is sent."""
    is_refused(send, authority.server(), "unable to get local issuer certificate")


@fault(8, "self-signed TLS certificate", requests="passes")
def test_self_signed(send: Send, tmp_path: Path) -> None:
    """A self-signed certificate is refused with that reason, and nothing is sent."""
    is_refused(send, self_signed(tmp_path), "self-signed certificate")


@fault(8, "TLS certificate of a private authority", requests="passes")
def test_authority_of_ones_own(send: Send, authority: Authority, resolve: Any) -> None:
    """If the connection's ``verify`` names the authority's file, its certificates are trusted."""
    resolve("127.0.0.1")
    with serving([answer()], tls=authority.server(NAME)) as server:
        outcome = send(f"https://{NAME}:{server.port}/", extra={"verify": str(authority.file)})
    assert (outcome.acknowledged, len(server.requests)) == (True, 1)


@fault(9, "TLS handshake hangs", requests="passes")
@pytest.mark.parametrize(
    "script",
    [[3], [b"\x16\x03\x03\x40\x00", *repeat(b"\x00", 0.1, 30)]],
    ids=["silent", "dripping"],
)
def test_handshake_hangs(send: Send, script: list[Any]) -> None:
    """The handshake is aborted at the deadline, and nothing is sent."""
    with serving(script, reads=False) as server:
        outcome = send(server.url.replace("http:", "https:"), timeout=TIMEOUT)
    assert outcome.is_certainly_undelivered()
    assert TIMEOUT * 0.9 <= outcome.elapsed < TIMEOUT + MORE


@fault(10, "an https URL, and a receiver that speaks plain HTTP", requests="passes")
def test_plain_http_on_a_tls_port(send: Send) -> None:
    """The TLS handshake fails, and nothing is sent."""
    received: list[bytes] = []
    script = [lambda connection: received.append(connection.recv(65536)), answer("400 Bad Request")]
    with serving(script, reads=False) as server:
        outcome = send(server.url.replace("http:", "https:"), timeout=TIMEOUT)
    assert outcome.is_certainly_undelivered()
    assert outcome.error_has("http")
    assert b"POST" not in received[0]


@fault(10, "an http URL, and a receiver that expects TLS", requests="passes")
def test_tls_on_a_plain_port(send: Send, authority: Authority) -> None:
    """The message is not acknowledged."""
    with serving([answer()], tls=authority.server()) as server:
        outcome = send(server.url.replace("https:", "http:"), timeout=TIMEOUT)
    assert outcome.is_in_doubt()
    assert server.requests == []


@fault(10, "an http URL, and a receiver that answers with a TLS alert", requests="passes")
def test_tls_alert_on_a_plain_port(send: Send) -> None:
    """The TLS alert is reported as a protocol error."""
    with serving([b"\x15\x03\x01\x00\x02\x02\x46"]) as server:
        outcome = send(server.url)
    assert outcome.is_in_doubt()
    assert outcome.error_has("protocol: ", "BadStatusLine")


@fault(11, "only TLS before 1.2", requests="passes")
def test_old_tls(send: Send, authority: Authority) -> None:
    """A receiver without TLS 1.2 or later is refused, and nothing is sent."""
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context = authority.server(newest=ssl.TLSVersion.TLSv1_1)
    context.set_ciphers("ALL:@SECLEVEL=0")
    is_refused(send, context, "alert protocol version", verify=str(authority.file))


@fault(12, "a receiver with TLS 1.2 asks for a client certificate", requests="passes")
def test_client_certificate(send: Send, authority: Authority) -> None:
    """If the connection has no client certificate, nothing is sent."""
    tls = authority.server(asks_for_certificate=True, newest=ssl.TLSVersion.TLSv1_2)
    is_refused(send, tls, "handshake failure", verify=str(authority.file))


@fault(12, "a receiver with TLS 1.3 asks for a client certificate")
def test_client_certificate_after_the_handshake(send: Send, authority: Authority) -> None:
    """With TLS 1.3 the refusal comes after the handshake. The receiver has not read the message, either."""
    tls = authority.server(asks_for_certificate=True)
    is_refused(send, tls, "certificate required", verify=str(authority.file))

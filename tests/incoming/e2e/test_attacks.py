"""What comes over the wire to a real API server, from people who mean no good."""

from __future__ import annotations

import base64
import re
import statistics
import threading
import time
from collections import Counter
from collections.abc import Sequence

import pytest

from tests.incoming.asgi import LOGIN, PASSWORD, basic
from tests.incoming.conftest import contact
from tests.incoming.e2e.endpoint import PATH, Endpoint, second_of
from tests.incoming.e2e.seed import LIMITED

pytestmark = pytest.mark.e2e

AUTHORIZATION = ": ".join(basic()).encode()
MARK = "Wichtelmann"
BODY = contact(LAST_NAME=MARK)
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


def request(
    body: bytes = BODY,
    *lines: bytes,
    path: str = PATH,
    length: int | None = None,
    credentials: bytes = AUTHORIZATION,
    method: str = "POST",
) -> bytes:
    """Return a request as it goes over the wire."""
    head = [
        f"{method} {path} HTTP/1.1".encode(),
        b"Host: airflow.example.com",
        credentials,
        b"Content-Type: application/json",
        *([b"Content-Length: %d" % (len(body) if length is None else length)] if length != -1 else []),
        *lines,
    ]
    return b"\r\n".join([*(line for line in head if line), b"", body])


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in STATUS.findall(answer)]


NESTED = b'{"entity": {"CONTACT_ID": 7, "X": ' + b"[" * 90_000 + b"]" * 90_000 + b"}}"
LARGE = b"x" * 300_000
TRANSFER = b"Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(request(), [200], id="right"),
        pytest.param(request(LARGE, length=300_000), [413], id="large, and says so"),
        pytest.param(request(b"", length=10**12), [413], id="says that it is large"),
        pytest.param(request(chunked(*[b"x" * 50_000] * 6), TRANSFER, length=-1), [413], id="large chunks"),
        pytest.param(request(chunked(BODY, b""), TRANSFER, length=-1), [200], id="chunked"),
        pytest.param(request(chunked(BODY[:9], BODY[9:], b""), TRANSFER, length=-1), [200], id="chunks"),
        pytest.param(request(b"zz\r\nx\r\n", TRANSFER, length=-1), [400], id="no chunk"),
        pytest.param(request(BODY, b"Expect: 100-continue"), [100, 200], id="expects to go on"),
        pytest.param(request(BODY[:-5]), [400], id="no JSON any more"),
        pytest.param(request(NESTED), [400], id="deep"),
        pytest.param(request(BODY.decode().encode("utf-16")), [400], id="UTF-16"),
        pytest.param(request(BODY, b"Content-Type: text/xml"), [415, 200, 400], id="two types"),
        pytest.param(request(BODY, b"Content-Encoding: gzip"), [415], id="said to be compressed"),
        pytest.param(request(BODY, AUTHORIZATION), [401], id="credentials twice"),
        pytest.param(request(BODY, credentials=b""), [401], id="no credentials"),
        pytest.param(request(BODY, credentials=b"Authorization: Basic \xff\xfe"), [401], id="no ASCII"),
        pytest.param(request(BODY, b"Content-Length: %d" % len(BODY)), [200, 400], id="two lengths"),
        pytest.param(request(BODY, b"Content-Length: 3"), [400], id="two other lengths"),
        pytest.param(request(chunked(BODY, b""), TRANSFER), [200, 400], id="a length, and chunks"),
        pytest.param(request(BODY, b"X: y\r\n Z: folded"), [200, 400], id="folded header"),
        pytest.param(request(BODY, b"X-Request-Id: a\nSet-Cookie: b"), [200, 400], id="bare line feed"),
        pytest.param(request(BODY, b"X: " + b"y" * 200_000), [200, 400, 431], id="large header"),
        pytest.param(request(BODY, *[b"X: y"] * 2_000), [200, 400, 431], id="many headers"),
        pytest.param(request(BODY, b"Cookie: _token=nonsense"), [200], id="a cookie of nobody's"),
        pytest.param(request(BODY, b"Cookie: _token=eyJhbGciOiJub25lIn0.e30."), [200], id="unsigned token"),
        pytest.param(request(BODY, b"webhook-id: msg 1"), [400], id="no id"),
        pytest.param(request(path=f"{PATH}%00"), [401], id="NUL"),
        pytest.param(request(path=f"{PATH}%0a"), [401, 404], id="line feed"),
        pytest.param(request(path=f"{PATH};x=1"), [401], id="parameters"),
        pytest.param(request(path="/insightly/hooks/other"), [401], id="another type of connection"),
        pytest.param(request(path="/insightly/hooks/unknown"), [401], id="unknown connection"),
        pytest.param(request(path=f"/insightly/hooks/{'x' * 50_000}"), [401, 400, 414], id="long path"),
        pytest.param(request(path=f"{PATH}/"), [404], id="slash at the end"),
        pytest.param(request(path="/insightly/hooks/a%2Fcrm"), [404], id="encoded slash"),
        pytest.param(request(path="/insightly/hooks/../hooks/crm"), [404], id="dots"),
        pytest.param(request(path="/insightly/hooks/%2e%2e/crm"), [404], id="encoded dots"),
        pytest.param(request(path=f"{PATH}?record_type=%00"), [404], id="no record type"),
        pytest.param(request(b"", method="GET"), [405], id="GET"),
        pytest.param(request(method="PUT"), [405], id="PUT"),
        pytest.param(b"POST " + PATH.encode() + b" HTTP/9.9\r\n\r\n", [400, 401, 505], id="another HTTP"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", [400], id="TLS"),
    ],
)  # fmt: skip
def test_request(server: Endpoint, sent: bytes, expected: Sequence[int]) -> None:
    """Each request is answered as it should be, never with 500, and the server goes on."""
    answer = server.raw(sent)
    found = statuses(answer)
    assert set(found) <= set(expected), answer[:500]
    assert found, "no answer"
    assert MARK.encode() not in answer
    assert server.version_seconds() < 5


def test_slash_before_the_path(server: Endpoint) -> None:
    """An address that isn't the endpoint's stores nothing, whatever Airflow answers there."""
    before = server.spans()
    answer = server.raw(request(path=f"/{PATH}"))
    assert statuses(answer)[0] in (404, 405)
    assert server.spans() == before


def test_smuggled_request(server: Endpoint) -> None:
    """A request that hides in another one's body isn't answered: the first refusal ends the connection."""
    hidden = request(path="/insightly/hooks/hidden")
    answer = server.raw(request(hidden, length=300_000))
    assert statuses(answer) == [413]
    answer = server.raw(request(b"0\r\n\r\n" + hidden, TRANSFER, credentials=b""))
    assert statuses(answer) in ([400], [401])


def test_truncated(server: Endpoint) -> None:
    """A body that breaks off stores nothing, and harms nobody."""
    time.sleep(1.1)
    before = server.spans()
    for _ in range(20):
        server.break_off(request(BODY, length=len(BODY) + 1))
    time.sleep(0.5)
    assert server.spans() == before
    assert server.post()[0] == 200


def test_slow_bodies(server: Endpoint) -> None:
    """Bodies that come a byte after another hold up nobody, and are taken if they end in time."""
    sent = request()
    parts = [sent[: -len(BODY)], *(BODY[n : n + 1] for n in range(len(BODY)))]
    answers: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: answers.append(server.raw(parts, pause=0.03))) for _ in range(30)
    ]
    for thread in threads:
        thread.start()
    time.sleep(1)
    assert server.post()[0] == 200
    assert server.version_seconds() < 5
    for thread in threads:
        thread.join()
    assert [statuses(answer) for answer in answers] == [[200]] * 30


def test_replays(server: Endpoint) -> None:
    """A message that comes again within an hour makes no further event, however late it is."""
    headers = ("webhook-id", "msg_replayed")
    assert "Airflow knows" in server.post(None, headers)[1]
    time.sleep(1.2)
    before = {asset: len(spans) for asset, spans in server.spans().items()}
    for _ in range(20):
        assert server.post(None, headers) == (200, '{"detail":"The webhook was accepted before."}')
    assert {asset: len(spans) for asset, spans in server.spans().items()} == before


def test_too_many(server: Endpoint) -> None:
    found = Counter(server.post(path="/insightly/hooks/limited")[0] for _ in range(LIMITED + 10))
    assert found[200] <= LIMITED
    assert found[429] >= 10
    answer = server.raw(request(path="/insightly/hooks/limited"))
    assert re.search(rb"\r\nretry-after: [1-9]", answer, re.IGNORECASE)


def test_large_body_gets_its_answer(server: Endpoint) -> None:
    """A sender that sends all before it reads sees why it was refused."""
    for _ in range(10):
        assert server.post(LARGE)[0] == 413


@pytest.mark.parametrize(
    "guesses", [1_000, pytest.param(10_000, marks=[pytest.mark.scale, pytest.mark.timeout(600)])]
)
def test_wrong_credentials_in_a_row(server: Endpoint, guesses: int) -> None:
    """Eight clients guess passwords: the server answers others meanwhile, and keeps none of it."""
    server.post()
    memory = server.memory()
    counts: Counter[int] = Counter()

    def guess(part: int) -> None:
        client = server.client()
        for number in range(guesses // 8):
            path = PATH if number % 2 else f"/insightly/hooks/guess{part}_{number}"
            counts[server.post(path=path, password=f"{part}-{number}", client=client)[0]] += 1

    threads = [threading.Thread(target=guess, args=(part,)) for part in range(8)]
    for thread in threads:
        thread.start()
    others, right = [], []
    while any(thread.is_alive() for thread in threads):
        others.append(server.version_seconds())
        started = time.perf_counter()
        right.append((server.post()[0], time.perf_counter() - started))
        time.sleep(0.2)
    assert counts == {401: guesses}
    assert {status for status, _ in right} == {200}
    assert statistics.quantiles(others, n=20)[-1] < 2
    assert statistics.quantiles([seconds for _, seconds in right], n=20)[-1] < 4
    assert server.memory() - memory < 50_000_000


def test_time_of_a_refusal(server: Endpoint) -> None:
    """A refusal takes as long for a connection that there is as for one that there isn't."""
    server.post()
    client = server.client()
    taken: dict[str, list[float]] = {PATH: [], "/insightly/hooks/unknown": [], "/insightly/hooks/limited": []}
    for _ in range(150):
        for path, seconds in taken.items():
            started = time.perf_counter()
            assert server.post(path=path, password="wrong", client=client)[0] == 401
            seconds.append(time.perf_counter() - started)
    medians = {path: statistics.median(seconds) for path, seconds in taken.items()}
    assert max(medians.values()) / min(medians.values()) < 1.3, medians


def test_covered(server: Endpoint) -> None:
    """Of each webhook that was taken, an event on each asset tells."""
    moments = []
    for _ in range(30):
        moments.append(time.time())
        assert server.post()[0] == 200
        time.sleep(0.1)
    spans = server.spans()
    assert len(spans) == 2
    for events in spans.values():
        for moment in moments:
            assert any(since <= second_of(moment) < until for since, until in events)


def test_log(server: Endpoint) -> None:
    """After all of that: no credentials, no contents, no error of the server's own in its log."""
    server.raw(request(path=f"{PATH}?password={PASSWORD}"))
    log = server.log()
    assert f"path={PATH}" in log
    for secret in (PASSWORD, basic()[1], base64.b64encode(PASSWORD.encode()).decode(), MARK, "Zoë"):
        assert secret not in log
    assert "Traceback" not in log
    assert "status_code=500" not in log
    assert "A webhook can't be accepted" not in log
    assert f"login={LOGIN}" not in log

"""Compares the deliver task with loops over ``requests.Session``, at several distances from the receiver.

Part of benchmarks/delivery.py, which describes the contestants and the targets. benchmarks/delaying_proxy.py
makes the round trips.
"""

from __future__ import annotations

import http.client
import re
import shutil
import ssl
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from contestants import Run, by_engine, by_session, make_payloads
from delaying_proxy import delayed
from receiver import Counts, RunningReceiver, receiving

__all__ = ["by_distance"]

POSTS = 2_000
"""How many POSTs are sent without a round trip."""
ROUNDS = 50
"""With a round trip: how many POSTs a contestant sends for each one at once. So all take the same time."""
EXCHANGES = 9
LOAD_TOOLS = {  # for each, what prints requests a second, and how it says so
    "wrk": (["wrk", "-t1", "-c8", "-d2"], r"Requests/sec:\s+([\d.]+)"),
    "hey": (["hey", "-c", "8", "-z", "2s"], r"Requests/sec:\s+([\d.]+)"),
    "oha": (["oha", "--no-tui", "-c", "8", "-z", "2s"], r"Requests/sec:\s+([\d.]+)"),
    "ab": (["ab", "-k", "-c8", "-t2"], r"Requests per second:\s+([\d.]+)"),
}


@dataclass(frozen=True)
class Contestant:
    """A way of sending, and how many POSTs it makes at once."""

    name: str
    send: Callable[..., Run]
    at_once: int


ONE_SESSION = Contestant("one requests.Session", by_session, 1)
SESSIONS = Contestant("8 Sessions, a thread each", by_session, 8)
OPERATOR = Contestant("WebhookOperator, concurrency=8", by_engine, 8)
BY_NAME = Contestant("the same, receiver by name", by_engine, 8)
OPERATOR_32 = Contestant("WebhookOperator, concurrency=32", by_engine, 32)


@dataclass(frozen=True)
class Distance:
    """The distance to a receiver.

    :param round_trip: the time of a round trip in seconds.
    """

    name: str
    url: str
    receiver: RunningReceiver
    round_trip: float
    contestants: tuple[Contestant, ...] = (ONE_SESSION, SESSIONS, OPERATOR, OPERATOR_32)

    def posts(self, contestant: Contestant, scale: float) -> int:
        """Return how many payloads a contestant sends there."""
        if self.round_trip:
            return contestant.at_once * max(2, round(ROUNDS * scale))
        # A rate needs no more of the slowest one.
        return round(POSTS * scale / (4 if contestant is ONE_SESSION else 1))

    def send(self, contestant: Contestant, payloads: list[dict[str, Any]]) -> tuple[Run, Counts]:
        """Send with a contestant, and return its times and the receiver's counts."""
        url = self.url.replace("127.0.0.1", "localhost") if contestant is BY_NAME else self.url
        self.receiver.take_counts()
        run = contestant.send(url, payloads, contestant.at_once, ca=self.receiver.ca)
        counts = self.receiver.take_counts()
        assert counts.posts >= len(payloads), counts
        return run, counts


def by_distance(repetitions: int, scale: float) -> dict[str, float]:
    """Return the ratios with targets at each distance, and print the table."""
    measured: dict[str, float] = {}
    with ExitStack() as cleanup:
        plain = cleanup.enter_context(receiving())
        secured = cleanup.enter_context(receiving(tls=True))
        with_name = (ONE_SESSION, SESSIONS, OPERATOR, BY_NAME, OPERATOR_32)
        distances = [
            Distance("http, loopback", plain.url, plain, 0.0, with_name),
            Distance("https, loopback", secured.url, secured, 0.0),
        ]
        for milliseconds in (20, 80):
            url = cleanup.enter_context(delayed(secured.url, milliseconds / 1000))
            name = f"https, {milliseconds} ms round trip"
            distances.append(Distance(name, url, secured, milliseconds / 1000))
        print(
            f"\n{'POSTs of 1 kB':34} {'number':>6} {'POSTs/s':>8} {'CPU µs':>7} {'÷ 8 S.':>7} "
            f"{'conn.':>6} {'TLS full':>8} {'resumed':>8} {'receiver':>9}"
        )
        for distance in distances:
            measured |= at_distance(distance, repetitions, scale)
    print(
        "CPU: the sender's processor time a POST; ÷ 8 S.: POSTs a second to those of 8 Sessions; conn., TLS: "
        "connections\nand handshakes that the receiver saw; receiver: its own share of a processor meanwhile."
    )
    return measured


def at_distance(distance: Distance, repetitions: int, scale: float) -> dict[str, float]:
    """Return the ratios with targets at this distance, and print its rows."""
    sent: dict[Contestant, list[tuple[Run, Counts]]] = defaultdict(list)
    limits, exchanges = [], []
    payloads = {c: make_payloads(distance.posts(c, scale)) for c in distance.contestants}
    distance.send(OPERATOR, payloads[OPERATOR][:20])  # what is loaded only once, is now
    tool, limit = receivers_limit(distance.url)
    for _ in range(repetitions):
        exchanges.append(one_exchange(distance.url, distance.receiver.ca))
        for contestant in distance.contestants:
            sent[contestant].append(distance.send(contestant, payloads[contestant]))
        if limit is not None and not distance.round_trip:
            limits.append(limit())

    rates = {c: [run.rate for run, _ in sent[c]] for c in distance.contestants}
    print(f"{distance.name}: one exchange on a warm connection takes {median(exchanges) * 1000:.2f} ms")
    for contestant in distance.contestants:
        print_row(contestant, sent[contestant], ratio(rates[contestant], rates[SESSIONS]))
    if limits:
        print(f"  {f'the receiver itself, by {tool}':32} {'':6} {median(limits):8.0f}")

    if distance.receiver.ca is None:
        return {"operator / a Session, http": ratio(rates[OPERATOR], rates[ONE_SESSION])}
    milliseconds = round(distance.round_trip * 1000)
    measured = {f"operator / 8 Sessions, TLS {milliseconds} ms": ratio(rates[OPERATOR], rates[SESSIONS])}
    if distance.round_trip:
        ideals = [OPERATOR_32.at_once / seconds for seconds in exchanges]
        share = ratio(rates[OPERATOR_32], ideals)
        print(f"  of what 32 at once could do, {median(ideals):.0f} POSTs/s: {share:.2f}")
        if milliseconds == 80:
            measured["32 at once of ideal, 80 ms"] = share
    return measured


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the median of the ratios within each repetition."""
    return median(our / their for our, their in zip(ours, theirs, strict=True))


def print_row(contestant: Contestant, sent: list[tuple[Run, Counts]], to_sessions: float) -> None:
    runs, counts = [run for run, _ in sent], [seen for _, seen in sent]
    share = median(seen.cpu / run.wall for run, seen in sent)
    print(
        f"  {contestant.name:32} {runs[0].posts:6} {median(run.rate for run in runs):8.0f} "
        f"{median(run.cpu_a_post for run in runs):7.0f} {to_sessions:7.2f} "
        f"{median(seen.connections for seen in counts):6.0f} {median(seen.full for seen in counts):8.0f} "
        f"{median(seen.resumed for seen in counts):8.0f} {share:9.0%}",
        flush=True,
    )


def one_exchange(url: str, ca: str | None) -> float:
    """Return the seconds of a POST and its answer on an open connection."""
    address, body = urlsplit(url), make_payloads(1)[0]["body"].encode()
    connection = (
        http.client.HTTPConnection(address.netloc, timeout=30)
        if ca is None
        else http.client.HTTPSConnection(
            address.netloc, timeout=30, context=ssl.create_default_context(cafile=ca)
        )
    )
    taken = []
    with closing(connection):
        for _ in range(1 + EXCHANGES):
            started = time.perf_counter()
            connection.request("POST", address.path, body, {"Content-Type": "application/json"})
            connection.getresponse().read()
            taken.append(time.perf_counter() - started)
    return median(taken[1:])


def receivers_limit(url: str) -> tuple[str, Callable[[], float] | None]:
    """Return an installed load tool, if any, and a function that measures the receiver's speed with it."""
    for name, (command, pattern) in LOAD_TOOLS.items():
        if shutil.which(name):

            def measure(command: list[str] = command, pattern: str = pattern) -> float:
                done = subprocess.run([*command, url], capture_output=True, text=True, check=True)
                found = re.search(pattern, done.stdout)
                assert found, done.stdout
                return float(found[1])

            return name, measure
    return "", None

"""A busy CRM for benchmarks/soak.py: a day of changes by Insightly's own API calls, and a journal of them."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import math
import random
import threading
import time
from collections import deque
from datetime import datetime, timezone
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests

from airflow_insightly_hooks.core.records import RECORD_TYPES

__all__ = ["RATED", "Change", "Crm", "Day", "Sandbox"]

KINDS = {"Contacts": 0.25, "Leads": 0.2, "Tasks": 0.45, "Organisations": 0.1}
"""Record types, and their shares of all changes."""
TEXT = {"Contacts": "TITLE", "Leads": "TITLE", "Tasks": "TITLE", "Organisations": "BACKGROUND"}
"""The field of each type that holds the number of the record's latest change."""
NEEDED: dict[str, dict[str, Any]] = {
    "Contacts": {"FIRST_NAME": "Ada", "EMAIL_ADDRESS": "ada@example.com"},
    "Leads": {"LAST_NAME": "Lovelace", "LEAD_SOURCE_ID": 3300001, "LEAD_STATUS_ID": 3400001},
    "Tasks": {"COMPLETED": False, "DETAILS": "Call back"},
    "Organisations": {"ORGANISATION_NAME": "Analytical Engines"},
}
RATED = 4
"""The rating from which on a lead meets the criteria."""
POOL = 400
"""How many records of each type exist before the day begins."""
HOT = 10
"""For each thread: how many records of each type are edited many times."""
IDLE = 5.0
"""After so many idle seconds, a connection isn't used again, because the sandbox closes it at some time."""
HEADERS = {
    "Authorization": "Basic " + base64.b64encode(b"sandbox-key:").decode(),
    "Content-Type": "application/json",
}


MORNING, EVENING, AT_NIGHT = 7.0, 19.0, 6.0
"""Between these hours, the day is played slower by this factor, because there are few changes at night."""
HOURS = ((0.0, MORNING, AT_NIGHT), (MORNING, EVENING, 1.0), (EVENING, 24.0, AT_NIGHT))
"""The parts of a day: begin, end, and the factor of its speed."""


class Change(NamedTuple):
    """One change of one record.

    :ivar number: the number of the change. The record shows it until the next change.
    :ivar what: ``created``, ``updated`` or ``deleted``.
    :ivar at: when the CRM had answered, in seconds since 1970. The change was made by then.
    :ivar rating: the rating of a lead; 0 for other records.
    """

    number: int
    record_type: str
    record_id: int
    what: str
    updated: str
    at: float
    rating: int = 0


class Sandbox:
    """A sandbox in its own process.

    :ivar api_url: the base URL of its API.
    """

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self.api_url = f"{self._url}/v3.1"

    def is_up(self) -> bool:
        """Whether it answers."""
        try:
            return requests.get(f"{self._url}/_sandbox", timeout=5).ok
        except requests.ConnectionError:
            return False

    def configure(self, **settings: Any) -> None:
        """Change settings such as ``requests_per_second``."""
        requests.put(f"{self._url}/_sandbox", json=settings, timeout=60).raise_for_status()

    def create_many(self, record_type: str, records: list[dict[str, Any]]) -> list[int]:
        """Create records with any fields in one request, and return their ids."""
        answer = requests.post(
            f"{self._url}/_sandbox/records/{record_type}?answer=ids", json=records, timeout=300
        )
        answer.raise_for_status()
        ids: list[int] = answer.json()
        return ids


class Day:
    """The curve of a day: quiet nights, a peak in the morning and one in the afternoon.

    :param hours: how long the simulated day is; a shorter one has the same curve.
    :param speed: simulated seconds in a real one, by day; at night there are ``AT_NIGHT`` times as many.
    :param peak: changes in a simulated second at the peaks.
    """

    def __init__(self, hours: float, speed: float, peak: float) -> None:
        self.speed, self.peak = speed, peak
        self._hour = hours / 24 * 3600 / speed  # the real seconds of an hour by day
        self.seconds = self.at(24)
        """The day's length in real seconds."""

    def rate(self, elapsed: float) -> float:
        """Return the changes in a real second, at a time in real seconds after the day's beginning."""
        hour = self.hour(elapsed)
        peaks = sum(math.exp(-(((hour - at) / 1.1) ** 2) / 2) for at in (10.0, 15.5))
        speed = self.speed if MORNING <= hour < EVENING else self.speed * AT_NIGHT
        return speed * self.peak * (0.01 + 0.99 * min(1.0, peaks))

    def hour(self, elapsed: float) -> float:
        """Return the hour of the day, at a time in real seconds after the day's beginning."""
        left = elapsed / self._hour
        for begin, end, speed in HOURS:
            if left < (end - begin) / speed:
                return begin + left * speed
            left -= (end - begin) / speed
        return 24.0

    def at(self, hour: float) -> float:
        """Return after how many real seconds it is a given hour of the day."""
        passed = sum(max(0.0, min(hour, end) - begin) / speed for begin, end, speed in HOURS)
        return self._hour * passed

    def expected(self) -> int:
        """Return about how many changes the day has, without imports."""
        return int(sum(self.rate(second) for second in range(int(self.seconds))))


class Crm:
    """Users of the CRM, in threads. Each user has their own records.

    :param due: real seconds after which a time trigger reads an organisation again; some are deleted before.
    :ivar journal: all changes so far. The changes of a record are in order.
    :ivar late: the largest delay of a change after its planned time, in seconds.
    """

    def __init__(self, sandbox: Sandbox, day: Day, due: float, threads: int = 4) -> None:
        self._sandbox, self._day, self._due = sandbox, day, due
        self.journal: list[Change] = []
        self.late = 0.0
        self.failed: list[BaseException] = []
        self._numbers = itertools.count(1)
        self._users = [threading.Thread(target=self._work, args=(n, threads)) for n in range(threads)]
        self._pools = [self._pool() for _ in self._users]
        self._stopped = False

    def _pool(self) -> dict[str, list[int]]:
        """Create records that are too old to be new for a workflow's first run."""
        size = POOL // len(self._users)
        yesterday = datetime.fromtimestamp(time.time() - 86_400, timezone.utc).isoformat(" ")[:19]
        times = {"DATE_CREATED_UTC": yesterday, "DATE_UPDATED_UTC": yesterday}
        return {
            kind: self._sandbox.create_many(kind, [NEEDED[kind] | times for _ in range(size)])
            for kind in KINDS
        }

    def start(self) -> None:
        """Begin the day."""
        self._began = time.monotonic()
        for user in self._users:
            user.start()

    def elapsed(self) -> float:
        """Return the real seconds since the day's beginning."""
        return time.monotonic() - self._began

    def stop(self) -> None:
        """End the day now."""
        self._stopped = True
        for user in self._users:
            if user.ident is not None:
                user.join()

    def is_working(self) -> bool:
        """Whether the day goes on."""
        return any(user.is_alive() for user in self._users)

    def import_records(self, kind: str, count: int) -> None:
        """Create many records with one update time, as an import does."""
        now = time.time()
        updated = datetime.fromtimestamp(now, timezone.utc).isoformat(" ")[:19]
        numbers = [next(self._numbers) for _ in range(count)]
        times = {"DATE_CREATED_UTC": updated, "DATE_UPDATED_UTC": updated}
        rating = {"LEAD_RATING": 1} if kind == "Leads" else {}
        records = [NEEDED[kind] | rating | times | {TEXT[kind]: f"soak-{number}"} for number in numbers]
        ids = self._sandbox.create_many(kind, records)
        at = time.time()
        self.journal.extend(
            Change(number, kind, record, "created", updated, at)
            for number, record in zip(numbers, ids, strict=True)
        )

    def create(self, kind: str) -> Change:
        """Create one record by an API call, in the caller's thread."""
        return _User(self._sandbox, self.journal, self._numbers).create(kind, 5)

    def _work(self, number: int, threads: int) -> None:
        try:
            self._work_a_day(number, threads)
        except BaseException as error:
            self.failed.append(error)
            raise

    def _work_a_day(self, number: int, threads: int) -> None:
        user = _User(self._sandbox, self.journal, self._numbers)
        chance = random.Random(number)
        pool = self._pools[number]
        young: deque[tuple[int, float]] = deque()
        planned = 0.0
        while not self._stopped:
            # At night, a step is at most a second. So no sleep lasts into the higher rate of the morning.
            step = chance.expovariate(self._day.rate(planned) / threads)
            planned += min(step, 1.0)
            if planned >= self._day.seconds:
                break
            if step > 1.0:
                continue
            if (wait := self._began + planned - time.monotonic()) > 0:
                time.sleep(wait)
            self.late = max(self.late, -wait)
            kind = chance.choices(list(KINDS), list(KINDS.values()))[0]
            if kind == "Organisations":
                self._change_organisation(user, chance, young)
            else:
                self._change(user, chance, kind, pool[kind])

    def _change(self, user: _User, chance: random.Random, kind: str, records: list[int]) -> None:
        rating = chance.randint(1, 5)
        draw = chance.random()
        if draw < 0.12:
            records.append(user.create(kind, rating).record_id)
        elif draw < 0.19 and len(records) > HOT + 10:
            at = chance.randrange(HOT, len(records))
            records[at], records[-1] = records[-1], records[at]
            user.delete(kind, records.pop())
        else:
            few = HOT if draw > 0.9 else len(records)
            user.update(kind, records[chance.randrange(few)], rating)

    def _change_organisation(
        self, user: _User, chance: random.Random, young: deque[tuple[int, float]]
    ) -> None:
        """Create one, edit a pending one, or delete one. Two of three deletions are before its time."""
        kind, draw, now = "Organisations", chance.random(), time.monotonic()
        while young and young[0][1] < now - 1.5 * self._due:
            young.popleft()
        if draw < 0.7 or not young:
            young.append((user.create(kind, 0).record_id, now))
            return
        at = chance.randrange(len(young))
        record = young[at][0]
        if draw < 0.85:
            user.update(kind, record, 0)
        else:
            del young[at]
            user.delete(kind, record)


class _User:
    """A user with a connection to the API. The connection is kept while it is used."""

    def __init__(self, sandbox: Sandbox, journal: list[Change], numbers: Any) -> None:
        address = urlsplit(sandbox.api_url)
        assert address.hostname is not None
        self._connection = http.client.HTTPConnection(address.hostname, address.port, timeout=120)
        self._path = address.path
        self._journal, self._numbers = journal, numbers
        self._used = time.monotonic()

    def create(self, kind: str, rating: int) -> Change:
        number = next(self._numbers)
        return self._write("POST", kind, NEEDED[kind], "created", number, rating)

    def update(self, kind: str, record_id: int, rating: int) -> Change:
        number = next(self._numbers)
        return self._write("PUT", kind, {RECORD_TYPES[kind].id_field: record_id}, "updated", number, rating)

    def delete(self, kind: str, record_id: int) -> Change:
        self._call("DELETE", f"{self._path}/{kind}/{record_id}")
        change = Change(next(self._numbers), kind, record_id, "deleted", "", time.time())
        self._journal.append(change)
        return change

    def _write(
        self, method: str, kind: str, fields: dict[str, Any], what: str, number: int, rating: int
    ) -> Change:
        rated = {"LEAD_RATING": rating} if kind == "Leads" else {}
        body = json.dumps({**fields, **rated, TEXT[kind]: f"soak-{number}"})
        record = json.loads(self._call(method, f"{self._path}/{kind}", body))
        change = Change(
            number,
            kind,
            record[RECORD_TYPES[kind].id_field],
            what,
            record["DATE_UPDATED_UTC"],
            time.time(),
            rating if rated else 0,
        )
        self._journal.append(change)
        return change

    def _call(self, method: str, path: str, body: str | None = None) -> bytes:
        if time.monotonic() - self._used > IDLE:
            self._connection.close()  # the next request opens another one
        self._connection.request(method, path, body, HEADERS)
        answer = self._connection.getresponse()
        content = answer.read()
        self._used = time.monotonic()
        if answer.status >= 300:
            raise ValueError(f"{method} {path} answered {answer.status}: {content[:200]!r}")
        return content

"""The ways of POSTing many payloads that benchmarks/delivery.py compares, and their payloads."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import requests

__all__ = ["Run", "StateStore", "by_engine", "by_session", "make_payloads"]

TIMEOUT = 30.0
STORE_LATENCY = (0.007, 0.016)
"""How many seconds a read or write of Airflow's task state store takes: least and most, as measured."""

_numbers = count()


@dataclass(frozen=True)
class Run:
    """The times of a run, in seconds."""

    posts: int
    wall: float
    cpu: float

    @property
    def rate(self) -> float:
        """POSTs a second."""
        return self.posts / self.wall

    @property
    def cpu_a_post(self) -> float:
        """Microseconds."""
        return self.cpu / self.posts * 1e6


class StateStore:
    """A task state store in memory that takes as long as Airflow's own."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._random = random.Random(7)

    def _wait(self) -> None:
        time.sleep(self._random.uniform(*STORE_LATENCY))

    def get(self, key: str, default: Any = None) -> Any:
        self._wait()
        return json.loads(self._values[key]) if key in self._values else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:  # noqa: ARG002 — Airflow's signature
        self._values[key] = json.dumps(value)
        self._wait()

    def delete(self, key: str) -> None:
        self._wait()
        self._values.pop(key, None)


class TaskInstance:
    """The part of a task instance that the operator uses."""

    dag_id, task_id, run_id = "benchmark", "deliver", "manual__1"
    max_tries = 2

    def xcom_push(self, key: str, value: Any) -> None:
        pass


def make_payloads(number: int) -> list[dict[str, Any]]:
    """Return payloads of 1 kB each, like those of the build task."""
    payloads = []
    for record_id in range(number):
        record = {
            "CONTACT_ID": record_id,
            "FIRST_NAME": f"Person {record_id}",
            "LAST_NAME": "Example",
            "DATE_UPDATED_UTC": "/Date(1489132800000-0800)/",
            "BACKGROUND": "x" * 850,
        }
        payloads.append(
            {
                "message_id": f"msg_{record_id:024x}",
                "record_type": "Contacts",
                "record_id": record_id,
                "event": "added",
                "changed_at": "2017-03-10T08:00:00Z",
                "body": json.dumps({"entity": record}),
            }
        )
    return payloads


def by_engine(
    url: str, payloads: Sequence[dict[str, Any]], concurrency: int = 8, *, ca: str | None = None
) -> Run:
    """Send the payloads with this project's deliver task, including its ledger.

    :param ca: the file with the certificate of the authority, for https.
    :raises AssertionError: if not all payloads are delivered.
    """
    from airflow_insightly_hooks.operators.webhook import WebhookOperator

    conn_id = f"benchmark_{next(_numbers)}"
    extra = {"timeout": TIMEOUT} | ({"verify": ca} if ca is not None else {})
    os.environ[f"AIRFLOW_CONN_{conn_id.upper()}"] = json.dumps(
        {"conn_type": "insightly_webhook", "host": url, "extra": extra}
    )
    operator = WebhookOperator(
        task_id="deliver", payloads=payloads, webhook_conn_id=conn_id, concurrency=concurrency
    )
    context: Any = {"ti": TaskInstance(), "task_state_store": StateStore()}
    wall, cpu = time.perf_counter(), time.process_time()
    report = operator.execute(context)
    run = Run(len(payloads), time.perf_counter() - wall, time.process_time() - cpu)
    assert report["delivered"] == len(payloads), report["undelivered"][:3]
    return run


def by_session(
    url: str, payloads: Sequence[dict[str, Any]], threads: int = 1, *, ca: str | None = None
) -> Run:
    """POST the payloads like a simple Python task: in a loop with a ``requests.Session`` for each thread.

    :param ca: the file with the certificate of the authority, for https.
    """

    def loop(part: Sequence[dict[str, Any]]) -> None:
        with requests.Session() as session:
            for payload in part:
                session.post(
                    url,
                    data=payload["body"].encode(),
                    headers={"Content-Type": "application/json", "webhook-id": payload["message_id"]},
                    timeout=TIMEOUT,
                    verify=True if ca is None else ca,
                ).raise_for_status()

    wall, cpu = time.perf_counter(), time.process_time()
    if threads == 1:
        loop(payloads)
    else:
        started = [threading.Thread(target=loop, args=(payloads[n::threads],)) for n in range(threads)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
    return Run(len(payloads), time.perf_counter() - wall, time.process_time() - cpu)

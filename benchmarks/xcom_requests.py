"""The cost of an XCom for Airflow's API server: processor time and memory, by the XCom's size.

The execution API runs in this process, on its own database. It gets the same requests as from a worker: to
store an XCom, and to return it. Seconds are the processor time of this process, so other load on the machine
hardly changes them. The time of the database comes in addition. While an API server computes, it answers no
other request. ``large_xcoms.py`` shows the same on a whole Airflow, in real time.

Usage: python benchmarks/xcom_requests.py [postgresql|sqlite]
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from postgresql import temporary_database  # noqa: E402 — behind the path to it

MEGABYTES = (1, 2, 5, 10, 20, 40, 80)
LETTERS = "abcdefghijklmnop"
ADDRESS = "/xcoms/flow/run/build/return_value"


def make_change(number: int, random: Random) -> dict[str, Any]:
    """Return a change of a contact with a note. It is 2 kB of JSON that compress like normal texts."""
    note = " ".join("".join(random.choices(LETTERS, k=random.randint(2, 9))) for _ in range(180))
    fields = {f"FIELD_{n}": None for n in range(20)} | {
        f"TEXT_{n}": f"{random.randrange(10**9)}" for n in range(15)
    }
    return {
        "record_type": "Contacts",
        "record_id": number,
        "event": "added",
        "changed_at": "2024-05-01T00:30:00Z",
        "record": {"CONTACT_ID": number, **fields, "BACKGROUND": note},
    }


@contextlib.contextmanager
def database(kind: str, folder: str) -> Iterator[str]:
    """Yield the address of a database."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/airflow.db?timeout=60"
    else:
        with temporary_database() as address:
            yield address


def ask(client: Any, method: str, body: bytes | None = None) -> str:
    """Make a request, and return its processor time and its real time in seconds."""
    processor, clock = time.process_time(), time.monotonic()
    answer = client.request(method, ADDRESS, content=body)
    answer.raise_for_status()
    return f"{time.process_time() - processor:8.2f} s{time.monotonic() - clock:8.2f} s"


def held() -> int:
    """Return the most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def measure() -> None:
    import httpx
    from airflow.sdk.execution_time.supervisor import in_process_api_server
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session

    from tests.ledgers import add_flow, add_run

    initdb()
    with create_session() as session:
        add_flow(session, "flow")
        add_run(session, "run")
    client = httpx.Client(
        transport=in_process_api_server().transport,
        base_url="http://in-process",
        headers={"Authorization": "Bearer none", "Content-Type": "application/json"},
        timeout=300,
    )
    random = Random(1)
    changes = [make_change(number, random) for number in range(40_000)]
    ask(client, "POST", b"[]")  # loads what is loaded late
    print(f"{'XCom':>8}{'changes':>9}   store: processor, clock   return: processor, clock   memory, at most")
    for megabytes in MEGABYTES:
        count = megabytes * 1_000_000 // len(json.dumps(changes[0]))
        body = json.dumps(changes[:count]).encode()
        stored, returned = ask(client, "POST", body), ask(client, "GET")
        print(f"{len(body) / 1e6:5.1f} MB{count:9,}   {stored}     {returned}     {held():10} MB", flush=True)


def main() -> None:
    kind = "sqlite" if "sqlite" in sys.argv[1:] else "postgresql"
    with tempfile.TemporaryDirectory() as folder, database(kind, folder) as address:
        os.environ["AIRFLOW_HOME"] = folder
        os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = address
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
        logging.disable(logging.ERROR)
        measure()


if __name__ == "__main__":
    main()

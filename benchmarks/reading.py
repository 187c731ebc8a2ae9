"""Reads a window of 100,000 changed records: requests, time compared with the rate limit, and memory.

``python benchmarks/reading.py [records]``. The sandbox runs in its own process.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import requests

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

from airflow_insightly_hooks.core.dates import format_api_time
from airflow_insightly_hooks.core.detection.changes import ChangeWindow, changes_in
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.demo.airflow_stack import free_port, wait_for
from airflow_insightly_hooks.hooks.insightly import InsightlyHook

RECORDS = 100_000
BATCH = 5_000
PER_SECOND = 10
START = datetime(2025, 5, 1, tzinfo=timezone.utc)
CONTACTS = RECORD_TYPES["Contacts"]


def resident() -> float:
    """Return the most memory that the process has held so far, in MB."""
    # Not ru_maxrss, because a process inherits it from its parent.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def seed(sandbox: str, records: int) -> None:
    """Create contacts, all of them within a day."""
    for first in range(0, records, BATCH):
        batch = []
        for number in range(first, min(first + BATCH, records)):
            at = format_api_time(START + timedelta(seconds=number * 86_400 / records))
            text = at.replace("T", " ").rstrip("Z")
            batch.append({"FIRST_NAME": f"{number}", "DATE_CREATED_UTC": text, "DATE_UPDATED_UTC": text})
        path = f"{sandbox}/_sandbox/records/Contacts?answer=ids"
        requests.post(path, json=batch, timeout=60).raise_for_status()


def main(records: int = RECORDS) -> None:
    """Read the contacts, and print the cost."""
    port = free_port()
    sandbox = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "airflow_insightly_hooks.sandbox", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:

        def is_up() -> bool:
            try:
                return requests.get(f"{sandbox}/_sandbox", timeout=1).ok
            except requests.ConnectionError:
                return False

        wait_for("the sandbox", is_up, 30)
        seed(sandbox, records)
        os.environ["AIRFLOW_CONN_INSIGHTLY_DEFAULT"] = json.dumps(
            {
                "conn_type": "insightly",
                "host": f"{sandbox}/v3.1",
                "password": "sandbox-key",
                "extra": {"requests_per_second": PER_SECOND},
            }
        )
        settings = {"requests_per_second": PER_SECOND + 2}
        requests.put(f"{sandbox}/_sandbox", json=settings, timeout=10).raise_for_status()
        hook = InsightlyHook()
        hook.server_time()
        asked = hook.requests_made
        window = ChangeWindow(START, START + timedelta(days=1))
        before, began = resident(), time.perf_counter()
        found = sum(
            1
            for _ in changes_in(
                window, CONTACTS, hook.iter_records("Contacts", updated_after=window.search_from)
            )
        )
        took = time.perf_counter() - began
        asked = hook.requests_made - asked
        ideal = asked / PER_SECOND
        print(f"{found} of {records} changes, {asked} requests (a plain loop: {records // 500 + 1})")
        print(f"{took:.1f} s, {took / ideal:.3f} times what {PER_SECOND} requests a second allow")
        print(f"{resident() - before:.0f} MB more than before")
    finally:
        process.terminate()
        process.wait(10)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""``make demo``: an Insightly record change becomes a webhook, through a real Airflow.

Everything runs on this machine, on free ports of 127.0.0.1. All state is in ``.demo/``, made anew each time.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import requests

sys.path.insert(0, str(Path(__file__).parent))
from airflow_stack import AirflowStack, StackError, free_port, step, wait_for

ROOT = Path(__file__).parent.parent
HOME = ROOT / ".demo"
KEY = ("sandbox-key", "")
RECEIVER = ("demo", "demo-password")
DAG = "new_task_webhook"
TASK = {
    "TITLE": "Call back about the offer",
    "STATUS": "NOT STARTED",
    "PRIORITY": 2,
    "COMPLETED": False,
    "DUE_DATE": "2027-03-10 08:00:00",
}
DELIVERED_WITHIN = 120.0
PAGE = "/plugin/insightly-webhooks"
"""Where Airflow's UI has the pages."""


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", action="store_true", help="exit after the delivery, 0 if it arrived")
    parser.add_argument("--port", type=int, default=0, help="the sandbox's port; a free one by default")
    options = parser.parse_args()
    for stop in (signal.SIGINT, signal.SIGTERM):  # a shell may have set the first one to be ignored
        signal.signal(stop, signal.default_int_handler)
    started = time.monotonic()
    try:
        with contextlib.ExitStack() as cleanup:
            return _demo(cleanup, options.port or free_port(), options.once, started)
    except StackError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.")
        return 130 if options.once else 0


def _demo(cleanup: contextlib.ExitStack, port: int, once: bool, started: float) -> int:
    cleanup.enter_context(_fresh_home())
    sandbox = f"http://127.0.0.1:{port}"
    bin_url = f"{sandbox}/bin/{DAG}"
    airflow = AirflowStack(
        HOME,
        ROOT / "dags",
        {
            "insightly_default": {"conn_type": "insightly", "host": f"{sandbox}/v3.1", "password": KEY[0]},
            **{
                name: {
                    "conn_type": "insightly_webhook",
                    "host": f"{sandbox}/bin/{bin_name}",
                    "login": RECEIVER[0],
                    "password": RECEIVER[1],
                    "extra": {"web_url": f"{sandbox}/bin/{bin_name}"},
                }
                for name, bin_name in {
                    "webhook_default": DAG,
                    "billing_webhook": "billing",
                    "newsletter_webhook": "newsletter",
                }.items()
            },
        },
    )
    cleanup.callback(airflow.stop)
    cleanup.callback(print, "\nStopping what was started …", flush=True)
    print("Insightly hooks for Airflow: demo")
    with step("migrating Airflow's database (SQLite, in .demo/)"):
        airflow.migrate()
    with step("starting the sandbox, and Airflow's API server, scheduler, DAG processor, triggerer"):
        command = [sys.executable, "-m", "airflow_insightly_hooks.sandbox", "--port", str(port)]
        airflow.processes.start("sandbox", command, airflow.env)
        airflow.start()
        airflow.wait_until_healthy()
    with step(f"waiting for the DAG {DAG}, and unpausing it"):
        airflow.wait_for_dag(DAG)
        credentials = {"username": RECEIVER[0], "password": RECEIVER[1]}
        requests.put(bin_url, json=credentials, timeout=10).raise_for_status()
        airflow.unpause(DAG)
    with step("waiting until its first run watches for changes"):
        wait_for("a run that watches", lambda: _watching(airflow), timeout=DELIVERED_WITHIN)
    with step("adding a task in the CRM (the sandbox's API, as a CRM user's client would)"):
        changed_at = datetime.now(timezone.utc)
        answer = requests.post(f"{sandbox}/v3.1/Tasks", json=TASK, auth=KEY, timeout=10)
        answer.raise_for_status()
        task_id = answer.json()["TASK_ID"]
    with step("waiting for its webhook in the request bin"):
        arrived = wait_for("the webhook", lambda: _arrived(airflow, bin_url, task_id), DELIVERED_WITHIN)
    with step('waiting until the page "Insightly webhooks" in Airflow shows it'):
        wait_for("the delivery on the page", lambda: _is_listed(airflow, task_id), DELIVERED_WITHIN)
    _show(arrived, changed_at)
    print(f"\nFrom the demo's start to the delivery: {time.monotonic() - started:.0f} s")
    print(f"Its delivery, in Airflow: {airflow.url}{PAGE}")
    if once:
        return 0
    print(f"\nAirflow      {airflow.url}/dags/{DAG}\nRequest bin  {bin_url}\n\nAnother change:")
    print(
        f"  curl -u sandbox-key: -H 'Content-Type: application/json' {sandbox}/v3.1/Tasks "
        f"-d '{json.dumps({'TITLE': 'Another task', 'COMPLETED': False})}'"
    )
    print("\nCtrl-C stops everything.", flush=True)
    while True:
        time.sleep(1)
        airflow.processes.check()


@contextlib.contextmanager
def _fresh_home() -> Iterator[None]:
    """Empty the folder of the state, and keep other demos out of it."""
    HOME.mkdir(exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StackError(f"another demo is running in {HOME.name}/: stop that one first") from None
        for entry in HOME.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != "lock":
                entry.unlink()
        yield


def _watching(airflow: AirflowStack) -> bool:
    airflow.processes.check()
    found = airflow.api(f"/dags/{DAG}/dagRuns/~/taskInstances?state=deferred&limit=1")
    return bool(found["total_entries"])


def _arrived(airflow: AirflowStack, bin_url: str, task_id: int) -> list[dict[str, Any]]:
    airflow.processes.check()
    requests_kept = requests.get(f"{bin_url}/requests", timeout=10).json()
    arrived = [kept for kept in requests_kept if json.loads(kept["body"])["entity"]["TASK_ID"] == task_id]
    return arrived if arrived and arrived[-1]["acknowledged_with"] == 200 else []


def _is_listed(airflow: AirflowStack, task_id: int) -> bool:
    """Return whether the page of deliveries names the record; the address doesn't, which the page repeats."""
    airflow.processes.check()
    return re.search(rf"\b{task_id}\b", airflow.page(f"/insightly/deliveries?workflow={DAG}")) is not None


def _show(arrived: list[dict[str, Any]], changed_at: datetime) -> None:
    last = arrived[-1]
    acknowledged_at = datetime.fromisoformat(last["received_at"].replace("Z", "+00:00"))
    print(f"\nThe body that arrived, from user {last['username']!r}:\n")
    print(json.dumps(json.loads(last["body"]), indent=2, ensure_ascii=False).replace("/", r"\/"))
    print(f"\nAttempts: {len(arrived)} ({', '.join(str(a['acknowledged_with']) for a in arrived)})")
    print(f"From change to acknowledgement: {(acknowledged_at - changed_at).total_seconds():.1f} s")


if __name__ == "__main__":
    sys.exit(main())

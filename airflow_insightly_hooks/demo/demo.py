"""Show how a change of an Insightly record becomes a webhook, through a real Airflow and the sandbox.

Everything runs on this machine, on free ports of 127.0.0.1. All state is in the folder .demo. The demo
empties this folder each time it starts.
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

from airflow_insightly_hooks.demo.airflow_stack import AirflowStack, StackError, free_port, step, wait_for

__all__ = ["main"]

HOME = Path(".demo")
"""The folder of the state, in the working directory."""
PACKAGED_DAGS = Path(__file__).parent / "dags"
"""The folder of the example DAGs in a wheel. In a clone of the repository, the folder is ``dags``."""
DAGS = PACKAGED_DAGS if PACKAGED_DAGS.is_dir() else Path(__file__).parents[2] / "dags"
KEY = ("sandbox-key", "")
RECEIVER = ("demo", "demo-password")
INSIGHTLY = ("insightly", "insightly-password")
"""The credentials that Insightly's own webhook sends and Airflow expects."""
TASK = {
    "TITLE": "Call back about the offer",
    "STATUS": "NOT STARTED",
    "PRIORITY": 2,
    "COMPLETED": False,
    "DUE_DATE": "2027-03-10 08:00:00",
}
DELIVERED_WITHIN = 120.0
CALM, COUNTED = 6.0, 20.0
"""If there was no request to Insightly for ``CALM`` seconds, the DAG is ready. Then the demo counts requests
for ``COUNTED`` seconds.

A DAG that webhooks don't wake asks Insightly every 15 seconds.
"""
PAGE = "/plugin/insightly-webhooks"
"""The path of the pages in Airflow's UI."""


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m airflow_insightly_hooks.demo", description=__doc__)
    parser.add_argument(
        "--push",
        action="store_true",
        help="start the DAG by Insightly's webhook, instead of asking Insightly",
    )
    parser.add_argument(
        "--once", action="store_true", help="exit after the delivery, with code 0 if it arrived"
    )
    parser.add_argument("--port", type=int, default=0, help="the sandbox's port; by default a free port")
    options = parser.parse_args()
    for stop in (signal.SIGINT, signal.SIGTERM):  # a shell may have set SIGINT to be ignored
        signal.signal(stop, signal.default_int_handler)
    started = time.monotonic()
    try:
        with contextlib.ExitStack() as cleanup:
            demo = (_PushDemo if options.push else _Demo)(options.port or free_port())
            return demo.run(cleanup, options.once, started)
    except StackError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.")
        return 130 if options.once else 0


@contextlib.contextmanager
def _fresh_home() -> Iterator[None]:
    """Empty the folder of the state, and lock it against other demos."""
    HOME.mkdir(exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StackError(f"another demo is running in {HOME.name}/: stop it first") from None
        for entry in HOME.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != "lock":
                entry.unlink()
        yield


class _Demo:
    """The demo with a DAG that asks Insightly every few seconds.

    :param port: the sandbox's port.
    """

    dag = "new_task_webhook"

    def __init__(self, port: int) -> None:
        self.port = port
        self.sandbox = f"http://127.0.0.1:{port}"
        self.bin_url = f"{self.sandbox}/bin/{self.dag}"
        self.airflow = AirflowStack(HOME.absolute(), DAGS, self.connections())

    def connections(self) -> dict[str, dict[str, Any]]:
        """Return Airflow's connections."""
        insightly = {"conn_type": "insightly", "host": f"{self.sandbox}/v3.1", "password": KEY[0]}
        bins = {
            "webhook_default": self.dag,
            "billing_webhook": "billing",
            "newsletter_webhook": "newsletter",
        }
        receivers = {
            name: {
                "conn_type": "insightly_webhook",
                "host": f"{self.sandbox}/bin/{bin_name}",
                "login": RECEIVER[0],
                "password": RECEIVER[1],
                "extra": {"web_url": f"{self.sandbox}/bin/{bin_name}"},
            }
            for name, bin_name in bins.items()
        }
        return {"insightly_default": insightly, **receivers}

    def run(self, cleanup: contextlib.ExitStack, once: bool, started: float) -> int:
        """Start everything, make a change, and show its webhook.

        :returns: the exit code.
        """
        airflow = self.airflow
        cleanup.enter_context(_fresh_home())
        cleanup.callback(airflow.stop)
        cleanup.callback(print, "\nStopping all processes of the demo …", flush=True)
        print("Insightly hooks for Airflow: demo")
        with step("migrating Airflow's database (SQLite, in .demo/)"):
            airflow.migrate()
        with step("starting the sandbox, and Airflow's API server, scheduler, DAG processor, triggerer"):
            command = [sys.executable, "-m", "airflow_insightly_hooks.sandbox", "--port", str(self.port)]
            airflow.processes.start("sandbox", command, airflow.env)
            airflow.start()
            airflow.wait_until_healthy()
        with step(f"waiting for the DAG {self.dag}, and unpausing it"):
            airflow.wait_for_dag(self.dag)
            credentials = {"username": RECEIVER[0], "password": RECEIVER[1]}
            requests.put(self.bin_url, json=credentials, timeout=10).raise_for_status()
            airflow.unpause(self.dag)
        self.wait_until_ready()
        with step("adding a task in the CRM (the sandbox's API, as a CRM user's client would)"):
            changed_at = datetime.now(timezone.utc)
            answer = requests.post(f"{self.sandbox}/v3.1/Tasks", json=TASK, auth=KEY, timeout=10)
            answer.raise_for_status()
            task_id = answer.json()["TASK_ID"]
        with step("waiting for its webhook in the request bin"):
            arrived = wait_for("the webhook to arrive", lambda: self._arrived(task_id), DELIVERED_WITHIN)
        with step('waiting until the page "Insightly webhooks" in Airflow shows the delivery'):
            wait_for("the page to show the delivery", lambda: self._is_listed(task_id), DELIVERED_WITHIN)
        self.show(arrived, changed_at)
        print(f"\nFrom the demo's start to the delivery: {time.monotonic() - started:.0f} s")
        print(f"Its delivery, in Airflow: {airflow.url}{PAGE}")
        if once:
            return 0
        print(f"\nAirflow      {airflow.url}/dags/{self.dag}\nRequest bin  {self.bin_url}\n\nAnother change:")
        print(
            f"  curl -u sandbox-key: -H 'Content-Type: application/json' {self.sandbox}/v3.1/Tasks "
            f"-d '{json.dumps({'TITLE': 'Another task', 'COMPLETED': False})}'"
        )
        print("\nCtrl-C stops everything.", flush=True)
        while True:
            time.sleep(1)
            airflow.processes.check()

    def wait_until_ready(self) -> None:
        """Wait until the DAG would notice a change."""
        with step("waiting until the DAG's first run watches for changes"):
            wait_for("a run that watches for changes", self._watching, timeout=DELIVERED_WITHIN)

    def show(self, arrived: list[dict[str, Any]], changed_at: datetime) -> None:
        """Print the webhook that has arrived, and how long it took."""
        last = arrived[-1]
        print(f"\nThe body that arrived, from user {last['username']!r}:\n")
        print(json.dumps(json.loads(last["body"]), indent=2, ensure_ascii=False).replace("/", r"\/"))
        print(f"\nAttempts: {len(arrived)} ({', '.join(str(a['acknowledged_with']) for a in arrived)})")
        print(f"From change to acknowledgement: {_seconds(changed_at, last['received_at'])}")

    def _watching(self) -> bool:
        self.airflow.processes.check()
        found = self.airflow.api(f"/dags/{self.dag}/dagRuns/~/taskInstances?state=deferred&limit=1")
        return bool(found["total_entries"])

    def _arrived(self, task_id: int) -> list[dict[str, Any]]:
        self.airflow.processes.check()
        requests_kept = requests.get(f"{self.bin_url}/requests", timeout=10).json()
        arrived = [kept for kept in requests_kept if json.loads(kept["body"])["entity"]["TASK_ID"] == task_id]
        return arrived if arrived and arrived[-1]["acknowledged_with"] == 200 else []

    def _is_listed(self, task_id: int) -> bool:
        """Return whether the page of deliveries names the record. The page's address doesn't name it."""
        self.airflow.processes.check()
        page = self.airflow.page(f"/insightly/deliveries?workflow={self.dag}")
        return re.search(rf"\b{task_id}\b", page) is not None


class _PushDemo(_Demo):
    """The demo with a DAG that Insightly's own webhook starts."""

    dag = "task_webhook_pushed"

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._asked, self._asked_at, self._counted = -1, 0.0, 0

    def connections(self) -> dict[str, dict[str, Any]]:
        """Return Airflow's connections, including the one for Insightly's webhooks."""
        incoming = {"conn_type": "insightly_incoming", "login": INSIGHTLY[0], "password": INSIGHTLY[1]}
        return {**super().connections(), "insightly_incoming": incoming}

    @property
    def endpoint(self) -> str:
        """The URI to which Insightly sends its webhook."""
        return f"{self.airflow.url}/insightly/hooks/insightly_incoming"

    def wait_until_ready(self) -> None:
        """Wait until the DAG has begun, and then count the requests to Insightly for a while."""
        with step("setting the webhook in Insightly (the sandbox): it sends each changed task to Airflow"):
            username, password = INSIGHTLY
            webhook = {
                "uri": self.endpoint,
                "record_type": "Tasks",
                "username": username,
                "password": password,
            }
            setting = {"webhook": webhook}
            requests.put(f"{self.sandbox}/_sandbox", json=setting, timeout=10).raise_for_status()
        with step("waiting until the DAG's first run has ended, and its watcher has started"):
            wait_for("the DAG's first run and its watcher", self._is_calm, DELIVERED_WITHIN)
        with step(f"counting requests to Insightly for {COUNTED:g} s"):
            time.sleep(COUNTED)
            self.airflow.processes.check()
            self._counted = self._requests() - self._asked

    def show(self, arrived: list[dict[str, Any]], changed_at: datetime) -> None:
        """Print Insightly's webhook and the one that Airflow sent, and how long each took."""
        told = self._sandbox_state()["webhooks"][0]
        event = self._told_event()
        runs = self.airflow.api(f"/dags/{self.dag}/dagRuns")["dag_runs"]
        created = min(run["queued_at"] for run in runs if _instant(run["queued_at"]) > changed_at)
        print(f"\nInsightly's webhook to Airflow: POST {self.endpoint}")
        print(f"Attempts: {told['attempts']}, acknowledged: {told['acknowledged']}")
        print(f"The asset event that Airflow made from it: {json.dumps(event['extra'])}")
        print(f"From change to that event: {_seconds(changed_at, event['timestamp'])}")
        print(f"From change to the run's creation: {_seconds(changed_at, created)}")
        print(f"Requests to Insightly in the {COUNTED:g} s before the change: {self._counted}")
        super().show(arrived, changed_at)

    def _is_calm(self) -> bool:
        """Return whether the DAG has begun, has a watcher, and has not asked Insightly for a while."""
        self.airflow.processes.check()
        asked = self._requests()
        if asked != self._asked or not self._has_begun():
            self._asked, self._asked_at = asked, time.monotonic()
        return time.monotonic() - self._asked_at >= CALM

    def _has_begun(self) -> bool:
        runs = self.airflow.api(f"/dags/{self.dag}/dagRuns")["dag_runs"]
        return (
            bool(runs) and all(run["state"] == "success" for run in runs) and bool(self._asset()["watchers"])
        )

    def _asset(self) -> dict[str, Any]:
        """Return the asset whose events start the DAG."""
        (asset,) = self.airflow.api(f"/assets?dag_ids={self.dag}&name_pattern=/changes/")["assets"]
        found: dict[str, Any] = asset
        return found

    def _told_event(self) -> dict[str, Any]:
        """Return the asset event that the webhook has caused."""
        events = self.airflow.api(f"/assets/events?asset_id={self._asset()['id']}")["asset_events"]
        (event,) = [event for event in events if (event["extra"] or {}).get("from_webhook")]
        found: dict[str, Any] = event
        return found

    def _requests(self) -> int:
        """Return how many requests Insightly has received so far."""
        counts = self._sandbox_state()["requests"]
        return sum(count for path, count in counts.items() if path.split()[1].startswith("/v3.1/"))

    def _sandbox_state(self) -> dict[str, Any]:
        state: dict[str, Any] = requests.get(f"{self.sandbox}/_sandbox", timeout=10).json()
        return state


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _seconds(since: datetime, until: str) -> str:
    """Return the time from one moment to another, as a text for users."""
    return f"{(_instant(until) - since).total_seconds():.1f} s"

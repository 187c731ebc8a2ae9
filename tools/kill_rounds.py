"""Rounds in which a real Airflow delivers 2,000 payloads while its processes are killed with SIGKILL.

A round is one DAG run. Its seed decides everything that is random: which processes are killed, after how many
POSTs, how long the receiver takes for each POST, and which messages it refuses at first. A killed process is
started again at once, as by a service manager. The receiver's own record shows which messages were lost, and
which ones came twice.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import psutil  # type: ignore[import-untyped] # Airflow's own dependency
import requests
from postgresql import temporary_database
from recording_receiver import Post, RecordingReceiver, recording_receiver

from airflow_insightly_hooks.demo.airflow_stack import AirflowStack, StackError, wait_for

__all__ = ["VICTIMS", "KillRounds", "Outcome", "Strike", "kill_rounds", "plan"]

T = TypeVar("T")

DAG_ID = "deliver_2000"
PAYLOADS = 2_000
WINDOW = 1.5
"""A kill may repeat the POSTs of so many seconds: 1 s is the ledger's interval, the rest a reserve."""
CONCURRENCY = 8
WAIT = 240.0
"""How many seconds to wait for an event. On a busy machine, the API server alone takes a minute to start."""
TASK, SUPERVISOR, SCHEDULER, API_SERVER = VICTIMS = ("task", "supervisor", "scheduler", "api-server")
STRIKES = (1, 1, 2, 3)
"""How many processes are killed in a round. One kill is as likely as several."""

DAG_FILE = f'''\
from datetime import timedelta

from airflow.sdk import DAG, task

from airflow_insightly_hooks.operators.webhook import WebhookOperator

# A kill costs one of Airflow's tries. So does each try that finds no API server.
# With the default of 2, no try is left after two kills for messages that the receiver refuses at first.
RETRIES = {{"retries": 20, "retry_delay": timedelta(seconds=1)}}


class Signed(WebhookOperator):
    """Sends the number of the try to the receiver."""

    def execute(self, context):
        self.headers = {{"x-sender": str(context["ti"].try_number)}}
        return super().execute(context)


@task
def make(seed):
    return [
        {{
            "message_id": f"msg_{{seed}}_{{number}}",
            "record_type": "Contacts",
            "record_id": number,
            "event": "added",
            "changed_at": "2027-03-10T08:00:00Z",
            "body": '{{"entity":{{"CONTACT_ID":%d,"BACKGROUND":"%s"}}}}' % (number, "x" * (number % 500)),
        }}
        for number in range({PAYLOADS})
    ]


with DAG("{DAG_ID}", schedule=None, default_args=RETRIES):
    Signed(
        task_id="deliver",
        webhook_conn_id="receiver",
        payloads=make("{{{{ dag_run.conf['seed'] }}}}"),
        concurrency={CONCURRENCY},
    )
'''

SETTINGS = {
    # A task without heartbeats is tried again after 12 s, not after 5 minutes. A task that a killed scheduler
    # has left is tried again after 10 s.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "12",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    # On a busy machine, the first call of a restarted API server takes long.
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "86400",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "86400",
}


class Strike(NamedTuple):
    """A process to kill, and after how many POSTs of the round."""

    victim: str
    after: int


def plan(seed: int) -> list[Strike]:
    """Return which processes a round kills, and when."""
    rng = random.Random(seed)
    moments = sorted(rng.randint(1, 1_900) for _ in range(rng.choice(STRIKES)))
    return [Strike(rng.choice(VICTIMS), after) for after in moments]


@dataclass
class Outcome:
    """The result of a round.

    :ivar state: the state of the DAG run.
    :ivar report: the report of the deliver task.
    :ivar posts: all POSTs that the receiver has read.
    :ivar kills: how many processes were killed; 1 if a try was halted.
    :ivar halted_at: when a try was halted, on the monotonic clock.
    """

    seed: int
    state: str
    report: dict[str, Any]
    posts: list[Post]
    kills: int
    tries: int
    seconds: float
    halted_at: float = math.inf
    duplicates: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        """Count the repeated POSTs of acknowledged messages, by the try whose acknowledgement was lost."""
        self.duplicates = Counter()
        acknowledged: dict[str, str] = {}
        for post in self.posts:
            if post.message_id in acknowledged:
                self.duplicates[acknowledged[post.message_id]] += 1
            if post.status == 200:
                acknowledged[post.message_id] = post.sender

    def worth(self, sender: str) -> int:
        """Return how many POSTs of a try may be repeated: in its last second, and unfinished ones."""
        moments = [post.at for post in self.posts if post.sender == sender]
        end = min(moments[-1], self.halted_at)
        return sum(at > end - WINDOW for at in moments) + CONCURRENCY

    @property
    def lost(self) -> set[str]:
        """The messages that the receiver hasn't acknowledged, and the report doesn't list as undelivered."""
        told = {missing["message_id"] for missing in self.report["undelivered"]}
        arrived = {post.message_id for post in self.posts if post.status == 200}
        return {f"msg_{self.seed}_{number}" for number in range(PAYLOADS)} - told - arrived

    def faults(self) -> list[str]:
        """Return a sentence for each fault."""
        bodies: dict[str, set[bytes]] = {}
        for post in self.posts:
            bodies.setdefault(post.message_id, set()).add(post.body)
        most = max(Counter(post.message_id for post in self.posts).values())
        found = {
            f"{len(self.lost)} payloads are lost": bool(self.lost),
            f"the run's state is {self.state}": self.state != "success",
            f"{self.report['delivered']} are reported as delivered": self.report["delivered"] != PAYLOADS,
            "an id has two bodies": any(len(one) > 1 for one in bodies.values()),
            "something else was POSTed": any(not m.startswith(f"msg_{self.seed}_") for m in bodies),
            f"a message was POSTed {most} times": (
                most > 2 + self.kills  # one is refused, one acknowledged, and each kill may repeat one
            ),
            f"{len(self.duplicates)} tries were repeated after {self.kills} kills": (
                len(self.duplicates) > self.kills
            ),
            **{
                f"try {sender} cost {count} duplicates, more than {self.worth(sender)}": count
                > self.worth(sender)
                for sender, count in self.duplicates.items()
            },
        }
        return [text for text, is_so in found.items() if is_so]


class KillRounds:
    """Airflow, the receiver, and the processes that are killed and restarted."""

    def __init__(self, airflow: AirflowStack, receiver: RecordingReceiver) -> None:
        self.airflow = airflow
        self.receiver = receiver
        self._workers_left: list[psutil.Process] = []  # by schedulers that were killed

    def play(self, seed: int, strikes: list[Strike] | None = None) -> Outcome:
        """Play a round.

        :param strikes: which processes to kill, and when; ``plan`` decides by default.
        :raises StackError: if the round doesn't end.
        """
        run = self.start(seed)
        kills = 0
        started = time.monotonic()
        for strike in plan(seed) if strikes is None else strikes:
            if not self.wait_for_posts(strike.after, run):
                break
            self._kill(strike.victim)
            kills += 1
        return self.outcome(seed, run, kills, started)

    def play_overtaken(self, seed: int, after: int) -> tuple[Outcome, float, str]:
        """Play a round whose task and supervisor are halted, and go on after the next try has begun to POST.

        :returns: the result; when they went on, on the monotonic clock; the log of the halted try.
        :raises StackError: if no other try begins, or the round doesn't end.
        """
        run = self.start(seed)
        started = time.monotonic()
        if not self.wait_for_posts(after, run):
            raise StackError(f"{run} ended before POST {after}")
        halted = self.running()
        halted_at = time.monotonic()
        for process in halted:
            process.suspend()
        try:
            first = self.receiver.posts[-1].sender
            wait_for("the next try", lambda: self.receiver.posts[-1].sender != first, WAIT, interval=0.01)
        finally:
            woken_at = time.monotonic()
            for process in reversed(halted):
                process.resume()
        outcome = replace(self.outcome(seed, run, 1, started), halted_at=halted_at)
        return outcome, woken_at, self.log(run, int(first))

    def start(self, seed: int) -> str:
        """Start a run, and return its path in Airflow's API."""
        self.receiver.begin(seed)
        body = {"logical_date": None, "conf": {"seed": seed}}
        run = self._ask(f"/dags/{DAG_ID}/dagRuns", "POST", body)["dag_run_id"]
        return f"/dags/{DAG_ID}/dagRuns/{quote(run)}"

    def wait_for_posts(self, count: int, run: str) -> bool:
        """Wait until the receiver has read so many POSTs. Return whether it did before the run ended."""
        seen, quiet_since = 0, time.monotonic()

        def reached() -> str | None:
            nonlocal seen, quiet_since
            if len(self.receiver.posts) >= count:
                return "reached"
            if seen != len(self.receiver.posts):
                seen, quiet_since = len(self.receiver.posts), time.monotonic()
            if time.monotonic() < quiet_since + 3:
                return None
            quiet_since = time.monotonic()
            return self._safely(lambda: self._ended(run))

        return wait_for(f"POST {count} of {run}", reached, WAIT, interval=0.002) == "reached"

    def outcome(self, seed: int, run: str, kills: int, started: float) -> Outcome:
        """Wait for the end of a run, and return its result."""
        state = wait_for(f"the end of {run}", lambda: self._safely(lambda: self._ended(run)), WAIT)
        seconds = time.monotonic() - started
        task = f"{run}/taskInstances/deliver"
        report = self._ask(f"{task}/xcomEntries/return_value?deserialize=true")["value"]
        tries = self._ask(task)["try_number"]
        self.clear_away()
        return Outcome(seed, state, report, list(self.receiver.posts), kills, tries, seconds)

    def running(self) -> tuple[psutil.Process, psutil.Process]:
        """Wait for the newest supervisor with a task's process, and return both."""

        def look() -> tuple[psutil.Process, psutil.Process] | None:
            children = psutil.Process(self.airflow.processes.pid("scheduler")).children()
            found = []
            for worker in (*filter(_is_worker, children), *self._workers_left):
                with suppress(psutil.NoSuchProcess):
                    found += [(task.create_time(), worker, task) for task in worker.children()]
            return max(found, key=lambda one: one[0])[1:] if found else None

        return wait_for("a task's process", look, WAIT, interval=0.01)

    def log(self, run: str, try_number: int) -> str:
        """Return the text of a try's log."""
        path = f"{run}/taskInstances/deliver/logs/{try_number}?full_content=true"
        return str(self._ask(path))

    def _kill(self, victim: str) -> None:
        if victim in (TASK, SUPERVISOR):
            supervisor, task = self.running()
            (task if victim == TASK else supervisor).kill()
            return
        if victim == SCHEDULER:
            children = psutil.Process(self.airflow.processes.pid(SCHEDULER)).children()
            self.airflow.processes.kill(SCHEDULER)
            for child in children:
                # A running task is not ended. It runs beside the try that the next scheduler starts. Idle
                # workers and the log server are ended, because they would stay for ever.
                if _is_worker(child) and child.children():
                    self._workers_left.append(child)
                else:
                    _end(child)
        else:
            for process in psutil.Process(self.airflow.processes.pid(API_SERVER)).children(recursive=True):
                _end(process)
            self.airflow.processes.kill(API_SERVER)
        self.airflow.start(victim)

    def clear_away(self) -> None:
        """End the workers of killed schedulers. They get no more work."""
        for worker in self._workers_left:
            with suppress(psutil.NoSuchProcess):
                for task in worker.children():
                    _end(task)
            _end(worker)
        self._workers_left.clear()

    def _ended(self, run: str) -> str | None:
        state: str = self.airflow.api(run)["state"]
        return state if state in ("success", "failed") else None

    def _ask(self, path: str, method: str = "GET", body: Any = None) -> Any:
        """Call Airflow's API, and try again while it is starting."""
        return wait_for(path, lambda: self._safely(lambda: self.airflow.api(path, method, body)), WAIT)

    @staticmethod
    def _safely(ask: Callable[[], T]) -> T | None:
        with suppress(requests.RequestException):
            return ask()
        return None


@contextmanager
def kill_rounds(home: Path) -> Iterator[KillRounds]:
    """Start a receiver and an Airflow on PostgreSQL in a folder, and end both after the block.

    :raises NoServerError: if there is no PostgreSQL.
    """
    with ExitStack() as cleanup:
        database = cleanup.enter_context(temporary_database())
        receiver = cleanup.enter_context(recording_receiver())
        dags = home / "dags"
        dags.mkdir(parents=True)
        (dags / "deliver_2000.py").write_text(DAG_FILE)
        connections = {"receiver": {"conn_type": "insightly_webhook", "host": receiver.url}}
        airflow = AirflowStack(home, dags, connections, database, SETTINGS)
        rounds = KillRounds(airflow, receiver)
        cleanup.callback(airflow.stop)
        cleanup.callback(rounds.clear_away)
        airflow.migrate()
        airflow.start(API_SERVER, SCHEDULER, "dag-processor")
        airflow.wait_until_healthy()
        airflow.wait_for_dag(DAG_ID)
        airflow.unpause(DAG_ID)
        yield rounds


def _is_worker(process: psutil.Process) -> bool:
    """Return whether a child process of the scheduler runs tasks."""
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline()).startswith("airflow worker -- LocalExecutor")
    return False


def _end(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()

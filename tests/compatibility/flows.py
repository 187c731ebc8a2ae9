"""Real flows before an upgrade. The tests continue from the state that these have stored.

The flows use public names only, so that they run with any release.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_insightly_hooks import Webhook, Workflow

__all__ = ["FLOWS", "Flow"]


@dataclass(frozen=True)
class Flow:
    """A workflow, and its runs before the upgrade.

    :param workflow: the workflow whose runs leave state behind.
    :param before: makes records, sets how the receiver ``out`` answers, and runs the workflow. Its arguments
        are a function that creates a record, the receiver, and a function that runs the workflow.
    :param records: the fields of the contacts that ``before`` creates, in that order.
    :param asks_again: whether a user then asks for the messages to be sent again.
    """

    workflow: Any
    before: Callable[[Callable[[], None], Any, Callable[[], Any]], None]
    records: tuple[Mapping[str, Any], ...] = ()
    asks_again: bool = False


def _workflow(name: str, *, retries: int = 0, **arguments: Any) -> Workflow:
    of_webhook = {key: arguments.pop(key) for key in ("after",) if key in arguments}
    return Workflow(
        name=name,
        record_type="Contacts",
        webhooks=[Webhook(name="Out", conn_id="out", retries=retries, **of_webhook)],
        **arguments,
    )


def _contacts(*names: str) -> tuple[Mapping[str, Any], ...]:
    return tuple({"FIRST_NAME": name} for name in names)


def _two_of_three(create: Callable[[], None], out: Any, run: Callable[[], Any]) -> None:
    """Of three messages, the first POST is refused for good."""
    for _ in range(3):
        create()
    out.answer_with(status=503, times=1)
    assert run().state == "failed"
    assert sorted(r["acknowledged_with"] for r in out.requests) == [200, 200, 503]


def _delivered(create: Callable[[], None], out: Any, run: Callable[[], Any]) -> None:
    create()
    assert run().state == "success"
    assert len(out.bodies) == 1


def _scheduled(create: Callable[[], None], out: Any, run: Callable[[], Any]) -> None:
    """A message is to be sent in three days."""
    create()
    assert run().state == "success"
    assert out.requests == []


def _left(create: Callable[[], None], out: Any, run: Callable[[], Any]) -> None:
    """A run's task waits for the receiver, so the next run leaves its message to the retry DAG."""
    out.answer_with(status=503)
    create()
    run()
    tried = len(out.requests)
    create()
    left = run()
    assert left.xcom("deliver")["left"] == 1
    assert len(out.requests) == tried


FLOWS: dict[str, Flow] = {
    "tasks": Flow(_workflow("Tasks"), _two_of_three, _contacts("Ada", "Bob", "Cleo")),
    "one_task": Flow(_workflow("One task", mode="one_task"), _two_of_three, _contacts("Ada", "Bob", "Cleo")),
    "resend": Flow(_workflow("Again"), _delivered, _contacts("Ada"), asks_again=True),
    "until_triggered": Flow(_workflow("Once", evaluate="until_triggered"), _delivered, _contacts("Ada")),
    "pending": Flow(_workflow("Later", after="3d"), _scheduled, _contacts("Ada")),
    "retry_queue": Flow(_workflow("Down", retries=1), _left, _contacts("Ada", "Bob")),
}

"""How often the deliver task POSTs a message: ``1 + retries`` times, however its tries end."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG

from airflow_insightly_hooks.core.errors import UndeliveredError
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.operators.webhook import UndeliverableError, WebhookOperator
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.conftest import Connect, StateStore, run_context
from tests.deliveries import ask_again, deliver, payloads, undelivered
from tests.servers import serving


@pytest.fixture
def receiver(sandbox: RunningSandbox, connect: Connect) -> RunningSandbox:
    """The sandbox, with ``webhook_default`` leading to its request bin ``out``."""
    connect("webhook_default", host=sandbox.bin_url("out"))
    return sandbox


def received_ids(sandbox: RunningSandbox) -> list[str]:
    return [kept["headers"]["webhook-id"] for kept in sandbox.received("out")]


@pytest.mark.parametrize("retries", [0, 1, 2, 5])
def test_used_up(receiver: RunningSandbox, retries: int) -> None:
    """After ``1 + retries`` POSTs of each, a further try makes none, even if Airflow has tries left."""
    receiver.answer_with("out", status=500)
    context = run_context()
    context["ti"].max_tries = 9
    for _ in range(retries):
        assert type(undelivered(context, payloads(2), retries=retries)) is UndeliveredError
    assert isinstance(undelivered(context, payloads(2), retries=retries), UndeliverableError)
    error = undelivered(context, payloads(2), retries=retries)
    assert [(item["attempts"], item["error"]) for item in error.report["undelivered"]] == [
        (1 + retries, f"no attempt is left: {counted(1 + retries, 'attempt')} made, {1 + retries} allowed")
    ] * 2
    assert len(received_ids(receiver)) == 2 * (1 + retries)
    context["ti"].try_number = 10
    error = undelivered(context, payloads(2), retries=retries)
    assert type(error) is UndeliveredError, "there is no retry to stop"


def test_retries_are_changed_between_two_tries(receiver: RunningSandbox) -> None:
    """Each try uses the task's present number, so a try may send more again, or nothing."""
    receiver.answer_with("out", status=500)
    context = run_context()
    context["ti"].max_tries = 9
    for retries, kind, posts in (
        (1, UndeliveredError, 1),
        (1, UndeliverableError, 2),
        (3, UndeliveredError, 3),  # raised
        (0, UndeliverableError, 3),  # lowered
        (3, UndeliverableError, 4),
    ):
        error = undelivered(context, payloads(1), retries=retries)
        assert (type(error), len(received_ids(receiver))) == (kind, posts)
        if posts == 3 and retries == 0:
            reason = "no attempt is left: 3 attempts made, 1 allowed"
            assert error.report["undelivered"][0]["error"] == reason


def test_retries_of_default_args_and_without_a_task_instance(receiver: RunningSandbox) -> None:
    """The operator's ``retries`` count, wherever they come from, and whoever runs the operator."""
    receiver.answer_with("out", status=500)
    context = run_context()
    del context["ti"]
    with DAG("dag", schedule=None, default_args={"retries": "1"}):
        operator = WebhookOperator(task_id="deliver", payloads=payloads(1))
        mapped = WebhookOperator.partial(task_id="mapped").expand(payloads=[payloads(1, first=1)])
        none = WebhookOperator(task_id="none", payloads=payloads(1, first=2), retries=None)
    tasks = (operator, mapped.unmap({"payloads": payloads(1, first=1)}), none)
    for task, posts in zip(tasks, (2, 2, 1), strict=True):
        context["task_state_store"] = StateStore()
        before = len(received_ids(receiver))
        for _ in range(3):
            with pytest.raises(UndeliveredError):
                task.execute(context)
        assert len(received_ids(receiver)) - before == posts


@pytest.mark.parametrize("retries", [0, 1, 5])
def test_a_cleared_task_has_as_many_attempts_again(receiver: RunningSandbox, retries: int) -> None:
    """Attempts are counted anew, with the present ``retries``.

    This also holds for messages that are asked for.
    """
    receiver.answer_with("out", status=500)
    context = run_context()
    context["ti"].max_tries = retries
    for rounds in (1, 2):
        for _ in range(2 + retries):
            undelivered(context, payloads(1), retries=retries)
        assert len(received_ids(receiver)) == rounds * (1 + retries)
        context["ti"].max_tries += 1 + retries  # as Airflow does if the task is cleared after its last try
    ask_again(context, 0)
    for _ in range(2 + retries):
        undelivered(context, payloads(1), retries=retries)
    assert len(received_ids(receiver)) == 3 * (1 + retries)


def test_attempts_that_are_left_when_the_tries_are_used_up(
    receiver: RunningSandbox, connect: Connect
) -> None:
    """A refused connection uses up a try and no attempt.

    The report says what is left, and a clear sends it.
    """
    with serving([]) as server:
        pass
    context = run_context()
    context["ti"].max_tries, context["ti"].try_number = 1, 1
    connect("webhook_default", host=server.url)
    assert type(undelivered(context, payloads(1), retries=1)) is UndeliveredError
    context["ti"].try_number = 2
    error = undelivered(context, payloads(1), retries=1)
    assert (type(error), error.report["undelivered"][0]["attempts"]) == (UndeliveredError, 0)
    connect("webhook_default", host=receiver.bin_url("out"))
    receiver.answer_with("out", status=500, times=1)
    context["ti"].max_tries, context["ti"].try_number = 3, 3
    undelivered(context, payloads(1), retries=1)
    assert deliver(context, payloads(1), retries=1)["attempts"] == 2

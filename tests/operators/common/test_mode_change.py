"""A run that began in a workflow's other mode."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.operators.common.mode_change import OtherModeError, check_mode

MADE = Workflow(name="w", record_type="Notes", webhooks=[Webhook(name="w", conn_id="c")])


def context(task_id: str, read_by: str | None, try_number: int = 1, clears: int = 0, index: int = -1) -> Any:
    """The context of a task in whose run another task of the same map index has read a window."""

    def xcom_pull(task_ids: str, key: str, map_indexes: int) -> Any:
        has_read = (task_ids, key, map_indexes) == (read_by, "window", index)
        return {"start": "a", "end": "b"} if has_read else None

    tries = {"try_number": try_number, "max_tries": 2 + 3 * clears, "task": SimpleNamespace(retries=2)}
    return {"ti": SimpleNamespace(task_id=task_id, map_index=index, xcom_pull=xcom_pull, **tries)}


@pytest.mark.parametrize(
    ("task_id", "other", "mode"),
    [
        ("detect", "detect_and_deliver", "one_task"),
        ("detect_and_deliver", "detect", "tasks"),
        ("a.b.detect", "a.b.detect_and_deliver", "one_task"),
    ],
)
def test_what_the_other_mode_has_read_is_not_forgotten(task_id: str, other: str, mode: str) -> None:
    """The run fails, and says how to continue. Once the task is cleared, it continues."""
    with pytest.raises(OtherModeError, match=f"had the mode '{mode}': its task '{other}' has read") as caught:
        check_mode(context(task_id, other))
    assert isinstance(caught.value, AirflowFailException)  # a retry would change nothing
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 — made in the line itself
    assert str(copy) == str(caught.value)
    check_mode(context(task_id, other, try_number=2, clears=1))


def test_a_retry_asks_as_well() -> None:
    """The first try may have ended before it could check."""
    with pytest.raises(OtherModeError):
        check_mode(context("detect", "detect_and_deliver", try_number=2))


def test_each_map_index_asks_for_its_own() -> None:
    """If no map index is named, Airflow returns a list of all of them."""
    with pytest.raises(OtherModeError):
        check_mode(context("group.detect", "group.detect_and_deliver", index=3))


@pytest.mark.parametrize("read_by", [None, "detect", "x.detect_and_deliver", "build"])
def test_a_run_of_this_mode_goes_on(read_by: str | None) -> None:
    """The run continues if no task of the other mode, or only one of another group, has read."""
    check_mode(context("detect", read_by))


@pytest.mark.parametrize("mode", ["tasks", "one_task"])
def test_the_task_that_reads_asks(mode: str) -> None:
    """This holds in both modes."""
    dag = MADE.to_dag(mode=mode)
    (asks,) = [task.task_id for task in dag.tasks if task._pre_execute_hook is check_mode]
    assert asks == {"tasks": "detect", "one_task": "detect_and_deliver"}[mode]

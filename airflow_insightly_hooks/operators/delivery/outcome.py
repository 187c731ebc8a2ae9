"""The outcome of a deliver task: success, or an error that Airflow retries or does not retry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from airflow_insightly_hooks.core.delivery.report_types import Report
from airflow_insightly_hooks.core.errors import InsightlyHooksError, UndeliveredError, type_and_place
from airflow_insightly_hooks.core.plurals import counted

if TYPE_CHECKING:
    from airflow.sdk import Asset, BaseOperator, Context

__all__ = [
    "FAIL",
    "REPORT",
    "MissingPayloadsError",
    "UndeliverableError",
    "check_on_undelivered",
    "drop_event",
    "judge",
    "push_report",
    "set_event",
]

FAIL, REPORT = "fail", "report"
"""The choices for a task that has something undelivered after the last attempt."""


class UndeliverableError(UndeliveredError, AirflowFailException):
    """Fails a task without a retry: none of its undelivered messages may be POSTed again.

    Cause: Raised when the receiver answered 410 or with ``webhook-delivery: abort-message``, the attempts are
    used up, no body can be built of the record, or ``InsightlyWorkflowOperator`` no longer finds the record
    in its window.
    Remedy: The report says which of these it is. Correct what the receiver refuses, then clear the task,
    which begins with new attempts. A record that is corrected in Insightly is sent as a new change.
    """


class MissingPayloadsError(InsightlyHooksError, AirflowFailException):
    """Fails a task without a retry: the payloads of messages that it was asked to send again are gone.

    Cause: Raised when the task's input has changed since, or was deleted. ``InsightlyWorkflowOperator``
    raises it when the webhook of the messages was renamed or removed.
    Remedy: Clear the run's first task and all tasks after it, to send the records as they are now, or start a
    run over the same window. If the webhook was renamed or removed, give it its old name first.

    :param messages: the ids of these messages.
    """

    SHOWN = 20

    def __init__(self, messages: list[str]) -> None:
        super().__init__(messages)
        self.messages = messages

    def __str__(self) -> str:
        more = f" and {more} more" if (more := len(self.messages) - self.SHOWN) > 0 else ""
        return (
            f"the task's payloads lack {counted(len(self.messages), 'message')} to be sent again "
            f"({', '.join(self.messages[: self.SHOWN])}{more}): its input has changed, or was deleted. "
            f"Clear the run's first task and all tasks after it, to send the records as they are now, or "
            f"start a run over the same window. If the webhook was renamed or removed, give it its old name "
            f"first"
        )


def check_on_undelivered(value: str) -> None:
    """Raise ``ValueError`` unless the value is ``"fail"`` or ``"report"``."""
    if value not in (FAIL, REPORT):
        raise ValueError(f"on_undelivered must be '{FAIL}' or '{REPORT}'")


def judge(
    report: Report,
    ti: Any,
    *,
    may_go_on: bool,
    on_undelivered: str,
    retry_after: float | None,
    log: Any,
    is_stopped: bool = False,
) -> None:
    """Decide the outcome of a try that has left something undelivered: return if the task succeeds.

    :param report: the report over all receivers of the task.
    :param ti: the task instance; ``None`` outside of Airflow.
    :param may_go_on: whether a later try can POST some of it.
    :param on_undelivered: ``"fail"``, or ``"report"`` to succeed after the last attempt.
    :param retry_after: the longest time that a receiver asked to wait, in seconds; ``None`` if none did.
    :param is_stopped: whether the task was told to end. It then never succeeds.
    :raises UndeliveredError: if the task fails, and Airflow may try it again.
    :raises UndeliverableError: if the task fails, and Airflow must not try it again.
    """
    is_last = _is_last_try(ti)
    if on_undelivered == REPORT and not is_stopped and (is_last or not may_go_on):
        missing = report["total"] - report["delivered"]
        log.warning("%d of %s undelivered", missing, counted(report["total"], "payload"))
        return
    if may_go_on or is_last:
        raise UndeliveredError(report, retry_after)
    raise UndeliverableError(report)  # after an UndeliveredError, Airflow would try again


def _is_last_try(ti: Any) -> bool:
    """Return whether Airflow makes no further try; ``False`` if that is unknown."""
    number = getattr(ti, "try_number", None)
    return isinstance(number, int) and number > ti.max_tries


def push_report(ti: Any, report: Any, log: Any) -> None:
    """Push the report of a task that fails: Airflow pushes only what a task returns."""
    try:
        ti.xcom_push(key="return_value", value=report)
    except Exception as error:  # the error that ended the task matters more
        log.warning("The report can't be stored: %s", type_and_place(error))


def set_event(context: Context, asset: Asset, extra: Mapping[str, Any]) -> None:
    """Set the extra of an outlet's event, which Airflow emits when the task succeeds."""
    events: Any = context.get("outlet_events")
    if events is not None:
        events[asset].extra = dict(extra)


def drop_event(task: BaseOperator, asset: Asset) -> None:
    """Emit no event for an asset: Airflow emits one for each outlet that the task has at its end."""
    task.outlets = [outlet for outlet in task.outlets if outlet != asset]

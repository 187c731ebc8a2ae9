"""What a deliver task ends with: success, or an error that Airflow retries or does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from airflow_insightly_hooks.core.delivery.report_types import Report
from airflow_insightly_hooks.core.errors import InsightlyHooksError, UndeliveredError, told

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
"""What a task does when something stays undelivered after the last attempt."""


class UndeliverableError(UndeliveredError, AirflowFailException):
    """Nothing of what is undelivered may be POSTed again (410, attempts used up): no retry is made."""


class MissingPayloadsError(InsightlyHooksError, AirflowFailException):
    """Messages were asked to be sent again, and their payloads are gone from the task's input: no retry.

    :param messages: their ids.
    """

    SHOWN = 20

    def __init__(self, messages: list[str]) -> None:
        super().__init__(messages)
        self.messages = messages

    def __str__(self) -> str:
        more = f" and {more} more" if (more := len(self.messages) - self.SHOWN) > 0 else ""
        return (
            f"{len(self.messages)} messages that were asked to be sent again are not among the task's "
            f"payloads ({', '.join(self.messages[: self.SHOWN])}{more}): its input has changed, or was "
            f"deleted. Clear the run's first task, which reads the records as they are now, or start a run "
            f"over the same window"
        )


def check_on_undelivered(value: str) -> None:
    """Raise ``ValueError`` unless it is one of the two."""
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
    """Return if a try that has left something undelivered is to succeed all the same; else raise.

    :param report: of all receivers of the task, together.
    :param ti: the task instance; ``None`` outside of Airflow.
    :param may_go_on: whether a later try can POST something of it.
    :param on_undelivered: ``"fail"``, or ``"report"``: succeed after the last attempt.
    :param retry_after: the longest that a receiver asked to wait, in seconds; ``None`` where none did.
    :param is_stopped: whether the task was told to end: then it never succeeds.
    :raises UndeliveredError: if the task fails, and Airflow may try it again.
    :raises UndeliverableError: if it fails, and Airflow must not.
    """
    is_last = _is_last_try(ti)
    if on_undelivered == REPORT and not is_stopped and (is_last or not may_go_on):
        missing = report["total"] - report["delivered"]
        log.warning("%d of %d payloads stay undelivered", missing, report["total"])
        return
    if may_go_on or is_last:
        raise UndeliveredError(report, retry_after)
    raise UndeliverableError(report)  # after an UndeliveredError, Airflow would try again


def _is_last_try(ti: Any) -> bool:
    """Return whether Airflow makes no further try; ``False`` where that is unknown."""
    number = getattr(ti, "try_number", None)
    return isinstance(number, int) and number > ti.max_tries


def push_report(ti: Any, report: Any, log: Any) -> None:
    """Push what a task that fails has to tell: Airflow pushes what a task returns, hence nothing then."""
    try:
        ti.xcom_push(key="return_value", value=report)
    except Exception as error:  # what ended the task matters more
        log.warning("The report can't be stored: %s", told(error))


def set_event(context: Context, asset: Asset, extra: Mapping[str, Any]) -> None:
    """Say what the event of an outlet holds, which Airflow emits when the task succeeds."""
    events: Any = context.get("outlet_events")
    if events is not None:
        events[asset].extra = dict(extra)


def drop_event(task: BaseOperator, asset: Asset) -> None:
    """Have an asset get no event: Airflow emits one for each outlet that is there at the task's end."""
    task.outlets = [outlet for outlet in task.outlets if outlet != asset]

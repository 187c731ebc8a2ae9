"""Format a preview as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from airflow_insightly_hooks.cli.output import say

__all__ = ["preview_lines", "say_sending", "sent_lines"]


def preview_lines(shown: Mapping[str, Any], explained: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a preview: the verdict, the criteria, and the messages that would be sent.

    :param shown: the preview as a JSON value.
    :param explained: a line for each group and condition of the criteria.
    """
    yield f"{shown['workflow']} ({shown['dag_id']}): {shown['record_type']} {shown['record_id']}"
    for change in shown["changes"]:
        verdict = "triggers" if change["triggers"] else f"does not trigger: {change['reason']}"
        yield f"  {change['event']} at {change['changed_at']}: {verdict}"
    if shown["conditions"]:
        marked = any(condition["is_culprit"] for condition in shown["conditions"])
        yield "Criteria (> marks what decided):" if marked else "Criteria:"
    for line in explained:
        yield f"  {line}"
    for note in shown["notes"]:
        yield f"Note: {note}"
    for message in shown["messages"]:
        yield from _message_lines(message, shown["event"])


def _message_lines(message: Mapping[str, Any], event: str) -> Iterator[str]:
    when = "at once" if message["due"] is None else f"at {message['due']}"
    yield ""
    if message["not_sent"] is not None:
        yield f"{message['webhook']}: not sent: {message['not_sent']}"
        return
    yield f"{message['webhook']}: {when}, as {event}"
    yield f"POST to {message['receiver']}"
    if message["problem"] is not None:
        yield f"(the headers are not known: {message['problem']})"
    for name, value in message["headers"].items():
        yield f"{name}: {value}"
    yield ""
    yield message["body"]


def say_sending(receiver: str, message_id: str) -> None:
    """Print the receiver and the message id of a test that is about to be sent."""
    say(f"POST {receiver} as {message_id}")


def sent_lines(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield lines with the results of messages that were sent as a test."""
    for result in results:
        name = f"{result['webhook']}: " if "webhook" in result else ""
        status = "no answer" if result["status"] is None else f"status {result['status']}"
        verdict = "acknowledged" if result["acknowledged"] else "not acknowledged"
        yield f"{name}{verdict}, {status}, {result['seconds']:.3f} s ({result['message_id']})"
        if result["error"]:
            yield f"  {result['error']}"
        if result["response"]:
            yield f"  it answered: {result['response']}"

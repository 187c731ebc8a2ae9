"""Describes a workflow in words: the records it watches, its criteria, what it sends where, when it runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.bounds import PUSH_POLL_INTERVAL
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.core.templates import shown_uri
from airflow_insightly_hooks.core.workflow.definition import ON_CHANGE, ONE_TASK, WorkflowDefinition
from airflow_insightly_hooks.core.workflow.parts import Schedule, Webhook
from airflow_insightly_hooks.core.workflow.yaml_text import (
    LONGEST_STORED,
    duration_text,
    stored_yaml,
    too_long,
)

__all__ = ["GROUPS", "OPERATORS", "Line", "describe", "description_markdown", "description_text"]

LONGEST_SHOWN = 200
"""How many characters of a name or a value are shown."""
MOST_SHOWN = 10
"""How many values of a list are shown."""
MOST_LINES = 200
"""How many lines the criteria may have."""
LONGEST_YAML = 20_000
"""How many characters of YAML are shown. Airflow stores it with the DAG."""

Quote = Callable[[str], str]

EVENTS = {
    "created": "is created",
    "created_and_edited": "is created or edited, each time",
    "until_triggered": "is created or edited, until it has triggered once",
}
OPERATORS = {  # in words
    "equals": "equals",
    "not_equals": "does not equal",
    "in": "is one of",
    "not_in": "is not one of",
    "contains": "contains",
    "not_contains": "does not contain",
    "starts_with": "starts with",
    "ends_with": "ends with",
    "matches": "matches",
    "is_blank": "is blank",
    "is_not_blank": "is not blank",
    "is_checked": "is checked",
    "is_not_checked": "is not checked",
    "greater_than": "is greater than",
    "greater_or_equal": "is at least",
    "less_than": "is less than",
    "less_or_equal": "is at most",
    "between": "is between",
    "before": "is before",
    "after": "is after",
    "on": "is on",
    "within_last": "is within the last",
    "within_next": "is within the next",
}
GROUPS = {  # in words
    "all": "all of these hold:",
    "any": "at least one of these holds:",
    "none": "none of these holds:",
}


class Line(NamedTuple):
    """A sentence of a description; ``depth`` is its level of indentation."""

    depth: int
    text: str


def describe(
    workflow: WorkflowDefinition, *, quote: Quote | None = None, schedule: str | None = None
) -> list[Line]:
    """Return what a workflow does, sentence by sentence.

    The text has no values that may be secret (a URI's query, values of headers).

    :param quote: returns the form of a name or a value in the text; ``None``: in quotation marks.
    :param schedule: a sentence about when the workflow runs, if it differs from the workflow's own schedule.
    """
    words = _Words(quote or _quoted)
    return [
        *words.watching(workflow),
        *words.criteria(workflow.criteria),
        *words.webhooks(workflow),
        Line(0, schedule or words.schedule(workflow.schedule)),
        *words.failure(workflow),
    ]


def description_text(workflow: WorkflowDefinition) -> str:
    """Return what a workflow does as plain text, indented."""
    return "\n".join(f"{'  ' * line.depth}{line.text}" for line in describe(workflow))


def description_markdown(
    workflow: WorkflowDefinition, *, schedule: str | None = None, yaml: str | None = None
) -> str:
    """Return what a workflow does, in words and as YAML, as Markdown.

    Names and values are in code spans and in a code block, where nothing in them acts as Markdown or HTML.

    :param schedule: the same as for ``describe``.
    :param yaml: the workflow's YAML, if it exists already (``stored_yaml``).
    """
    lines = describe(workflow, quote=_code_span, schedule=schedule)
    words = "\n".join(f"{'  ' * line.depth}- {line.text}" for line in lines)
    yaml = stored_yaml(workflow) if yaml is None else yaml
    if len(yaml) > LONGEST_YAML or yaml == too_long(LONGEST_STORED):
        yaml = too_long(LONGEST_YAML)
    fence = "`" * max(3, _longest_run(yaml) + 1)
    return f"{words}\n\n{fence}yaml\n{yaml}{fence}"


class _Words:
    """Writes the sentences, with names and values quoted in one way."""

    def __init__(self, quote: Quote) -> None:
        self._quote = quote

    def watching(self, workflow: WorkflowDefinition) -> Iterator[Line]:
        yield Line(
            0, f"Watches {self._name(workflow.record_type)}: a record that {EVENTS[workflow.evaluate]}."
        )
        if not workflow.active:
            yield Line(0, "It is not active: changes are ignored.")
        if workflow.dry_run:
            yield Line(0, "It is a dry run: nothing is sent.")
        if workflow.mode == ONE_TASK:
            yield Line(0, "One task does everything, batch by batch.")
        if workflow.pool is not None:
            yield Line(0, f"Its tasks are in the pool {self._name(workflow.pool)}.")

    # --- criteria ------------------------------------------------------------------------------------------

    def criteria(self, spec: Any) -> Iterator[Line]:
        if spec is None:
            yield Line(0, "Every such record triggers.")
            return
        yield Line(0, "The record triggers if:")
        for number, line in enumerate(self._expression(spec, 1)):
            if number == MOST_LINES:
                yield Line(1, "…")
                return
            yield line

    def _expression(self, spec: Any, depth: int) -> Iterator[Line]:
        if spec is None:
            yield Line(depth, "always")
            return
        for kind, words in GROUPS.items():
            if kind in spec:
                yield Line(depth, words)
                for member in spec[kind]:
                    yield from self._expression(member, depth + 1)
                return
        if "conditions" not in spec:
            yield Line(depth, self._condition(spec))
            return
        logic = spec.get("logic")
        holds = f"{self._quote(' '.join(logic.split()))} holds, of these:" if logic else GROUPS["all"]
        yield Line(depth, holds)
        for number, condition in enumerate(spec["conditions"], 1):
            yield Line(depth + 1, f"({number}) {self._condition(condition)}")

    def _condition(self, spec: Mapping[str, Any]) -> str:
        operator = spec["operator"]
        text = f"{self._name(spec['field'])} {OPERATORS[operator]}"
        if "value" in spec:
            text += f" {self._value(spec['value'], 'and' if operator == 'between' else 'or')}"
        return f"{text} (upper and lower case as written)" if spec.get("case_sensitive") else text

    def _value(self, value: Any, last: str) -> str:
        if isinstance(value, Sequence) and not isinstance(value, str):
            shown = [self._value(item, last) for item in value[:MOST_SHOWN]]
            more = [f"{len(value) - MOST_SHOWN} more"] if len(value) > MOST_SHOWN else []
            *first, final = [*shown, *more]
            return f"{', '.join(first)} {last} {final}" if first else final
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, timedelta):
            return str(duration_text(value))
        return self._quote(str(value)) if isinstance(value, str) else str(value)

    # --- webhooks ------------------------------------------------------------------------------------------

    def webhooks(self, workflow: WorkflowDefinition) -> Iterator[Line]:
        yield Line(0, "For each record that triggers, it sends:")
        for webhook in workflow.webhooks:
            yield Line(1, f"{self._quote(webhook.name)}: {self._sent(webhook)}, {self._when(webhook)}")
            delivery = workflow.delivery_of(webhook)
            if delivery.get("ordered"):
                yield Line(2, "the changes of one record one after another")
            if "retries" in delivery:
                attempts = delivery["retries"] + 1
                yield Line(2, f"in up to {attempts} attempts" if attempts > 1 else "in one attempt")
            if webhook.pool is not None:
                yield Line(2, f"by tasks in the pool {self._name(webhook.pool)}")
            if delivery.get("on_undelivered") == "report":
                yield Line(2, "if a payload stays undelivered, the report says so, and the task succeeds")

    def _sent(self, webhook: Webhook) -> str:
        what = "the whole record"
        if webhook.fields is not None:
            names = [self._name(name) for name in webhook.fields[:MOST_SHOWN]]
            more = len(webhook.fields) - len(names)
            rest = f" and {counted(more, 'more field')}" if more else ""
            what = f"{', '.join(names)}{rest}"
        if webhook.uri is not None:
            return f"{what}, to {self._quote(shown_uri(webhook.uri))}"
        return f"{what}, to the connection {self._name(str(webhook.conn_id))}"

    def _when(self, webhook: Webhook) -> str:
        at = f"the date in {self._name(webhook.field)}" if webhook.field is not None else "the trigger"
        if webhook.after is not None:
            when = f"{duration_text(webhook.after)} after {at}"
        elif webhook.before is not None:
            when = f"{duration_text(webhook.before)} before {at}"
        elif webhook.field is not None:
            when = f"at {at}"
        else:
            return "at once"
        return f"{when}, if it still meets the criteria" if webhook.recheck else when

    # --- runs ----------------------------------------------------------------------------------------------

    def schedule(self, schedule: str | Schedule | None) -> str:
        if schedule is None:
            return "It runs by hand only."
        if schedule == ON_CHANGE:
            return "It runs when there are changes."
        if isinstance(schedule, str):
            return f"It runs at {self._quote(schedule)} (UTC)."
        if schedule.on_change is not None:
            often = duration_text(schedule.watch or timedelta(seconds=PUSH_POLL_INTERVAL))
            return (
                f"It runs when Insightly's webhook announces a change, and also asks Insightly every {often}."
            )
        if schedule.watch is not None:
            return (
                f"It runs when there are changes, and asks Insightly every {duration_text(schedule.watch)}."
            )
        if schedule.cron is not None:
            when = f"at {self._quote(schedule.cron)} ({self._name(schedule.timezone)})"
        else:
            when = f"every {duration_text(schedule.every or timedelta(0))}"
        return f"It runs {when}{', each time for the interval before' if schedule.data_interval else ''}."

    def failure(self, workflow: WorkflowDefinition) -> Iterator[Line]:
        if workflow.on_failure is not None:
            yield Line(0, f"When a run fails, {self._name(workflow.on_failure.callback)} is called.")

    def _name(self, name: str) -> str:
        """Return a name, without quotation marks if it is a word."""
        return name if self._quote is _quoted and re.fullmatch(r"[\w./-]+", name) else self._quote(name)


def _shown(text: str) -> str:
    """Return a text on one line, shortened, with invisible characters escaped."""
    text = " ".join(text.split())
    text = f"{text[:LONGEST_SHOWN]}…" if len(text) > LONGEST_SHOWN else text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _quoted(text: str) -> str:
    return f'"{_shown(text)}"'


def _code_span(text: str) -> str:
    text = _shown(text) or '""'
    fence = "`" * (_longest_run(text) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)

"""Counts of what a workflow would have done with many changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.core.workflow.backtest import verdicts
from airflow_insightly_hooks.core.workflow.backtest_summary import Trigger, summarize

MADE = Workflow(
    name="w",
    record_type="Contacts",
    evaluate="created",
    criteria={
        "all": [
            {"field": "FIRST_NAME", "operator": "equals", "value": "Zoë"},
            {"field": "TITLE", "operator": "is_not_blank"},
        ]
    },
    webhooks=[Webhook(name="w", conn_id="c")],
)


def change(number: int, event: str = "added", **fields: Any) -> Any:
    return {
        "record_type": "Contacts",
        "record_id": number,
        "event": event,
        "changed_at": "2026-01-10T08:00:00Z",
        "record": {"CONTACT_ID": number} | fields,
    }


def test_counts() -> None:
    """Changes that trigger are listed up to the limit. Reasons and culprits are counted."""
    found = summarize(
        verdicts(
            MADE,
            [
                *(change(n, FIRST_NAME="Zoë", TITLE="Head") for n in range(3)),
                change(3, FIRST_NAME="Zoë"),
                change(4),
                change(5, "updated"),
                change(6) | {"undeliverable": "a.b holds a secret", "record": {}},
            ],
        ),
        limit=2,
    )
    assert (found.changes, found.triggers) == (7, 3)
    assert found.first == [Trigger(n, "added", "2026-01-10T08:00:00Z") for n in range(2)]
    assert found.reasons == {
        "the record does not meet the criteria": 2,
        "the record was updated, and evaluate is 'created'": 1,
        "it can't be delivered": 1,
    }
    assert found.culprits == {
        ("criteria.all[0]", "FIRST_NAME", "equals"): 1,
        ("criteria.all[1]", "TITLE", "is_not_blank"): 2,
    }


def test_changes_are_taken_one_by_one() -> None:
    """A change is judged before the next one is asked for, so that records needn't be in memory."""
    taken: list[int] = []

    def changes() -> Iterator[Any]:
        for number in range(3):
            taken.append(number)
            yield change(number)

    judged = verdicts(MADE, changes())
    next(judged)
    assert taken == [0]

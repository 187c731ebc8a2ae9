"""The evaluate task."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import DownstreamTasksSkipped

from airflow_insightly_hooks.core.errors import InvalidChange, InvalidCriteria
from airflow_insightly_hooks.operators.criteria import EvaluateCriteriaOperator
from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from tests.conftest import Logged, TaskInstance, run_context

FRANCE = {"field": "ADDRESS_MAIL_COUNTRY", "operator": "equals", "value": "France"}


def change(number: int, country: str | None, record_type: str = "Contacts") -> dict[str, Any]:
    return {
        "record_type": record_type,
        "record_id": number,
        "event": "added",
        "changed_at": "2017-03-10T08:00:00Z",
        "record": {"CONTACT_ID": number, "ADDRESS_MAIL_COUNTRY": country},
    }


CHANGES = [change(1, "France"), change(2, "Spain"), change(3, "FRANCE"), change(4, None)]


def test_passes_on_what_matches(logged: Logged) -> None:
    """The changes that meet the criteria are passed on as they are, in their order."""
    operator = EvaluateCriteriaOperator(task_id="evaluate", changes=CHANGES, criteria={"all": [FRANCE]})
    assert operator.execute(run_context()) == [CHANGES[0], CHANGES[2]]
    assert logged.messages("info") == ["2 of 4 changes meet the criteria"]
    assert "Spain" not in logged.text


def test_a_field_that_no_record_has(logged: Logged) -> None:
    """A misspelt field counts as blank, and is warned of with a guess; a blank custom field is not."""
    slip = {"field": "ADDRESS_MAIL_CONTRY", "operator": "not_equals", "value": "France"}
    custom = {"field": "Region__c", "operator": "is_blank"}
    criteria = {"all": [slip, {"any": [FRANCE, custom]}]}
    operator = EvaluateCriteriaOperator(task_id="evaluate", changes=CHANGES, criteria=criteria)
    assert operator.execute(run_context()) == CHANGES
    (warning,) = logged.messages("warning")
    assert warning == (
        "No record of Contacts has a field ADDRESS_MAIL_CONTRY: it counts as blank; "
        "did you mean 'ADDRESS_MAIL_COUNTRY'?"
    )


def test_no_criteria() -> None:
    """Without criteria every change is passed on."""
    assert EvaluateCriteriaOperator(task_id="evaluate", changes=CHANGES).execute(run_context()) == CHANGES


@pytest.mark.parametrize("changes", [CHANGES[1:2], []])
def test_nothing_matches(changes: list[Any]) -> None:
    """Where nothing meets the criteria, what follows is skipped, and an empty list is passed on."""
    with DAG("dag", schedule=None):
        operator = EvaluateCriteriaOperator(task_id="evaluate", changes=changes, criteria=FRANCE)
        operator >> [
            BuildPayloadOperator(task_id="build", changes=operator.output),
            BuildPayloadOperator(task_id="other", changes=[]),
        ]
    context = run_context()
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        operator.execute(context)
    assert sorted(skipped.value.tasks) == ["build", "other"]
    assert context["ti"].xcom["return_value"] == []


def test_nothing_matches_and_nothing_follows() -> None:
    """A task that nothing follows ends as usual, with an empty list."""
    with DAG("dag", schedule=None):
        operator = EvaluateCriteriaOperator(task_id="evaluate", changes=[], criteria=FRANCE)
    assert operator.execute(run_context()) == []


def test_nothing_matches_in_a_mapped_task() -> None:
    """One mapped task without a match doesn't skip what follows: others may have some."""
    with DAG("dag", schedule=None):
        operator = EvaluateCriteriaOperator(task_id="evaluate", changes=[], criteria=FRANCE)
        operator >> BuildPayloadOperator(task_id="build", changes=[])
    ti = TaskInstance()
    ti.map_index = 3
    assert operator.execute(run_context(ti=ti)) == []


@pytest.mark.parametrize(
    "criteria",
    [
        {"field": "TITLE", "operator": "equal", "value": "x"},
        {"all": []},
        {"all": [FRANCE], "any": [FRANCE]},
        [FRANCE],
        {"field": "TITLE", "operator": "equals", "value": {"x"}},
    ],
)
def test_wrong_criteria(criteria: Any) -> None:
    """Wrong criteria are told of when the DAG is parsed, at the latest when the task runs."""
    with pytest.raises(InvalidCriteria) as caught:
        EvaluateCriteriaOperator(task_id="evaluate", changes=CHANGES, criteria=criteria).execute(
            run_context()
        )
    assert caught.value.path.startswith("criteria")


def test_criteria_are_checked_when_parsed() -> None:
    """Criteria without templates are checked when the DAG is parsed."""
    with pytest.raises(InvalidCriteria, match="did you mean 'equals'"):
        EvaluateCriteriaOperator(
            task_id="evaluate", changes=[], criteria={"field": "TITLE", "operator": "equal", "value": "x"}
        )


def test_templates_in_criteria() -> None:
    """Templates in criteria are rendered first."""
    templated = {**FRANCE, "value": "{{ params.country }}"}
    operator = EvaluateCriteriaOperator(task_id="evaluate", changes=CHANGES, criteria=templated)
    context = run_context(params={"country": "Spain"})
    operator.render_template_fields(context)
    assert operator.execute(context) == [CHANGES[1]]


@pytest.mark.parametrize(
    "changes",
    [
        None,
        "changes",
        {"record_type": "Contacts"},
        [1],
        [{"record_type": "Contacts"}],
        [change(1, "Secret", record_type="Contact")],
        [{**change(1, None), "record": "Secret"}],
    ],
)
def test_refused_changes(changes: Any) -> None:
    """What is no list of changes is refused, without its contents."""
    with pytest.raises(InvalidChange) as caught:
        EvaluateCriteriaOperator(task_id="evaluate", changes=changes).execute(run_context())
    assert "Secret" not in str(caught.value)


def test_template_fields() -> None:
    """These fields are rendered."""
    assert EvaluateCriteriaOperator.template_fields == ("changes", "criteria")

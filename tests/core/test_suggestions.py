"""Suggestions for unknown words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.core.criteria import OPERATORS
from airflow_insightly_hooks.core.errors import InvalidCriteria, InvalidWorkflow
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.core.suggestions import (
    FIELD_WORDS,
    SYNONYMS,
    did_you_mean,
    field_guess,
    schedule_guess,
)
from airflow_insightly_hooks.operators.criteria import EvaluateCriteriaOperator

KEYS = {*Workflow.model_fields, *Webhook.model_fields}
CONDITION = {"field": "TITLE", "operator": "equals", "value": "x"}


@pytest.mark.parametrize(
    ("record_type", "name", "meant"),
    [
        ("Contacts", "EMAIL", "'EMAIL_ADDRESS'"),
        ("Leads", "email", "'EMAIL'"),
        ("Contacts", "first_name", "'FIRST_NAME'"),
        ("Contacts", "FirstName", "'FIRST_NAME'"),
        ("Contacts", "FIRST_NAM", "'FIRST_NAME'"),
        ("Contacts", "COUNTRY", "'ADDRESS_MAIL_COUNTRY'"),
        ("Organisations", "COUNTRY", "'ADDRESS_BILLING_COUNTRY'"),
        ("Organisations", "ORGANIZATION_NAME", "'ORGANISATION_NAME'"),
        ("Contacts", "MOBILE", "'PHONE_MOBILE'"),
        ("Contacts", "ZIP", "'ADDRESS_MAIL_POSTCODE'"),
        ("Opportunities", "NAME", "'OPPORTUNITY_NAME'"),
        ("Opportunities", "STATE", "'OPPORTUNITY_STATE'"),
        ("Opportunities", "STATUS", "'OPPORTUNITY_STATE'"),
        ("Opportunities", "VALUE", "'OPPORTUNITY_VALUE'"),
        ("Tasks", "STATE", "'STATUS'"),
        ("Contacts", "CREATED_AT", "'DATE_CREATED_UTC'"),
        ("Contacts", "MODIFIED", "'DATE_UPDATED_UTC'"),
        ("Contacts", "OWNER", "'OWNER_USER_ID'"),
        ("Contacts", "ID", "'CONTACT_ID'"),
        ("Contacts", "TAG", "'TAGS'"),
        ("Contacts", "Region", "'Region__c'"),
        ("Contacts", "region_", "'region__c'"),
        ("Contacts", "Source", "'Source__c'"),
        ("Contacts", "City", "'ADDRESS_MAIL_CITY' or 'City__c'"),
        ("Invoice__c", "NAME", "'RECORD_NAME'"),
    ],
)
def test_a_field_that_was_meant(record_type: str, name: str, meant: str) -> None:
    """A field is suggested by spelling, words, label, or as a custom field; in ``fields``, too."""
    expected = f"{record_type} have no field {name!r}; did you mean {meant}?"
    evaluate = "created_and_edited" if RECORD_TYPES[record_type].has_updates else "created"
    with pytest.raises(InvalidWorkflow) as caught:
        Workflow(
            name="w",
            record_type=record_type,
            evaluate=evaluate,
            criteria={**CONDITION, "field": name},
            webhooks=[{"name": "w", "conn_id": "c"}],
        )
    assert caught.value.problems == (("criteria.field", expected),)
    if name != "TAG":
        with pytest.raises(InvalidWorkflow) as caught:
            Workflow(
                name="w",
                record_type=record_type,
                webhooks=[{"name": "w", "conn_id": "c", "fields": [name]}],
            )
        assert caught.value.problems == (("webhooks[0].fields[0]", expected),)


def test_a_field_that_nothing_is_near_to() -> None:
    """No guess is better than a bad one."""
    for name in ("VALUE", "DUE", "STAGE", "XYZ", "", "_", "é!", "A" * 10_000):
        assert field_guess(name, RECORD_TYPES["Contacts"].fields) == ""


def test_an_operator_checks_fields_when_it_knows_the_record_type() -> None:
    """It does when the DAG is parsed. Without a record type, the run's log warns."""
    wrong = {**CONDITION, "field": "EMAIL"}
    with pytest.raises(InvalidCriteria, match="did you mean 'EMAIL_ADDRESS'"):
        EvaluateCriteriaOperator(task_id="a", changes=[], criteria=wrong, record_type="Contacts")
    EvaluateCriteriaOperator(task_id="b", changes=[], criteria=wrong)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("is_not_empty", "is_not_blank"),
        ("eq", "equals"),
        ("==", "equals"),
        ("!=", "not_equals"),
        ("gt", "greater_than"),
        (">=", "greater_or_equal"),
        ("<", "less_than"),
        ("<=", "less_or_equal"),
        ("Is Empty", "is_blank"),
        ("greaterThan", "greater_than"),
        ("regex", "matches"),
        ("does not contain", "not_contains"),
        ("equal", "equals"),
    ],
)
def test_an_operator_that_was_meant(typed: str, meant: str) -> None:
    """Operators are known by the names that other programs use."""
    with pytest.raises(InvalidCriteria, match=f"did you mean '{meant}'"):
        EvaluateCriteriaOperator(task_id="a", changes=[], criteria={**CONDITION, "operator": typed})


@pytest.mark.parametrize(
    ("path", "typed", "meant"),
    [
        ("webhooks[0].connection", {"webhooks": [{"name": "w", "connection": "c"}]}, "conn_id"),
        ("webhooks[0].url", {"webhooks": [{"name": "w", "url": "c"}]}, "uri"),
        ("connection", {"connection": "c"}, "insightly_conn_id"),
        ("enabled", {"enabled": True}, "active"),
        ("object", {"object": "Contacts"}, "record_type"),
        ("type", {"type": "Contacts"}, "record_type"),
        ("filter", {"filter": {}}, "criteria"),
        ("conditions", {"conditions": []}, "criteria"),
        ("Max-Retries", {"Max-Retries": 3}, "retries"),
        ("recordType", {"recordType": "Contacts"}, "record_type"),
        ("schedule.interval", {"schedule": {"interval": "5m"}}, "every"),
        ("evaluate", {"evaluate": "edited"}, "created_and_edited"),
        ("evaluate", {"evaluate": "once"}, "until_triggered"),
        ("evaluate", {"evaluate": "Created"}, "created"),
        ("schedule", {"schedule": "on_changes"}, "on_change"),
        ("schedule", {"schedule": "hourly"}, "@hourly"),
        ("schedule", {"schedule": "dayly"}, "@daily"),
        ("criteria.and", {"criteria": {"and": [CONDITION]}}, "all"),
        ("criteria.op", {"criteria": {"field": "TITLE", "op": "equals"}}, "operator"),
    ],
)
def test_a_key_or_a_value_that_was_meant(path: str, typed: dict[str, Any], meant: str) -> None:
    """If the known words depend on the place, the suggestion is one that is known there."""
    arguments = {"name": "w", "record_type": "Notes", "webhooks": [{"name": "w", "conn_id": "c"}], **typed}
    with pytest.raises(InvalidWorkflow) as caught:
        Workflow(**arguments)
    assert f"did you mean {meant!r}?" in dict(caught.value.problems)[path]


def test_a_schedule_that_is_a_length_of_time() -> None:
    """The error shows the mapping to write."""
    assert schedule_guess("15m") == "; did you mean {every: 15m}?"
    assert schedule_guess("whenever") == ""


@pytest.mark.parametrize("word", ["push", "on-push", "Webhook", "@push"])
def test_a_schedule_by_webhooks(word: str) -> None:
    """The error shows the mapping to write."""
    assert schedule_guess(word) == "; did you mean {on_change: push}?"


@pytest.mark.parametrize("schedule", ["@hourly", "@once", "*/5 * * * *", "on_change", None])
def test_schedules_that_are_right_stay_so(schedule: str | None) -> None:
    """This includes Airflow's presets."""
    made = Workflow(
        name="w", record_type="Notes", schedule=schedule, webhooks=[{"name": "w", "conn_id": "c"}]
    )
    made.to_dag()
    assert made.schedule == schedule


def test_synonyms_lead_somewhere() -> None:
    """Each synonym leads to a known word, and no synonym is itself a known word in its place."""
    known = {
        *KEYS,
        *OPERATORS,
        *("all", "any", "none", "operator", "field", "conditions", "callback", "arguments"),
        *("every", "watch", "on_change", "created", "created_and_edited", "until_triggered"),
        *("iso8601", "microsoft", "report", "fail"),
    }
    assert {word for words in SYNONYMS.values() for word in words} <= known
    fields = {
        word for name in RECORD_TYPES for field in RECORD_TYPES[name].fields for word in field.split("_")
    }
    assert set(FIELD_WORDS.values()) <= fields


@given(st.text(max_size=200), st.lists(st.text(max_size=30), max_size=5))
def test_any_word_has_a_guess_or_none(word: str, known: list[str]) -> None:
    """Whatever was typed, a suggestion is a known word."""
    guess = did_you_mean(word, known)
    assert guess == "" or any(repr(name) in guess for name in known)
    field_guess(word, known)
    schedule_guess(word)


def test_a_long_word_takes_no_time() -> None:
    """For a long word, similar ones are not searched for."""
    for guess in (did_you_mean("x" * 1_000_000, OPERATORS), field_guess("X" * 1_000_000, KEYS)):
        assert guess == ""

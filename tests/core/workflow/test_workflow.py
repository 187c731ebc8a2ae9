"""Workflows: what they contain, how mistakes are reported, and what they would have done."""

from __future__ import annotations

import pickle
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks import Schedule, Webhook, Workflow
from airflow_insightly_hooks.core.errors import InvalidWorkflow
from airflow_insightly_hooks.core.workflow.values import slug_of

UTC = timezone.utc
WEBHOOK = {"name": "Billing", "conn_id": "billing_webhook"}
IN_FRANCE = {"field": "ADDRESS_MAIL_COUNTRY", "operator": "equals", "value": "France"}


def workflow(**arguments: Any) -> Workflow:
    return Workflow(
        **{"name": "New French contacts", "record_type": "Contacts", "webhooks": [WEBHOOK], **arguments}
    )


def change(record_id: int = 1, event: str = "added", **record: Any) -> dict[str, Any]:
    return {
        "record_type": "Contacts",
        "record_id": record_id,
        "event": event,
        "changed_at": "2026-01-10T08:00:00Z",
        "record": {"CONTACT_ID": record_id, **record},
    }


def test_what_is_left_out_is_what_insightly_does():
    """By default every change triggers, and the whole record is sent at once."""
    made = workflow()
    assert (made.dag_id, made.active, made.evaluate, made.criteria) == (
        "new_french_contacts",
        True,
        "created_and_edited",
        None,
    )
    (webhook,) = made.webhooks
    assert (webhook.fields, webhook.date_format, webhook.envelope) == (None, "microsoft", "entity")
    assert not webhook.is_timed


@pytest.mark.parametrize(
    ("evaluate", "events"),
    [
        ("created", ("added",)),
        ("created_and_edited", ("added", "updated")),
        ("until_triggered", ("added", "updated")),
    ],
)
def test_evaluate_says_which_changes_are_looked_at(evaluate, events):
    """Insightly's three choices are two kinds of event.

    The evaluate task remembers records for the third one.
    """
    assert workflow(evaluate=evaluate).events == events


@pytest.mark.parametrize(
    ("name", "dag_id"),
    [
        ("New French contacts", "new_french_contacts"),
        ("  Won > 25,000!  ", "won_25_000"),
        ("Größe: übergroß", "größe_übergroß"),
        ("連絡先", "連絡先"),
        ("a__b.c", "a__b_c"),
    ],
)
def test_an_id_is_made_of_the_name(name, dag_id):
    """An id is in lower case.

    Characters other than letters and digits become underscores; any script is allowed.
    """
    assert workflow(name=name).dag_id == dag_id


@pytest.mark.parametrize(
    ("arguments", "path", "part"),
    [
        ({"name": "  "}, "name", "a text is needed"),
        ({"name": "!!!"}, "dag_id", "give a dag_id"),
        ({"name": "x" * 201}, "name", "200"),
        ({"dag_id": "a b"}, "dag_id", "letters, digits"),
        ({"record_type": "Contact"}, "record_type", "did you mean 'Contacts'?"),
        ({"record_type": "Emails"}, "evaluate", "only 'created' can be evaluated"),
        ({"record_type": "DocumentTemplates", "evaluate": "until_triggered"}, "evaluate", "no update time"),
        ({"evaluate": "edited"}, "evaluate", "'until_triggered'"),
        ({"evalute": "created"}, "evalute", "did you mean 'evaluate'?"),
        ({"active": "maybe"}, "active", "true or false"),
        (
            {"criteria": {"all": [IN_FRANCE, {**IN_FRANCE, "operator": "equal"}]}},
            "criteria.all[1].operator",
            "did you mean 'equals'?",
        ),
        (
            {"criteria": {**IN_FRANCE, "field": "ADDRES_MAIL_COUNTRY"}},
            "criteria.field",
            "did you mean 'ADDRESS_MAIL_COUNTRY'?",
        ),
        (
            {"criteria": {"field": "EMAIL_OPTED_OUT", "operator": "before", "value": "today"}},
            "criteria.operator",
            "",
        ),
        ({"criteria": {"conditions": [IN_FRANCE], "logic": "1 AND"}}, "criteria.logic", "column"),
        ({"webhooks": []}, "webhooks", "at least 1"),
        ({"webhooks": [{"conn_id": "x"}]}, "webhooks[0].name", "it is missing"),
        ({"webhooks": [{"name": "x"}]}, "webhooks[0]", "conn_id or uri"),
        ({"webhooks": [{**WEBHOOK, "uri": "https://x"}]}, "webhooks[0]", "conn_id or uri"),
        ({"webhooks": [{"name": "x", "conn_id": "https://x"}]}, "webhooks[0].conn_id", "give a URI as uri"),
        (
            {"webhooks": [WEBHOOK, {**WEBHOOK, "name": "billing!"}]},
            "webhooks[1].name",
            "too similar to 'Billing'",
        ),
        ({"webhooks": [{**WEBHOOK, "fiels": ["A"]}]}, "webhooks[0].fiels", "did you mean 'fields'?"),
        ({"webhooks": [{**WEBHOOK, "fields": ["FIRST_NAM"]}]}, "webhooks[0].fields[0]", "'FIRST_NAME'"),
        ({"webhooks": [{**WEBHOOK, "fields": []}]}, "webhooks[0].fields", "at least 1"),
        ({"webhooks": [{**WEBHOOK, "date_format": "iso"}]}, "webhooks[0].date_format", "'iso8601'"),
        ({"webhooks": [{**WEBHOOK, "timezone": "Mars/X"}]}, "webhooks[0].timezone", "no time zone 'Mars/X'"),
        ({"webhooks": [{**WEBHOOK, "concurrency": 0}]}, "webhooks[0].concurrency", "1"),
        ({"webhooks": [{**WEBHOOK, "after": "3 days"}]}, "webhooks[0].after", "'3d'"),
        (
            {"webhooks": [{**WEBHOOK, "before": "3d"}]},
            "webhooks[0].before",
            "name of the field with the date",
        ),
        (
            {"webhooks": [{**WEBHOOK, "before": "3d", "after": "1d", "field": "DATE_OF_BIRTH"}]},
            "webhooks[0].before",
            "can't be used together",
        ),
        ({"webhooks": [{**WEBHOOK, "field": "BIRTH"}]}, "webhooks[0].field", "no field 'BIRTH'"),
        ({"webhooks": [{**WEBHOOK, "field": "FIRST_NAME"}]}, "webhooks[0].field", "is not a date field"),
        ({"webhooks": [{**WEBHOOK, "recheck": True}]}, "webhooks[0].recheck", "time trigger"),
        ({"schedule": {}}, "schedule", "give one of cron, every, watch and on_change"),
        ({"schedule": {"on_change": "push", "cron": "@daily"}}, "schedule", "not cron and on_change"),
        ({"schedule": {"on_change": "push", "every": "1h"}}, "schedule", "not every and on_change"),
        ({"schedule": {"on_change": "pushed"}}, "schedule.on_change", "did you mean 'push'?"),
        ({"schedule": {"on_change": True}}, "schedule.on_change", "'push' is needed"),
        ({"schedule": {"push": True}}, "schedule.push", "did you mean 'on_change'?"),
        ({"schedule": "push"}, "schedule", "did you mean {on_change: push}?"),
        ({"schedule": {"on_change": "push", "watch": "0s"}}, "schedule.watch", "longer than 0"),
        ({"schedule": {"on_change": "push", "data_interval": True}}, "schedule.data_interval", "no interval"),
        ({"schedule": {"cron": "* * * * *", "every": "5m"}}, "schedule", "not cron and every"),
        ({"schedule": {"every": "5x"}}, "schedule.every", "duration"),
        ({"schedule": {"every": "0m"}}, "schedule.every", "longer than 0"),
        ({"schedule": {"crn": "* * * * *"}}, "schedule.crn", "did you mean 'cron'?"),
        ({"schedule": {"watch": "15s", "data_interval": True}}, "schedule.data_interval", "no interval"),
        ({"schedule": {"cron": "0 * * * *", "data_interval": True}}, "start_date", "intervals are read"),
        ({"schedule": 5}, "schedule", "a cron expression"),
        ({"start_date": "yesterday"}, "start_date", "is not a time"),
        ({"start_date": 2026}, "start_date", "is not a time"),
        ({"settle": -1}, "settle", "0"),
        ({"settle": float("inf")}, "settle", "finite"),
        ({"settle": "5"}, "settle", "duration"),
        ({"lookback": -1}, "lookback", "0"),
        ({"lookback": "2d"}, "lookback", "86400"),
        ({"active": "no"}, "active", "true or false"),
        ({"tags": ["x" * 101]}, "tags[0]", "100"),
        ({"dag_id": "x__pending"}, "dag_id", "'__pending' is reserved"),
        ({"schedule": {"every": 15}}, "schedule.every", "duration"),
        ({"schedule": {"every": "999999w"}}, "schedule.every", "36,500 days"),
        ({"webhooks": [{**WEBHOOK, "name": "x" * 201}]}, "webhooks[0].name", "200"),
        ({"webhooks": [{**WEBHOOK, "after": 3}]}, "webhooks[0].after", "duration"),
        ({"webhooks": [{**WEBHOOK, "after": timedelta(-1)}]}, "webhooks[0].after", "between 0"),
        ({"webhooks": [{**WEBHOOK, "concurrency": "8"}]}, "webhooks[0].concurrency", "whole number"),
        ({"webhooks": [{**WEBHOOK, "after": "1d", "recheck": "on"}]}, "webhooks[0].recheck", "true or false"),
    ],
)
def test_a_mistake_is_found_with_its_path(arguments, path, part):
    """Each mistake is found when the workflow is made. The error says where it is and what to do."""
    with pytest.raises(InvalidWorkflow) as caught:
        workflow(**arguments)
    assert path in dict(caught.value.problems)
    assert part in dict(caught.value.problems)[path]
    assert f"{path}: " in str(caught.value)


def test_all_mistakes_are_told_at_once():
    """So a user can correct all of them in one go."""
    with pytest.raises(InvalidWorkflow) as caught:
        workflow(
            evaluate="never", criteria={"all": []}, webhooks=[{**WEBHOOK, "after": "soon"}], colour="red"
        )
    assert [path for path, _ in caught.value.problems] == [
        "evaluate",
        "criteria.all",
        "webhooks[0].after",
        "colour",
    ]


def test_a_missing_name_is_one_mistake():
    """The id that would be made of the name is not a second one."""
    with pytest.raises(InvalidWorkflow) as caught:
        Workflow(record_type="Contacts", webhooks=[{"name": "Billing", "conn_id": "x"}])  # type: ignore
    assert list(caught.value.problems) == [("name", "it is missing")]


def test_a_part_that_is_wrong_says_so_itself():
    """A webhook or a schedule that Python code creates on its own raises the same error."""
    with pytest.raises(InvalidWorkflow, match="name: it is missing"):
        Webhook(conn_id="x")  # type: ignore[call-arg]
    with pytest.raises(InvalidWorkflow, match=r"every: .*duration"):
        Schedule(every="soon")  # type: ignore[arg-type]


def test_an_error_survives_pickling_and_holds_no_value():
    """Errors are passed between processes. A value that a user typed may be a secret."""
    with pytest.raises(InvalidWorkflow) as caught:
        workflow(
            webhooks=[{"name": "x", "uri": "https://user:s3cret@host/", "after": "s3cret", "x": "s3cret"}]
        )
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 — our own
    assert str(again) == str(caught.value)
    assert "s3cret" not in str(again) + repr(again)


@pytest.mark.parametrize(
    "uri",
    [
        "https://user:s3cret@host/",
        "https://s3cret@host",
        "https://user:{{ var.value.password }}@host",
        "{{ var.value.scheme }}://user:s3cret@host",
    ],
)
def test_a_password_in_a_uri_is_refused(uri):
    """Everyone who can read the file could read it. The error says where it belongs, and doesn't show it."""
    with pytest.raises(InvalidWorkflow) as caught:
        workflow(webhooks=[{"name": "x", "uri": uri}])
    ((path, reason),) = caught.value.problems
    assert path == "webhooks[0].uri"
    assert "conn_id" in reason
    assert "{{ var.value.receiver }}" in reason
    assert "s3cret" not in str(caught.value)
    asset = {"name": "x", "conn_id": "c", "on_undelivered": "report", "undelivered_asset": {"uri": uri}}
    with pytest.raises(InvalidWorkflow, match=r"undelivered_asset\.uri: it must not hold a user name"):
        workflow(webhooks=[asset])


@pytest.mark.parametrize(
    "uri",
    [
        "https://{{ var.value.user }}:{{ var.value.password }}@host",
        "{{ var.value.receiver }}",
        "https://host/@me",
        "https://host?mail=a@b",
        "https://@host",
    ],
)
def test_a_uri_without_a_password_is_taken(uri):
    """Templates are rendered when the task runs."""
    assert workflow(webhooks=[{"name": "x", "uri": uri}]).webhooks[0].uri == uri


def test_a_uri_is_not_shown():
    """It may hold a secret; headers may, too."""
    receiver = {"name": "x", "uri": "https://host/?token=s3cret", "headers": {"X-Token": "s3cret"}}
    assert "s3cret" not in repr(workflow(webhooks=[receiver]))


def test_durations_and_times_are_read():
    """Durations may be text or timedeltas. A start without an offset is in UTC."""
    made = workflow(
        webhooks=[
            {**WEBHOOK, "after": "3d"},
            {"name": "b", "conn_id": "x", "after": timedelta(hours=1), "recheck": True},
            {"name": "c", "conn_id": "x", "field": "DATE_OF_BIRTH", "before": "1w"},
            {"name": "d", "conn_id": "x", "field": "Renewal__c"},
        ],
        start_date="2026-01-31 08:00:00",
    )
    assert [webhook.after for webhook in made.webhooks] == [timedelta(days=3), timedelta(hours=1), None, None]
    assert made.webhooks[2].before == timedelta(days=7)
    assert all(webhook.is_timed for webhook in made.webhooks)
    assert made.start_date == datetime(2026, 1, 31, 8, tzinfo=UTC)
    assert workflow(settle="2m").settle == 120
    assert (workflow().lookback, workflow(lookback="1h").lookback, workflow(lookback=0).lookback) == (
        900,
        3600,
        0,
    )
    assert workflow(start_date=datetime(2026, 1, 31)).start_date == datetime(2026, 1, 31, tzinfo=UTC)  # noqa: DTZ001 — what is tested


def test_messages_belong_to_the_dag_and_the_webhook():
    """Two webhooks, of the same or of different workflows, never share message ids."""
    made = workflow(webhooks=[WEBHOOK, {"name": "Other", "conn_id": "x"}], dag_id="d")
    assert [made.message_scope(webhook) for webhook in made.webhooks] == ["d/Billing", "d/Other"]


@given(st.text(max_size=30))
def test_any_name_makes_an_id_or_an_error(name):
    """No name makes an id that Airflow refuses."""
    try:
        made = workflow(name=name)
    except InvalidWorkflow:
        assert not slug_of(name) or not name.strip() or len(name.strip()) > 200
    else:
        assert made.dag_id == slug_of(name.strip())


# --- backtest ----------------------------------------------------------------------------------------------


def test_a_backtest_tells_what_would_have_triggered_and_why_not():
    """Each change has a verdict, with each condition's outcome. The text contains nothing of the record."""
    made = workflow(
        evaluate="created",
        criteria={"all": [IN_FRANCE, {"field": "EMAIL_OPTED_OUT", "operator": "is_not_checked"}]},
    )
    found = made.backtest(
        [
            change(1, ADDRESS_MAIL_COUNTRY="France"),
            change(2, ADDRESS_MAIL_COUNTRY="Chile"),
            change(3, "updated", ADDRESS_MAIL_COUNTRY="France"),
            change(4) | {"record_type": "Leads"},
        ]
    )
    assert [verdict.triggers for verdict in found.verdicts] == [True, False, False, False]
    assert [c["record_id"] for c in found.triggering] == [1]
    reasons = [verdict.reason for verdict in found.verdicts]
    assert reasons[0] is None
    assert reasons[1] == "the record does not meet the criteria"
    assert "evaluate is 'created'" in str(reasons[2])
    assert "Leads" in str(reasons[3])
    outcomes = found.verdicts[1].conditions
    assert [(c.path, c.field, c.operator, c.held) for c in outcomes] == [
        ("criteria.all[0]", "ADDRESS_MAIL_COUNTRY", "equals", False),
        ("criteria.all[1]", "EMAIL_OPTED_OUT", "is_not_checked", True),
    ]
    assert "1 of 4 changes trigger" in str(found)
    assert "criteria.all[0]: ADDRESS_MAIL_COUNTRY equals: not met" in str(found)
    assert "France" not in str(found)
    assert "Chile" not in str(found)


def test_a_backtest_marks_the_culprits():
    """In ``none`` and behind NOT, conditions that held are marked.

    Each group has a verdict; numbers start at 1.
    """
    titled = {"field": "TITLE", "operator": "is_not_blank"}
    tagged = {"field": "TAGS", "operator": "contains", "value": "VIP"}
    made = workflow(
        criteria={
            "all": [
                IN_FRANCE,
                {"none": [titled, {"any": [tagged, None]}]},
                {"none": [{"all": [None]}]},
                {"conditions": [IN_FRANCE, titled, tagged], "logic": "1 AND NOT (2 OR 3)"},
                {"conditions": [IN_FRANCE], "logic": "NOT 1"},
                {"conditions": [titled]},
            ]
        }
    )
    (verdict,) = made.backtest([change(1, ADDRESS_MAIL_COUNTRY="France", TITLE="Head")]).verdicts
    assert str(made.backtest([verdict.change])).splitlines()[2:] == [
        "    criteria.all: not met",
        "    criteria.all[0]: ADDRESS_MAIL_COUNTRY equals: met",
        "    criteria.all[1].none: not met",
        "  > criteria.all[1].none[0]: TITLE is_not_blank: met",
        "    criteria.all[1].none[1].any: met",
        "    criteria.all[1].none[1].any[0]: TAGS contains: not met",
        "    criteria.all[3].logic: not met",
        "    criteria.all[3].conditions[0]: 1: ADDRESS_MAIL_COUNTRY equals: met",
        "  > criteria.all[3].conditions[1]: 2: TITLE is_not_blank: met",
        "    criteria.all[3].conditions[2]: 3: TAGS contains: not met",
        "    criteria.all[4].logic: not met",
        "  > criteria.all[4].conditions[0]: 1: ADDRESS_MAIL_COUNTRY equals: met",
        "    criteria.all[5].conditions: met",
        "    criteria.all[5].conditions[0]: 1: TITLE is_not_blank: met",
    ]
    assert ("criteria.all[2].none", False) in verdict.groups
    assert ("criteria.all[2].none[0].all", True) in verdict.groups
    assert [culprit.path for culprit in verdict.culprits] == [
        "criteria.all[1].none[0]",
        "criteria.all[3].conditions[1]",
        "criteria.all[4].conditions[0]",
    ]


def test_a_backtest_blames_nobody_where_the_criteria_are_met():
    """This holds whatever else keeps the change from triggering."""
    made = workflow(
        evaluate="created", criteria={"any": [IN_FRANCE, {"field": "TITLE", "operator": "is_blank"}]}
    )
    (verdict,) = made.backtest([change(1, "updated", ADDRESS_MAIL_COUNTRY="France")]).verdicts
    assert not verdict.triggers
    assert (verdict.groups, verdict.culprits) == ((("criteria.any", True),), ())


def test_a_backtest_remembers_what_has_triggered():
    """``until_triggered``: only the first change of a record that meets the criteria counts."""
    made = workflow(evaluate="until_triggered", criteria=IN_FRANCE)
    found = made.backtest(
        [
            change(1, ADDRESS_MAIL_COUNTRY="Chile"),
            change(1, "updated", ADDRESS_MAIL_COUNTRY="France"),
            change(1, "updated", ADDRESS_MAIL_COUNTRY="France"),
            change(2, ADDRESS_MAIL_COUNTRY="France"),
        ],
        triggered=[2],
    )
    assert [verdict.triggers for verdict in found.verdicts] == [False, True, False, False]
    assert found.verdicts[3].reason == "the record has triggered before"


def test_an_inactive_workflow_triggers_nothing():
    """The switch is off."""
    found = workflow(active=False).backtest([change(1)])
    assert found.triggering == []
    assert found.verdicts[0].reason == "the workflow is not active"


def test_a_backtest_parses_criteria_once(parsed_criteria):
    """They are parsed once for all verdicts, whatever time relative dates are measured from."""
    criteria = {"field": "DATE_OF_BIRTH", "operator": "within_last", "value": "1d"}
    made = workflow(criteria=criteria)
    parsed_criteria.clear()
    later = {"changed_at": "2026-01-11T08:00:00Z"}
    assert len(made.backtest([change(1), change(2) | later]).verdicts) == 2
    assert parsed_criteria == [criteria]


def test_a_backtest_measures_relative_dates():
    """They are measured from the given time, or from each change's own time."""
    made = workflow(criteria={"field": "DATE_OF_BIRTH", "operator": "within_last", "value": "1d"})
    changes = [change(1, DATE_OF_BIRTH="2026-01-10 00:00:00")]
    assert made.backtest(changes).verdicts[0].triggers
    assert not made.backtest(changes, now=datetime(2026, 2, 1, tzinfo=UTC)).verdicts[0].triggers

"""Requests to cancel pending webhooks, or to send them at once, as parameters and conf of a run hold them."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core.errors import InvalidPayload
from airflow_insightly_hooks.core.state.pending_request import PendingRequest, request_conf, request_in
from airflow_insightly_hooks.core.state.pending_webhooks import Decision, PendingWebhook

CHANGED_AT = "2024-06-01T12:00:00Z"


def entry(record_id: int, changed_at: str = CHANGED_AT) -> PendingWebhook:
    return PendingWebhook(record_id, datetime(2024, 6, 1, 12, tzinfo=timezone.utc), "added", changed_at)


def test_records_that_parameters_name():
    """All pending webhooks of the records are meant, or only those of the webhooks that are named."""
    params = {"cancel": [7], "send_now": [8]}
    everywhere = PendingRequest(cancel={7: None}, send_now={8: None})
    assert request_in(params, {}, "check") == everywhere
    assert request_in({**params, "webhooks": []}, None, "check") == everywhere
    assert request_in({**params, "webhooks": ["other", "check"]}, {}, "check") == everywhere
    assert request_in({**params, "webhooks": ["other"]}, {}, "check") == PendingRequest()
    assert request_in(None, None, "check") == PendingRequest()
    assert everywhere.cancels(entry(7))
    assert everywhere.sends_now(entry(8))
    assert not everywhere.cancels(entry(8))


entries = st.dictionaries(st.integers(1, 2**63 - 1), st.sampled_from([CHANGED_AT, "2024-06-01 12:00:00"]))


@given(st.sampled_from(["cancel", "send_now"]), entries, entries)
def test_entries_come_back_from_a_conf(action, check, other):
    """The entries in a command's conf are the ones that the webhook's task reads, after JSON."""
    conf = request_conf(
        action, {"check": check, "other": other}, requested_by="anna", requested_at=CHANGED_AT
    )
    conf = json.loads(json.dumps(conf))
    assert conf["pending_request"]["requested_by"] == "anna"
    for webhook, expected in (("check", check), ("other", other), ("none", {})):
        request = request_in({}, conf, webhook)
        assert getattr(request, action) == expected
        assert sum(map(len, request)) == len(expected)
        meant = request.cancels if action == "cancel" else request.sends_now
        assert all(meant(entry(*item)) for item in expected.items())
        assert not any(meant(entry(record_id, "2024-06-02T12:00:00Z")) for record_id in expected)


def test_parameters_and_conf_go_together():
    """If the conf names an entry, exactly that entry is meant, even if its record is among the parameters."""
    conf = request_conf("cancel", {"check": {7: CHANGED_AT}}, requested_by="anna", requested_at=CHANGED_AT)
    request = request_in({"cancel": [7, 8], "send_now": [9]}, conf, "check")
    assert request == PendingRequest(cancel={7: CHANGED_AT, 8: None}, send_now={9: None})


@pytest.mark.parametrize(
    ("params", "conf", "where"),
    [
        ({"cancel": 7}, {}, "cancel"),
        ({"webhooks": "check"}, {}, "webhooks"),
        ({"send_now": ["x"]}, {}, "record id"),
        ({"send_now": [0]}, {}, "record id"),
        ({"cancel": [True]}, {}, "record id"),
        ({}, {"pending_request": 7}, "pending_request"),
        ({}, {"pending_request": {"action": "delete", "entries": {}}}, "pending_request"),
        ({}, {"pending_request": {"action": "cancel"}}, "pending_request"),
        ({}, {"pending_request": {"action": "cancel", "entries": {"check": [7]}}}, "pending_request"),
        ({}, {"pending_request": {"action": "cancel", "entries": {"check": {"7": 1}}}}, "pending_request"),
        (
            {},
            {"pending_request": {"action": "cancel", "entries": {"check": {"-7": CHANGED_AT}}}},
            "record id",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(params, conf, where):
    """Nothing is cancelled or sent on a guess."""
    with pytest.raises(InvalidPayload) as refused:
        request_in(params, conf, "check")
    assert refused.value.where == where


def test_the_outcome_names_the_records():
    """It lists the records that were pending, and those that no longer were."""
    request = PendingRequest(cancel={7: None, 9: None}, send_now={8: CHANGED_AT})
    assert list(request.outcome(Decision([], [entry(7)], [], []))) == [
        "1 cancelled: [7]",
        "1 not cancelled, because not pending any more: [9]",
        "0 sent before their time: []",
        "1 not sent before their time, because not pending any more: [8]",
    ]
    assert list(PendingRequest().outcome(Decision([entry(7)], [], [], []))) == []

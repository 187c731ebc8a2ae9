"""Errors: their attributes say what is wrong, and they survive the way from process to process."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core import errors
from airflow_insightly_hooks.core.errors import (
    IncompleteScan,
    InsightlyHooksError,
    InvalidChange,
    InvalidConnection,
    InvalidCriteria,
    InvalidDuration,
    InvalidPayload,
    InvalidState,
    InvalidTime,
    InvalidWindow,
    InvalidWorkflow,
    InvalidWorkflowFile,
    LostCursor,
    LostPayloads,
    NewerState,
    StoppedError,
    SupersededError,
    UndeliveredError,
    UnknownRecordType,
    UntrustedClock,
    WorkerExhausted,
    missing_keys,
)
from airflow_insightly_hooks.core.suggestions import did_you_mean


def undelivered(count: int, total: int | None = None) -> dict:
    items = [{"record_type": "Contacts", "record_id": i, "error": "answered 503"} for i in range(count)]
    return {"total": total or count + 2, "delivered": 2, "undelivered": items, "attempts": 3}


ERRORS = [
    (
        UnknownRecordType("Contact", ("Contacts", "Leads")),
        (
            "'Contact' is not a record type of Insightly's API: use Contacts, Leads, or the name of a custom "
            "object, which ends in '__c'; did you mean 'Contacts'?"
        ),
    ),
    (
        InvalidTime("Contacts.DATE_OF_BIRTH"),
        "Contacts.DATE_OF_BIRTH is not a time such as '2017-03-10 08:00:00' or '2017-03-10T08:00:00Z'",
    ),
    (InvalidWindow("it has no end"), "window: it has no end"),
    (
        StoppedError(),
        "the task was stopped before it had finished: its next try continues from what is recorded",
    ),
    (SupersededError(), "a later try of this task has taken over: this one sends nothing more"),
    (InvalidDuration("after"), "after is not a duration such as '45s', '30m', '2h', '3d' or '1w'"),
    (
        InvalidWorkflow((("webhooks[0].name", "it is missing"), ("", "one receiver is needed"))),
        "webhooks[0].name: it is missing\nworkflow: one receiver is needed",
    ),
    (
        InvalidWorkflowFile("a.yaml", (("name", "it is missing"), ("", "not YAML")), (1, 7)),
        "a.yaml:1: name: it is missing\na.yaml:7: not YAML",
    ),
    (
        InvalidCriteria("criteria.all[1].value", "a number is needed"),
        "criteria.all[1].value: a number is needed",
    ),
    (InvalidChange(3, "it lacks 'record'"), "changes[3]: it lacks 'record'"),
    (InvalidPayload("payloads[0]", "it lacks 'body'"), "payloads[0]: it lacks 'body'"),
    (
        InvalidConnection("webhook_default", "host", "it is empty"),
        "connection 'webhook_default', host: it is empty",
    ),
    (InvalidState("delivery", "its version is missing"), "state 'delivery': its version is missing"),
    (
        NewerState("delivery", 3, 2),
        (
            "state 'delivery': a newer release of airflow-insightly-hooks has written it, in version 3; this "
            "release reads versions up to 2. Install that release, or a later one, wherever Airflow runs. "
            "Then clear the task"
        ),
    ),
    (
        UndeliveredError(undelivered(2), retry_after=1.5),
        (
            "2 of 4 payloads are undelivered: Contacts 0 (answered 503), Contacts 1 (answered 503). "
            "When no retry is left, clear the task to send only these again"
        ),
    ),
    (
        UndeliveredError(undelivered(1, total=3)),
        (
            "1 of 3 payloads is undelivered: Contacts 0 (answered 503). "
            "When no retry is left, clear the task to send only these again"
        ),
    ),
    (
        LostPayloads([("flow", "run_1", 2), ("flow", "run_2", 1)]),
        (
            "3 payloads are undelivered: they are gone from the XCom of 2 runs ('run_1' of 'flow', 'run_2' "
            "of 'flow'). Send the changes again with a backfill, or with a run over the same window"
        ),
    ),
    (
        LostPayloads([("flow", "run_1", 1)]),
        (
            "1 payload is undelivered: it is gone from the XCom of 1 run ('run_1' of 'flow'). "
            "Send the changes again with a backfill, or with a run over the same window"
        ),
    ),
    (
        UntrustedClock("2026-01-01T00:00:00Z", "cursor/dag/detect", "2026-01-01T01:00:00Z"),
        (
            "the clock of Insightly's server says 2026-01-01T00:00:00Z, but cursor/dag/detect has been read "
            "up to 2026-01-01T01:00:00Z, which is later. Nothing was read, because changes could be missed. "
            "If the server's clock is behind, wait. Otherwise set the cursor in the asset's state back to "
            "the last time that was right"
        ),
    ),
    (
        WorkerExhausted("this worker has no file descriptor left"),
        "this worker has no file descriptor left",
    ),
    (
        IncompleteScan("Contacts", 42, 990, 1000),
        (
            "Contacts: 990 records read in 42 requests (the last count was 1,000), but some may have been "
            "missed, because records or their order changed meanwhile. None of them counts as read. Try "
            "again when fewer records change, or read a shorter window"
        ),
    ),
    (
        IncompleteScan("Contacts", 42, 1, None),
        (
            "Contacts: 1 record read in 42 requests, but some may have been missed, because records or "
            "their order changed meanwhile. None of them counts as read. Try again when fewer records "
            "change, or read a shorter window"
        ),
    ),
    (
        LostCursor("dag", "detect", "insightly/insightly_default/Contacts", "cursor/dag/detect"),
        (
            "dag.detect has run before, but its cursor is missing from the state of asset "
            "'insightly/insightly_default/Contacts' (key 'cursor/dag/detect'). To start from now could miss "
            "changes. Store the end of the task's last window there (an ISO 8601 time in UTC), or give the "
            "sensor an explicit window"
        ),
    ),
]


@pytest.mark.parametrize(("error", "text"), ERRORS, ids=lambda value: type(value).__name__)
def test_an_errors_text(error, text):
    """An error builds its message from its attributes."""
    assert str(error) == text
    assert isinstance(error, InsightlyHooksError)


@pytest.mark.parametrize("error", [error for error, _ in ERRORS], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickling(error, protocol):
    """Pickled and read again, or copied, an error has the same type, attributes, arguments and text."""
    for again in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301 — made here
        assert type(again) is type(error)
        assert vars(again) == vars(error)
        assert again.args == error.args
        assert str(again) == str(error)


def test_every_error_is_tried_here():
    """A new error must be added to this file."""
    exported = {getattr(errors, name) for name in errors.__all__}
    kinds = {kind for kind in exported if isinstance(kind, type)} - {InsightlyHooksError}
    assert {type(error) for error, _ in ERRORS} == kinds


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (UnknownRecordType, KeyError),
        (InvalidTime, ValueError),
        (InvalidWindow, ValueError),
        (InvalidCriteria, ValueError),
        (InvalidChange, ValueError),
        (InvalidPayload, ValueError),
        (InvalidConnection, ValueError),
    ],
)
def test_what_callers_may_catch_instead(kind, builtin):
    """An error about an argument is also a subclass of Python's own error for that."""
    assert issubclass(kind, builtin)


def test_undelivered_lists_the_first_ones():
    """The text names 20 records at most and counts the others, listed in the report or not."""
    text = str(UndeliveredError(undelivered(30, total=502)))
    assert text.startswith("500 of 502 payloads are undelivered: Contacts 0 (answered 503), ")
    assert "Contacts 19 (answered 503), and 480 more. When no retry is left" in text
    assert UndeliveredError(undelivered(1)).retry_after is None


@pytest.mark.parametrize(
    ("word", "guess"),
    [
        ("equal", "; did you mean 'equals'?"),
        ("EQUALS", "; did you mean 'equals'?"),
        ("zzz", ""),
        ("", ""),
        (None, ""),
        (5, ""),
    ],
)
def test_guesses(word, guess):
    """A similar word is suggested; if none is similar, nothing is suggested."""
    assert did_you_mean(word, ["equals", "contains"]) == guess


@given(st.text(), st.lists(st.text(min_size=1)))
def test_a_guess_is_one_of_the_known_words(word, known):
    """Whatever was written, the suggestion is a known word."""
    guess = did_you_mean(word, known)
    assert guess == "" or guess in {f"; did you mean {one!r}?" for one in known}


def test_missing_keys_are_named_in_order():
    """The keys that a mapping lacks are quoted and joined by commas."""
    assert missing_keys({"b": None}, ["a", "b", "c"]) == "'a', 'c'"
    assert missing_keys({"b": None}, ["b"]) == ""


@pytest.mark.parametrize(
    "kind",
    [getattr(errors, name) for name in errors.__all__ if isinstance(getattr(errors, name), type)],
    ids=lambda kind: kind.__name__,
)
def test_each_error_says_its_cause_and_its_remedy(kind):
    """The reference of errors is made of the docstrings: a first sentence, the cause, and the remedy."""
    first, *paragraphs = kind.__doc__.split("\n\n")
    assert "\n" not in first
    assert [p.split()[0] for p in paragraphs[:2]] == ["Cause:", "Remedy:"]

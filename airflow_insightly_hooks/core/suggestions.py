"""Suggests a known word for an unknown one: a word with a similar spelling, or with the same meaning."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches

__all__ = ["did_you_mean", "field_guess", "schedule_guess"]

LONGEST_WORD = 100
"""For longer words, no similar words are searched, because the time grows with the length."""
CUSTOM_SUFFIX = "__c"

SYNONYMS: Mapping[str, Sequence[str]] = {
    # operators of criteria
    "eq": ["equals"],
    "=": ["equals"],
    "==": ["equals"],
    "is": ["equals"],
    "equal_to": ["equals"],
    "ne": ["not_equals"],
    "neq": ["not_equals"],
    "!=": ["not_equals"],
    "<>": ["not_equals"],
    "is_not": ["not_equals"],
    "gt": ["greater_than"],
    ">": ["greater_than"],
    "more_than": ["greater_than"],
    "gte": ["greater_or_equal"],
    "ge": ["greater_or_equal"],
    ">=": ["greater_or_equal"],
    "at_least": ["greater_or_equal"],
    "greater_than_or_equal": ["greater_or_equal"],
    "lt": ["less_than"],
    "<": ["less_than"],
    "lte": ["less_or_equal"],
    "le": ["less_or_equal"],
    "<=": ["less_or_equal"],
    "at_most": ["less_or_equal"],
    "less_than_or_equal": ["less_or_equal"],
    "empty": ["is_blank"],
    "is_empty": ["is_blank"],
    "is_null": ["is_blank"],
    "null": ["is_blank"],
    "not_empty": ["is_not_blank"],
    "is_not_empty": ["is_not_blank"],
    "is_not_null": ["is_not_blank"],
    "not_null": ["is_not_blank"],
    "is_set": ["is_not_blank"],
    "exists": ["is_not_blank"],
    "is_true": ["is_checked"],
    "is_false": ["is_not_checked"],
    "unchecked": ["is_not_checked"],
    "is_unchecked": ["is_not_checked"],
    "regex": ["matches"],
    "regexp": ["matches"],
    "like": ["contains", "matches"],
    "includes": ["contains"],
    "does_not_contain": ["not_contains"],
    "does_not_equal": ["not_equals"],
    "begins_with": ["starts_with"],
    "one_of": ["in"],
    "is_one_of": ["in"],
    "any_of": ["in", "any"],
    "none_of": ["not_in", "none"],
    "nin": ["not_in"],
    "older_than": ["before"],
    "newer_than": ["after"],
    "since": ["after"],
    # keys of criteria
    "and": ["all"],
    "or": ["any"],
    "not": ["none"],
    "op": ["operator"],
    "comparison": ["operator"],
    "property": ["field"],
    "attribute": ["field"],
    "column": ["field"],
    # keys of a workflow and its parts
    "connection": ["conn_id", "insightly_conn_id"],
    "connection_id": ["conn_id", "insightly_conn_id"],
    "conn": ["conn_id", "insightly_conn_id"],
    "webhook_conn_id": ["conn_id"],
    "account": ["insightly_conn_id"],
    "enabled": ["active"],
    "is_active": ["active"],
    "disabled": ["active"],
    "url": ["uri"],
    "link": ["uri"],
    "address": ["uri"],
    "endpoint": ["uri"],
    "receiver": ["conn_id"],
    "object": ["record_type"],
    "object_name": ["record_type"],
    "type": ["record_type"],
    "record": ["record_type"],
    "entity": ["record_type", "envelope"],
    "filter": ["criteria"],
    "filters": ["criteria"],
    "condition": ["criteria", "conditions"],
    "conditions": ["criteria"],
    "where": ["criteria"],
    "rules": ["criteria"],
    "trigger": ["evaluate"],
    "events": ["evaluate"],
    "actions": ["webhooks"],
    "receivers": ["webhooks"],
    "id": ["dag_id"],
    "title": ["name"],
    "label": ["tags", "name"],
    "labels": ["tags"],
    "comment": ["description"],
    "simulate": ["dry_run"],
    "test_mode": ["dry_run"],
    "cron": ["schedule"],
    "interval": ["every", "schedule"],
    "schedule_interval": ["schedule"],
    "poll": ["watch"],
    "poll_interval": ["watch"],
    "push": ["on_change"],
    "start": ["start_date"],
    "time_zone": ["timezone"],
    "tz": ["timezone"],
    "parallel": ["concurrency"],
    "workers": ["concurrency"],
    "delay": ["after"],
    "date_field": ["field"],
    "columns": ["fields"],
    "attributes": ["fields"],
    "wrapper": ["envelope"],
    "max_retries": ["retries"],
    "attempts": ["retries"],
    "retry_interval": ["retry_delay"],
    "on_failure_callback": ["on_failure"],
    "on_error": ["on_failure", "on_undelivered"],
    "function": ["callback"],
    "notifier": ["callback", "on_failure"],
    "kwargs": ["arguments"],
    "args": ["arguments"],
    # values
    "create": ["created"],
    "new": ["created"],
    "added": ["created"],
    "insert": ["created"],
    "edited": ["created_and_edited"],
    "updated": ["created_and_edited"],
    "changed": ["created_and_edited"],
    "always": ["created_and_edited"],
    "created_or_edited": ["created_and_edited"],
    "created_and_updated": ["created_and_edited"],
    "once": ["until_triggered"],
    "first_time": ["until_triggered"],
    "iso": ["iso8601"],
    "iso_8601": ["iso8601"],
    "ms": ["microsoft"],
    "ignore": ["report"],
    "succeed": ["report"],
    "success": ["report"],
    "raise": ["fail"],
    "error": ["fail"],
}
"""Words from other systems, and the words with the same meaning here, in the order of trying them."""

FIELD_WORDS: Mapping[str, str] = {
    "ORGANIZATION": "ORGANISATION",
    "COMPANY": "ORGANISATION",
    "ACCOUNT": "ORGANISATION",
    "ZIP": "POSTCODE",
    "ZIPCODE": "POSTCODE",
    "POSTAL": "POSTCODE",
    "MODIFIED": "UPDATED",
    "CHANGED": "UPDATED",
    "AMOUNT": "VALUE",
    "SURNAME": "LAST",
    "FORENAME": "FIRST",
    "CELL": "MOBILE",
    "SUBJECT": "TITLE",
    "BIRTHDAY": "BIRTH",
    "TAG": "TAGS",
    "LABELS": "TAGS",
    "TYPE": "CATEGORY",
    "ASSIGNED": "RESPONSIBLE",
    "ASSIGNEE": "RESPONSIBLE",
    "DESCRIPTION": "DETAILS",
    "STATUS": "STATE",
    "STATE": "STATUS",
}
"""Words in names of fields, and Insightly's words for them."""
LEFT_OUT = {"AT", "ON", "OF", "THE", "IS", "UTC"}
"""Words in names of fields that have no meaning."""

ON_CHANGE = "on_change"
PUSH_WORDS = ("push", "onpush", "webhook", "webhooks", "onwebhook")
PRESETS = ("@once", "@continuous", "@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'equals'?"``, or an empty text if no known word is similar."""
    return _question([guess for guess in [_guess(str(word), list(known))] if guess is not None])


def field_guess(name: str, known: Iterable[str]) -> str:
    """Return a suggestion for the name of a field or a custom field, in the form of ``did_you_mean``.

    :param known: the names of the record type's fields.
    """
    known = list(known)
    guess = _by_spelling(name, known) or _by_words(name, known) or _by_spelling(name, known, cutoff=0.75)
    # Most names of custom fields have small letters. Names of other fields have none.
    is_custom = re.fullmatch(r"[A-Za-z]\w*", name) is not None and name != name.upper()
    is_sure = guess is not None and (_plain(guess) == _plain(name) or not is_custom)
    custom = [] if is_sure or not is_custom else [f"{re.sub('_+c?$', '', name)}{CUSTOM_SUFFIX}"]
    return _question([*([guess] if guess is not None else []), *custom])


def schedule_guess(schedule: str) -> str:
    """Return a suggestion for a word that is neither one of Airflow's schedules nor a cron expression."""
    if re.fullmatch(r"[0-9]{1,6}[smhdw]", schedule):
        return f"; did you mean {{every: {schedule}}}?"
    if _plain(schedule) in PUSH_WORDS:
        return f"; did you mean {{{ON_CHANGE}: push}}?"
    words = {preset.lstrip("@"): preset for preset in (*PRESETS, ON_CHANGE)}
    words |= {"changes": ON_CHANGE, "watch": ON_CHANGE, "annually": "@yearly", "midnight": "@daily"}
    guess = _guess(schedule.lstrip("@"), list(words))
    return _question([words[guess]] if guess is not None else [])


def _question(guesses: Sequence[str]) -> str:
    return f"; did you mean {' or '.join(map(repr, guesses))}?" if guesses else ""


def _guess(word: str, known: Sequence[str]) -> str | None:
    """Return the known word with the same letters, the same meaning, or else a similar spelling."""
    meant = SYNONYMS.get(re.sub(r"[\s-]+", "_", word[:LONGEST_WORD].strip().lower()), ())
    found = _by_spelling(word, known) or next((name for name in meant if name in known), None)
    return found or _by_spelling(word, known, cutoff=0.6)


def _by_spelling(word: str, known: Sequence[str], cutoff: float = 1.0) -> str | None:
    """Return the known word with the same or a similar spelling; case and separators don't count."""
    wanted = _plain(word)
    if not wanted or len(word) > LONGEST_WORD:
        return None
    plain = {_plain(name): name for name in reversed(known)}
    if wanted in plain:
        return plain[wanted]
    close = get_close_matches(wanted, plain, n=1, cutoff=cutoff) if cutoff < 1 else []
    return plain[close[0]] if close else None


def _plain(word: str) -> str:
    return re.sub(r"[\W_]+", "", word).lower()


def _by_words(name: str, known: Sequence[str]) -> str | None:
    """Return the field with all words of the name and the fewest others. COUNTRY is in several fields."""
    if len(name) > LONGEST_WORD:
        return None
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    words = [word for word in re.split(r"[\W_]+", spaced.upper()) if word and word not in LEFT_OUT]
    for wanted in (words, [FIELD_WORDS.get(word, word) for word in words]):
        fitting = [field for field in known if wanted and set(wanted) <= set(_words_of(field))]
        if fitting:
            return min(fitting, key=lambda field: len(list(_words_of(field))))
    return None


def _words_of(field: str) -> Iterator[str]:
    yield from field.split("_")

"""A webhook in the store: its name sorts by time, and its contents restore the record exactly."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core.digest import digest_of
from airflow_insightly_hooks.core.exact_json import dumps
from airflow_insightly_hooks.core.incoming.kept_entity import (
    InvalidKeptEntity,
    KeptEntity,
    KeptName,
    day_in,
    day_name,
)
from airflow_insightly_hooks.core.incoming.seen_names import BLOCK_NAMES, SeenNames
from tests.strategies import any_text, exact_values, ids, instants

EIGHT = datetime(2017, 3, 10, 8, tzinfo=timezone.utc)
NAME = KeptName.of_message(EIGHT + timedelta(microseconds=5), 99922875, "msg_1")
names = st.builds(KeptName.of_message, instants, ids, st.text())


def test_name() -> None:
    """A name consists of the time of receipt, the record's id, and a digest of the message."""
    assert str(NAME) == f"20170310T080000.000005Z-99922875-{digest_of('msg_1')}.json"
    assert NAME.day == "2017-03-10"
    assert NAME.digest == KeptName.of_message(EIGHT, 1, b"msg_1").digest
    assert NAME.digest != KeptName.of_message(EIGHT, 1, b"msg_2").digest


@given(names, names)
def test_names_sort_by_time(one: KeptName, other: KeptName) -> None:
    """A name is read as it was written, and texts sort as times do."""
    assert KeptName.parse(str(one)) == one
    assert day_in(one.day) == one.received_at.date()
    if one.received_at != other.received_at:
        assert (str(one) < str(other)) == (one.received_at < other.received_at)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f".{NAME}.part",
        f"{NAME}.part",
        str(NAME).upper(),
        str(NAME).replace("20170310", "20170230"),
        str(NAME).replace("20170310", "2017031\u0660"),
        str(NAME).replace("99922875", "9" * 20),
        f"{NAME}\n",
        "2017-03-10",
    ],
)
def test_no_name(text: str) -> None:
    """Other files in a folder have no valid name."""
    assert KeptName.parse(text) is None


def test_days() -> None:
    """A folder's name is a day. Any other name isn't taken for a day, so its folder isn't deleted."""
    assert day_in(day_name(EIGHT.date())) == EIGHT.date()
    assert [day_in(text) for text in ("", "20170310", "2017-02-30", "2017-03-10x", "2017-W10-5")] == [
        None
    ] * 5


@given(st.dictionaries(any_text, exact_values), ids)
def test_contents(record: dict[str, object], record_id: int) -> None:
    """The contents restore the record: its order, its characters, and its numbers as they were written."""
    kept = KeptEntity.of(KeptEntity(EIGHT, "Contacts", record_id, record).as_bytes())
    assert (kept.received_at, kept.record_type, kept.record_id) == (EIGHT, "Contacts", record_id)
    assert dumps(kept.record) == dumps(record)


GOOD = json.loads(KeptEntity(EIGHT, "Contacts", 7, {"FIRST_NAME": "Zoé"}).as_bytes())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"null",
        b"[" * 100_000,
        json.dumps(GOOD).encode()[:-1],
        *(json.dumps({k: v for k, v in GOOD.items() if k != name}).encode() for name in GOOD),
        json.dumps({**GOOD, "entity": {"FIRST_NAME": "Zoé"}}).encode(),
        json.dumps({**GOOD, "entity": '{"A": NaN}'}).encode(),
        json.dumps({**GOOD, "entity": '{"A": ' + "[" * 200 + "]" * 200 + "}"}).encode(),
        json.dumps({**GOOD, "entity": '["Zoé"]'}).encode(),
        json.dumps({**GOOD, "record_id": "7"}).encode(),
        json.dumps({**GOOD, "record_type": 7}).encode(),
        json.dumps({**GOOD, "received_at": "Zoé"}).encode(),
    ],
)
def test_invalid_contents(content: bytes) -> None:
    """A file that the endpoint did not write, or did not finish, is refused.

    The error shows nothing of it.
    """
    with pytest.raises(InvalidKeptEntity) as caught:
        KeptEntity.of(content)
    assert "Zo" not in f"{caught.value!r}{caught.value}"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_contents_are_not_shown() -> None:
    """A record is personal data: a log that shows the object doesn't show the record."""
    assert "Zoé" not in repr(KeptEntity(EIGHT, "Contacts", 7, {"FIRST_NAME": "Zoé"}))


@given(st.lists(names, unique=True), st.lists(names))
def test_seen_names(seen: list[KeptName], others: list[KeptName]) -> None:
    """Seen names are recognized by the texts that are stored of them."""
    read = SeenNames.of(list(SeenNames(seen).blocks()))
    assert len(read) == len(seen)
    assert [name for name in [*seen, *others] if name in read] == [n for n in [*seen, *others] if n in seen]


def test_many_seen_names() -> None:
    """Each text stays below what a state store takes."""
    seen = [KeptName(EIGHT, number, "0" * 16) for number in range(1, BLOCK_NAMES + 2)]
    blocks = list(SeenNames(seen).blocks())
    assert [len(block) < 60_000 for block in blocks] == [True, True]
    read = SeenNames.of(blocks)
    assert all(name in read for name in seen)


@pytest.mark.parametrize("block", [None, 7, "?", "AAAA"])
def test_unreadable_seen_names(block: object) -> None:
    """Any other text is refused. If it were accepted, a task would read the same webhooks again."""
    with pytest.raises(ValueError, match="part of it"):
        SeenNames.of([block])

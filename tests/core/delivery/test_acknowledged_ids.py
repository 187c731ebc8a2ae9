"""The archive of acknowledged messages: a set that grows. The ledger drops the entries that are in it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core.delivery.acknowledged_ids import PIECE_IDS, AcknowledgedIds
from airflow_insightly_hooks.core.delivery.ledger import ACKNOWLEDGED, FAILED, UNSENT, Ledger
from airflow_insightly_hooks.core.errors import InvalidState


def message(number: int) -> str:
    return f"msg_{number:024x}"


numbers = st.integers(0, 2**96 - 1)
batches = st.lists(st.sets(numbers, max_size=20), max_size=12)


def filled(given: list[set[int]]) -> tuple[AcknowledgedIds, set[int]]:
    """Return an archive with batches of different ids, and the ids that it contains."""
    archive, known = AcknowledgedIds(), set[int]()
    for batch in given:
        archive.add(map(message, batch - known))
        known |= batch
    return archive, known


@given(batches, st.sets(numbers, max_size=20))
def test_it_is_a_set(given_batches: list[set[int]], others: set[int]) -> None:
    """The archive contains the ids that were added, and no others."""
    archive, known = filled(given_batches)
    assert len(archive) == len(known)
    assert all(message(number) in archive for number in known)
    assert not any(message(number) in archive for number in others - known)
    assert "an-id-of-somebody-else" not in archive


@given(batches, st.integers(0, 12))
def test_pieces_are_stored_once(given_batches: list[set[int]], stored_after: int) -> None:
    """Pieces never change.

    All of them together give the same set, which can be stored elsewhere as a whole.
    """
    archive, known, stored = AcknowledgedIds(), set[int](), dict[int, str]()
    for number, batch in enumerate(given_batches):
        archive.add(map(message, batch - known))
        known |= batch
        if number < stored_after:
            for piece, text in archive.unstored():
                assert piece not in stored
                stored[piece] = text
    stored |= dict(archive.unstored())
    assert list(archive.unstored()) == []
    assert stored.keys() == set(range(archive.pieces))
    loaded = AcknowledgedIds.load([stored[piece] for piece in range(archive.pieces)])
    assert len(loaded) == len(known)
    assert all(message(number) in loaded for number in known)
    assert len(list(loaded.unstored())) == loaded.pieces


def test_a_piece_that_was_not_taken_stays() -> None:
    """After a write is interrupted, the pieces that it hasn't written are still to be stored."""
    archive, _ = filled([{1}, {2}])
    pieces = archive.unstored()
    assert next(pieces)[0] == 0
    pieces.close()
    assert [number for number, _ in archive.unstored()] == [0, 1]


def test_pieces_fit_under_a_key() -> None:
    """A large batch is cut into pieces of less than 60 KB."""
    archive, _ = filled([set(range(2 * PIECE_IDS + 1))])
    texts = [text for _, text in archive.unstored()]
    assert len(texts) == 3
    assert max(map(len, texts)) <= 48_000


@pytest.mark.parametrize("piece", [None, 7, "?", "YWJj"])
def test_a_piece_that_cannot_be_read(piece: Any) -> None:
    """It is then unknown what was delivered. The error names the piece."""
    first = next(iter(filled([{1}])[0].unstored()))[1]
    with pytest.raises(InvalidState) as caught:
        AcknowledgedIds.load([first, piece])
    assert caught.value.key == "1"


states = st.lists(st.sampled_from([ACKNOWLEDGED, FAILED]), min_size=1, max_size=30)


@given(states, states)
def test_forgotten_entries_stay_acknowledged(first: list[str], second: list[str]) -> None:
    """An archived message stays acknowledged and a failed one keeps its attempts, after a restart, too."""
    ledger, store = Ledger(), dict[str, Any]()
    for start, batch in ((0, first), (len(first), second)):
        for number, state in enumerate(batch, start):
            ledger.posting(message(number))
            ledger.answered(message(number), state)
        archived = ledger.move_acknowledged()
        store |= dict(ledger.changed())
        ledger.forget(archived)
        store |= dict(ledger.changed())
    head = store["head"]
    archive = AcknowledgedIds.load([store[f"archive/{piece}"] for piece in range(head.get("archive", 0))])
    head = {"archived_attempts": 0, **head}
    again = Ledger.load(head, [store[str(block)] for block in range(head["blocks"])], 0, 3, archive)
    for one in (ledger, again):
        for number, state in enumerate([*first, *second]):
            assert one[message(number)].state == state
        assert one[message(len(first) + len(second))] == UNSENT
        assert one.acknowledged_attempts == [*first, *second].count(ACKNOWLEDGED)


@given(st.sets(st.integers(0, 620), max_size=40))
def test_blocks_move_up_when_entries_go(dropped: set[int]) -> None:
    """Whichever entries were dropped, the others are all stored, in as few blocks as possible."""
    count, block_size = 600, 57_000 // (28 + 60 + 110)
    ledger = Ledger()
    for number in range(count):
        ledger.posting(message(number))
        ledger.answered(message(number), FAILED)
    store = dict(ledger.changed())
    ledger.forget(map(message, dropped))
    store |= dict(ledger.changed())
    blocks = [store[str(block)] for block in range(store["head"]["blocks"])]
    left = {message(number) for number in range(count)} - set(map(message, dropped))
    assert {entry for block in blocks for entry in block} == left
    assert sum(map(len, blocks)) == len(left)
    assert len(blocks) == -(-len(left) // block_size)

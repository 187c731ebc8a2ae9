"""Stores a deliver task's ledger in its task state, and decides which of two running tries may write it.

Each try keeps its ledger under keys of its own, ``delivery/<token>/head``, ``delivery/<token>/0`` and so on.
So no try overwrites what another try has recorded. The value of the key ``delivery`` is the claim. It says
whose ledger counts:

``{"version": 2, "epoch": 3, "token": "<of the try>", "of": ["<of earlier tries>", …]}``

A try first writes its claim. Then it reads the ledger of the newest try in ``of`` that has one, and deletes
that ledger once its own is written. After each write, it checks that the claim is still its own: the later
try wins, and the earlier try sends nothing more. It checks after the write, because a later try reads
everything that was recorded by then.

A claim is a read and a write, some milliseconds apart. If two tries claim within this time, neither sees the
other's claim, and the try that wrote last continues. Version 1 kept its blocks and its head under
``delivery/0`` and ``delivery``; it is still read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import count, takewhile
from typing import Any, TypeVar

from airflow_insightly_hooks.core.delivery.acknowledged_ids import AcknowledgedIds
from airflow_insightly_hooks.core.delivery.delivery_record import TextTable
from airflow_insightly_hooks.core.delivery.ledger import Ledger
from airflow_insightly_hooks.core.delivery.resend_requests import LedgerRequest
from airflow_insightly_hooks.core.errors import InvalidState, SupersededError
from airflow_insightly_hooks.core.state.state_store import StateStore, count_in
from airflow_insightly_hooks.core.state.versions import check_version, is_newer

__all__ = ["HEAD", "VERSION", "LedgerStore", "block_keys", "done_keys", "key_of", "text_keys", "tokens_of"]

_T = TypeVar("_T")

HEAD = "delivery"
VERSION = 2
OF_VERSION_1 = ""
"""The token of a ledger that version 1 wrote."""


class LedgerStore:
    """The ledger of one try.

    :param store: the task's state store.
    :param token: the unique token of the try: letters and digits.
    """

    def __init__(self, store: StateStore, token: str) -> None:
        self._store = store
        self._token = token
        self._claim: dict[str, Any] = {}
        self._is_written = False
        self._has_failed = False  # whether the last write failed
        self._stale: list[str] = []  # the keys of the earlier ledger that this one continues

    def open(self, generation: int, max_attempts: int, requests: Sequence[LedgerRequest] = ()) -> Ledger:
        """Claim the ledger for this try and return it as earlier tries left it.

        :param generation: the number of the present round of attempts.
        :param max_attempts: how many POSTs of one message a round may have.
        :param requests: the task's requests to send messages again.
        :raises InvalidState: if another version stored the ledger, and this version can't read it.
        """
        found = self._store.get(HEAD)
        epoch, holders = self._holders(found) if found is not None else (0, [])
        self._claim = {"version": VERSION, "epoch": epoch + 1, "token": self._token, "of": holders}
        self._store.set(HEAD, self._claim)
        for holder in holders:  # read after the claim: from now on, earlier tries record nothing more there
            head = self._store.get(key_of(holder, "head"))
            if head is not None:
                return self._load(holder, head, generation, max_attempts, requests)
        ledger = Ledger(generation, max_attempts)
        ledger.begin_resends(requests, is_new_round=True)
        return ledger

    def _holders(self, found: object) -> tuple[int, list[str]]:
        """Return the epoch of the last claim, and the tokens whose ledgers may count, the newest first."""
        if not isinstance(found, Mapping):
            raise InvalidState(HEAD, "it is not an object")
        version = count_in(HEAD, found, "version")
        if version == 1:
            head = {name: count_in(HEAD, found, name) for name in ("generation", "blocks")}
            self._store.set(key_of(OF_VERSION_1, "head"), head)
            return 0, [OF_VERSION_1]
        tokens = tokens_of(found, lambda token: self._store.get(key_of(token, "head")) is not None)
        return count_in(HEAD, found, "epoch"), tokens

    def _load(
        self,
        holder: str,
        head: object,
        generation: int,
        max_attempts: int,
        requests: Sequence[LedgerRequest],
    ) -> Ledger:
        key = key_of(holder, "head")
        if not isinstance(head, Mapping):
            raise InvalidState(key, "it is not an object")
        count_in(key, head, "generation")
        keys = block_keys(holder, head)
        id_keys = self._acknowledged_keys(holder, head)
        texts_at = text_keys(holder, self._store.get)
        acknowledged = self._pieces(AcknowledgedIds.load, id_keys) if id_keys else None
        texts = self._pieces(TextTable.load, texts_at)
        try:
            blocks = [self._store.get(block) for block in keys]
            ledger = Ledger.load(head, blocks, generation, max_attempts, acknowledged, texts, requests)
        except InvalidState as error:
            raise InvalidState(key_of(holder, error.key), error.reason) from None
        ledger.earlier_pieces = _done_pieces(holder, head)  # they stay under their keys
        self._stale = [key, *keys, *id_keys, *texts_at]
        return ledger

    def _pieces(self, load: Callable[[Iterable[object]], _T], keys: list[str]) -> _T:
        try:
            return load(map(self._store.get, keys))
        except InvalidState as error:
            raise InvalidState(keys[int(error.key)], error.reason) from None

    def _acknowledged_keys(self, holder: str, head: Mapping[str, Any]) -> list[str]:
        if "archive" not in head:
            return []
        key = key_of(holder, "head")
        count_in(key, head, "archived_attempts")
        return [key_of(holder, f"archive/{piece}") for piece in range(count_in(key, head, "archive"))]

    def write(self, ledger: Ledger) -> None:
        """Store what has changed.

        :raises SupersededError: if a later try has claimed the ledger. Then no try reads what was stored.
        """
        # Once Airflow has given up a try, it refuses the try's writes and shows it no claim any more. So
        # after a failed write, check the claim first.
        if self._has_failed:
            self._check_claim()
        self._has_failed = True
        for name, value in ledger.changed():
            self._store.set(key_of(self._token, name), value)
            self._is_written = True
        self._check_claim()
        self._has_failed = False
        if self._is_written:
            self._delete_stale()

    def _check_claim(self) -> None:
        found = self._store.get(HEAD)
        if found == self._claim:
            return
        epoch = found.get("epoch", 0) if isinstance(found, Mapping) else None
        if is_newer(found, VERSION) or not isinstance(epoch, int) or epoch >= self._claim["epoch"]:
            raise SupersededError
        # An earlier try claimed at the same time as this one, and wrote its claim later.
        self._store.set(HEAD, self._claim)

    def _delete_stale(self) -> None:
        """Delete the earlier ledger, which isn't read any more. A failure does no harm."""
        with suppress(Exception):
            while self._stale:
                self._store.delete(self._stale[0])
                del self._stale[0]


def tokens_of(claim: Mapping[str, Any], has_head: Callable[[str], bool]) -> list[str]:
    """Return the tokens whose ledgers may count, the newest first.

    :param claim: the value under ``HEAD``.
    :param has_head: returns whether a token's ledger has a head.
    :raises InvalidState: if this version can't read the claim.
    """
    check_version(HEAD, claim, VERSION)
    if claim.get("version") != VERSION:
        raise InvalidState(HEAD, "its version is missing")
    token, earlier = claim.get("token"), claim.get("of")
    if not isinstance(token, str) or not isinstance(earlier, list):
        raise InvalidState(HEAD, "its token is missing")
    # If the newest try has written nothing yet, the ledgers of earlier tries count.
    return [token] if has_head(token) else [token, *earlier]


def block_keys(holder: str, head: Mapping[str, Any]) -> list[str]:
    """Return the keys of the blocks, which hold the messages that have an entry.

    :raises InvalidState: if the head doesn't count them.
    """
    return [key_of(holder, str(n)) for n in range(count_in(key_of(holder, "head"), head, "blocks"))]


def text_keys(holder: str, get: Callable[[str], Any]) -> list[str]:
    """Return the keys of all pieces of the errors' texts.

    They are stored before the messages that name them, and the head is stored last. If a try was killed in
    between, there are more pieces than its head knows.
    """
    keys = (key_of(holder, f"texts/{number}") for number in count())
    return list(takewhile(lambda key: get(key) is not None, keys))


def done_keys(holder: str, head: Mapping[str, Any]) -> list[str]:
    """Return the keys of the records that were moved out of the ledger, the oldest first.

    :raises InvalidState: if the head doesn't count them.
    """
    return [key_of(t, f"done/{n}") for t, count in reversed(_done_pieces(holder, head)) for n in range(count)]


def _done_pieces(holder: str, head: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return where the records are that were moved out of the ledger: the tries, and their pieces' number."""
    if "done" not in head:
        return []
    key, earlier = key_of(holder, "head"), head.get("earlier")
    pieces = [(holder, count_in(key, head, "done"))]
    for item in earlier if isinstance(earlier, list) else [None]:
        if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str):
            raise InvalidState(key, "its earlier pieces are missing")
        pieces.append((item[0], count_in(key, {"earlier": item[1]}, "earlier")))
    return [(token, count) for token, count in pieces if count]


def key_of(token: str, name: str) -> str:
    """Return the key of a part of a try's ledger."""
    return f"{HEAD}/{token}/{name}" if token else f"{HEAD}/{name}"

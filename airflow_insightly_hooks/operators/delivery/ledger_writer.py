"""Writing the ledger of one try to the task state store; a failed write is repeated."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from airflow_insightly_hooks.core.delivery.ledger import Ledger
from airflow_insightly_hooks.core.delivery.ledger_store import LedgerStore
from airflow_insightly_hooks.core.delivery.resend_requests import ResendRequest, read_requests
from airflow_insightly_hooks.core.errors import SupersededError
from airflow_insightly_hooks.runs.task_state import PrefixedStore

__all__ = ["LEDGER_INTERVAL", "LedgerWriter"]

LEDGER_INTERVAL = 1.0
"""Seconds between two writes of the ledger. A kill can lose the acknowledgements of that time."""
WRITE_AGAIN_AFTER = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds to wait before each repetition of a failed write. Meanwhile POSTs go on, until an answer has waited
``RECORD_WITHIN`` to be recorded."""


class LedgerWriter:
    """The ledger of this try, in the task state store.

    :param store: the task's state store.
    :param ti: the task instance; ``None`` outside of Airflow.
    :param retries: the task's ``retries``: a message has one attempt more.
    :param prefix: the prefix of the ledger's keys, if the task has several ledgers.
    :param requests: the task's requests to send messages again; ``None`` reads the stored ones.
    :raises InvalidState: if the stored ledger can't be read.
    """

    def __init__(
        self,
        store: Any,
        ti: Any,
        retries: int | None,
        prefix: str = "",
        requests: Sequence[ResendRequest] | None = None,
    ) -> None:
        # A name that no other try has.
        token = f"{getattr(ti, 'try_number', 0)}-{secrets.token_hex(4)}"
        self._store = LedgerStore(PrefixedStore(store, prefix), token)
        if requests is None:
            requests = read_requests(store)
        # Airflow raises max_tries when a task is cleared, and not at a retry: attempts begin anew.
        generation = ti.max_tries if ti is not None else 0
        max_attempts = 1 + max(retries or 0, 0)
        of_ledger = [request.of_ledger(prefix) for request in requests]
        self.ledger: Ledger = self._store.open(generation, max_attempts, of_ledger)
        self.is_lost = False  # a later try owns the ledger
        self.is_broken = False  # too many writes in a row have failed, so the try ends
        self._due = 0.0  # the first write comes before the first POST

    def due_in(self) -> float:
        """Return the seconds until the next write is due."""
        return max(0.0, self._due - time.monotonic())

    def write(self) -> None:
        """Write the changed parts; repeat a failed write for some seconds.

        :raises SupersededError: if a later try owns the ledger now.
        :raises Exception: the store's error, if it can't be written.
        """
        if self.is_lost:
            raise SupersededError
        delays = iter(() if self.is_broken else WRITE_AGAIN_AFTER)
        while True:
            try:
                self._store.write(self.ledger)
            except SupersededError:
                self.is_lost = True
                raise
            except Exception:
                delay = next(delays, None)
                if delay is None:
                    self.is_broken = True
                    raise
                time.sleep(delay)
            else:
                self._due = time.monotonic() + LEDGER_INTERVAL
                return

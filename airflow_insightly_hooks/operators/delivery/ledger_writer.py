"""The ledger of one try in the task state store: claimed, and written again where a write fails."""

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
"""Seconds between two writes of the ledger; what a kill can cost is the acknowledgements of so long."""
WRITE_AGAIN_AFTER = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds to wait before a write of the ledger that failed is tried again; POSTs go on meanwhile until an
answer has waited ``RECORD_WITHIN`` for its record."""


class LedgerWriter:
    """The ledger of this try, in the task state store.

    :param store: the task's state store.
    :param ti: the task instance; ``None`` outside of Airflow.
    :param retries: the task's: a message has one attempt more.
    :param prefix: of the ledger's keys, where the task has several.
    :param requests: the task's requests to send again; ``None``: those that are stored.
    :raises InvalidState: if what is stored can't be read.
    """

    def __init__(
        self,
        store: Any,
        ti: Any,
        retries: int | None,
        prefix: str = "",
        requests: Sequence[ResendRequest] | None = None,
    ) -> None:
        # A name that is unlike any other try's.
        token = f"{getattr(ti, 'try_number', 0)}-{secrets.token_hex(4)}"
        self._store = LedgerStore(PrefixedStore(store, prefix), token)
        if requests is None:
            requests = read_requests(store)
        # Airflow raises max_tries when a task is cleared, and at no retry: a new round of attempts.
        generation = ti.max_tries if ti is not None else 0
        max_attempts = 1 + max(retries or 0, 0)
        of_ledger = [request.of_ledger(prefix) for request in requests]
        self.ledger: Ledger = self._store.open(generation, max_attempts, of_ledger)
        self.is_lost = False  # a later try has it
        self.is_broken = False  # it couldn't be written for so long that the try ends
        self._due = 0.0  # the first write comes before the first POST

    def due_in(self) -> float:
        """Return the seconds until the next write is due."""
        return max(0.0, self._due - time.monotonic())

    def write(self) -> None:
        """Write what has changed, again and again for some seconds where that fails.

        :raises SupersededError: if a later try has the ledger now.
        :raises Exception: what the store raised, if it can't be written.
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

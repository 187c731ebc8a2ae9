"""The payloads that wait for their POST, and which of them may be sent next."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.delivery.ledger import ACKNOWLEDGED, Ledger
from airflow_insightly_hooks.core.payload import Payload, why_undeliverable

__all__ = ["SendQueue"]


class SendQueue:
    """Payloads in the order in which they are sent.

    :param payloads: all payloads of a deliver task. Payloads that can't be delivered don't enter the queue.
    :param ledger: the task's ledger. Messages that are settled in it don't enter the queue.
    :param ordered: whether a record's changes are sent one after another, in the order of their times. Then
        changes wait while an earlier change of their record isn't delivered. Otherwise no change waits for
        another.
    :raises InvalidTime: if ``ordered``, and the time of a change can't be read.
    """

    def __init__(self, payloads: Iterable[Payload], ledger: Ledger, *, ordered: bool) -> None:
        self._ordered = ordered
        self._free: deque[Payload] = deque()  # payloads that may be sent next
        self._behind: dict[_Record, deque[Payload]] = {}  # payloads that wait for an earlier one
        self._blocked: list[str] = []  # ids of messages after one that won't be delivered in this round
        waiting = [p for p in payloads if ledger[p["message_id"]].state != ACKNOWLEDGED]

        def is_settled(payload: Payload) -> bool:
            return ledger.is_settled(payload["message_id"]) or why_undeliverable(payload) is not None

        if not ordered:
            self._free.extend(payload for payload in waiting if not is_settled(payload))
            return
        blocking: set[_Record] = set()
        for payload in sorted(waiting, key=lambda p: api_time(p["changed_at"], "changed_at")):
            record = _record(payload)
            if record in blocking:
                self._blocked.append(payload["message_id"])
            elif is_settled(payload):
                blocking.add(record)
            elif record in self._behind:
                self._behind[record].append(payload)
            else:
                self._behind[record] = deque()
                self._free.append(payload)

    def __len__(self) -> int:
        """Return how many payloads may still be sent."""
        return len(self._free) + sum(map(len, self._behind.values()))

    @property
    def has_free(self) -> bool:
        """Whether a payload may be sent now."""
        return bool(self._free)

    def take(self, count: int) -> list[Payload]:
        """Take up to ``count`` payloads that may be sent now."""
        return [self._free.popleft() for _ in range(min(count, len(self._free)))]

    def put_back(self, payloads: Iterable[Payload]) -> None:
        """Put payloads that were taken and not sent back to the front, in the same order."""
        self._free.extendleft(reversed(list(payloads)))

    def is_awaited(self, payload: Payload) -> bool:
        """Return whether another change of the payload's record waits for it."""
        return self._ordered and bool(self._behind[_record(payload)])

    def delivered(self, payload: Payload) -> None:
        """Release the next change of the payload's record."""
        if self._ordered and (behind := self._behind[_record(payload)]):
            self._free.append(behind.popleft())

    def held_back(self) -> set[str]:
        """Return the ids of the messages that wait for an earlier change of their record."""
        return {p["message_id"] for behind in self._behind.values() for p in behind} | set(self._blocked)


_Record = tuple[str, int]


def _record(payload: Payload) -> _Record:
    return payload["record_type"], payload["record_id"]

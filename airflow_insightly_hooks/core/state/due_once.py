"""Makes each run add, cancel, move and take pending webhooks once, even if it is stopped at any moment.

There are two stores: the pending webhooks, which are kept longer than a run, and the run's own state, which a
later try of the run finds again, also after the run is cleared. No write goes to both. So a run's decision is
one write to the pending webhooks, which keep what the run has taken. Then the run notes that in its own
state. Last, the decision is deleted from the pending webhooks. A run that finds its decision in either store
carries it out, and does not decide again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from airflow_insightly_hooks.core.state.pending_request import PendingRequest
from airflow_insightly_hooks.core.state.pending_webhooks import Decision, PendingWebhook, PendingWebhooks
from airflow_insightly_hooks.core.state.state_store import StateStore
from airflow_insightly_hooks.core.state.versions import read_value

__all__ = ["DueOnce"]

TAKEN = "taken"
POSTPONED = "postponed"
DECIDED = "decided"
ENTERED = "entered"
"""The key under which an earlier version noted that the run's entries were added."""


class DueOnce:
    """What a run does with pending webhooks. Only one run at a time may use them.

    :param pending: the pending webhooks.
    :param state: the run's own store.
    :param run: the run's name, which is the same in all of its tries: at most 20 letters and digits.
    """

    def __init__(self, pending: PendingWebhooks, state: StateStore, run: str) -> None:
        self._pending = pending
        self._state = state
        self._run = run
        self._postponing = f"{run}p"  # the run's name in a decision to put entries back
        self._own = PendingWebhooks(state, TAKEN)

    def decide(
        self,
        scheduled: Callable[[], Iterable[PendingWebhook]],
        request: PendingRequest,
        until: datetime,
        at_most: int,
    ) -> Decision | None:
        """Add, cancel, move and take entries, unless an earlier try of this run has done so.

        :param scheduled: returns the entries to add. It is called only if this run has not decided yet.
        :param request: which entries are not to be sent, and which are moved to ``until``.
        :param until: entries that are due by then are taken.
        :param at_most: how many entries are taken at most.
        :returns: what was done; ``None`` if an earlier try has decided.
        :raises InvalidState: if the stored entries can't be read.
        """
        decision = None
        self._finish_postponing()
        if not read_value(self._state, DECIDED):
            taken = self._pending.taken_by(self._run)
            if taken is None:
                # An earlier version first noted in the run's state what it took.
                noted = self._own.all()
                decision = self._pending.decide(
                    self._run,
                    enter=() if read_value(self._state, ENTERED) else scheduled(),
                    cancel=request.cancels,
                    move=lambda entry: min(entry.due, until) if request.sends_now(entry) else None,
                    take=lambda waiting: _due(waiting, noted, until, at_most),
                )
                taken = decision.taken
            self._own.add(taken)
            self._state.set(DECIDED, True)
        self._pending.forget(self._run)
        return decision

    def postpone(self, record_ids: Iterable[int], until: datetime) -> None:
        """Put some of the entries that this run has taken back, due at ``until``, so that a later run takes
        them.

        If a record has a pending entry again by now, that entry stays as it is.
        """
        leaving = set(record_ids)
        if leaving:
            self._state.set(POSTPONED, sorted(leaving))
            entries = [entry for entry in self._own.all() if entry.record_id in leaving]
            enter = [entry._replace(due=until) for entry in entries]
            self._pending.decide(self._postponing, enter=enter, take=lambda _: ())
            self._own.remove(leaving)
            self._finish_postponing()

    def _finish_postponing(self) -> None:
        """Complete a ``postpone`` that was stopped: remove from this run's state what is pending again."""
        if leaving := read_value(self._state, POSTPONED):
            if self._pending.taken_by(self._postponing) is not None:
                self._own.remove(leaving)
            self._state.delete(POSTPONED)
        self._pending.forget(self._postponing)

    def taken(self) -> list[PendingWebhook]:
        """Return the entries that this run has taken, in order."""
        return self._own.all()


def _due(
    waiting: Sequence[PendingWebhook], noted: Sequence[PendingWebhook], until: datetime, at_most: int
) -> list[PendingWebhook]:
    if noted:
        return [entry for entry in waiting if entry in noted]
    return [entry for entry in waiting if entry.due <= until][:at_most]

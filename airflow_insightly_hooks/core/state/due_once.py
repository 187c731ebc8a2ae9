"""Each run enters, cancels, makes due and takes pending webhooks once, whatever stops it and when.

Two stores take part: the book of what is pending, which outlasts runs, and the run's own state, which a later
try of the run, or a cleared one, finds again. No write goes to both. So a run's decision is one write to the
book, which keeps what the run has taken; then the run notes that in its own state, and last, the book forgets
the run. A run that finds its decision in either store carries that out and decides no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from airflow_insightly_hooks.core.state.pending_request import PendingRequest
from airflow_insightly_hooks.core.state.pending_webhooks import Decision, PendingWebhook, PendingWebhooks
from airflow_insightly_hooks.core.state.state_store import StateStore

__all__ = ["DueOnce"]

TAKEN = "taken"
POSTPONED = "postponed"
DECIDED = "decided"
ENTERED = "entered"
"""What an earlier version noted: that the run's entries were entered."""


class DueOnce:
    """What a run does with pending webhooks; one at a time may use the book, however many runs there are.

    :param book: what is pending.
    :param state: the run's own store.
    :param run: the run's name, the same in all of its tries: letters and digits, 20 at the most.
    """

    def __init__(self, book: PendingWebhooks, state: StateStore, run: str) -> None:
        self._book = book
        self._state = state
        self._run = run
        self._postponing = f"{run}p"  # its name in the book for what it puts back
        self._own = PendingWebhooks(state, TAKEN)

    def decide(
        self,
        scheduled: Callable[[], Iterable[PendingWebhook]],
        request: PendingRequest,
        until: datetime,
        at_most: int,
    ) -> Decision | None:
        """Enter, cancel, make due and take, unless an earlier try of this run has.

        :param scheduled: returns what is to be entered; it is called only if this run has not decided yet.
        :param request: the entries that are not to be sent, and those that are due at ``until`` already.
        :param until: take what is due then.
        :param at_most: how many are taken.
        :returns: what was done; ``None`` if an earlier try has decided.
        :raises InvalidState: if what is stored can't be read.
        """
        decision = None
        self._finish_postponing()
        if not self._state.get(DECIDED):
            taken = self._book.taken_by(self._run)
            if taken is None:
                # An earlier version noted what it took in the run's state first.
                noted = self._own.all()
                decision = self._book.decide(
                    self._run,
                    enter=() if self._state.get(ENTERED) else scheduled(),
                    cancel=request.cancels,
                    move=lambda entry: min(entry.due, until) if request.sends_now(entry) else None,
                    take=lambda waiting: _due(waiting, noted, until, at_most),
                )
                taken = decision.taken
            self._own.add(taken)
            self._state.set(DECIDED, True)
        self._book.forget(self._run)
        return decision

    def postpone(self, record_ids: Iterable[int], until: datetime) -> None:
        """Put some of what this run has taken back, to be due at ``until``: a later run takes them.

        A record that is pending again by now stays as it is.
        """
        leaving = set(record_ids)
        if leaving:
            self._state.set(POSTPONED, sorted(leaving))
            entries = [entry for entry in self._own.all() if entry.record_id in leaving]
            enter = [entry._replace(due=until) for entry in entries]
            self._book.decide(self._postponing, enter=enter, take=lambda _: ())
            self._own.remove(leaving)
            self._finish_postponing()

    def _finish_postponing(self) -> None:
        """Take out of this run's own what the book has again, if an earlier try was stopped at that."""
        if leaving := self._state.get(POSTPONED):
            if self._book.taken_by(self._postponing) is not None:
                self._own.remove(leaving)
            self._state.delete(POSTPONED)
        self._book.forget(self._postponing)

    def taken(self) -> list[PendingWebhook]:
        """Return what this run has taken, in order."""
        return self._own.all()


def _due(
    waiting: Sequence[PendingWebhook], noted: Sequence[PendingWebhook], until: datetime, at_most: int
) -> list[PendingWebhook]:
    if noted:
        return [entry for entry in waiting if entry in noted]
    return [entry for entry in waiting if entry.due <= until][:at_most]

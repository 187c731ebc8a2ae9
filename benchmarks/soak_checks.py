"""Checks whether each change in the journal came to its receivers, for benchmarks/soak.py.

Insightly's API only shows the current state of a record. So a change may be missing if the journal has a
later change of the same record, before the end of the reading in the run for that change. Airflow has the
windows of the runs, and when their reading ended.
"""

from __future__ import annotations

import bisect
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Literal, NamedTuple

from soak_crm import RATED, Change
from soak_receiver import Post

__all__ = ["Expected", "Reading", "Result", "check"]

ACKNOWLEDGED = 204
SHOWN = 10


class Reading(NamedTuple):
    """The reading of a run of a workflow. Times are in seconds since 1970.

    :ivar until: the end of its window.
    :ivar ended: when the task that read it ended.
    """

    until: float
    ended: float


@dataclass(frozen=True)
class Expected:
    """The changes that a receiver should get.

    :ivar rule: ``each`` change; ``once``: the first state that meets the criteria; ``later``: the record's
        state ``after`` seconds after its creation, unless it is deleted by then.
    """

    receiver: str
    dag_id: str
    record_type: str
    rule: Literal["each", "once", "later"]
    after: float = 0.0


@dataclass
class Result:
    """The changes that a receiver got.

    :ivar again: acknowledged POSTs of messages that were acknowledged before, under the same id.
    :ivar refused: POSTs that were answered with an error.
    :ivar twice_told: states with two messages, one for the creation and one for the update, because the
        record was edited between the window's end and its reading.
    :ivar superseded: changes that could not be read any more: the record was edited or deleted again.
    :ivar not_due: for ``later``: records that were deleted before their time.
    :ivar triggered_before: for ``once``: states that met the criteria after the record had triggered.
    :ivar lags: for each change: its time, and the real seconds from it (or from its due time) to its first
        acknowledged POST.
    """

    expected: Expected
    changes: int = 0
    delivered: int = 0
    again: int = 0
    refused: int = 0
    twice_told: int = 0
    superseded: int = 0
    not_due: int = 0
    triggered_before: int = 0
    problems: list[str] = field(default_factory=list)
    missing: int = 0
    lags: list[tuple[float, float]] = field(default_factory=list)

    def text(self) -> str:
        """Return the result in a few lines."""
        seconds = sorted(lag for _, lag in self.lags) or [0.0]
        what = (
            f"{self.expected.receiver}: {self.changes} changes, {self.delivered} delivered, "
            f"{self.superseded} no longer readable, {self.not_due} deleted before their time, "
            f"{self.triggered_before} of records that had triggered before; MISSING {self.missing}"
        )
        how = (
            f"  sent again under the same id {self.again}, answered with an error {self.refused}, told as "
            f"created and as updated {self.twice_told}; lag in real seconds: median "
            f"{statistics.median(seconds):.0f}, 99 % {seconds[int(0.99 * (len(seconds) - 1))]:.0f}, "
            f"most {seconds[-1]:.0f}"
        )
        problems = [f"  PROBLEM {problem}" for problem in self.problems[:SHOWN]]
        return "\n".join([what, how, *problems])


def check(
    journal: Sequence[Change],
    posts: Iterable[Post],
    expectations: Iterable[Expected],
    readings: Mapping[str, Sequence[Reading]],
) -> list[Result]:
    """Compare the journal with the received POSTs.

    :param readings: the readings of each DAG.
    """
    by_receiver: dict[str, list[Post]] = defaultdict(list)
    for post in posts:
        by_receiver[post.receiver].append(post)
    by_type: dict[str, dict[int, list[Change]]] = defaultdict(lambda: defaultdict(list))
    for change in journal:
        by_type[change.record_type][change.record_id].append(change)
    return [
        _Check(
            expected,
            by_type[expected.record_type],
            by_receiver[expected.receiver],
            sorted(readings.get(expected.dag_id, ())),
        ).result
        for expected in expectations
    ]


class _Check:
    def __init__(
        self,
        expected: Expected,
        records: Mapping[int, list[Change]],
        posts: list[Post],
        readings: list[Reading],
    ) -> None:
        self.result = Result(expected)
        self._readings = readings
        self._ends = [reading.until for reading in readings]
        self._first: dict[int, Post] = {}  # by the number of the change that is shown
        self._ids: dict[int, set[str]] = defaultdict(set)  # by that number
        self._ids_of_record: dict[int, set[str]] = defaultdict(set)
        self._take(posts, records)
        rule = {"each": self._each, "once": self._once, "later": self._later}[expected.rule]
        for changes in records.values():
            rule(changes)

    def _take(self, posts: list[Post], records: Mapping[int, list[Change]]) -> None:
        known = {change.number: change.record_id for changes in records.values() for change in changes}
        acknowledged: Counter[str] = Counter()
        for post in posts:
            if post.status != ACKNOWLEDGED:
                self.result.refused += 1
                continue
            if known.get(post.number) != post.record_id:
                self.result.problems.append(f"received, but not in the journal: {post}")
                continue
            acknowledged[post.message_id] += 1
            self._first.setdefault(post.number, post)
            self._ids[post.number].add(post.message_id)
            self._ids_of_record[post.record_id].add(post.message_id)
        self.result.again = sum(count - 1 for count in acknowledged.values())

    def _each(self, changes: list[Change]) -> None:
        for change, later in zip(changes, [*changes[1:], None], strict=True):
            if change.what == "deleted":
                continue
            self.result.changes += 1
            if change.number in self._first:
                self._delivered(change, change.at)
                self._check_ids(change, changes)
            elif self._was_unreadable(change, later):
                self.result.superseded += 1
            else:
                self._missing(change)

    def _once(self, changes: list[Change]) -> None:
        if len(self._ids_of_record[changes[0].record_id]) > 1:
            self.result.problems.append(f"triggered twice: record {changes[0].record_id}")
        has_triggered = False
        for change, later in zip(changes, [*changes[1:], None], strict=True):
            is_delivered = change.number in self._first
            if change.what == "deleted" or change.rating < RATED:
                if is_delivered:
                    self.result.problems.append(f"delivered, but its criteria are not met: {change}")
                continue
            self.result.changes += 1
            if is_delivered:
                has_triggered = True
                self._delivered(change, change.at)
            elif has_triggered:
                self.result.triggered_before += 1
            elif self._was_unreadable(change, later):
                self.result.superseded += 1
            else:
                self._missing(change)

    def _later(self, changes: list[Change]) -> None:
        created, last = changes[0], changes[-1]
        if created.what != "created":
            return
        self.result.changes += 1
        due = created.at + self.result.expected.after
        posts = [self._first[change.number] for change in changes if change.number in self._first]
        if len(self._ids_of_record[created.record_id]) > 1:
            self.result.problems.append(f"sent under several ids: record {created.record_id}")
        if posts:
            self._delivered(created, due, min(post.at for post in posts))
            # The change's time has whole seconds, cut off, and its answer came a moment later.
            if posts[0].at < due - 2.0:
                self.result.problems.append(f"sent {due - posts[0].at:.1f} s before its time: {created}")
        elif last.what == "deleted" and last.at < due:
            self.result.not_due += 1
        elif last.what == "deleted":
            # When the record was asked for is not known; whoever was due then was asked for soon after.
            self.result.superseded += 1
            self.result.lags.append((created.at, last.at - due))
        else:
            self._missing(created)

    def _was_unreadable(self, change: Change, later: Change | None) -> bool:
        """Whether the record was changed again before the run must have read it."""
        if later is None:
            return False
        updated = datetime.fromisoformat(change.updated).replace(tzinfo=timezone.utc).timestamp()
        first = bisect.bisect_right(self._ends, max(updated, change.at))
        return first >= len(self._readings) or later.at <= self._readings[first].ended

    def _delivered(self, change: Change, since: float, at: float | None = None) -> None:
        self.result.delivered += 1
        self.result.lags.append((change.at, (self._first[change.number].at if at is None else at) - since))

    def _check_ids(self, change: Change, changes: list[Change]) -> None:
        count = len(self._ids[change.number])
        if count == 2 and change.what == "updated" and changes[0].what == "created":
            self.result.twice_told += 1
        elif count > 1:
            self.result.problems.append(f"one change under {count} ids: {change}")

    def _missing(self, change: Change) -> None:
        self.result.missing += 1
        self.result.problems.append(f"not received: {change}")

"""Which changes webhooks have announced: a span of time for each event, and all of them as one value.

An event says that there are changes in a span of Insightly's time, from the second in which a record has
changed up to the end of the next one. So what changes in that time, too, needs no event of its own: whoever
is woken reads up to the span's end, at least.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from airflow_insightly_hooks.core.dates import EPOCH, utc_time
from airflow_insightly_hooks.core.detection.changes import ChangeWindow

__all__ = ["AnnouncedSpans", "span_of"]

OLDEST = timedelta(minutes=10)
"""If a record's change is older, its time is not used: the webhook comes late, or again."""
CLOCK_TOLERANCE = timedelta(minutes=10)
"""How far ahead Insightly's clock may be. A run waits this long at most for the end of an event's span."""
SPAN = timedelta(seconds=2)
"""How long the span of an event is."""
MOST_SPANS = 2_000
"""A value of a state store takes 65 kB; this many take 45 at most."""


def span_of(changed_at: datetime | None, now: datetime) -> ChangeWindow:
    """Return the span that an event is to name for a record which has changed.

    :param changed_at: when, by Insightly's clock; ``None`` if the record doesn't tell.
    :param now: by our own clock, which counts where the record's time can't be that of a change just made.
    """
    moment = changed_at if changed_at and now - OLDEST <= changed_at <= now + CLOCK_TOLERANCE else now
    start = utc_time(moment).replace(microsecond=0)
    return ChangeWindow(start, start + SPAN)


class AnnouncedSpans:
    """The spans that were announced lately, as a value of a state store holds them.

    :param since: from when on all that were announced are known.
    :param spans: starts and ends in seconds since 1970, in order, apart from each other.
    """

    def __init__(self, since: int, spans: Iterable[tuple[int, int]] = ()) -> None:
        self._since = since
        self._spans = list(spans)

    @classmethod
    def of(cls, value: object) -> AnnouncedSpans | None:
        """Return the spans that a value of ``as_value`` holds; ``None`` if it is not such a value."""
        try:
            since, spans = value["since"], value["spans"]  # type: ignore[index]
            read = [(int(start), int(start) + int(length)) for start, length in spans]
            announced = cls(int(since), read)
            _ = announced.since, announced.until  # times beyond all calendars can't be meant
            return announced
        except (TypeError, KeyError, ValueError, OverflowError):
            return None

    @classmethod
    def from_now_on(cls, first: ChangeWindow) -> AnnouncedSpans:
        """Return an instance that holds no span yet, and knows all from the first one on."""
        return cls(_seconds(first.start))

    def as_value(self) -> dict[str, Any]:
        """Return the value: ``{"since": seconds, "spans": [[start, length], …]}``."""
        return {"since": self._since, "spans": [[start, end - start] for start, end in self._spans]}

    def add(self, span: ChangeWindow) -> None:
        """Add a span; beyond ``MOST_SPANS`` the oldest ones go."""
        start, end = _seconds(span.start), _seconds(span.end)
        apart = []
        for known in self._spans:
            if known[1] < start or known[0] > end:
                apart.append(known)
            else:
                start, end = min(start, known[0]), max(end, known[1])
        self._spans = sorted([*apart, (start, end)])
        if len(self._spans) > MOST_SPANS:
            self._since = max(self._since, self._spans[-MOST_SPANS - 1][1])
            self._spans = self._spans[-MOST_SPANS:]

    @property
    def until(self) -> datetime | None:
        """Up to when there are changes that were announced; ``None`` before the first one."""
        return EPOCH + timedelta(seconds=self._spans[-1][1]) if self._spans else None

    @property
    def since(self) -> datetime:
        """From when on all that were announced are known."""
        return EPOCH + timedelta(seconds=self._since)

    def __contains__(self, moment: datetime) -> bool:
        """Whether a change of this moment was announced."""
        seconds = _seconds(moment)
        place = bisect_right(self._spans, (seconds, float("inf"))) - 1
        return place >= 0 and seconds < self._spans[place][1]


def _seconds(moment: datetime) -> int:
    return int((utc_time(moment) - EPOCH) // timedelta(seconds=1))

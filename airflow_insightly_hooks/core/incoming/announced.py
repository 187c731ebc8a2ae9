"""The changes that webhooks have announced: a span of time for each event, and all spans as one value.

An event says that there are changes in a span of Insightly's time: from the second in which a record has
changed to the end of the next second. Other changes in the span need no event of their own, because the run
that the event starts reads at least to the span's end.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from airflow_insightly_hooks.core.dates import EPOCH, utc_time
from airflow_insightly_hooks.core.detection.changes import ChangeWindow
from airflow_insightly_hooks.core.state.versions import is_newer

__all__ = ["AnnouncedSpans", "span_of"]

OLDEST = timedelta(minutes=10)
"""If a record's change is older, its time is not used, because the webhook is late or was sent again."""
CLOCK_TOLERANCE = timedelta(minutes=10)
"""How far ahead Insightly's clock may be. A run waits at most this long for the end of an event's span."""
SPAN = timedelta(seconds=2)
"""How long the span of an event is."""
MOST_SPANS = 2_000
"""How many spans are kept. They take at most 45 kB; a value of a state store may have 65 kB."""


def span_of(changed_at: datetime | None, now: datetime) -> ChangeWindow:
    """Return the span of an event for a record that has changed.

    :param changed_at: when it changed, by Insightly's clock; ``None`` if the record doesn't say.
    :param now: the time of this machine's clock. It is used if ``changed_at`` can't be the time of a change
        that was just made.
    """
    moment = changed_at if changed_at and now - OLDEST <= changed_at <= now + CLOCK_TOLERANCE else now
    start = utc_time(moment).replace(microsecond=0)
    return ChangeWindow(start, start + SPAN)


class AnnouncedSpans:
    """The spans that were announced lately, as they are kept in a value of a state store.

    :param since: all spans that were announced from this time on are known.
    :param spans: starts and ends in seconds since 1970, in order, without overlaps.
    """

    def __init__(self, since: int, spans: Iterable[tuple[int, int]] = ()) -> None:
        self._since = since
        self._spans = list(spans)

    @classmethod
    def of(cls, value: object) -> AnnouncedSpans | None:
        """Return the spans that ``as_value`` wrote; ``None`` if the value can't be read."""
        if is_newer(value):
            return None
        try:
            since, spans = value["since"], value["spans"]  # type: ignore[index]
            read = [(int(start), int(start) + int(length)) for start, length in spans]
            announced = cls(int(since), read)
            _ = announced.since, announced.until  # raises OverflowError for times that no calendar has
            return announced
        except (TypeError, KeyError, ValueError, OverflowError):
            return None

    @classmethod
    def from_now_on(cls, first: ChangeWindow) -> AnnouncedSpans:
        """Return an instance without spans that will know all spans from the first one on."""
        return cls(_seconds(first.start))

    def as_value(self) -> dict[str, Any]:
        """Return the value: ``{"since": seconds, "spans": [[start, length], …]}``."""
        return {"since": self._since, "spans": [[start, end - start] for start, end in self._spans]}

    def add(self, span: ChangeWindow) -> None:
        """Add a span. If there are more than ``MOST_SPANS``, the oldest ones are removed."""
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
        """The end of the last announced span; ``None`` if there is no span yet."""
        return EPOCH + timedelta(seconds=self._spans[-1][1]) if self._spans else None

    @property
    def since(self) -> datetime:
        """The time from which all announced spans are known."""
        return EPOCH + timedelta(seconds=self._since)

    def __contains__(self, moment: datetime) -> bool:
        """Return whether a change at this moment was announced."""
        seconds = _seconds(moment)
        place = bisect_right(self._spans, (seconds, float("inf"))) - 1
        return place >= 0 and seconds < self._spans[place][1]


def _seconds(moment: datetime) -> int:
    return int((utc_time(moment) - EPOCH) // timedelta(seconds=1))

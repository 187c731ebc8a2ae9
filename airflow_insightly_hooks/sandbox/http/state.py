"""Everything that a running sandbox remembers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from airflow_insightly_hooks.sandbox.crm.clock import Clock
from airflow_insightly_hooks.sandbox.crm.search import Search
from airflow_insightly_hooks.sandbox.http.request_bin import RequestBin
from airflow_insightly_hooks.sandbox.http.request_limits import RequestLimits
from airflow_insightly_hooks.sandbox.http.settings import Settings
from airflow_insightly_hooks.sandbox.seed.reference_lists import reference_lists
from airflow_insightly_hooks.sandbox.seed.seeded_records import seeded_store
from airflow_insightly_hooks.sandbox.webhooks.webhooks import Webhooks

__all__ = ["SandboxState"]


class SandboxState:
    """The state of one sandbox. Only the event loop of its server uses it, so it needs no lock.

    :param source: returns the time, in seconds since 1970.
    """

    def __init__(self, source: Callable[[], float]) -> None:
        self._source = source
        self._started = source()
        self.webhooks = Webhooks()
        self.reset()

    def reset(self) -> None:
        """Go back to the beginning: the seeded records, no requests, the default settings."""
        self.clock = Clock(self._source)
        self.settings = Settings()
        self.limits = RequestLimits(self.settings, self.clock)
        self.requests: Counter[str] = Counter()
        self.bins: dict[str, RequestBin] = {}
        self.store = seeded_store(self.clock, self._started)
        self.search = Search(self.store)
        self.webhooks.configure(None)
        self.store.on_write = self.webhooks.record_written
        self.reference_lists = reference_lists(
            datetime.fromtimestamp(self._started, timezone.utc), self.store.user_id
        )

    def as_json(self) -> dict[str, Any]:
        """Return the state as ``GET /_sandbox`` shows it."""
        return {
            "clock": {
                "now": self.clock.now().isoformat(),
                "clock_offset": self.clock.offset,
                "record_times": self.clock.record_times,
            },
            "settings": {
                **self.settings.as_json(),
                "webhook": self.webhooks.setting_as_json(),
                **self.store.behaviour.as_json(),
            },
            "requests": dict(sorted(self.requests.items())),
            "requests_today": self.limits.used_today,
            "records": self.store.record_counts(),
            "bins": {name: len(request_bin.requests) for name, request_bin in self.bins.items()},
            "webhooks": self.webhooks.counts(),
        }

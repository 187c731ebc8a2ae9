"""Which late changes a watch finds, and how many requests it needs."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_insightly_hooks.core.detection.record_times import readable_times
from airflow_insightly_hooks.hooks.api import server_clock
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from airflow_insightly_hooks.triggers import late_polls, polls
from airflow_insightly_hooks.triggers.late_polls import Found, LatePolls

Poll = Callable[[], Coroutine[Any, Any, Found]]

START = datetime(2031, 3, 10, 8, tzinfo=timezone.utc)
NOW = START + timedelta(minutes=20)
LOOKBACK = timedelta(minutes=15)
SINCE = NOW - timedelta(seconds=5)


@pytest.fixture
def crm(insightly: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> RunningSandbox:
    """The sandbox, whose clock shows NOW."""
    monkeypatch.setattr(server_clock, "TOLERANCE", math.inf)  # it is years ahead, and accepted at once
    insightly.configure(clock_offset=(NOW - datetime.now(timezone.utc)).total_seconds())
    return insightly


def api(seconds_ago: float) -> str:
    return (NOW - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%d %H:%M:%S")


def add(sandbox: RunningSandbox, *seconds_ago: float) -> int:
    """Add contacts that were created so long ago; return the id of the last one."""
    made = [{"FIRST_NAME": "Zoë", "DATE_CREATED_UTC": api(seconds)} for seconds in seconds_ago]
    return sandbox.create_many("Contacts", made)[-1]


def asked(sandbox: RunningSandbox) -> int:
    counts: dict[str, int] = sandbox.configure()["requests"]
    return sum(count for path, count in counts.items() if path.startswith("GET /v3.1"))


def play(scene: Callable[[Poll], Coroutine[Any, Any, None]]) -> None:
    """Run a scene in which polls are made. Each time, changes up to SINCE were already reported."""
    it = LatePolls(polls.poller("insightly_default"), "Contacts")
    asyncio.run(scene(lambda: it.poll(SINCE, LOOKBACK)))


def test_a_record_whose_times_cannot_be_read_is_told_of_once(
    crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any window could contain it, so every poll would report a change."""
    add(crm, 600)

    async def scene(poll: Poll) -> None:
        assert not (await poll()).is_late
        record_id = add(crm, 300)
        monkeypatch.setattr(
            late_polls,
            "readable_times",
            lambda record: (None, None) if record["CONTACT_ID"] == record_id else readable_times(record),
        )
        found = [await poll() for _ in range(3)]
        assert [(f.is_late, f.changes) for f in found] == [(True, []), (False, []), (False, [])]

    play(scene)


def test_what_shows_up_late_is_found_once(crm: RunningSandbox) -> None:
    """Late changes are additions or updates from before SINCE that no poll has shown yet."""
    known = add(crm, 600)

    async def scene(poll: Poll) -> None:
        assert not (await poll()).is_late  # the first records are only remembered
        add(crm, 300)
        found = await poll()
        assert (found.changes, found.is_late) == ([], True)
        assert not (await poll()).is_late
        crm.update("Contacts", known, DATE_UPDATED_UTC=api(60))
        assert (await poll()).is_late
        assert not (await poll()).is_late

    play(scene)


def test_what_is_older_than_the_lookback_is_not_waited_for(crm: RunningSandbox) -> None:
    """Changes that aren't late, or that a poll has shown before, are not reported either."""

    async def scene(poll: Poll) -> None:
        await poll()
        add(crm, 16 * 60)
        assert not (await poll()).is_late
        add(crm, 1)
        found = await poll()
        assert (len(found.changes), found.is_late) == (1, False)

    play(scene)


def test_one_page_costs_no_request_more(crm: RunningSandbox) -> None:
    """With a change every ten seconds, 90 are in the lookback. Each poll is one request."""
    add(crm, *range(6, 900, 10))

    async def scene(poll: Poll) -> None:
        before = asked(crm)
        for _ in range(5):
            assert not (await poll()).is_late
        assert asked(crm) - before == 5
        add(crm, 300)
        assert (await poll()).is_late

    play(scene)


def test_several_pages_are_read_rarely(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The more pages there are, the rarer they are read. Other polls are one request.

    Late changes are found.
    """
    monkeypatch.setattr(polls, "PAGE", 20)
    add(crm, *range(6, 900, 10))

    async def scene(poll: Poll) -> None:
        await poll()
        before = asked(crm)
        for _ in range(5):
            assert not (await poll()).is_late
        assert asked(crm) - before == 5
        add(crm, 300)
        assert not (await poll()).is_late
        clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 61)
        monkeypatch.setattr(late_polls, "time", clock)
        before = asked(crm)
        assert (await poll()).is_late
        assert 5 <= asked(crm) - before <= 9  # of 20 records each, five of which overlap
        before = asked(crm)
        assert not (await poll()).is_late
        assert asked(crm) - before == 1

    play(scene)


def test_what_is_new_spares_the_look_back(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """New changes wake DAGs, which look back themselves. So frequent changes cost no additional requests."""
    monkeypatch.setattr(polls, "PAGE", 20)
    monkeypatch.setattr(late_polls, "SECONDS_A_PAGE", 0.0)
    add(crm, *range(6, 900, 10))

    async def scene(poll: Poll) -> None:
        await poll()
        before = asked(crm)
        await poll()
        assert asked(crm) - before > 5
        add(crm, 1)
        before = asked(crm)
        assert len((await poll()).changes) == 1
        assert asked(crm) - before == 1

    play(scene)

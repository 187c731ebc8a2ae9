"""What a retry of a workflow in one task reads again, and what it sends again."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowTaskTimeout

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.delivery.delivery_record import about_of
from airflow_insightly_hooks.core.delivery.resend_requests import ResendRequest, add_request
from airflow_insightly_hooks.core.delivery.stored_deliveries import StoredLedger
from airflow_insightly_hooks.core.errors import IncompleteScan, StoppedError, UndeliveredError
from airflow_insightly_hooks.core.exact_json import loads
from airflow_insightly_hooks.hooks.api.api_errors import InsightlyAPIError
from airflow_insightly_hooks.hooks.insightly import InsightlyHook, SearchPage
from airflow_insightly_hooks.operators.one_task import batch_reading, batch_scheduling
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.conftest import AssetStateStores, Connect, Logged, StateStore, run_context
from tests.operators.test_workflow_operator import ask_again

START = datetime(2024, 5, 1, tzinfo=timezone.utc)
END = START + timedelta(days=1)
INTERVAL = {"data_interval_start": START, "data_interval_end": END}
OUT = Webhook(name="Out", conn_id="out", concurrency=2)
PAGE = 10
"""Records of a page. Some overlap, so each page has 5 new ones."""
NEW = 5


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_reading, "PAGE", PAGE)


def threads() -> list[threading.Thread]:
    """Return the threads that read."""
    names = ("insightly-read-ahead", "insightly-page")
    return [thread for thread in threading.enumerate() if thread.name in names]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert not threads()


@pytest.fixture
def crm(insightly: RunningSandbox, connect: Connect) -> RunningSandbox:
    for name in ("out", "other"):
        connect(name, host=insightly.bin_url(name), extra={"timeout": 5})
    for record in InsightlyHook().iter_records("Contacts"):  # so that pages have the size of this test
        insightly.delete("Contacts", record["CONTACT_ID"])
    return insightly


def workflow(*webhooks: Webhook, **arguments: Any) -> Workflow:
    arguments = {"name": "New contacts", "record_type": "Contacts", "settle": 0, **arguments}
    return Workflow(webhooks=list(webhooks or [OUT]), **arguments)


def add_contacts(crm: RunningSandbox, count: int, **fields: Any) -> list[int]:
    """Add contacts a second apart, from noon of the window's day on; return their ids."""
    times = [f"{START + timedelta(hours=12, seconds=i):%Y-%m-%d %H:%M:%S}" for i in range(count)]
    return crm.create_many(
        "Contacts", [{"DATE_CREATED_UTC": time, "DATE_UPDATED_UTC": time, **fields} for time in times]
    )


def context_of(**entries: Any) -> dict[str, Any]:
    return run_context(**{**INTERVAL, **entries})


def flow(context: dict[str, Any], given: Workflow | None = None, **arguments: Any) -> Any:
    arguments = {"batch_size": 2 * NEW, **arguments}
    return InsightlyWorkflowOperator(task_id="flow", workflow=given or workflow(), **arguments).execute(
        context
    )


def pages_asked_for(crm: RunningSandbox) -> int:
    requests: dict[str, int] = crm.configure()["requests"]
    return requests.get("GET /v3.1/Contacts/Search", 0)


def asked(crm: RunningSandbox, act: Callable[[], Any]) -> int:
    """Return how many pages are asked for during ``act``."""
    before = pages_asked_for(crm)
    act()
    return pages_asked_for(crm) - before


def sent(crm: RunningSandbox, name: str = "out") -> Counter[int]:
    """Return how often each record was POSTed."""
    return Counter(json.loads(kept["body"])["entity"]["CONTACT_ID"] for kept in crm.received(name))


def crashed(
    crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch, ids: list[int], **how: Any
) -> dict[str, Any]:
    """Return the context of a run whose first try ended after half of its records had been sent."""
    context = context_of(**how)
    broken_off(context, monkeypatch, after=len(ids) // 2)
    return context


def broken_off(
    context: dict[str, Any], monkeypatch: pytest.MonkeyPatch, after: int, given: Workflow | None = None
) -> None:
    """Run a try that ends, like a kill, after so many changes were delivered."""
    note = batch_reading.Reading.note

    def crashing(self: batch_reading.Reading, met: int, **named: Any) -> None:
        note(self, met, **named)
        if self.met > after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(batch_reading.Reading, "note", crashing)
        with pytest.raises(KeyboardInterrupt):
            flow(context, given)


def test_a_retry_reads_and_sends_what_is_missing(
    crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    """Records that were read and acknowledged are neither read nor sent again. The report counts all."""
    ids = add_contacts(crm, 100)
    context = context_of()
    broken_off(context, monkeypatch, after=60)
    assert len(sent(crm)) == 70
    before = pages_asked_for(crm)
    report = flow(context)
    # Of 20 pages with 5 new records each, 60 records are settled; one page more confirms the end.
    assert pages_asked_for(crm) - before <= 20 - 12 + 1
    assert "continuing after 60 records" in logged.text
    assert sent(crm) == Counter(ids)
    assert (report["total"], report["delivered"], report["attempts"]) == (100, 100, 100)
    counts = context["task_state_store"].get("run_counts")
    assert (counts["detected"], counts["met"]) == (100, 100)


def test_a_second_and_third_kill(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try continues where the one before ended, whatever records there are by then."""
    ids = add_contacts(crm, 100)
    context = context_of()
    for after in (20, 40, 80):
        broken_off(context, monkeypatch, after)
        crm.delete("Contacts", ids.pop(after // 10))
        add_contacts(crm, 2)
    assert flow(context)["delivered"] >= 100
    assert set(ids) <= set(sent(crm))
    assert set(sent(crm).values()) == {1}


def test_a_failure_at_the_end_leaves_the_end_to_be_read(crm: RunningSandbox) -> None:
    """A retry for one message reads from its batch on, even if everything was read and reported."""
    ids = add_contacts(crm, 60)
    crm.answer_with("out", status=503, match=f'"CONTACT_ID":{ids[52]},', times=1)
    context = context_of()
    with pytest.raises(UndeliveredError):
        flow(context)
    assert asked(crm, lambda: flow(context)) <= 4
    assert sent(crm) == Counter(ids) + Counter([ids[52]])


def test_nothing_is_kept_in_the_end(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """After success, the task's state has nothing of what was read."""
    context = crashed(crm, monkeypatch, add_contacts(crm, 40))
    state = context["task_state_store"]
    assert [key for key in state.values if key.startswith("checkpoint")]
    flow(context)
    assert not [key for key in state.values if key.startswith("checkpoint")]


@pytest.mark.parametrize(
    "how",
    ["cleared", "asked again", "criteria", "webhook", "timed", "retries", "damaged", "bound", "foreign"],
)
def test_it_reads_from_the_beginning(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """The settled part no longer counts, or can't be read. Nothing is sent twice because of it."""
    ids = add_contacts(crm, 60)
    context = crashed(crm, monkeypatch, ids)
    state = context["task_state_store"]
    given, arguments, again = workflow(), {}, Counter[int]()
    if how == "cleared":
        context["ti"].max_tries += 3
    elif how == "asked again":
        done = next(key for key in state.values if "/done/" in key)
        message, text = next(iter(state.get(done).items()))
        about = text.split(" ", 1)[1]
        request = ResendRequest("a1", "somebody", "2026-01-01T00:00:00Z", False, {"out/": {message: about}})
        assert add_request(state, request, begun=())
        again = Counter([next(one for one in ids if str(one) in about)])
    elif how == "criteria":
        given = workflow(criteria={"field": "CONTACT_ID", "operator": "greater_than", "value": 0})
    elif how == "webhook":
        given = workflow(OUT, Webhook(name="Other", conn_id="other"))
    elif how == "timed":
        handed_over: list[Any] = []
        monkeypatch.setattr(batch_scheduling, "start_run", lambda *run: handed_over.append(run[2]["pending"]))
        given = workflow(OUT, Webhook(name="Later", conn_id="other", after="3d"))
        arguments = {"pending_dag_id": "new_contacts__pending"}
    elif how == "retries":
        arguments = {"retries": 7}
    elif how == "damaged":
        piece = state.get("checkpoint/1")
        state.set("checkpoint/1", {**piece, "met": piece["met"] + 1})
    elif how == "bound":  # nothing before it would be read
        state.set("checkpoint", {**state.get("checkpoint"), "search_from": iso_time(END)})
    else:
        state.set("checkpoint", {"version": 2})
    assert asked(crm, lambda: flow(context, given, **arguments)) >= 12
    assert sent(crm) == Counter(ids) + again
    if how == "webhook":
        assert sent(crm, "other") == Counter(ids)
    if how == "timed":
        assert Counter(entry["record_id"] for run in handed_over for entry in run["later"]) == Counter(ids)


def test_what_cannot_be_delivered_is_reported_by_each_try(
    crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry also reports undelivered payloads of settled pages, unbuildable or refused, with reasons."""
    ids = add_contacts(crm, 60)
    crm.update("Contacts", ids[3], DEEP=loads("[" * 200 + "]" * 200))
    crm.answer_with("out", status=410, match=f'"CONTACT_ID":{ids[7]},')
    context = crashed(crm, monkeypatch, ids)
    before = pages_asked_for(crm)
    with pytest.raises(UndeliveredError) as caught:
        flow(context)
    assert pages_asked_for(crm) - before <= 8
    report = caught.value.report
    assert (report["total"], report["delivered"]) == (60, 58)
    errors = {item["record_id"]: item["error"] for item in report["undelivered"]}
    assert errors[ids[3]].startswith("no body can be built")
    assert errors[ids[7]].startswith("the receiver said in an earlier try")


def test_what_was_asked_for_and_given_up_fails_no_later_try(
    crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that was sent again without success is reported by each try, even if it isn't read again."""
    ids = add_contacts(crm, 60)
    tolerant = Webhook(name="Other", conn_id="other", on_undelivered="report", retries=0)
    given = workflow(OUT, tolerant)
    crm.answer_with("other", status=503, match=f'"CONTACT_ID":{ids[7]},')
    context = context_of()
    assert flow(context, given)["other"]["delivered"] == 59
    state = context["task_state_store"]
    ledger = StoredLedger.find(lambda key: state.get(f"other/{key}"))
    assert ledger is not None
    (kept,) = (
        m
        for m in ledger.messages(lambda key: state.get(f"other/{key}"))
        if m.about is not None and m.about.record_id == ids[7]
    )
    ask_again(context, {"other/": {kept.message_id: about_of(*kept.about)}})
    broken_off(context, monkeypatch, after=30, given=given)
    assert len(crm.received("other")) == 61
    assert flow(context, given)["other"]["delivered"] == 59


def test_what_is_kept_at_a_time_is_bounded(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of one batch are stored in several pieces if one piece would be too large for the store."""
    monkeypatch.setattr("airflow_insightly_hooks.operators.one_task.checkpoint.PIECE_BYTES", 400)
    ids = add_contacts(crm, 60)
    context = crashed(crm, monkeypatch, ids)
    state = context["task_state_store"]
    pieces = [key for key in state.values if key.startswith("checkpoint/")]
    assert len(pieces) == 5  # of 30 records: a page has 10, and each further one 5 new ones
    assert asked(crm, lambda: flow(context)) <= 8
    assert sent(crm) == Counter(ids)


def test_until_triggered(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that has triggered in an earlier run counts as settled."""
    ids = add_contacts(crm, 60)
    given = workflow(evaluate="until_triggered")
    stores = AssetStateStores()
    flow(context_of(asset_state_store=stores), given)
    later = add_contacts(crm, 60)
    context = context_of(asset_state_store=stores)
    context["ti"].run_id = "scheduled__2"
    broken_off(context, monkeypatch, after=20, given=given)
    assert asked(crm, lambda: flow(context, given)) <= 10
    assert sent(crm) == Counter(ids + later)


def test_what_was_seen_is_the_same(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed run remembers and reports the same for its lookback as an undisturbed one."""
    clock = [END]
    monkeypatch.setattr(InsightlyHook, "server_time", lambda _: clock[0])
    times = [f"{END - timedelta(seconds=i * 10 + 1):%Y-%m-%d %H:%M:%S}" for i in range(60)]
    crm.create_many("Contacts", [{"DATE_CREATED_UTC": time, "DATE_UPDATED_UTC": time} for time in times])
    seen = []
    for kills in ((), (20,), (10, 30, 40)):
        clock[0] = END + timedelta(seconds=30)
        context = context_of()
        for after in kills:
            broken_off(context, monkeypatch, after)
            clock[0] += timedelta(seconds=20)  # records that have settled since decide nothing
        flow(context)
        (store,) = context["asset_state_store"].values()
        (kept,) = [store.get(key) for key in store.values if key.endswith("~a")]
        state = {name: kept[name] for name in ("since", "until", "first", "digest")}
        seen.append((context["task_state_store"].get("told"), state))
    assert seen[0][1]["first"]
    assert seen[1] == seen[2] == seen[0]


def test_what_other_runs_have_seen_meanwhile_counts(
    crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    """If they differ, the retry reads from the beginning: they decide which changes are late."""
    monkeypatch.setattr(InsightlyHook, "server_time", lambda _: END + timedelta(seconds=30))
    ids = add_contacts(crm, 60)
    context = crashed(crm, monkeypatch, ids)
    before = context_of(
        asset_state_store=context["asset_state_store"],
        data_interval_start=START - timedelta(days=1),
        data_interval_end=START,
    )
    before["ti"].run_id = "scheduled__0"
    flow(before)
    assert asked(crm, lambda: flow(context)) >= 12
    assert "What was seen by other runs has changed" in logged.text
    assert sent(crm) == Counter(ids)


def test_an_incomplete_scan_is_begun_anew(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan that has made too many requests would fail at once if it continued."""
    ids = add_contacts(crm, 60)
    read_pages = InsightlyHook.read_pages

    def incomplete(self: InsightlyHook, *args: Any, **named: Any) -> Iterator[SearchPage]:
        for number, page in enumerate(read_pages(self, *args, **named)):
            yield page
            if number == 6:
                raise IncompleteScan("Contacts", 7, 35, 60)

    context = context_of()
    with monkeypatch.context() as patch:
        patch.setattr(InsightlyHook, "read_pages", incomplete)
        with pytest.raises(IncompleteScan):
            flow(context)
    assert asked(crm, lambda: flow(context)) >= 12
    assert sent(crm) == Counter(ids)


@pytest.mark.parametrize("error", [AirflowTaskTimeout, KeyboardInterrupt, SystemExit, None])
def test_whatever_ends_a_try_ends_its_thread(
    crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch, error: type[BaseException] | None
) -> None:
    """This holds while it waits for Insightly, too.

    Records that were read ahead and not sent are read again.
    """
    ids = add_contacts(crm, 60)
    context = context_of()
    operator = InsightlyWorkflowOperator(task_id="flow", workflow=workflow(), batch_size=10)
    note = batch_reading.Reading.note

    def ending(self: batch_reading.Reading, met: int, **named: Any) -> None:
        note(self, met, **named)
        if self.met == 20:
            crm.configure(fault={"path": "/v3.1/Contacts/Search", "status": 503, "retry_after": 60})
        if self.met >= 30:
            if error is not None:
                raise error
            operator.on_kill()

    with monkeypatch.context() as patch:
        patch.setattr(batch_reading.Reading, "note", ending)
        with pytest.raises(error or StoppedError):
            operator.execute(context)
    assert not threads()
    crm.configure(fault=None)
    flow(context)
    assert sent(crm) == Counter(ids)


class Crashing(StateStore):
    """A store that fails from its n-th write on, as when the task is killed."""

    def __init__(self, values: dict[str, str], writes_left: int) -> None:
        super().__init__()
        self.values, self.writes_left = values, writes_left

    def set(self, key: str, value: Any, **how: Any) -> None:
        self._count()
        super().set(key, value, **how)

    def delete(self, key: str) -> None:
        self._count()
        super().delete(key)

    def _count(self) -> None:
        if self.writes_left == 0:
            raise KeyboardInterrupt
        self.writes_left -= 1


def test_a_crash_at_any_write(crm: RunningSandbox, connect: Connect) -> None:
    """Whichever write fails, no message is lost, and none that was recorded as acknowledged is sent again."""
    ids = add_contacts(crm, 40)
    for crash in range(1, 200):
        values: dict[str, str] = {}
        connect("out", host=crm.bin_url(f"out_{crash}"), extra={"timeout": 5})
        context = context_of(task_state_store=Crashing(values, crash))
        try:
            flow(context)
            break
        except KeyboardInterrupt:
            pass
        context["task_state_store"] = Crashing(values, 10_000)
        report = flow(context)
        assert (report["total"], report["delivered"]) == (40, 40), crash
        of_this = sent(crm, f"out_{crash}")
        assert set(of_this) == set(ids), crash
        assert of_this.total() <= 40 + 10, crash  # at most one batch is in doubt
    else:
        pytest.fail("it never came to the end")
    assert crash > 15


def test_what_was_read_cannot_be_kept(
    crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    """It doesn't fail the task: messages that were sent stay sent, and a retry reads more."""

    class Broken(StateStore):
        def set(self, key: str, value: Any, **how: Any) -> None:
            if key == "checkpoint/1":
                raise OSError("the API server is starting")
            super().set(key, value, **how)

    ids = add_contacts(crm, 60)
    context = context_of(task_state_store=Broken())
    broken_off(context, monkeypatch, after=40)
    assert "The checkpoint can't be kept: OSError" in logged.text
    assert asked(crm, lambda: flow(context)) >= 8
    assert sent(crm) == Counter(ids)


def test_insightly_fails_half_way(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next try asks for the page that failed, and for the pages after it."""
    ids = add_contacts(crm, 60)
    note = batch_reading.Reading.note

    def failing(self: batch_reading.Reading, met: int, **named: Any) -> None:
        note(self, met, **named)
        if self.met == 20:
            crm.configure(fault={"path": "/v3.1/Contacts/Search", "status": 400})

    context = context_of()
    with monkeypatch.context() as patch:
        patch.setattr(batch_reading.Reading, "note", failing)
        with pytest.raises(InsightlyAPIError):
            flow(context)
    read = len(sent(crm))
    assert 20 < read < 60
    crm.configure(fault=None)
    assert asked(crm, lambda: flow(context)) <= (60 - read) / NEW + 2
    assert sent(crm) == Counter(ids)


def test_pieces_that_another_try_has_left(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece from before the task was cleared is not used for the next one."""
    ids = add_contacts(crm, 60)
    crm.answer_with("out", status=503, match=f'"CONTACT_ID":{ids[59]},', times=1)
    context = context_of()
    with pytest.raises(UndeliveredError):
        flow(context)
    state = context["task_state_store"]
    context["ti"].max_tries += 3
    broken_off(context, monkeypatch, after=20)
    assert state.get("checkpoint/4")
    assert asked(crm, lambda: flow(context)) >= 60 / NEW - 6
    assert state.get("run_counts")["detected"] == 60
    assert sent(crm) == Counter(ids) + Counter([ids[59]])

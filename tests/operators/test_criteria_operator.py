"""The evaluate task."""

from __future__ import annotations

import itertools
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, NEVER_EXPIRE, Asset, task_group
from airflow.sdk.exceptions import DownstreamTasksSkipped
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_insightly_hooks.core.detection.storable_changes import storable
from airflow_insightly_hooks.core.errors import InvalidChange, InvalidCriteria, UnknownRecordType
from airflow_insightly_hooks.core.exact_json import loads
from airflow_insightly_hooks.hooks.api.api_errors import InsightlyUnreachable
from airflow_insightly_hooks.hooks.assets import records_asset
from airflow_insightly_hooks.hooks.insightly import InsightlyHook
from airflow_insightly_hooks.operators.criteria import EvaluateCriteriaOperator
from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.operators.pending import DueWebhooksOperator
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor
from tests.conftest import AssetStateStores, Connect, Logged, StateStore, TaskInstance, run_context

FRANCE = {"field": "ADDRESS_MAIL_COUNTRY", "operator": "equals", "value": "France"}


def change(number: int, country: str | None, record_type: str = "Contacts") -> dict[str, Any]:
    return {
        "record_type": record_type,
        "record_id": number,
        "event": "added",
        "changed_at": "2017-03-10T08:00:00Z",
        "record": {"CONTACT_ID": number, "ADDRESS_MAIL_COUNTRY": country},
    }


CHANGES = [change(1, "France"), change(2, "Spain"), change(3, "FRANCE"), change(4, None)]


def test_passes_on_what_matches(logged: Logged) -> None:
    """Changes that meet the criteria are passed on unchanged and in order."""
    operator = EvaluateCriteriaOperator(task_id="evaluate", changes=CHANGES, criteria={"all": [FRANCE]})
    assert operator.execute(run_context()) == [CHANGES[0], CHANGES[2]]
    assert logged.messages("info") == ["2 of 4 changes meet the criteria"]
    assert "Spain" not in logged.text


def test_a_field_that_no_record_has(logged: Logged) -> None:
    """A misspelt field counts as blank. The log warns and suggests a name.

    A blank custom field isn't reported.
    """
    slip = {"field": "ADDRESS_MAIL_CONTRY", "operator": "not_equals", "value": "France"}
    custom = {"field": "Region__c", "operator": "is_blank"}
    criteria = {"all": [slip, {"any": [FRANCE, custom]}]}
    operator = EvaluateCriteriaOperator(task_id="evaluate", changes=CHANGES, criteria=criteria)
    assert operator.execute(run_context()) == CHANGES
    (warning,) = logged.messages("warning")
    assert warning == (
        "No record of Contacts has a field ADDRESS_MAIL_CONTRY: it counts as blank; "
        "did you mean 'ADDRESS_MAIL_COUNTRY'?"
    )


def undeliverable(number: int, reason: str = "its time is none") -> dict[str, Any]:
    return {**change(number, None), "record": {}, "undeliverable": reason}


def test_a_bad_record_passes_whatever_the_criteria_are(logged: Logged) -> None:
    """It is unknown whether it meets them. The deliver task reports it, after sending the others."""
    nan = {**change(2, "France"), "record": {"CONTACT_ID": 2, "A": float("nan")}}
    given = [change(1, "France"), nan, undeliverable(3), change(4, "Spain")]
    found = evaluating(task_id="evaluate", changes=given, criteria=FRANCE).execute(
        run_context(ti=TaskInstance())
    )
    reason = "A: a number that is not finite cannot be sent as JSON"
    assert found == [given[0], undeliverable(2, reason), undeliverable(3)]
    assert logged.messages("error") == [
        f"Contacts 2 can't be delivered: {reason}",
        "Contacts 3 can't be delivered: its time is none",
    ]
    assert "1 of 4 changes meet the criteria" in logged.text


def test_a_bad_record_has_not_triggered() -> None:
    """``until_triggered`` doesn't remember it: once it is corrected, it triggers."""
    context = run_context()
    given = [undeliverable(1), change(2, "France")]
    assert once(given).execute(context) == given
    assert ids(once([change(1, "France"), change(2, "France")]).execute(next_run(context))) == [1]


@pytest.mark.parametrize("text", ["1234567890123456.78", "1e400", "18446744073709551616", "1E20"])
def test_criteria_compare_exact_numbers(text: str) -> None:
    """Even if a store changes such numbers, they are compared as the API wrote them."""
    record = loads(f'{{"CONTACT_ID": 1, "A": {text}}}')
    given = storable({**change(1, None), "record": record})

    def meets(operator: str, value: Any) -> bool:
        criteria = {"field": "A", "operator": operator, "value": value}
        try:
            evaluate = evaluating(task_id="evaluate", changes=[given], criteria=criteria)
            return evaluate.execute(run_context(ti=TaskInstance())) == [given]
        except DownstreamTasksSkipped:
            return False

    assert meets("equals", text)
    assert meets("greater_than", "1234567890123456.7799")
    assert not meets("less_or_equal", "1234567890123456.7799")
    assert meets("equals", "1234567890123456.78") == (text == "1234567890123456.78")
    assert not meets("equals", "1234567890123456.8")


def test_no_criteria() -> None:
    """Without criteria every change is passed on."""
    assert EvaluateCriteriaOperator(task_id="evaluate", changes=CHANGES).execute(run_context()) == CHANGES


@pytest.mark.parametrize("changes", [CHANGES[1:2], []])
def test_nothing_matches(changes: list[Any]) -> None:
    """If no change meets the criteria, the tasks that follow are skipped, and an empty list is passed on."""
    with DAG("dag", schedule=None):
        operator = EvaluateCriteriaOperator(task_id="evaluate", changes=changes, criteria=FRANCE)
        operator >> [
            BuildPayloadOperator(task_id="build", changes=operator.output),
            BuildPayloadOperator(task_id="other", changes=[]),
        ]
    context = run_context()
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        operator.execute(context)
    assert sorted(skipped.value.tasks) == ["build", "other"]
    assert context["ti"].xcom["return_value"] == []


def test_nothing_matches_and_nothing_follows() -> None:
    """Without tasks after it, the task ends as usual, with an empty list."""
    with DAG("dag", schedule=None):
        operator = EvaluateCriteriaOperator(task_id="evaluate", changes=[], criteria=FRANCE)
    assert operator.execute(run_context()) == []


def test_nothing_matches_in_a_mapped_task() -> None:
    """A mapped task without a match doesn't skip the tasks that follow: other indexes may have matches."""
    with DAG("dag", schedule=None):
        operator = EvaluateCriteriaOperator(task_id="evaluate", changes=[], criteria=FRANCE)
        operator >> BuildPayloadOperator(task_id="build", changes=[])
    ti = TaskInstance()
    ti.map_index = 3
    assert operator.execute(run_context(ti=ti)) == []


@pytest.mark.parametrize(
    "criteria",
    [
        {"field": "TITLE", "operator": "equal", "value": "x"},
        {"all": []},
        {"all": [FRANCE], "any": [FRANCE]},
        [FRANCE],
        {"field": "TITLE", "operator": "equals", "value": {"x"}},
    ],
)
def test_wrong_criteria(criteria: Any) -> None:
    """Invalid criteria are refused when the DAG is parsed, or at the latest when the task runs."""
    with pytest.raises(InvalidCriteria) as caught:
        EvaluateCriteriaOperator(task_id="evaluate", changes=CHANGES, criteria=criteria).execute(
            run_context()
        )
    assert caught.value.path.startswith("criteria")


def test_criteria_are_checked_when_parsed() -> None:
    """Criteria without templates are checked when the DAG is parsed."""
    with pytest.raises(InvalidCriteria, match="did you mean 'equals'"):
        EvaluateCriteriaOperator(
            task_id="evaluate", changes=[], criteria={"field": "TITLE", "operator": "equal", "value": "x"}
        )


@pytest.mark.parametrize("template", ["x", "{{ x }}"])
@pytest.mark.parametrize("operator", [EvaluateCriteriaOperator, DueWebhooksOperator])
def test_criteria_that_nest_too_deeply(operator: Any, template: str) -> None:
    """They are refused when the DAG is parsed, before Airflow reads them, with or without templates."""
    criteria: Any = {"field": "TITLE", "operator": "equals", "value": template}
    for _ in range(5_000):
        criteria = {"all": [criteria]}
    arguments: dict[str, Any] = {"changes": []}
    if operator is DueWebhooksOperator:
        arguments = {"webhook": "w", "workflow": "w", "record_type": "Tasks"}
    with pytest.raises(InvalidCriteria, match="nest more than 250 levels deep"):
        operator(task_id="task", criteria=criteria, **arguments)


def test_templates_in_criteria() -> None:
    """Templates in criteria are rendered first."""
    templated = {**FRANCE, "value": "{{ params.country }}"}
    operator = EvaluateCriteriaOperator(task_id="evaluate", changes=CHANGES, criteria=templated)
    context = run_context(params={"country": "Spain"})
    operator.render_template_fields(context)
    assert operator.execute(context) == [CHANGES[1]]


@pytest.mark.parametrize(
    "changes",
    [
        None,
        "changes",
        {"record_type": "Contacts"},
        [1],
        [{"record_type": "Contacts"}],
        [change(1, "Secret", record_type="Contact")],
        [{**change(1, None), "record": "Secret"}],
    ],
)
def test_refused_changes(changes: Any) -> None:
    """Anything but a list of changes is refused, without its contents."""
    with pytest.raises(InvalidChange) as caught:
        EvaluateCriteriaOperator(task_id="evaluate", changes=changes).execute(run_context())
    assert "Secret" not in str(caught.value)


def test_template_fields() -> None:
    """These fields are rendered."""
    assert EvaluateCriteriaOperator.template_fields == ("changes", "criteria", "workflow")


def test_criteria_with_python_dates_are_checked() -> None:
    """A datetime is no template, so mistakes beside it are found when the DAG is parsed."""
    born = {
        "field": "DATE_OF_BIRTH",
        "operator": "before",
        "value": datetime(2026, 1, 1, tzinfo=timezone.utc),
    }
    EvaluateCriteriaOperator(task_id="fine", changes=[], criteria=born)
    with pytest.raises(InvalidCriteria):
        EvaluateCriteriaOperator(task_id="wrong", changes=[], criteria={**born, "operator": "nonsense"})


# --- relative dates ----------------------------------------------------------------------------------------

BORN_LATELY = {"field": "DATE_OF_BIRTH", "operator": "within_last", "value": "1d"}
TEN = datetime(2026, 1, 10, 10, tzinfo=timezone.utc)


def born(text: str) -> dict[str, Any]:
    return {**change(1, None), "record": {"CONTACT_ID": 1, "DATE_OF_BIRTH": text}}


def evaluate_behind_a_sensor(criteria: Any) -> EvaluateCriteriaOperator:
    with DAG("dag", schedule=None):
        detect = InsightlyRecordChangeSensor(task_id="detect", record_type="Contacts")
        first = EvaluateCriteriaOperator(task_id="first", changes=detect.output)
        evaluate = EvaluateCriteriaOperator(task_id="evaluate", changes=first.output, criteria=criteria)
    evaluate.changes = [born("2026-01-10 00:00:00")]
    return evaluate


@pytest.mark.parametrize(
    ("end", "met"),
    [("2026-01-10T10:00:00Z", True), ("2026-01-12T10:00:00Z", False), ("2026-01-09T10:00:00Z", False)],
)
def test_dates_are_measured_from_the_end_of_the_sensors_window(end: str, met: bool) -> None:
    """This holds whichever operators are in between, so that a retry days later decides the same."""
    context = run_context(data_interval_end=datetime(2020, 1, 1, tzinfo=timezone.utc))
    context["ti"].others["detect", "window"] = {"start": "2026-01-09T08:00:00Z", "end": end}
    evaluate = evaluate_behind_a_sensor(BORN_LATELY)
    if met:
        assert len(evaluate.execute(context)) == 1
    else:
        assert evaluate.execute(context) == []


@pytest.mark.parametrize(
    "entries", [{"data_interval_end": TEN}, {"dag_run": SimpleNamespace(run_type="manual", run_after=TEN)}]
)
def test_without_a_window_dates_are_measured_from_the_runs_time(entries: dict[str, Any]) -> None:
    """The changes may come from another task than our sensor."""
    operator = EvaluateCriteriaOperator(task_id="e", changes=[born("2026-01-10")], criteria=BORN_LATELY)
    assert len(operator.execute(run_context(**entries))) == 1


def test_without_any_time_relative_dates_are_refused() -> None:
    """The present time isn't used: a retry would decide differently."""
    operator = EvaluateCriteriaOperator(task_id="e", changes=[born("2026-01-10")], criteria=BORN_LATELY)
    with pytest.raises(InvalidCriteria, match="relative dates need a window"):
        operator.execute(run_context())


# --- multi-selects, values of another type, the switch -----------------------------------------------------


def evaluating(**arguments: Any) -> EvaluateCriteriaOperator:
    with DAG("dag", schedule=None):
        return EvaluateCriteriaOperator(**arguments)


def interested(options: str, record_type: str = "Contacts") -> dict[str, Any]:
    custom = {"FIELD_NAME": "Interests__c", "FIELD_VALUE": options, "CUSTOM_FIELD_ID": "Interests__c"}
    return {**change(1, None, record_type), "record": {"CONTACT_ID": 1, "CUSTOMFIELDS": [custom]}}


def contains(value: str) -> dict[str, Any]:
    return {"field": "Interests__c", "operator": "contains", "value": value}


@pytest.mark.parametrize(("value", "met"), [("music", True), ("Mus", False), ("Sports", False)])
def test_contains_asks_for_a_whole_option(insightly: RunningSandbox, value: str, met: bool) -> None:
    """Insightly says which custom fields are multi-selects, even if only one option is chosen."""
    operator = evaluating(task_id="e", changes=[interested("Music")], criteria=contains(value))
    assert bool(operator.execute(run_context())) is met
    assert insightly.configure()["requests"].get("GET /v3.1/CustomFields/Contacts", 0) == 1


def test_criteria_are_parsed_once_a_task(insightly: RunningSandbox, parsed_criteria: list[object]) -> None:
    """They are parsed once for fields, multi-selects, relative dates, and all records."""
    recent = {"field": "DATE_UPDATED_UTC", "operator": "before", "value": "now"}
    criteria = {"any": [contains("Music"), recent, {"field": "UNKNOWN", "operator": "is_not_blank"}]}
    changes = [change(2, "France"), interested("Music;Sports"), interested("Sports")]
    operator = evaluating(task_id="e", changes=changes, criteria=criteria)
    parsed_criteria.clear()
    now = datetime(2024, 6, 1, tzinfo=timezone.utc)
    assert operator.execute(run_context(data_interval_end=now)) == changes[1:2]
    assert insightly.configure()["requests"] == {"GET /v3.1/CustomFields/Contacts": 1}
    assert parsed_criteria == [criteria]


def test_what_need_not_be_known_is_not_asked(insightly: RunningSandbox) -> None:
    """Requests are limited. There are none if no record has the field, or if the fields are given."""
    for changes, fields in (
        ([change(1, "France")], None),
        ([interested("Music")], ["Interests__c"]),
        ([], None),
    ):
        evaluating(
            task_id="e", changes=changes, criteria=contains("Music"), multi_select_fields=fields
        ).execute(run_context())
    assert insightly.configure()["requests"] == {}


def test_without_a_connection_the_text_tells(logged: Logged) -> None:
    """The changes may come from elsewhere. The log says that Insightly was not asked."""
    operator = evaluating(task_id="e", changes=[interested("Music;Sports")], criteria=contains("Sport"))
    assert operator.execute(run_context()) == []
    assert any("No connection 'insightly_default'" in m for m in logged.messages("warning"))


def test_an_outage_is_no_answer(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Multi-selects are not guessed while Insightly is unreachable: the task fails."""
    monkeypatch.setattr(InsightlyHook, "quick_retries", 0)
    connect("insightly_default", "insightly", host="http://127.0.0.1:9/v3.1", login="k")
    operator = evaluating(task_id="e", changes=[interested("Music")], criteria=contains("Music"))
    with pytest.raises(InsightlyUnreachable):
        operator.execute(run_context())


def test_a_value_of_another_type_is_warned_of_once(logged: Logged) -> None:
    """It counts as blank. The log names field and type, and not the value."""
    criteria = {"field": "ADDRESS_MAIL_COUNTRY", "operator": "greater_than", "value": 5}
    operator = evaluating(task_id="e", changes=CHANGES, criteria=criteria)
    assert operator.execute(run_context()) == []
    warnings = logged.messages("warning")
    assert len(warnings) == 1
    assert "ADDRESS_MAIL_COUNTRY holds a text" in warnings[0]
    assert "Spain" not in logged.text


def test_an_inactive_one_passes_nothing_on(logged: Logged) -> None:
    """The log says so."""
    operator = evaluating(task_id="e", changes=CHANGES, active=False)
    assert operator.execute(run_context()) == []
    assert "4 changes ignored: active is False" in logged.messages("info")


# --- until_triggered ---------------------------------------------------------------------------------------


def once(changes: list[Any], **arguments: Any) -> EvaluateCriteriaOperator:
    return evaluating(
        task_id="evaluate",
        changes=changes,
        criteria=FRANCE,
        until_triggered=True,
        record_type="Contacts",
        **arguments,
    )


def next_run(context: dict[str, Any]) -> dict[str, Any]:
    ti = TaskInstance(run_id=f"scheduled__{next(RUNS)}")
    return run_context(ti=ti, asset_state_store=context["asset_state_store"])


RUNS = itertools.count(2)


def ids(changes: list[Any]) -> list[int]:
    return [change["record_id"] for change in changes]


def test_a_record_triggers_once() -> None:
    """Later runs don't pass it on again. Other records are passed on."""
    context = run_context()
    assert ids(once(CHANGES[:2]).execute(context)) == [1]
    assert ids(once([change(2, "France"), *CHANGES]).execute(next_run(context))) == [2, 3]
    assert once(CHANGES).execute(next_run(context)) == []


def test_a_retry_and_a_cleared_task_let_through_the_same() -> None:
    """This holds whatever happened to the tasks that follow, so that no triggered record is lost."""
    context = run_context()
    assert ids(once(CHANGES).execute(context)) == [1, 3]
    assert ids(once(CHANGES).execute(context)) == [1, 3]
    assert ids(once(CHANGES).execute(next_run(context))) == []
    assert ids(once(CHANGES).execute(context)) == [1, 3]


def test_map_indexes_are_tasks_of_their_own() -> None:
    """One dies after its decision, which the next carries out. The first one's retry passes on the same."""
    context = run_context()
    memory = context["asset_state_store"][once([]).asset]
    first = TaskInstance()
    first.map_index = 0
    context["ti"] = first
    fuse = [2]  # the second write in all
    crashing = AssetStateStores({once([]).asset: CrashingStore(fuse, memory.values)})
    with pytest.raises(Killed):
        once(CHANGES[:1]).execute({**context, "asset_state_store": crashing})
    second = run_context(asset_state_store=context["asset_state_store"])
    second["ti"].map_index = 1
    assert ids(once([change(5, "France")]).execute(second)) == [5]
    assert ids(once(CHANGES[:1]).execute(context)) == [1]


def test_a_test_remembers_nothing() -> None:
    """A test passes on what would trigger, and the next run does the same."""
    context = run_context(dag_run=SimpleNamespace(run_type="manual", run_id="__airflow_temporary_run_1__"))
    assert ids(once(CHANGES).execute(context)) == [1, 3]
    assert context["asset_state_store"][once([]).asset].values == {}
    assert context["task_state_store"].values == {}
    assert ids(once(CHANGES).execute(next_run(context))) == [1, 3]


def test_dates_are_measured_from_the_window_of_the_same_map_index() -> None:
    """In a mapped task group, each index has a window of its own."""
    context = run_context()
    context["ti"].map_index = 1
    asked = []

    def pull(task_ids: str, key: str, map_indexes: int) -> Any:
        asked.append(map_indexes)
        return {"start": TEN.isoformat(), "end": TEN.isoformat()} if map_indexes == 1 else None

    context["ti"].xcom_pull = pull
    operator = evaluating(task_id="e", changes=[])
    operator.window_from = "detect"
    assert operator._now(context) == TEN
    context["ti"].map_index = 0
    with pytest.raises(InvalidCriteria):
        operator._now(context)
    assert asked == [1, 0, -1]


def test_a_record_that_changed_twice_within_a_run_triggers_once() -> None:
    """Only its first change that meets the criteria counts."""
    changes = [change(1, "Spain"), change(1, "France"), {**change(1, "France"), "event": "updated"}]
    assert once(changes).execute(run_context()) == [changes[1]]


def test_each_workflow_remembers_for_itself() -> None:
    """The memory belongs to the workflow's name, or else to DAG and task."""
    context = run_context()
    for workflow in (None, "a", "b"):
        assert ids(once(CHANGES, workflow=workflow).execute(next_run(context))) == [1, 3]
    keys = context["asset_state_store"][once([]).asset].values
    assert {"triggered/dag/task", "triggered/a", "triggered/b"} <= set(keys)


def test_what_a_run_let_through_outlasts_airflows_thirty_days() -> None:
    """A run that is cleared after months passes on the same records."""
    context = run_context()
    kept: list[Any] = []
    store = context["task_state_store"]
    context["task_state_store"] = SimpleNamespace(
        get=store.get,
        delete=store.delete,
        set=lambda k, v, retention=None: (kept.append(retention), store.set(k, v)),
    )
    once(CHANGES).execute(context)
    assert kept
    assert set(kept) == {NEVER_EXPIRE}


def test_nothing_is_remembered_while_inactive() -> None:
    """Changes of that time have not triggered."""
    context = run_context()
    once(CHANGES, active=False).execute(context)
    assert ids(once(CHANGES).execute(next_run(context))) == [1, 3]


def test_the_asset_that_remembers_is_an_inlet() -> None:
    """Otherwise Airflow gives no access to its state. The user's own inlets stay."""
    other = Asset(name="other", uri="x://other")
    assert once([], inlets=[other]).inlets == [other, records_asset("insightly_default", "Contacts")]


@pytest.mark.parametrize(
    ("arguments", "error"), [({}, ValueError), ({"record_type": "Contact"}, UnknownRecordType)]
)
def test_until_triggered_needs_a_record_type(arguments: dict[str, Any], error: type[Exception]) -> None:
    """It is refused when the DAG is parsed."""
    with pytest.raises(error):
        EvaluateCriteriaOperator(task_id="e", changes=[], until_triggered=True, **arguments)


@pytest.mark.parametrize("workflow", [None, "shared", "{{ ti.map_index }}"])
def test_until_triggered_in_a_mapped_task_group_needs_a_workflow(workflow: str | None) -> None:
    """It is refused when the DAG is parsed: by default its map indexes would share the remembered ids."""
    with DAG("dag", schedule=None):

        @task_group
        def of_city(city: Any) -> None:
            once([], workflow=workflow)

        if workflow is not None:
            of_city.expand(city=[1, 2])
        else:
            with pytest.raises(ValueError, match="share the remembered ids"):
                of_city.expand(city=[1, 2])


class Killed(BaseException):
    """A crash, as the code that it stops sees it."""


class CrashingStore(StateStore):
    """A state store that crashes before or after a write, when a shared counter says so."""

    def __init__(self, fuse: list[int], values: dict[str, str]) -> None:
        super().__init__()
        self.fuse = fuse
        self.values = values

    def _burn(self) -> None:
        self.fuse[0] -= 1
        if self.fuse[0] == 0:
            raise Killed

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self._burn()
        super().set(key, value)
        self._burn()

    def delete(self, key: str) -> None:
        self._burn()
        super().delete(key)
        self._burn()


@given(
    runs=st.lists(
        st.tuples(
            st.lists(st.integers(1, 6), max_size=5, unique=True),
            # When the tries of this run crash (0: never), and whether it is cleared once more at the end.
            st.lists(st.integers(0, 24), max_size=3),
            st.booleans(),
        ),
        max_size=6,
    )
)
@settings(max_examples=100, deadline=None)
def test_over_any_history_a_record_triggers_once_or_again_under_the_same_id(
    runs: list[tuple[list[int], list[int], bool]],
) -> None:
    """It crashes at any moment, is retried or given up, and is cleared afterwards."""
    memory: dict[str, str] = {}
    sent: dict[int, set[str]] = {}
    stored: list[tuple[dict[str, str], list[Any]]] = []

    def attempt(changes: list[Any], task_state: dict[str, str], run_id: str, crash_at: int) -> bool:
        fuse = [crash_at]
        assets = AssetStateStores()
        operator = once(changes)
        assets[operator.asset] = CrashingStore(fuse, memory)
        context = run_context(
            ti=TaskInstance(run_id=run_id),
            asset_state_store=assets,
            task_state_store=CrashingStore(fuse, task_state),
        )
        try:
            found = operator.execute(context)
        except Killed:
            return False
        for triggering in found:
            sent.setdefault(triggering["record_id"], set()).add(triggering["changed_at"])
        return True

    met: set[int] = set()
    for number, (records, crashes, _) in enumerate(runs):
        changes = [{**change(i, "France"), "changed_at": f"run {number}"} for i in records]
        task_state: dict[str, str] = {}
        stored.append((task_state, changes))
        if any(
            attempt(changes, task_state, f"run {number}", crash)
            for crash in [*crashes, *([0] if len(crashes) < 3 else [])]
        ):
            met.update(records)
    for number, (records, _, is_cleared) in enumerate(runs):
        if is_cleared:
            task_state, changes = stored[number]
            attempt(changes, task_state, f"run {number}", 0)
            met.update(records)
    assert all(len(times) == 1 for times in sent.values())
    # Every record that met the criteria in a finished run has triggered, or a run that was given up
    # has passed it on. That run is marked as failed, and sends it when it is cleared.
    for number, (_, changes) in enumerate(stored):
        if {c["record_id"] for c in changes} & (met - set(sent)):
            attempt(changes, stored[number][0], f"run {number}", 0)
    assert all(len(times) == 1 for times in sent.values())
    assert met <= set(sent)

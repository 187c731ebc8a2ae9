"""What Airflow stores and shows of changes, payloads and URIs: counts and ids, never contents."""

from __future__ import annotations

import json
import traceback
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.execution_time.task_runner import _serialize_rendered_fields
from airflow.serialization.serialized_objects import DagSerialization

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.operators.common.redacted_arguments import Redacted, RedactedUri, unredacted
from airflow_insightly_hooks.operators.criteria import EvaluateCriteriaOperator
from airflow_insightly_hooks.operators.one_task.delivery_settings import with_arguments
from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.operators.pending import ScheduleWebhooksOperator
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator
from airflow_insightly_hooks.workflows.dag import _pending_dag as pending_dag
from tests.conftest import Logged, run_context

SECRET = "Secret-of-a-record"
PASSWORD = "Pa55-of-the-tests"
TOKEN = "T0ken-of-the-tests"
URI = f"https://user:{PASSWORD}@receiver.example.com/hook?token={TOKEN}"
WORKFLOW_URI = f"https://receiver.example.com/hook?token={TOKEN}"
TEMPLATED = "{{ 7 * 7 }}"

CHANGES = [
    {
        "record_type": record_type,
        "record_id": number,
        "event": "added",
        "changed_at": "2017-03-10T08:00:00Z",
        "record": {"TITLE": f"{SECRET} {TEMPLATED}"},
    }
    for record_type, number in [("Contacts", 1), ("Tasks", 2), ("Contacts", 3)]
]
PAYLOADS = [
    {
        "message_id": f"msg_{number}",
        "record_type": "Contacts",
        "record_id": number,
        "event": "added",
        "changed_at": "2017-03-10T08:00:00Z",
        "body": json.dumps({"entity": {"TITLE": f"{SECRET} {TEMPLATED}"}}),
    }
    for number in range(50)
]

OPERATORS: list[tuple[type[BaseOperator], str, list[dict[str, Any]]]] = [
    (EvaluateCriteriaOperator, "changes", CHANGES),
    (BuildPayloadOperator, "changes", CHANGES),
    (WebhookOperator, "payloads", PAYLOADS),
]
WORKFLOW = Workflow(
    name="w",
    record_type="Contacts",
    webhooks=[Webhook(name="w", uri=WORKFLOW_URI, headers={"X-Api-Key": SECRET})],
)
by_operator = pytest.mark.parametrize(("operator", "field", "value"), OPERATORS)


class Upstream(BaseOperator):
    """A task whose output a test puts into the context."""

    def execute(self, context: Any) -> None:
        raise NotImplementedError


def pulling(value: Any, **entries: Any) -> dict[str, Any]:
    """Return a context in which every upstream task's output is ``value``."""
    context = run_context(**entries)
    context["ti"].xcom_pull = lambda *_, **__: value
    return context


def assert_redacted(shown: object) -> None:
    text = json.dumps(shown, default=str)
    for secret in (SECRET, PASSWORD, TOKEN, "user:"):
        assert secret not in text


# --- ordinary tasks --------------------------------------------------------------------------------------


@by_operator
def test_literal_values(operator: type[BaseOperator], field: str, value: list[dict[str, Any]]) -> None:
    """Literal values are shown as a count and the first ids."""
    task = operator(task_id="task", **{field: value})
    task.render_template_fields(run_context())
    shown = _serialize_rendered_fields(task)
    assert_redacted(shown)
    assert shown[field]["count"] == len(value)
    assert shown[field]["first_record_ids"]["Contacts"][0] == value[0]["record_id"]
    assert sum(len(ids) for ids in shown[field]["first_record_ids"].values()) <= 20
    assert unredacted(getattr(task, field)) == value


@by_operator
def test_output_of_another_task(
    operator: type[BaseOperator], field: str, value: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another task's output makes a dependency, is passed on exactly, and is shown as a count and ids."""
    with DAG("dag", schedule=None):
        upstream = Upstream(task_id="upstream")
        task = operator(task_id="task", **{field: upstream.output})
    assert task.upstream_task_ids == {"upstream"}
    monkeypatch.setattr(type(upstream.output), "resolve", lambda *_: value)
    task.render_template_fields(run_context())
    shown = _serialize_rendered_fields(task)
    assert_redacted(shown)
    assert shown[field]["count"] == len(value)
    assert unredacted(getattr(task, field)) == value


@by_operator
def test_dependency_on_a_later_assignment(
    operator: type[BaseOperator], field: str, value: list[dict[str, Any]]
) -> None:
    """Assigning another task's output to the field also makes the dependency."""
    with DAG("dag", schedule=None):
        task = operator(task_id="task", **{field: value})
        setattr(task, field, Upstream(task_id="upstream").output)
    assert task.upstream_task_ids == {"upstream"}


@by_operator
def test_mapped_task(
    operator: type[BaseOperator], field: str, value: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mapped task passes its chunk on exactly, renders no templates in it, and shows a count and ids."""
    from airflow.sdk.definitions._internal.expandinput import DictOfListsExpandInput

    with DAG("dag", schedule=None) as dag:
        upstream = Upstream(task_id="upstream")
        mapped = operator.partial(task_id="task").expand(**{field: upstream.output})
    assert mapped.upstream_task_ids == {"upstream"}
    # Airflow itself renders nothing in an upstream's output; here the task is told that it isn't one.
    monkeypatch.setattr(DictOfListsExpandInput, "resolve", lambda *_: ({field: value}, set()))
    context = run_context(dag=dag, dag_run=SimpleNamespace(conf={}))
    mapped.render_template_fields(context)
    task = context["ti"].task
    assert type(task) is operator
    shown = _serialize_rendered_fields(task)
    assert_redacted(shown)
    assert shown[field]["count"] == len(value)
    assert unredacted(getattr(task, field)) == value


def test_template_is_rendered() -> None:
    """A template in the field itself is rendered, and its result is redacted."""
    with DAG("dag", schedule=None, render_template_as_native_obj=True):
        task = WebhookOperator(task_id="task", payloads="{{ payloads }}")
    task.render_template_fields(run_context(payloads=PAYLOADS))
    shown = _serialize_rendered_fields(task)
    assert_redacted(shown)
    assert shown["payloads"]["count"] == 50
    assert unredacted(task.payloads) == PAYLOADS


# --- URIs ------------------------------------------------------------------------------------------------


def test_uri() -> None:
    """A URI is used with user information and query, and shown without them."""
    task = WebhookOperator(task_id="task", payloads=[], uri=URI)
    task.render_template_fields(run_context())
    assert _serialize_rendered_fields(task)["uri"] == "https://receiver.example.com/hook"
    assert unredacted(task.uri) == URI
    assert_redacted(repr(task.uri))


@pytest.mark.parametrize("mapped", [False, True])
def test_templated_uri(mapped: bool) -> None:
    """A URI's template is rendered for each task separately. The result is withheld."""
    with DAG("dag", schedule=None):
        if mapped:
            partial = WebhookOperator.partial(task_id="task", uri="{{ receiver }}").expand(payloads=[[], []])
            tasks = [partial.unmap({"payloads": []}) for _ in range(2)]
        else:
            tasks = [
                WebhookOperator(task_id=f"task_{n}", payloads=[], uri="{{ receiver }}") for n in range(2)
            ]
    for task, number in zip(tasks, "12", strict=True):
        task.render_template_fields(run_context(receiver=URI + number))
        assert unredacted(task.uri) == URI + number
        assert_redacted(_serialize_rendered_fields(task))


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://receiver.example.com/hook", "https://receiver.example.com/hook"),
        (f"https://user:{PASSWORD}@receiver.example.com", "https://receiver.example.com/"),
        (f"https://u:a@{PASSWORD}@receiver.example.com", "https://receiver.example.com/"),
        (f"https://receiver.example.com/hook?t={TOKEN}#{TOKEN}", "https://receiver.example.com/hook"),
        (f"https://u:{PASSWORD}\n{PASSWORD}@receiver.example.com", "***"),
        (f"u:{PASSWORD}@receiver.example.com", "***"),
        (f"https:/u:{PASSWORD}@receiver.example.com", "***"),
        ("{{ var.value.receiver }}", "{{ var.value.receiver }}"),
        (f"https://{{{{ host }}}}/hook?token={TOKEN}", "https://{{ host }}/hook"),
        (f"https://{{{{ host }}}}/hook?token={TOKEN}&run={{{{ run_id }}}}", "https://{{ host }}/hook"),
        (f"{{{{ var.value.receiver }}}}#{TOKEN}", "{{ var.value.receiver }}"),
        ("https://{{ 'a?b' }}/{% if x %}y{% endif %}?{{ z }}", "https://{{ '***' }}/{% if x %}y{% endif %}"),
        (
            f"{{{{ var.value.get('receiver', 'https://u:{PASSWORD}@h/?t={TOKEN}') }}}}",
            "{{ var.value.get('***', '***') }}",
        ),
        (f'{{{{ "{TOKEN}\\"{PASSWORD}" }}}}', "{{ '***' }}"),
        (f"{{{{ '{TOKEN} }}}}", "{{ '***'"),
        (f"{{{{ x, '{TOKEN}", "{{ x, '***'"),
        (f"https://h/{{# {TOKEN} #}}{{{{ path }}}}", "https://h/{{ path }}"),
        (f"https://u:{PASSWORD[:4]}?{PASSWORD}@{{{{ host }}}}/", "***"),
        (f"https://u:{PASSWORD}@{{{{ host }}}}/", "***"),
    ],
)
def test_shown_uri(uri: str, shown: str) -> None:
    """A usable URI is shown with scheme, host and path. A template is shown if it has no '@'.

    Others are hidden.
    """
    assert RedactedUri(uri).serialize() == shown


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("wrong", ["{{ nothing.at.all }}", "{{ 'x", "{{ x y }}"])
def test_a_template_that_cannot_be_rendered(wrong: str, mapped: bool, logged: Logged) -> None:
    """Airflow logs the template. Neither the log nor the error has the token in it."""
    uri = f"https://receiver.example.com/{{# {TOKEN} #}}{wrong}?token={TOKEN}"
    with DAG("dag", schedule=None) as dag:
        if mapped:
            task: Any = (
                WebhookOperator.partial(task_id="task", uri=uri).expand(payloads=[[]]).unmap({"payloads": []})
            )
        else:
            task = WebhookOperator(task_id="task", payloads=[], uri=uri)
    with pytest.raises(Exception) as caught:  # noqa: PT011 — Jinja's own, or ours
        task.render_template_fields(run_context(dag=dag, task=task))
    assert "Exception rendering Jinja template for task" in logged.text
    assert_redacted(logged.text)
    assert_redacted("".join(traceback.format_exception(caught.value)).replace(__file__, ""))


def test_the_dags_macros_are_there() -> None:
    """A URI's template can use the same macros as the task's other templates."""
    with DAG("dag", schedule=None, user_defined_macros={"receiver": lambda: URI}):
        task = WebhookOperator(task_id="task", payloads=[], uri="{{ receiver() }}")
    task.render_template_fields(run_context(task=task))
    assert unredacted(task.uri) == URI


# --- the serialized DAG ----------------------------------------------------------------------------------


def test_serialized_dag() -> None:
    """The DAG that Airflow stores has no contents, no credentials and no header's value."""
    headers = {"X-Api-Key": SECRET}
    with DAG("dag", schedule=None) as dag:
        evaluate = EvaluateCriteriaOperator(task_id="evaluate", changes=CHANGES)
        build = BuildPayloadOperator(task_id="build", changes=CHANGES, chunk_size=1)
        WebhookOperator(task_id="deliver", payloads=PAYLOADS, uri=URI, headers=headers)
        WebhookOperator.partial(task_id="mapped", uri=URI, headers=headers).expand(payloads=build.output)
        WebhookOperator.partial(task_id="shared", payloads=PAYLOADS).expand(webhook_conn_id=["a", "b"])
        evaluate >> build
    stored = DagSerialization.to_dict(dag)
    DagSerialization.validate_schema(stored)
    assert_redacted(stored)
    assert "'count': 50" in json.dumps(stored) or '"count": 50' in json.dumps(stored)
    assert DagSerialization.to_dict(dag) == stored
    again = DagSerialization.from_dict(stored)
    assert again.get_task("mapped").upstream_task_ids == {"build"}
    assert again.get_task("deliver").has_retry_policy
    assert again.get_task("mapped").has_retry_policy


TIME_TRIGGERS = {"time_triggers": [("w", timedelta(days=1))]}


@pytest.mark.parametrize(
    ("operator", "shared", "mapped"),
    [
        (EvaluateCriteriaOperator, {"changes": CHANGES}, {"criteria": [None, None]}),
        (EvaluateCriteriaOperator, {"changes": tuple(CHANGES)}, {"criteria": [None, None]}),
        (BuildPayloadOperator, {"changes": CHANGES}, {"envelope": ["a", "b"]}),
        (ScheduleWebhooksOperator, {"changes": CHANGES, **TIME_TRIGGERS}, {"pending_dag_id": ["a", "b"]}),
        (WebhookOperator, {"payloads": PAYLOADS}, {"webhook_conn_id": ["a", "b"]}),
        (WebhookOperator, {"payloads": tuple(PAYLOADS)}, {"webhook_conn_id": ["a", "b"]}),
        (WebhookOperator, {"uri": URI, "headers": {"X-Api-Key": SECRET}}, {"payloads": [[], []]}),
        (WebhookOperator, {"uri": f"https://{{{{ host }}}}/?token={TOKEN}"}, {"payloads": [[], []]}),
        (InsightlyWorkflowOperator, {"workflow": WORKFLOW}, {"batch_size": [1, 2]}),
    ],
    ids=lambda value: getattr(value, "__name__", None) or "+".join(value),
)
def test_literal_arguments_of_partial(
    operator: Any, shared: dict[str, Any], mapped: dict[str, list[Any]]
) -> None:
    """The DAG that Airflow stores doesn't show their contents. The mapped tasks get them."""
    with DAG("dag", schedule=None) as dag:
        task = operator.partial(task_id="task", **shared).expand(**mapped)
    stored = DagSerialization.to_dict(dag)
    assert_redacted(stored)
    DagSerialization.from_dict(stored)
    made = task.unmap({name: values[0] for name, values in mapped.items()})
    for name, value in shared.items():
        if name == "workflow":  # Airflow gives mapped tasks a number of retries, which goes over the keys
            value = with_arguments(value, retries=made.retries)
        if name != "time_triggers":
            assert unredacted(getattr(made, name)) == value


def test_templates_and_outputs_of_partial() -> None:
    """Values that are still to be rendered are passed on unchanged."""
    with DAG("dag", schedule=None) as dag:
        upstream = Upstream(task_id="upstream")
        task = EvaluateCriteriaOperator.partial(task_id="a", changes=upstream.output).expand(criteria=[None])
        EvaluateCriteriaOperator.partial(task_id="b", changes="{{ changes }}").expand(criteria=[None])
    assert task.upstream_task_ids == {"upstream"}
    assert "{{ changes }}" in json.dumps(DagSerialization.to_dict(dag))


@pytest.mark.parametrize("uri", [WORKFLOW_URI, f"https://{{{{ host }}}}/{{{{ path }}}}?token={TOKEN}"])
def test_a_workflows_webhooks(uri: str) -> None:
    """The DAGs of a workflow contain neither a URI's query or user information nor headers."""
    webhook = {"uri": uri, "headers": {"X-Api-Key": SECRET}}
    webhooks = [{"name": "now", **webhook}, {"name": "later", "after": "1d", **webhook}]
    made = Workflow(name="w", record_type="Contacts", schedule=None, webhooks=webhooks)  # type: ignore[arg-type]
    assert_redacted(repr(made))
    with DAG("group", schedule=None) as group:
        made.task_group()
    for dag in (made.to_dag(), pending_dag(made), group):
        stored = DagSerialization.to_dict(dag)
        assert_redacted(stored)
        assert "deliver" in json.dumps(stored)


def test_shared_arguments_of_mapped_tasks() -> None:
    """Values that are withheld from the stored DAG still reach the mapped tasks."""
    with DAG("dag", schedule=None):
        partial = WebhookOperator.partial(
            task_id="shared", payloads=PAYLOADS, uri=URI, headers={"X-Api-Key": SECRET}
        )
        task = partial.expand(concurrency=[1, 2]).unmap({"concurrency": 2})
    assert (unredacted(task.payloads), unredacted(task.uri)) == (PAYLOADS, URI)
    assert (task.headers, task.concurrency) == ({"X-Api-Key": SECRET}, 2)


# --- the wrappers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "count"),
    [([], 0), ((), 0), ([1, "x", None], 3), ("text", 0), (5, 0), ({"a": 1}, 0), ([{"record_id": 1}], 1)],
)
def test_anything_can_be_withheld(value: Any, count: int) -> None:
    """Any value that is assigned by mistake is withheld, too."""
    wrapper = Redacted(value)
    assert wrapper.serialize()["count"] == count
    assert repr(wrapper).startswith("<{'count': ")
    task = WebhookOperator(task_id="task", payloads=value)
    assert unredacted(task.payloads) == value


def test_none_stays_none() -> None:
    """``None`` and values that are still to be rendered are not wrapped."""
    task = WebhookOperator(task_id="task", payloads=None)
    assert task.payloads is None
    assert task.uri is None
    task.payloads = "{{ payloads }}"
    assert task.payloads == "{{ payloads }}"


def test_missing_attribute() -> None:
    """A field that was never assigned raises AttributeError, as other attributes do."""
    with pytest.raises(AttributeError):
        object.__new__(WebhookOperator).payloads  # noqa: B018 — the access is the test
    assert type(WebhookOperator.payloads).__name__ == "RedactedField"

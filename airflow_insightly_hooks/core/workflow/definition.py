"""The definition of a workflow, as on Insightly's screens: what to watch, when to trigger, what to send.

It is a value. It is made in Python, or read from a YAML file (``core.workflow.yaml_file``), and it is checked
completely when it is made. ``workflows.workflow`` makes Airflow's tasks from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from airflow_insightly_hooks.core.bounds import LONGEST_LOOKBACK, LONGEST_SETTLE
from airflow_insightly_hooks.core.criteria import check_criteria
from airflow_insightly_hooks.core.dates import api_time, parse_duration
from airflow_insightly_hooks.core.detection.changes import Event
from airflow_insightly_hooks.core.detection.cursor_name import check_cursor_name
from airflow_insightly_hooks.core.detection.late_changes import LOOKBACK
from airflow_insightly_hooks.core.records import RECORD_TYPES, RecordType
from airflow_insightly_hooks.core.suggestions import field_guess, schedule_guess
from airflow_insightly_hooks.core.workflow.dag_ids import PENDING_SUFFIX, RETRY_SUFFIX
from airflow_insightly_hooks.core.workflow.parts import AssetKey, FailureCallbackKey, Schedule, Webhook
from airflow_insightly_hooks.core.workflow.problems import Misplaced
from airflow_insightly_hooks.core.workflow.values import (
    DURATION_SCHEMA,
    LONGEST_ID,
    LONGEST_TAG,
    NO_EXTRA,
    GiveUpAfter,
    Model,
    Name,
    OnUndelivered,
    Retries,
    RetryDelay,
    slug_of,
)

__all__ = ["DELIVERY", "ONE_TASK", "ON_CHANGE", "Evaluate", "Mode", "WorkflowDefinition"]

Evaluate = Literal["created", "created_and_edited", "until_triggered"]
EVENTS_OF: Mapping[Evaluate, tuple[Event, ...]] = {
    "created": ("added",),
    "created_and_edited": ("added", "updated"),
    "until_triggered": ("added", "updated"),
}
Mode = Literal["tasks", "one_task"]
ONE_TASK: Mode = "one_task"
"""The mode of a workflow whose DAG has one task that does everything."""
DELIVERY = ("ordered", "on_undelivered", "undelivered_asset", "retries", "retry_delay", "give_up_after")
"""The delivery settings, which a webhook has, or else its workflow."""
NO_EVENT = "it needs on_undelivered: report, because a task that fails emits no event"
NO_SCHEDULE = (
    "it must be a cron expression, on_change, a mapping with cron, every, watch or on_change, or null to run "
    "by hand only"
)
MOST_RUNS = 10_000
ON_CHANGE = "on_change"
"""The schedule of a workflow that runs when there are changes."""


def _seconds(value: object) -> object:
    return parse_duration(value, "it").total_seconds() if isinstance(value, str) else value


def _schedule(value: object) -> object:
    if isinstance(value, Mapping):
        return Schedule.model_validate(value)
    if isinstance(value, str) and re.fullmatch(r"\w+", value.strip()) and value != ON_CHANGE:
        raise ValueError(f"{NO_SCHEDULE}{schedule_guess(value.strip())}")
    if value is None or isinstance(value, str | Schedule):
        return value
    raise ValueError(NO_SCHEDULE)


def _start(value: object) -> datetime:
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.replace(tzinfo=timezone.utc)
    return api_time(value, "it")


class WorkflowDefinition(Model):
    """A workflow process, as Insightly calls it, with its criteria and actions.

    :param name: the workflow's name.
    :param dag_id: the DAG's id; by default the name, in lower case and with underscores. The workflow's state
        and the ids of its messages depend on it.
    :param description: what the workflow is for; Airflow shows it on the DAG's page.
    :param record_type: a record type of Insightly's API, such as ``Contacts``, or a custom object
        (``Name__c``).
    :param active: whether the workflow is active. An inactive workflow ignores changes, and never sends them
        later. To only delay them, pause the DAG.
    :param dry_run: do everything except the POST, and don't remember which records have triggered. The cursor
        moves as usual. For a single run, use the run's param ``dry_run``.
    :param evaluate: which changes are evaluated: ``created``; ``created_and_edited``, each time;
        ``until_triggered``, created or edited, until a record has triggered once.
    :param criteria: what a record must meet; ``None`` is met by every record.
    :param webhooks: what is sent, where, and when.
    :param insightly_conn_id: a connection of type ``insightly``.
    :param schedule: when the workflow runs: a cron expression; ``on_change`` (when records change; Insightly
        is asked every 15 s); a ``Schedule``, for example to run when Insightly's webhooks announce changes;
        or ``None`` to run by hand only.
    :param mode: how the DAG does the work: ``tasks``, in several tasks that pass records on through XCom; or
        ``one_task``, in one task that reads, evaluates and delivers batch by batch, for large windows and
        backfills.
    :param start_date: the time from which intervals are read: an aware time, or a naive time in UTC. A
        schedule with data intervals needs it.
    :param settle: seconds (or a duration such as ``1m``) that must have passed since a window's end, by the
        API server's clock.
    :param lookback: seconds (or a duration such as ``15m``, at most a day) before its window that a run reads
        again. Changes that have become visible there since then are sent now, with their own times. 0: none.
    :param cursor: the name of the cursor, which holds the time up to which the workflow has read; ``None``:
        the detect task's own cursor. If the DAG is renamed, ``{old dag_id}/detect`` continues with the old
        cursor.
    :param tags: tags of the DAG, besides ``insightly``.
    :param max_active_runs: how many runs of the DAG may be active at once; ``None``: 16, or 1 in the mode
        ``one_task``.
    :param owner: the owner of the tasks.
    :param pool: the Airflow pool of the tasks of all of the workflow's DAGs; ``None``: Airflow's
        ``default_pool``.
    :param on_failure: what is called when a run of one of the workflow's DAGs has failed: the dotted path of
        a function or a notifier, or a mapping with ``callback`` and ``arguments``.
    :param ordered: whether a record's changes are sent one after another. This and the next five arguments
        are the defaults of the webhooks, which may have values of their own.
    :param on_undelivered: what happens when a payload stays undelivered: ``fail`` or ``report``.
    :param undelivered_asset: the asset that gets an event then, for webhooks with ``report``.
    :param retries: how often undelivered payloads are tried again.
    :param retry_delay: how long a retry waits at least: a duration such as ``5m``, or seconds.
    :param give_up_after: a try ends after this many failures in a row in which nothing could be sent; 0:
        never.
    :raises InvalidWorkflow: if it is not valid. The error has each problem with its path and what to do.
    """

    model_config = ConfigDict(**NO_EXTRA, title="Workflow")

    name: Name
    # Older versions of pydantic make this default even if the name is wrong. It must be a valid id then, so
    # that only the name is reported.
    dag_id: str = Field(default_factory=lambda data: slug_of(data.get("name", "none")), max_length=LONGEST_ID)
    description: str = ""
    record_type: str
    active: StrictBool = True
    dry_run: StrictBool = False
    evaluate: Evaluate = "created_and_edited"
    criteria: Any = None
    webhooks: list[Webhook] = Field(min_length=1)
    insightly_conn_id: Name = "insightly_default"
    schedule: Annotated[str | Schedule | None, BeforeValidator(_schedule)] = "*/5 * * * *"
    mode: Mode = "tasks"
    start_date: (
        Annotated[
            datetime,
            BeforeValidator(_start),
            WithJsonSchema({"type": "string", "examples": ["2026-01-31T08:00:00Z"]}),
        ]
        | None
    ) = None
    settle: Annotated[
        float,
        Field(ge=0, le=LONGEST_SETTLE, strict=True, allow_inf_nan=False),
        BeforeValidator(_seconds),
        WithJsonSchema(
            {"anyOf": [{"type": "number", "minimum": 0, "maximum": LONGEST_SETTLE}, DURATION_SCHEMA]}
        ),
    ] = 5.0
    lookback: Annotated[
        float,
        Field(ge=0, le=LONGEST_LOOKBACK, strict=True, allow_inf_nan=False),
        BeforeValidator(_seconds),
        WithJsonSchema(
            {"anyOf": [{"type": "number", "minimum": 0, "maximum": LONGEST_LOOKBACK}, DURATION_SCHEMA]}
        ),
    ] = LOOKBACK
    cursor: Annotated[str, AfterValidator(check_cursor_name)] | None = None
    tags: list[Annotated[Name, Field(max_length=LONGEST_TAG)]] = Field(default_factory=list)
    max_active_runs: Annotated[int, Field(ge=1, le=MOST_RUNS, strict=True)] | None = None
    owner: Name | None = None
    pool: Name | None = None
    on_failure: FailureCallbackKey | None = None
    ordered: StrictBool | None = None
    on_undelivered: OnUndelivered | None = None
    undelivered_asset: AssetKey | None = None
    retries: Retries | None = None
    retry_delay: RetryDelay | None = None
    give_up_after: GiveUpAfter | None = None

    @field_validator("record_type")
    @classmethod
    def _check_record_type(cls, name: str) -> str:
        try:
            RECORD_TYPES[name]
        except KeyError as error:
            raise ValueError(str(error)) from None
        return name

    @field_validator("evaluate")
    @classmethod
    def _check_evaluate(cls, evaluate: Evaluate, info: ValidationInfo) -> Evaluate:
        kind = _record_type(info)
        if kind is not None and evaluate != "created" and not kind.has_updates:
            raise ValueError(
                f"{kind.name} have no update time in Insightly's API: only 'created' can be evaluated"
            )
        return evaluate

    @field_validator("criteria")
    @classmethod
    def _check_criteria(cls, criteria: Any, info: ValidationInfo) -> Any:
        check_criteria(criteria, _record_type(info))
        return criteria

    @field_validator("dag_id")
    @classmethod
    def _check_dag_id(cls, dag_id: str) -> str:
        for suffix, what in ((PENDING_SUFFIX, "time triggers"), (RETRY_SUFFIX, "receivers that are down")):
            if dag_id.endswith(suffix):
                raise ValueError(
                    f"the ending {suffix!r} is reserved for DAGs that send webhooks of {what}: use another"
                )
        if not re.fullmatch(r"[\w.-]+", dag_id):
            raise ValueError(
                "it must consist of letters, digits, '_', '-' and '.': give a dag_id, or a name with letters"
            )
        return dag_id

    @model_validator(mode="after")
    def _check(self) -> WorkflowDefinition:
        kind = RECORD_TYPES[self.record_type]
        seen: dict[str, str] = {}
        for index, webhook in enumerate(self.webhooks):
            path = f"webhooks[{index}]"
            if webhook.slug in seen:
                raise Misplaced(
                    f"{path}.name",
                    f"{webhook.name!r} is too similar to {seen[webhook.slug]!r}: their task ids must differ",
                )
            seen[webhook.slug] = webhook.name
            if webhook.undelivered_asset is not None and not self._is_reported(webhook):
                raise Misplaced(f"{path}.undelivered_asset", NO_EVENT)
            for number, name in enumerate(webhook.fields or ()):
                _check_field(kind, name, f"{path}.fields[{number}]")
            if webhook.field is not None:
                _check_field(kind, webhook.field, f"{path}.field")
                if webhook.field in kind.fields and webhook.field not in kind.date_fields:
                    raise Misplaced(f"{path}.field", f"{webhook.field} is not a date field")
        if self.undelivered_asset is not None and not any(map(self._is_reported, self.webhooks)):
            raise Misplaced("undelivered_asset", NO_EVENT)
        if isinstance(self.schedule, Schedule) and self.schedule.data_interval and self.start_date is None:
            raise Misplaced(
                "start_date", "it is needed, because intervals are read from this time on: give one"
            )
        return self

    @property
    def events(self) -> tuple[Event, ...]:
        """The changes that are evaluated."""
        return EVENTS_OF[self.evaluate]

    @property
    def slug(self) -> str:
        """The name as a part of Airflow's ids."""
        return slug_of(self.name)

    def delivery_of(self, webhook: Webhook) -> dict[str, Any]:
        """Return the delivery settings of a webhook, by the names of ``WebhookOperator``'s arguments.

        Settings that neither the webhook nor the workflow has are left out.
        """
        said = {name: getattr(webhook, name) for name in DELIVERY}
        said = {name: getattr(self, name) if value is None else value for name, value in said.items()}
        if not self._is_reported(webhook):
            del said["undelivered_asset"]
        return {name: value for name, value in said.items() if value is not None}

    def with_delivery(self, said: Mapping[str, Any]) -> WorkflowDefinition:
        """Return the workflow with other delivery settings for itself and all of its webhooks.

        :param said: the settings, by the names in ``DELIVERY``; they aren't checked.
        """
        if not said:
            return self
        webhooks = [webhook.model_copy(update=said) for webhook in self.webhooks]
        return self.model_copy(update={**said, "webhooks": webhooks})

    def _is_reported(self, webhook: Webhook) -> bool:
        """Return whether the webhook's task succeeds although a payload stays undelivered."""
        return (webhook.on_undelivered or self.on_undelivered) == "report"

    def message_scope(self, webhook: Webhook) -> str:
        """Return what the ids of a webhook's messages depend on besides the change."""
        return f"{self.dag_id}/{webhook.name}"


def _record_type(info: ValidationInfo) -> RecordType | None:
    """Return the record type; ``None`` if it is not valid itself."""
    name = info.data.get("record_type")
    return RECORD_TYPES[name] if name is not None else None


def _check_field(kind: RecordType, name: str, path: str) -> None:
    if name not in kind.fields and name not in kind.date_fields and not name.endswith("__c"):
        raise Misplaced(path, f"{kind.name} have no field {name!r}{field_guess(name, kind.fields)}")

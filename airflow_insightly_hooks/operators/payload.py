"""Building payloads from changes: the exact bodies that are POSTed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_insightly_hooks.core.bounds import check_whole
from airflow_insightly_hooks.core.dates import time_zone
from airflow_insightly_hooks.core.detection.changes import RecordChange, check_changes, checked_change
from airflow_insightly_hooks.core.detection.storable_changes import exact_record
from airflow_insightly_hooks.core.payload import (
    DateFormat,
    Payload,
    build_payload,
    check_date_format,
    why_undeliverable,
)
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.core.records import CUSTOM_FIELDS
from airflow_insightly_hooks.core.templates import is_template
from airflow_insightly_hooks.operators.common.field_checks import (
    custom_dates_of,
    warn_of_unknown_fields,
)
from airflow_insightly_hooks.operators.common.payload_chunks import ChunkReference, push_chunks
from airflow_insightly_hooks.operators.common.redacted_arguments import (
    RedactedField,
    unredacted,
)
from airflow_insightly_hooks.runs.undeliverable import log_undeliverable

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.definitions.mappedoperator import OperatorPartial

__all__ = ["BuildPayloadOperator"]


class BuildPayloadOperator(BaseOperator):
    """Builds a payload for each change: the body of its webhook and the id of its message.

    :param changes: the output of a sensor, or of ``EvaluateCriteriaOperator``.
    :param fields: the names of the fields to send, in this order; custom fields are allowed. ``None`` sends
        the record as the API delivers it, as Insightly does.
    :param date_format: ``microsoft`` writes dates as Insightly's webhooks do; or ``iso8601``.
    :param timezone: the IANA time zone whose offset Microsoft JSON dates show.
    :param envelope: the key that holds the fields; an empty text puts the fields at the top.
    :param chunk_size: the most payloads in a list. The output is then a list of lists, to
        ``.expand(payloads=…)`` over. ``None`` makes one list.
    :param separate_chunks: whether each chunk has an XCom of its own (``chunk_0`` and so on), so that a
        mapped task reads its own chunk only, and not the chunks of all tasks. Needs ``chunk_size``.
        ``False`` by default.
    :param workflow: the name that message ids are made from, with the record, the event and the time of the
        change. ``None`` takes the DAG's id, the task's id and, in a mapped task
        group, the map index.
    :param custom_date_fields: the names of custom fields that hold dates. ``None`` asks Insightly once for
        each record type, and only if records have custom fields that are not empty. Insightly also says which
        of them have no time of day: these are written as days.
    :param insightly_conn_id: the connection to ask.
    :raises ValueError: if an argument is not as described here, when the DAG is parsed.
    :raises ZoneInfoNotFoundError: if the time zone does not exist, when the DAG is parsed.
    :raises InvalidChange: if ``changes`` is not a list of changes.
    :raises InsightlyAPIError: if Insightly can't be asked for its custom fields.

    XCom: a list of payloads ``{"message_id", "record_type", "record_id", "event", "changed_at", "body"}``, or
    with ``chunk_size`` a list of lists of them. With ``separate_chunks``, a list of references to the chunks,
    which ``WebhookOperator`` takes as ``payloads``. If no body can be built for a change, an error is logged,
    and an entry without a body takes the payload's place. It is never sent, and has the reason under
    ``undeliverable``. The deliver task reports it, and fails after sending the others.
    """

    template_fields = ("changes", "fields", "envelope", "workflow")
    ui_color = "#f3ecd8"

    changes = RedactedField()

    def __init__(
        self,
        *,
        changes: Any,
        fields: Sequence[str] | None = None,
        date_format: DateFormat = "microsoft",
        timezone: str = "America/Los_Angeles",
        envelope: str = "entity",
        chunk_size: int | None = None,
        separate_chunks: bool = False,
        workflow: str | None = None,
        custom_date_fields: Sequence[str] | None = None,
        insightly_conn_id: str = "insightly_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.changes = changes
        self.fields = fields
        self.date_format = date_format
        self.timezone = timezone
        self.envelope = envelope
        self.chunk_size = chunk_size
        self.separate_chunks = separate_chunks
        self.workflow = workflow
        self.custom_date_fields = custom_date_fields
        self.insightly_conn_id = insightly_conn_id
        check_date_format(date_format)
        time_zone(timezone)
        if chunk_size is not None:
            check_whole("chunk_size", chunk_size, at_least=1)
        elif separate_chunks:
            raise ValueError("separate_chunks needs chunk_size")
        for name, value in (("fields", fields), ("custom_date_fields", custom_date_fields)):
            if isinstance(value, str) and not is_template(value):
                raise ValueError(f"{name} must be a list of names, not one text")

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """Take the arguments that all mapped tasks share. The serialized DAG shows no records in them."""
        return super().partial(**RedactedField.in_partial(cls, kwargs))

    def execute(self, context: Context) -> list[Payload] | list[list[Payload]] | list[ChunkReference]:
        """Return the payloads."""
        changes = [checked_change(change) for change in check_changes(unredacted(self.changes))]
        if isinstance(self.fields, str):
            raise ValueError(
                "fields must be a list of names: its template needs the DAG's render_template_as_native_obj"
            )
        warn_of_unknown_fields(self.log, changes, self.fields or ())
        task = context.get("ti") or self
        workflow = self.workflow or self._default_workflow(task)
        custom_dates = self._custom_dates(changes)
        payloads = [
            self._payload(change, workflow, custom_dates[change["record_type"]]) for change in changes
        ]
        log_undeliverable(self.log, payloads)
        sizes = [len(payload["body"]) for payload in payloads if why_undeliverable(payload) is None]
        self.log.info("%s built, %s in all", counted(len(sizes), "payload"), counted(sum(sizes), "character"))
        if self.chunk_size is None:
            return payloads
        chunks = [payloads[i : i + self.chunk_size] for i in range(0, len(payloads), self.chunk_size)]
        return push_chunks(context["ti"], chunks) if self.separate_chunks else chunks

    def _default_workflow(self, task: Any) -> str:
        """Return the name that message ids are made from: DAG, task, and in a mapped task group map index."""
        default = f"{task.dag_id}/{task.task_id}"
        map_index = getattr(task, "map_index", None)
        # The map indexes of a mapped task share one window's changes. Those of a task group are workflows.
        is_of_group = map_index is not None and map_index >= 0 and self.get_closest_mapped_task_group()
        return f"{default}/{map_index}" if is_of_group else default

    def _payload(self, change: RecordChange, workflow: str, custom_dates: dict[str, Any]) -> Payload:
        return build_payload(
            change,
            workflow,
            exact_record(change),
            envelope=self.envelope,
            date_format=self.date_format,
            timezone=self.timezone,
            fields=self.fields,
            **custom_dates,
        )

    def _custom_dates(self, changes: list[RecordChange]) -> dict[str, dict[str, Any]]:
        """Return ``build_body``'s arguments about custom fields that hold dates, by record type."""
        record_types = {change["record_type"] for change in changes}
        if self.custom_date_fields is not None:
            named = {"custom_date_fields": frozenset(self.custom_date_fields)}
            return dict.fromkeys(record_types, named)
        # requests is loaded in the worker only, so that DAGs parse fast.
        from airflow_insightly_hooks.hooks.insightly import InsightlyHook

        hook = InsightlyHook(self.insightly_conn_id)
        with_custom_fields = {c["record_type"] for c in changes if c["record"].get(CUSTOM_FIELDS)}
        return {
            record_type: custom_dates_of(hook.custom_fields(record_type))
            if record_type in with_custom_fields
            else {}
            for record_type in record_types
        }

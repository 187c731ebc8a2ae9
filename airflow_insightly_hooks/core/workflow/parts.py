"""The parts of a workflow: ``Webhook``, ``Schedule``, and the settings for failures."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool, field_validator, model_validator

from airflow_insightly_hooks.core.bounds import MOST_CONCURRENT, SHORTEST_POLL
from airflow_insightly_hooks.core.payload import DateFormat
from airflow_insightly_hooks.core.templates import has_literal_user_information
from airflow_insightly_hooks.core.workflow.problems import Misplaced
from airflow_insightly_hooks.core.workflow.values import (
    NO_EXTRA,
    Duration,
    GiveUpAfter,
    Model,
    Name,
    OnUndelivered,
    Retries,
    RetryDelay,
    Text,
    Zone,
    slug_of,
)

__all__ = ["AssetKey", "FailureCallback", "FailureCallbackKey", "Schedule", "UndeliveredAsset", "Webhook"]


IN_CLEAR = (
    "the URI must not hold a user name or a password in clear: put them into a connection (conn_id), or take "
    "the URI from a template such as {{ var.value.receiver }}"
)


class UndeliveredAsset(Model):
    """The asset that gets an event when a payload stays undelivered.

    :param name: the asset's name; by default the URI.
    :param uri: the asset's URI; by default the name. It must not hold secrets.
    :raises InvalidWorkflow: if neither is given.
    """

    model_config = NO_EXTRA

    name: Name | None = None
    uri: Name | None = None

    @model_validator(mode="after")
    def _check(self) -> UndeliveredAsset:
        if self.name is None and self.uri is None:
            raise ValueError("a name or a uri is needed")
        if self.uri is not None and has_literal_user_information(self.uri):
            raise Misplaced("uri", "it must not hold a user name or a password: remove them")
        return self


class FailureCallback(Model):
    """The function or notifier that is called when a run of the workflow's DAGs has failed.

    :param callback: the dotted path of a notifier's class, or of a function that is called with the run's
        context: ``my_package.alerts.tell``.
    :param arguments: the notifier's arguments, or the function's arguments besides the context, by name. They
        must not hold secrets.
    :raises InvalidWorkflow: if the path is not valid.
    """

    model_config = NO_EXTRA

    callback: Name
    arguments: dict[str, Any] = Field(default_factory=dict, repr=False)

    @field_validator("callback")
    @classmethod
    def _check_callback(cls, path: str) -> str:
        if "." not in path or not all(step.isidentifier() for step in path.split(".")):
            raise ValueError("the dotted path of a function or a notifier is needed: my_package.alerts.tell")
        return path


def _or_text(name: str) -> Callable[[object], object]:
    """Return a function that makes a mapping with one key from a text."""
    return lambda value: {name: value} if isinstance(value, str) else value


AssetKey = Annotated[UndeliveredAsset, BeforeValidator(_or_text("name"))]
FailureCallbackKey = Annotated[FailureCallback, BeforeValidator(_or_text("callback"))]


class Webhook(Model):
    """One action of a workflow: a receiver, what it gets, and when.

    :param name: the webhook's name. The ids of its messages depend on it, so after a new name, changes may be
        sent again.
    :param conn_id: the receiver: a connection of type ``insightly_webhook``.
    :param uri: the receiver's URI, instead of ``conn_id``. It must not hold a user name or a password, which
        belong in a connection or a template. A template such as ``{{ var.value.receiver }}`` is rendered.
    :param fields: the names of the fields to send, in this order; ``None`` sends the record as it is.
    :param date_format: ``microsoft``, as Insightly's webhooks write dates, or ``iso8601``.
    :param timezone: the IANA zone whose offset Microsoft JSON dates show.
    :param envelope: the key of the object with the fields; with an empty text, the fields are at the top.
    :param headers: further HTTP headers. They must not hold secrets.
    :param concurrency: how many POSTs may run at once.
    :param ordered: whether a record's changes are sent one after another, in their order. Otherwise the order
        is not guaranteed. ``None``, here and in the next five arguments: the workflow's value, or else the
        default of ``WebhookOperator``.
    :param on_undelivered: what happens when a payload stays undelivered after the last attempt: with
        ``fail``, the task fails; with ``report``, it succeeds.
    :param undelivered_asset: the asset that gets an event then, if ``on_undelivered`` is ``report``: its
        name, or a mapping with ``name`` and ``uri``.
    :param retries: how often undelivered payloads are tried again.
    :param retry_delay: how long a retry waits at least: a duration such as ``5m``, or seconds.
    :param give_up_after: a try ends after this many failures in a row in which nothing could be sent; 0:
        never.
    :param pool: the Airflow pool of the tasks that send it, in all of the workflow's DAGs; ``None``: the pool
        of the workflow's other tasks. With one slot, only one task sends at a time, so the connection's
        ``requests_per_second`` applies to all workers together.
    :param after: how long after the trigger, or after the date in ``field``, to send it.
    :param before: how long before the date in ``field`` to send it.
    :param field: the date field from which ``after`` or ``before`` is measured. Alone, it is the time to
        send.
    :param recheck: send it at that time only if the record still meets the criteria.
    :raises InvalidWorkflow: if an argument is not valid.
    """

    model_config = NO_EXTRA

    name: Name
    conn_id: Name | None = None
    uri: Text | None = Field(None, repr=False)  # it may hold a password
    fields: list[Name] | None = Field(None, min_length=1)
    date_format: DateFormat = "microsoft"
    timezone: Zone = "America/Los_Angeles"
    envelope: str = "entity"
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    concurrency: int = Field(8, ge=1, le=MOST_CONCURRENT, strict=True)
    ordered: StrictBool | None = None
    on_undelivered: OnUndelivered | None = None
    undelivered_asset: AssetKey | None = None
    retries: Retries | None = None
    retry_delay: RetryDelay | None = None
    give_up_after: GiveUpAfter | None = None
    pool: Name | None = None
    after: Duration | None = None
    before: Duration | None = None
    field: Name | None = None
    recheck: StrictBool = False

    @model_validator(mode="after")
    def _check(self) -> Webhook:
        if (self.conn_id is None) == (self.uri is None):
            raise ValueError("one receiver is needed: give either conn_id or uri")
        if self.conn_id is not None and "://" in self.conn_id:
            raise Misplaced("conn_id", "it must be the id of a connection: give a URI as uri")
        if self.uri is not None and has_literal_user_information(self.uri):
            raise Misplaced("uri", IN_CLEAR)
        if self.after is not None and self.before is not None:
            raise Misplaced("before", "after and before can't be used together: give one of them")
        if self.before is not None and self.field is None:
            raise Misplaced("before", "it needs field, the name of the field with the date")
        if self.recheck and not self.is_timed:
            raise Misplaced("recheck", "it needs a time trigger: give after, before or field")
        return self

    @property
    def is_timed(self) -> bool:
        """Whether it is sent later than the trigger."""
        return self.after is not None or self.field is not None

    @property
    def slug(self) -> str:
        """The name as a part of Airflow's ids."""
        return slug_of(self.name)


class Schedule(Model):
    """When a workflow's DAG runs, if a cron expression is not enough.

    :param cron: a cron expression.
    :param every: the time from one run to the next.
    :param watch: run when there are changes; this is the time between two requests to Insightly.
    :param on_change: ``push``: run when Insightly's webhook announces a change. Insightly is also asked every
        15 minutes, or as often as ``watch`` says, for changes that no webhook has announced.
    :param data_interval: whether each run covers the interval between two times of the schedule, so that past
        intervals can be backfilled. Otherwise each run continues where the last one ended.
    :param timezone: the IANA zone of ``cron``.
    :raises InvalidWorkflow: if not exactly one of ``cron``, ``every``, ``watch`` and ``on_change`` is given.
        Only the last two may be given together.
    """

    model_config = NO_EXTRA

    cron: Name | None = None
    every: Duration | None = None
    watch: Duration | None = None
    on_change: Literal["push"] | None = None
    data_interval: StrictBool = False
    timezone: Zone = "UTC"

    @model_validator(mode="after")
    def _check(self) -> Schedule:
        kinds = ("cron", "every", "watch", "on_change")
        given = [name for name in kinds if getattr(self, name) is not None]
        if len(given) != 1 and given != ["watch", "on_change"]:
            raise ValueError(
                "give one of cron, every, watch and on_change (only the last two may be given together), "
                f"not {' and '.join(given) or 'none of them'}"
            )
        if self.wakes_on_change and self.data_interval:
            raise Misplaced("data_interval", "runs that changes start have no interval: use cron or every")
        for name in ("every", "watch"):
            if (length := getattr(self, name)) is not None and length <= timedelta(0):
                raise Misplaced(name, "it must be longer than 0")
        if self.watch is not None and self.watch.total_seconds() < SHORTEST_POLL:
            raise Misplaced("watch", f"it must be at least {SHORTEST_POLL} s")
        return self

    @property
    def wakes_on_change(self) -> bool:
        """Whether changes start the runs."""
        return self.watch is not None or self.on_change is not None

"""What a workflow consists of: ``Webhook``, ``Schedule``, and what is done about what stays undelivered."""

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
    "no user name and no password may stand here in clear: put them into a connection (conn_id), or take the "
    "URI from a template such as {{ var.value.receiver }}"
)


class UndeliveredAsset(Model):
    """The asset that gets an event when something stays undelivered.

    :param name: its name; by default the URI.
    :param uri: its URI; by default the name. No place for secrets.
    :raises InvalidWorkflow: if neither is given.
    """

    model_config = NO_EXTRA

    name: Name | None = None
    uri: Name | None = None

    @model_validator(mode="after")
    def _check(self) -> UndeliveredAsset:
        if self.name is None and self.uri is None:
            raise ValueError("a name is needed, or a uri")
        if self.uri is not None and has_literal_user_information(self.uri):
            raise Misplaced("uri", "no user name and no password may stand here")
        return self


class FailureCallback(Model):
    """What is called when a run of the workflow's DAGs has failed.

    :param callback: the dotted path of a notifier's class, or of a function, which is called with the run's
        context: ``my_package.alerts.tell``.
    :param arguments: what the notifier is made with, or what the function gets besides the context, by name;
        no place for secrets.
    :raises InvalidWorkflow: if the path is not one.
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
    """Return what takes a text for a mapping of one key."""
    return lambda value: {name: value} if isinstance(value, str) else value


AssetKey = Annotated[UndeliveredAsset, BeforeValidator(_or_text("name"))]
FailureCallbackKey = Annotated[FailureCallback, BeforeValidator(_or_text("callback"))]


class Webhook(Model):
    """One action of a workflow: a receiver, what it gets, and when.

    :param name: what it is called; the ids of its messages belong to it, so a new name sends anew.
    :param conn_id: the receiver: a connection of type ``insightly_webhook``.
    :param uri: the receiver's URI instead, without a user name and a password, which belong in a connection
        or a template; a template such as ``{{ var.value.receiver }}`` is rendered.
    :param fields: the names of the fields to send, in this order; ``None`` sends the record as it is.
    :param date_format: ``microsoft``, as Insightly's webhooks write dates, or ``iso8601``.
    :param timezone: the IANA zone whose offset Microsoft JSON dates show.
    :param envelope: the key under which the fields stand; an empty text puts them at the top.
    :param headers: further HTTP headers; no place for secrets.
    :param concurrency: how many POSTs are under way at once, at most.
    :param ordered: whether a record's changes are sent one after another, in their order; else no order is
        promised. ``None``, here and in the next five, takes what the workflow says, or else the default of
        ``WebhookOperator``.
    :param on_undelivered: what happens when something stays undelivered after the last attempt: ``fail``
        fails the task, ``report`` has it succeed.
    :param undelivered_asset: the asset that gets an event then, if ``on_undelivered`` is ``report``: its
        name, or a mapping with ``name`` and ``uri``.
    :param retries: how often what is undelivered is tried again.
    :param retry_delay: how long a retry waits at least: a duration such as ``5m``, or seconds.
    :param give_up_after: so many failures in a row in which nothing could be sent end a try; 0: never.
    :param pool: the Airflow pool of the tasks that send it, in all of the workflow's DAGs; ``None``: that of
        the workflow's other tasks. With one slot, one task at a time sends, and the connection's
        ``requests_per_second`` holds over all workers.
    :param after: send so long after the trigger, or after the date in ``field``.
    :param before: send so long before the date in ``field``.
    :param field: the date field that ``after`` or ``before`` is measured from; alone: at that date.
    :param recheck: send at that time only if the record still meets the criteria.
    :raises InvalidWorkflow: if an argument is none of these.
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
            raise ValueError("one receiver is needed: conn_id or uri")
        if self.conn_id is not None and "://" in self.conn_id:
            raise Misplaced("conn_id", "it is the id of a connection; a URI goes to uri")
        if self.uri is not None and has_literal_user_information(self.uri):
            raise Misplaced("uri", IN_CLEAR)
        if self.after is not None and self.before is not None:
            raise Misplaced("before", "after and before exclude one another")
        if self.before is not None and self.field is None:
            raise Misplaced("before", "it needs the field that holds the date")
        if self.recheck and not self.is_timed:
            raise Misplaced("recheck", "it belongs to a time trigger: after, before or field")
        return self

    @property
    def is_timed(self) -> bool:
        """Whether it is sent at a later time than that of the trigger."""
        return self.after is not None or self.field is not None

    @property
    def slug(self) -> str:
        """The name as an Airflow id holds it."""
        return slug_of(self.name)


class Schedule(Model):
    """When a workflow's DAG runs, where a cron line doesn't say it all.

    :param cron: a cron expression.
    :param every: a length of time, from run to run.
    :param watch: run when there are changes; Insightly is asked so often.
    :param on_change: ``push``: run when Insightly's webhook tells of a change. Insightly itself is asked
        every 15 minutes, or as often as ``watch`` says, for what no webhook has told of.
    :param data_interval: each run covers the interval between two times of the schedule, so that past
        intervals can be backfilled; else each goes on from where the last one ended.
    :param timezone: the IANA zone of ``cron``.
    :raises InvalidWorkflow: if not one of ``cron``, ``every``, ``watch`` and ``on_change`` is given; the last
        two go together.
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
                "one of cron, every, watch and on_change is needed (the last two go together), "
                f"not {' and '.join(given) or 'none'}"
            )
        if self.wakes_on_change and self.data_interval:
            raise Misplaced("data_interval", "runs that are woken by changes have no interval")
        for name in ("every", "watch"):
            if (length := getattr(self, name)) is not None and length <= timedelta(0):
                raise Misplaced(name, "it must be longer than nothing")
        if self.watch is not None and self.watch.total_seconds() < SHORTEST_POLL:
            raise Misplaced("watch", f"it must be at least {SHORTEST_POLL} s")
        return self

    @property
    def wakes_on_change(self) -> bool:
        """Whether changes start the runs."""
        return self.watch is not None or self.on_change is not None

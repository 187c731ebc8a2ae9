"""Which changes meet a workflow's criteria."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.bases.skipmixin import SkipMixin

from airflow_insightly_hooks.core.changes import RecordChange, check_changes
from airflow_insightly_hooks.core.criteria import compile_criteria, fields_of
from airflow_insightly_hooks.operators.fields import warn_of_unknown_fields
from airflow_insightly_hooks.operators.withheld import WithheldField, disclosed, is_template

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["EvaluateCriteriaOperator"]


class EvaluateCriteriaOperator(BaseOperator, SkipMixin):
    """Passes on the changes whose records meet the criteria; skips what follows when there are none.

    :param changes: a sensor's output: a list of changes.
    :param criteria: groups and conditions as ``core.criteria`` describes them; ``None`` is met by all.
        Without templates in them, they are checked when the DAG is parsed.
    :raises InvalidCriteria: if the criteria can't be compiled.
    :raises InvalidChange: if ``changes`` holds something else.

    XCom: the changes that meet the criteria, in their order.
    """

    template_fields = ("changes", "criteria")
    template_fields_renderers = {"criteria": "json"}  # noqa: RUF012 — Airflow declares it so
    ui_color = "#e8f0d8"
    inherits_from_skipmixin = True

    changes = WithheldField()

    def __init__(self, *, changes: Any, criteria: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.changes = changes
        self.criteria = criteria
        if not _has_templates(criteria):
            compile_criteria(criteria)

    def execute(self, context: Context) -> list[RecordChange]:
        """Return the changes that meet the criteria."""
        changes = check_changes(disclosed(self.changes))
        meets = compile_criteria(self.criteria)
        warn_of_unknown_fields(self.log, changes, fields_of(self.criteria))
        matching = [change for change in changes if meets(change["record"])]
        self.log.info("%d of %d changes meet the criteria", len(matching), len(changes))
        ti = context.get("ti")
        if not matching and ti is not None:
            ti.xcom_push(key="return_value", value=[])  # skipping ends the task before Airflow would push it
            self.skip(ti=ti, tasks=self.get_direct_relatives(upstream=False))
        return matching


def _has_templates(criteria: object) -> bool:
    return is_template(json.dumps(criteria, default=lambda _argument: "{{"))

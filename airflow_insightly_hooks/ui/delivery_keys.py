"""How addresses and forms name a delivery, the task that sends it, and the tab that shows it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from airflow_insightly_hooks.database.deliveries import Delivery, TaskKey, WantedTasks
from airflow_insightly_hooks.ui.addresses import Addresses
from airflow_insightly_hooks.ui.problems import BadRequest

__all__ = [
    "TABS",
    "delivery_address",
    "read_selection",
    "selection_value",
    "tab_fields",
    "task_fields",
]

TABS = {
    "dag": ("dag_id",),
    "dag_run": ("dag_id", "run_id"),
    "task": ("dag_id", "task_id"),
    "task_instance": ("dag_id", "run_id", "task_id", "map_index"),
}
"""The tabs on Airflow's pages, and the fields that say whose deliveries each tab shows."""


def tab_fields(value_of: Callable[[str], Any]) -> dict[str, Any]:
    """Return the fields that name a tab and what it shows; empty if the page is not in a tab.

    :param value_of: returns the value of a field, such as ``get`` of an address's query.
    """
    tab = value_of("tab")
    return {"tab": tab, **{name: value_of(name) for name in TABS[tab]}} if tab in TABS else {}


def task_fields(key: TaskKey) -> dict[str, Any]:
    """Return the fields that name a task. A task that isn't mapped has no ``map_index``."""
    return {
        "dag_id": key.dag_id,
        "run_id": key.run_id,
        "task_id": key.task_id,
        "map_index": key.map_index if key.map_index >= 0 else None,
    }


def delivery_address(url: Addresses, row: Delivery, tab: str) -> str:
    """Return the address of a delivery's own page.

    :param tab: the tab that shows it; empty for none.
    """
    fields = {"tab": tab, **task_fields(row.key), "ledger": row.key.prefix}
    return url.page("/delivery", {**fields, "message_id": row.message.message_id})


def selection_value(row: Delivery) -> str:
    """Return the text for a delivery in a form. ``read_selection`` reads it."""
    return json.dumps([*row.key[1:], row.message.message_id])


def read_selection(value: str) -> tuple[WantedTasks, str, str]:
    """Return the delivery that a form names: its task, the prefix of its ledger's keys, and its message's id.

    :raises BadRequest: if the text can't be read.
    """
    try:
        dag_id, run_id, task_id, map_index, prefix, message_id = json.loads(value)
        text = "".join((dag_id, run_id, task_id, prefix, message_id))
        text.encode()  # half a surrogate pair has no UTF-8, and databases refuse it
        if "\0" not in text and type(map_index) is int and -1 <= map_index < 2**31:
            return WantedTasks(dag_id, run_id, task_id, map_index), prefix, message_id
    except (ValueError, TypeError, RecursionError):
        pass
    raise BadRequest("The form's selection can't be read. Go back to the list, and select again.")

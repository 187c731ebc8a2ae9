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
"""The tabs of Airflow's pages, and what each shows the deliveries of."""


def tab_fields(value_of: Callable[[str], Any]) -> dict[str, Any]:
    """Return the fields that name a tab and what it shows; empty where the page stands in none.

    :param value_of: gives the value of a field, such as the ``get`` of an address's query.
    """
    tab = value_of("tab")
    return {"tab": tab, **{name: value_of(name) for name in TABS[tab]}} if tab in TABS else {}


def task_fields(key: TaskKey) -> dict[str, Any]:
    """Return the fields that name a task; a task that isn't mapped has no ``map_index``."""
    return {
        "dag_id": key.dag_id,
        "run_id": key.run_id,
        "task_id": key.task_id,
        "map_index": key.map_index if key.map_index >= 0 else None,
    }


def delivery_address(url: Addresses, row: Delivery, tab: str) -> str:
    """Return the address of a delivery's own page.

    :param tab: the tab that it is shown in; empty for none.
    """
    fields = {"tab": tab, **task_fields(row.key), "ledger": row.key.prefix}
    return url.page("/delivery", {**fields, "message_id": row.message.message_id})


def selection_value(row: Delivery) -> str:
    """Return how a form names a delivery; ``read_selection`` reads it again."""
    return json.dumps([*row.key[1:], row.message.message_id])


def read_selection(value: str) -> tuple[WantedTasks, str, str]:
    """Return what a form names: a task, the prefix of its ledger's keys, and a message's id.

    :raises BadRequest: if it can't be read.
    """
    try:
        dag_id, run_id, task_id, map_index, prefix, message_id = json.loads(value)
        text = "".join((dag_id, run_id, task_id, prefix, message_id))
        text.encode()  # half a surrogate pair has no UTF-8, and no database takes it
        if "\0" not in text and type(map_index) is int and -1 <= map_index < 2**31:
            return WantedTasks(dag_id, run_id, task_id, map_index), prefix, message_id
    except (ValueError, TypeError, RecursionError):
        pass
    raise BadRequest("The form's selection can't be read. Go back to the list, and select again.")

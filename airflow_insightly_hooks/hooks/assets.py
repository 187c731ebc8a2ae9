"""The asset that stands for an account's records of one type."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from airflow.sdk import Asset

__all__ = ["CURSORS", "WATCHED", "add_inlet", "cursor_key", "records_asset", "with_asset"]

WATCHED = "watched"
"""The key of the asset's state for up to when the watcher has said that there are changes."""
CURSORS = "cursors"
"""The key of the asset's state for whose cursors there are: key -> ``{"dag", "task", "woken"}``.

``dag`` and ``task`` are the ids of the task that moved it last; ``woken`` tells that a watcher's events
trigger its runs.
"""


def cursor_key(name: str) -> str:
    """Return the key of the asset's state for a cursor, by the cursor's name."""
    return f"cursor/{name}"


def records_asset(insightly_conn_id: str, record_type: str) -> Asset:
    """Return the asset; its state keeps what outlasts a run: cursors, and what workflows remember.

    Its name depends on nothing but these two, since Airflow deletes the state of an asset that no DAG names
    any more.
    """
    return Asset(
        name=f"insightly/{insightly_conn_id}/{record_type}",
        uri=f"insightly://{insightly_conn_id}/{record_type}",
    )


def add_inlet(arguments: MutableMapping[str, Any], asset: Asset) -> None:
    """Add an asset to the ``inlets`` among an operator's arguments: that gives access to its state."""
    arguments["inlets"] = with_asset(arguments.get("inlets"), asset)


def with_asset(given: Any, asset: Asset) -> list[Any]:
    """Return inlets or outlets as a user gives them, one, several or ``None``, with an asset more."""
    if given is None:
        return [asset]
    return [*(given if isinstance(given, list | tuple) else [given]), asset]

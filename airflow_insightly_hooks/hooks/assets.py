"""The asset that stands for an account's records of one type."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset

__all__ = ["records_asset"]


def records_asset(insightly_conn_id: str, record_type: str, **arguments: Any) -> Asset:
    """Return the asset; its state keeps what outlasts a run: cursors, and what workflows remember.

    Its name depends on nothing but these two, since Airflow deletes the state of an asset that no DAG names
    any more.

    :param arguments: further arguments of ``Asset``, such as ``watchers``.
    """
    return Asset(
        name=f"insightly/{insightly_conn_id}/{record_type}",
        uri=f"insightly://{insightly_conn_id}/{record_type}",
        **arguments,
    )

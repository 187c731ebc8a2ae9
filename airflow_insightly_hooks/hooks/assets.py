"""The asset that keeps the state of an account's records of one type; the names of assets that wake DAGs."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import quote

from airflow.sdk import Asset

from airflow_insightly_hooks.core.digest import digest_of

__all__ = [
    "ANNOUNCED",
    "CURSOR_LISTS",
    "WATCHED",
    "account_prefix",
    "add_inlet",
    "changed_type_in",
    "changes_asset_name",
    "changes_prefix",
    "cursor_in",
    "cursor_key",
    "cursor_list",
    "records_asset",
    "with_asset",
]

PUSH = "push"
"""The part of an asset's name that marks DAGs which webhooks wake."""
LONGEST_CURSOR = 505
"""The most characters of a cursor's name in an asset's name. Longer names are replaced by a digest."""
_SECONDS = re.compile(r"[\d.e+-]+s")

WATCHED = "watched"
"""The key of the asset's state for the time up to which the watcher has reported changes."""
ANNOUNCED = "announced"
"""The key of the asset's state for changes that webhooks have announced (``core.incoming.announced``)."""
CURSOR_LISTS = ("cursors", *(f"cursors/{part:x}" for part in range(16)))
"""The keys of the asset's state for the list of cursors. The list has parts, because a value may have 65 kB.

A part maps the key of a cursor to ``{"dag", "task", "woken"}``. ``dag`` and ``task`` are the ids of the task
that moved the cursor last. ``woken`` is true if the events of a shared watcher trigger its runs. Earlier
versions wrote the first part only. If a cursor is in another part, too, the other part counts.
"""


def cursor_key(name: str) -> str:
    """Return the key of the asset's state for a cursor, by the cursor's name."""
    return f"cursor/{name}"


def cursor_list(key: str) -> str:
    """Return the key of the part of the list that holds a cursor, by the cursor's key."""
    return CURSOR_LISTS[1 + int(digest_of(key)[0], 16)]


def account_prefix(insightly_conn_id: str) -> str:
    """Return the beginning of the names of all assets of an account."""
    return f"insightly/{insightly_conn_id}/"


def changes_prefix(insightly_conn_id: str, record_type: str) -> str:
    """Return the beginning of the names of all assets whose events report changes of these records."""
    return f"{account_prefix(insightly_conn_id)}{record_type}/changes/"


def changes_asset_name(
    insightly_conn_id: str,
    record_type: str,
    *,
    poll_interval: float,
    settle: float,
    lookback: float | None = None,
    cursor: str | None = None,
    push: bool = False,
) -> str:
    """Return the name of the asset whose events report changes to all DAGs with the same settings.

    :param poll_interval: seconds between two polls.
    :param settle: seconds that changes need to become visible.
    :param lookback: seconds of the lookback; ``None`` for the default.
    :param cursor: the cursor's name, if the asset belongs to one DAG; ``None`` if several DAGs share it.
    :param push: whether webhooks wake the DAGs.
    """
    parts = [f"{poll_interval:g}s", f"{settle:g}s"]
    if push:
        parts.insert(0, PUSH)
    if lookback is not None:
        parts.append(f"{lookback:g}s")
    if cursor is not None:
        # Airflow allows only ASCII, and limits the length.
        quoted = quote(cursor, safe="")
        parts.append(quoted if len(quoted) <= LONGEST_CURSOR else digest_of(cursor))
    return changes_prefix(insightly_conn_id, record_type) + "/".join(parts)


def changed_type_in(name: str) -> str | None:
    """Return the record type whose changes an asset reports; ``None`` if it reports no changes.

    :param name: the name of an asset of an account.
    """
    _, _, record_type, *rest = name.split("/")
    return record_type if rest[:1] == ["changes"] else None


def cursor_in(name: str) -> str | None:
    """Return the cursor in an asset's name: its quoted name, or a digest; ``None`` if the name has none.

    :param name: a result of ``changes_asset_name``.
    """
    last = name.rpartition("/")[2]
    return None if _SECONDS.fullmatch(last) else last


def records_asset(insightly_conn_id: str, record_type: str) -> Asset:
    """Return the asset whose state is kept from run to run: cursors, and the memory of workflows.

    Its name depends only on these two arguments, because Airflow deletes the state of an asset that no DAG
    names.
    """
    return Asset(
        name=f"insightly/{insightly_conn_id}/{record_type}",
        uri=f"insightly://{insightly_conn_id}/{record_type}",
    )


def add_inlet(arguments: MutableMapping[str, Any], asset: Asset) -> None:
    """Add an asset to the ``inlets`` among an operator's arguments. This gives access to its state."""
    arguments["inlets"] = with_asset(arguments.get("inlets"), asset)


def with_asset(given: Any, asset: Asset) -> list[Any]:
    """Return inlets or outlets with an asset added.

    :param given: the user's inlets or outlets: one, several or ``None``.
    """
    if given is None:
        return [asset]
    found = list(given) if isinstance(given, list | tuple) else [given]
    return found if asset in found else [*found, asset]

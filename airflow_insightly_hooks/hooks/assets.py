"""The asset that stands for an account's records of one type, and the names of those that wake DAGs."""

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
"""The part of an asset's name that says that webhooks wake its DAGs."""
LONGEST_CURSOR = 505
"""Characters of a cursor's name that are in an asset's name."""
_SECONDS = re.compile(r"[\d.e+-]+s")

WATCHED = "watched"
"""The key of the asset's state for up to when the watcher has said that there are changes."""
ANNOUNCED = "announced"
"""The key of the asset's state for what webhooks have announced (``core.incoming.announced``)."""
CURSOR_LISTS = ("cursors", *(f"cursors/{part:x}" for part in range(16)))
"""The keys of the asset's state for whose cursors there are; each holds a part of them, since it takes 65 kB.

A part is a mapping, from a cursor's key to ``{"dag", "task", "woken"}``. ``dag`` and ``task`` are the ids of
the task that moved it last; ``woken`` tells that events of a watcher which it shares trigger its runs. The
first part is what earlier versions wrote; where another one has the same cursor, that counts.
"""


def cursor_key(name: str) -> str:
    """Return the key of the asset's state for a cursor, by the cursor's name."""
    return f"cursor/{name}"


def cursor_list(key: str) -> str:
    """Return the key of the part of the list that a cursor is in, by the cursor's key."""
    return CURSOR_LISTS[1 + int(digest_of(key)[0], 16)]


def account_prefix(insightly_conn_id: str) -> str:
    """Return what the names of all assets of an account begin with."""
    return f"insightly/{insightly_conn_id}/"


def changes_prefix(insightly_conn_id: str, record_type: str) -> str:
    """Return the beginning of the names of all assets whose events say that these records have changed."""
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
    """Return the name of the asset whose events say so, to all DAGs that watch in the same way.

    :param poll_interval: seconds.
    :param settle: seconds.
    :param lookback: seconds; ``None`` for the default.
    :param cursor: that of the one DAG whose asset it is; ``None`` if several share it.
    :param push: whether it is woken by webhooks.
    """
    parts = [f"{poll_interval:g}s", f"{settle:g}s"]
    if push:
        parts.insert(0, PUSH)
    if lookback is not None:
        parts.append(f"{lookback:g}s")
    if cursor is not None:
        # Airflow wants ASCII, and not too much of it.
        quoted = quote(cursor, safe="")
        parts.append(quoted if len(quoted) <= LONGEST_CURSOR else digest_of(cursor))
    return changes_prefix(insightly_conn_id, record_type) + "/".join(parts)


def changed_type_in(name: str) -> str | None:
    """Return the record type whose changes an asset stands for; ``None`` if it stands for something else.

    :param name: of an asset of an account.
    """
    _, _, record_type, *rest = name.split("/")
    return record_type if rest[:1] == ["changes"] else None


def cursor_in(name: str) -> str | None:
    """Return what an asset's name says of its cursor: the name, quoted, or a digest; ``None`` if nothing.

    :param name: of ``changes_asset_name``.
    """
    last = name.rpartition("/")[2]
    return None if _SECONDS.fullmatch(last) else last


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
    """Return inlets or outlets as a user gives them, one, several or ``None``, with an asset among them."""
    if given is None:
        return [asset]
    found = list(given) if isinstance(given, list | tuple) else [given]
    return found if asset in found else [*found, asset]

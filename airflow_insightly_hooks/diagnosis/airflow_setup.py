"""Check Airflow itself: its version, its settings, and whether its components are alive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_insightly_hooks.core.xcom_address import ADVISED_THRESHOLD, OBJECT_STORAGE_BACKEND
from airflow_insightly_hooks.diagnosis.findings import OK, PROBLEM, WARNING, Finding

if TYPE_CHECKING:
    from airflow_insightly_hooks.database.setup.components import ComponentState

__all__ = [
    "check_components",
    "check_encryption",
    "check_state_store",
    "check_version",
    "check_xcom_backend",
]

OLDEST = (3, 3)
"""The oldest version of Airflow that this package works with."""
SHORT_RETENTION = 7
"""In days. With fewer, a sensor that is cleared after a long weekend reads another window."""
LARGEST_VALUE = 65_535
"""The greatest size of the values that tasks store, in bytes; it is Airflow's own default."""

STATE_STORE = "[state_store] of airflow.cfg"
COMMON_IO = "[common.io] of airflow.cfg"

_NEEDED_FOR = {
    "scheduler": "nothing runs without it",
    "triggerer": 'deferrable sensors and schedule="on_change" need it',
    "dag-processor": "it reads DAG files and workflow files",
}


def check_version(version: str) -> Finding:
    """Check Airflow's version, such as ``3.3.2``."""
    parts = version.split(".")
    numbers = tuple(int(part) for part in parts[:2] if part.isdigit())
    if len(numbers) == 2 and numbers < OLDEST:
        return Finding("Airflow", PROBLEM, f"version {version}", "Install Airflow 3.3 or later.")
    return Finding("Airflow", OK, f"version {version}")


def check_state_store(setting: Callable[[str], str | None]) -> list[Finding]:
    """Check the settings of the state stores.

    :param setting: returns the configured value of a setting, by its name.
    """
    return [
        _retention(setting("default_retention_days")),
        _clear_on_success(setting("clear_on_success")),
        _largest_value(setting("max_value_storage_bytes")),
    ]


def _retention(value: str | None) -> Finding:
    what = f"default_retention_days = {value}"
    days = _whole_number(value)
    if days is None or days < 0:
        return Finding(
            STATE_STORE,
            PROBLEM,
            f"{what}: Airflow refuses it whenever a task stores a value",
            "Set it to a number of days, or to 0 to keep the values as long as their runs.",
        )
    if 0 < days < SHORT_RETENTION:
        return Finding(
            STATE_STORE,
            WARNING,
            f"{what}: a sensor that is cleared later reads another window",
            f"Set it to {SHORT_RETENTION} or more (the default is 30; 0 keeps values as long as their runs).",
        )
    return Finding(STATE_STORE, OK, what)


def _clear_on_success(value: str | None) -> Finding:
    what = f"clear_on_success = {value}"
    if (value or "").strip().lower() in ("true", "t", "1"):
        return Finding(
            STATE_STORE,
            PROBLEM,
            f"{what}: a task that is cleared has lost the record of what it has read and sent, and sends "
            "everything again",
            "Set it to False, its default.",
        )
    return Finding(STATE_STORE, OK, what)


def _largest_value(value: str | None) -> Finding:
    what = f"max_value_storage_bytes = {value}"
    size = _whole_number(value)
    if size is None:
        return Finding(STATE_STORE, PROBLEM, f"{what}: it is not a number", f"Set it to {LARGEST_VALUE}.")
    if 0 < size < LARGEST_VALUE:
        return Finding(
            STATE_STORE,
            WARNING,
            f"{what}: tasks store larger values. Airflow logs a warning for each, and its API refuses to "
            "change them",
            f"Set it to {LARGEST_VALUE}, its default, or to 0 for no limit.",
        )
    return Finding(STATE_STORE, OK, what)


def check_xcom_backend(setting: Callable[[str, str], str | None]) -> list[Finding]:
    """Check the settings of Airflow's object storage for XComs; there are no findings if it is not used.

    :param setting: returns the configured value of a setting, by its section and its name.
    """
    if (setting("core", "xcom_backend") or "").strip() != OBJECT_STORAGE_BACKEND:
        return []
    value = setting("common.io", "xcom_objectstorage_threshold") or "-1"
    what = f"xcom_objectstorage_threshold = {value}"
    threshold = _whole_number(value)
    if threshold is None:
        return [
            Finding(
                COMMON_IO,
                PROBLEM,
                f"{what}: it is not a number",
                f"For example, set it to {ADVISED_THRESHOLD}.",
            )
        ]
    if threshold < 0:
        return [
            Finding(
                COMMON_IO,
                WARNING,
                f"{what}: all XComs stay in the database, although [core] xcom_backend is the object storage",
                f"For example, set it to {ADVISED_THRESHOLD}: then larger XComs go to the object storage.",
            )
        ]
    path = (setting("common.io", "xcom_objectstorage_path") or "").strip()
    if not path:
        return [
            Finding(
                COMMON_IO,
                PROBLEM,
                "xcom_objectstorage_path is empty: a task whose XCom reaches the threshold fails",
                "Set it to a place that all workers and the API server can read and write.",
            )
        ]
    scheme = path.split("://")[0] if "://" in path else "file"
    shared = ": all workers and the API server must share this folder" if scheme == "file" else ""
    return [Finding(COMMON_IO, OK, f"{what}; xcom_objectstorage_path is on {scheme}{shared}")]


def _whole_number(value: str | None) -> int | None:
    try:
        return int(value or "")
    except ValueError:
        return None


def check_encryption(fernet_key: str | None) -> Finding:
    """Check whether Airflow encrypts the passwords that it stores.

    :param fernet_key: the setting with this name; it is not shown.
    """
    if fernet_key and fernet_key.strip():
        return Finding("Airflow", OK, "passwords of connections are encrypted in the database")
    return Finding(
        "Airflow",
        WARNING,
        "passwords of connections are not encrypted in the database: [core] fernet_key is empty",
        "Set the same fernet_key on all machines, and save the connections again.",
    )


def check_components(states: Sequence[ComponentState], now: datetime) -> list[Finding]:
    """Check which of Airflow's components are alive.

    :param now: the current time, aware.
    """
    return [_component(state, now) for state in states]


def _component(state: ComponentState, now: datetime) -> Finding:
    subject = f"Airflow's {state.name}"
    if state.latest_heartbeat is None:
        level, found = PROBLEM, "it has never run with this database"
    else:
        seconds = max(0, int((now - state.latest_heartbeat).total_seconds()))
        level, found = (OK if state.is_alive else PROBLEM), f"its latest heartbeat is {_ago(seconds)} old"
    if level is OK:
        return Finding(subject, OK, f"alive: {found}")
    why = _NEEDED_FOR.get(state.name, "it is needed")
    return Finding(subject, PROBLEM, f"not alive: {found}; {why}", f"Start it: airflow {state.name}")


def _ago(seconds: int) -> str:
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"

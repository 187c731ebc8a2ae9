"""Findings about Airflow: its version, its state stores, its components."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from airflow.configuration import conf

from airflow_insightly_hooks.database.setup.components import ComponentState
from airflow_insightly_hooks.diagnosis.airflow_setup import (
    check_components,
    check_encryption,
    check_state_store,
    check_version,
    check_xcom_backend,
)
from airflow_insightly_hooks.diagnosis.findings import OK, PROBLEM, WARNING

NOW = datetime(2026, 3, 10, 8, tzinfo=timezone.utc)
DEFAULTS = {
    "default_retention_days": "30",
    "clear_on_success": "False",
    "max_value_storage_bytes": "65535",
}


@pytest.mark.parametrize(
    ("version", "level"),
    [("3.3.2", OK), ("3.4.0rc1", OK), ("4.0", OK), ("3.2.9", PROBLEM), ("2.11", PROBLEM)],
)
def test_version(version: str, level: str) -> None:
    """Versions before Airflow 3.3 are a problem."""
    assert check_version(version).level == level


def test_the_settings_are_those_of_airflow() -> None:
    """The names are Airflow's own, and its defaults are in order."""
    assert {name: conf.get("state_store", name) for name in DEFAULTS} == DEFAULTS
    assert [finding.level for finding in check_state_store(DEFAULTS.get)] == [OK, OK, OK]


@pytest.mark.parametrize(
    ("name", "value", "level"),
    [
        ("default_retention_days", "0", OK),
        ("default_retention_days", "7", OK),
        ("default_retention_days", "6", WARNING),
        ("default_retention_days", "-1", PROBLEM),
        ("default_retention_days", "a week", PROBLEM),
        ("clear_on_success", "True", PROBLEM),
        ("clear_on_success", " t ", PROBLEM),
        ("clear_on_success", "1", PROBLEM),
        ("max_value_storage_bytes", "0", OK),
        ("max_value_storage_bytes", "1048576", OK),
        ("max_value_storage_bytes", "65534", WARNING),
        ("max_value_storage_bytes", "", PROBLEM),
    ],
)
def test_state_store(name: str, value: str, level: str) -> None:
    """Settings that delete tasks' state too early, or at once, are reported with a value that helps."""
    findings = check_state_store({**DEFAULTS, name: value}.get)
    (finding,) = [finding for finding in findings if finding.finding.startswith(name)]
    assert finding.level == level
    assert bool(finding.what_to_do) == (level != OK)
    assert [other.level for other in findings if other is not finding] == [OK, OK]


OBJECT_STORAGE = "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend"


@pytest.mark.parametrize(
    ("threshold", "path", "level", "found"),
    [
        ("65536", "s3://aws@bucket/xcoms", OK, "xcom_objectstorage_path is on s3"),
        ("0", "file:///var/xcoms", OK, "must share this folder"),
        ("0", "/var/xcoms", OK, "must share this folder"),
        ("-1", "file:///var/xcoms", WARNING, "all XComs stay in the database"),
        ("0", "", PROBLEM, "xcom_objectstorage_path is empty"),
        ("some", "file:///var/xcoms", PROBLEM, "it is not a number"),
    ],
)
def test_object_storage_of_xcoms(threshold: str, path: str, level: str, found: str) -> None:
    """A threshold that keeps everything in the database, and a missing path, are reported."""
    settings = {
        ("core", "xcom_backend"): OBJECT_STORAGE,
        ("common.io", "xcom_objectstorage_threshold"): threshold,
        ("common.io", "xcom_objectstorage_path"): path,
    }
    (finding,) = check_xcom_backend(lambda section, name: settings[section, name])
    assert finding.level == level
    assert found in finding.finding
    assert bool(finding.what_to_do) == (level != OK)
    assert "aws@bucket" not in finding.finding
    settings["core", "xcom_backend"] = "airflow.sdk.execution_time.xcom.BaseXCom"
    assert check_xcom_backend(lambda section, name: settings[section, name]) == []


@pytest.mark.parametrize(("key", "level"), [("a-key", OK), ("", WARNING), (" ", WARNING), (None, WARNING)])
def test_encryption(key: str | None, level: str) -> None:
    """Without a key, Airflow stores passwords unencrypted. The key itself isn't shown."""
    finding = check_encryption(key)
    assert finding.level == level
    assert "a-key" not in repr(finding)


@pytest.mark.parametrize(
    ("age", "is_alive", "level", "found"),
    [
        (timedelta(seconds=4), True, OK, "alive: its latest heartbeat is 4 s old"),
        (timedelta(minutes=3), False, PROBLEM, "not alive: its latest heartbeat is 3 minutes old; "),
        (timedelta(days=5), False, PROBLEM, "not alive: its latest heartbeat is 5 days old; "),
        (timedelta(seconds=-1), True, OK, "alive: its latest heartbeat is 0 s old"),
        (None, False, PROBLEM, "not alive: it has never run with this database; "),
    ],
)
def test_components(age: timedelta | None, is_alive: bool, level: str, found: str) -> None:
    """A component with an old or missing heartbeat is a problem. The finding says why it is needed."""
    state = ComponentState("triggerer", None if age is None else NOW - age, is_alive)
    (finding,) = check_components([state], NOW)
    assert (finding.subject, finding.level) == ("Airflow's triggerer", level)
    assert finding.finding.startswith(found)
    if level == PROBLEM:
        assert "deferrable sensors" in finding.finding
        assert finding.what_to_do == "Start it: airflow triggerer"

"""The provider's parts for Airflow: its description, its connection forms, its plugin."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.plugins_manager import AirflowPlugin
from airflow.sdk import BaseHook, BaseOperatorLink

from airflow_insightly_hooks.core.errors import InvalidConnection
from airflow_insightly_hooks.hooks.connection_fields import CONNECTION_FIELDS, ConnectionField
from airflow_insightly_hooks.provider import get_provider_info

INFO = get_provider_info()
CONNECTIONS = {entry["connection-type"]: entry for entry in INFO["connection-types"]}
FIELDS = [(conn_type, field) for conn_type, fields in CONNECTION_FIELDS.items() for field in fields]
OWN_FIELDS = {
    "insightly": {"host": "na1", "password": "a-made-up-key"},
    "insightly_webhook": {"host": "http://receiver.example.com"},
    "insightly_incoming": {"login": "insightly", "password": "a-made-up-password"},
}


def named(value: Any, key: str = "") -> Iterator[str]:
    """Yield every dotted path of this package in the description."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from named(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from named(item, key)
    elif isinstance(value, str) and value.startswith("airflow_insightly_hooks."):
        yield value


def settings_with(conn_type: str, extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the settings that a connection type's hook reads from a connection with these extra fields."""
    connection = {"conn_type": conn_type, **OWN_FIELDS[conn_type], "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_FORM", json.dumps(connection))
    module, _, name = CONNECTIONS[conn_type]["hook-class-name"].rpartition(".")
    hook = getattr(import_module(module), name)("form")
    if conn_type == "insightly_incoming":
        return vars(hook.get_conn())
    return vars(hook._client.account if conn_type == "insightly" else hook._settings)


def test_schema() -> None:
    """The description is valid by Airflow's own schema."""
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(INFO, schema)


def test_names_lead_somewhere() -> None:
    """Every module, class and function that the description names can be imported."""
    paths = list(named(INFO))
    assert len(paths) > 8
    for path in paths:
        try:
            import_module(path)
        except ModuleNotFoundError:
            module, _, name = path.rpartition(".")
            assert callable(getattr(import_module(module), name)), path


def test_modules_are_named() -> None:
    """Every module with an operator, hook, sensor or trigger is named, so that Airflow's docs find it."""
    root = Path(import_module("airflow_insightly_hooks").__file__ or "").parent
    bases = {
        "hooks": r"\(BaseHook\b",
        "operators": r"\((\w+, )*BaseOperator\b",
        "sensors": r"\(BaseSensorOperator\b",
        "triggers": r"\(Base(Event)?Trigger\b",
    }
    for folder, base in bases.items():
        holding = {
            f"airflow_insightly_hooks.{folder}.{file.stem}"
            for file in (root / folder).glob("*.py")
            if re.search(base, file.read_text())
        }
        (entry,) = INFO[folder]
        assert holding == set(entry["python-modules"])


@pytest.mark.parametrize("conn_type", CONNECTIONS)
def test_hooks_and_connection_types(conn_type: str) -> None:
    """A connection type names its hook, and the hook the connection type."""
    entry = CONNECTIONS[conn_type]
    module, _, name = entry["hook-class-name"].rpartition(".")
    hook = getattr(import_module(module), name)
    assert issubclass(hook, BaseHook)
    assert (hook.conn_type, hook.hook_name) == (conn_type, entry["hook-name"])
    assert hook.default_conn_name.endswith("_default")
    assert hook.conn_name_attr in hook.__init__.__code__.co_varnames
    assert callable(hook.test_connection)


@pytest.mark.parametrize("conn_type", CONNECTIONS)
def test_the_form_shows_every_field(conn_type: str) -> None:
    """The form has each declared field, in the same order. No name is declared twice."""
    names = [field.name for field in CONNECTION_FIELDS[conn_type]]
    assert list(CONNECTIONS[conn_type]["conn-fields"]) == names


@pytest.mark.parametrize(("conn_type", "field"), FIELDS, ids=lambda value: getattr(value, "name", value))
def test_a_field_is_declared_soundly(conn_type: str, field: ConnectionField) -> None:
    """A field has a label and a default of its kind. Only texts may have none, and secrets have none."""
    kinds: dict[str, tuple[type, ...]] = {
        "string": (str,),
        "number": (int, float),
        "integer": (int,),
        "boolean": (bool,),
    }
    assert field.label
    assert field.default is not None or field.kind == "string"
    assert field.default is None or type(field.default) in kinds[field.kind]
    assert not field.is_secret or field.default is None
    schema = CONNECTIONS[conn_type]["conn-fields"][field.name]["schema"]
    jsonschema.validate(schema.get("default"), schema)


@pytest.mark.parametrize(("conn_type", "field"), FIELDS, ids=lambda value: getattr(value, "name", value))
def test_every_field_is_read(conn_type: str, field: ConnectionField, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook reads every declared field: an impossible value is refused with the field's name."""
    with pytest.raises(InvalidConnection) as caught:
        settings_with(conn_type, {field.name: [1]}, monkeypatch)
    assert caught.value.field == f"extra.{field.name}"


@pytest.mark.parametrize(
    ("conn_type", "field"),
    [(conn_type, field) for conn_type, field in FIELDS if field.kind in ("number", "integer")],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_number_has_its_bounds(
    conn_type: str, field: ConnectionField, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smallest and the largest number that a field's declaration allows are taken, and none beyond."""
    for number in (field.at_least, field.at_most, *([0, "0"] if field.may_be_zero else [])):
        settings_with(conn_type, {field.name: number}, monkeypatch)
    tiny = field.at_least / 2 if field.kind == "number" else field.at_least - 1
    odd: list[Any] = [tiny or -1, -field.at_least, field.at_most + 1, 1e10, 1e300, 10**400, "1e400", 1e-300]
    odd += ["NaN", True, *([] if field.may_be_zero else [0]), *([1.5] if field.kind == "integer" else [])]
    for number in odd:
        with pytest.raises(InvalidConnection, match=r"number from [\d.]+ to [\d.]+.* is needed") as caught:
            settings_with(conn_type, {field.name: number}, monkeypatch)
        assert caught.value.field == f"extra.{field.name}"


@pytest.mark.parametrize("conn_type", CONNECTIONS)
def test_defaults_of_the_form_are_the_hooks_own(conn_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A form that is saved unchanged means the same as a connection without extras."""
    fields = CONNECTIONS[conn_type]["conn-fields"]
    defaults = {name: field["schema"].get("default") for name, field in fields.items()}
    settings = []
    for extra in ({}, defaults):
        read = settings_with(conn_type, extra, monkeypatch)
        if "rate_limit" in read:
            read |= {
                "transport": getattr(read.get("transport"), "settings", None),
                "rate_limit": vars(read["rate_limit"]) | {"_lock": None},
            }
        settings.append(read)
    assert settings[0] == settings[1]


def test_secret_fields_are_hidden() -> None:
    """A secret is a password field in the form, which Airflow stores encrypted and never shows."""
    for conn_type in ("insightly_webhook", "insightly_incoming"):
        schema = CONNECTIONS[conn_type]["conn-fields"]["signing_secret"]["schema"]
        assert schema["format"] == "password"
    for entry in CONNECTIONS.values():
        assert "password" not in entry["ui-field-behaviour"]["hidden-fields"]


def test_entry_points() -> None:
    """The installed package tells Airflow of provider and plugin."""
    (provider,) = entry_points(group="apache_airflow_provider").select(
        value="airflow_insightly_hooks.provider:get_provider_info"
    )
    assert provider.load()() == INFO
    (plugin,) = entry_points(group="airflow.plugins").select(name="insightly_hooks")
    assert issubclass(plugin.load(), AirflowPlugin)


def test_plugin() -> None:
    """The plugin validates, and registers every link that the description names."""
    from airflow_insightly_hooks.plugin import InsightlyHooksPlugin

    InsightlyHooksPlugin.validate()
    links = InsightlyHooksPlugin.operator_extra_links
    assert all(isinstance(link, BaseOperatorLink) for link in links)
    assert {f"{type(link).__module__}.{type(link).__name__}" for link in links} == set(INFO["extra-links"])

"""What Airflow reads of the provider: its description, its connection forms, its plugin."""

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

from airflow_insightly_hooks.hooks.api.account import EXTRAS as INSIGHTLY_EXTRAS
from airflow_insightly_hooks.hooks.post.receiver import EXTRAS as WEBHOOK_EXTRAS
from airflow_insightly_hooks.provider import get_provider_info

INFO = get_provider_info()
CONNECTIONS = {entry["connection-type"]: entry for entry in INFO["connection-types"]}


def named(value: Any, key: str = "") -> Iterator[str]:
    """Yield every dotted path of ours that the description names."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from named(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from named(item, key)
    elif isinstance(value, str) and value.startswith("airflow_insightly_hooks."):
        yield value


def test_schema() -> None:
    """The description is valid by Airflow's own schema."""
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(INFO, schema)


def test_names_lead_somewhere() -> None:
    """Every module and class that the description names can be imported."""
    paths = list(named(INFO))
    assert len(paths) > 8
    for path in paths:
        try:
            import_module(path)
        except ModuleNotFoundError:
            module, _, name = path.rpartition(".")
            assert isinstance(getattr(import_module(module), name), type), path


def test_modules_are_named() -> None:
    """Every module with an operator, hook, sensor or trigger is named, so that Airflow's docs find it."""
    root = Path(import_module("airflow_insightly_hooks").__file__ or "").parent
    bases = {
        "hooks": r"\(BaseHook\b",
        "operators": r"\(BaseOperator\b",
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


@pytest.mark.parametrize(
    ("conn_type", "extras"), [("insightly", INSIGHTLY_EXTRAS), ("insightly_webhook", WEBHOOK_EXTRAS)]
)
def test_every_extra_has_a_form_field(conn_type: str, extras: tuple[str, ...]) -> None:
    """Every extra that a hook reads has a field in the form, and the reverse; each has a label."""
    fields = CONNECTIONS[conn_type]["conn-fields"]
    assert set(fields) == set(extras)
    assert len(extras) == len(set(extras))
    for field in fields.values():
        assert field["label"]
        assert "null" in field["schema"]["type"]
        if "default" in field["schema"]:
            kinds = {"string": str, "number": (int, float), "boolean": bool}
            assert isinstance(field["schema"]["default"], kinds[field["schema"]["type"][0]])


@pytest.mark.parametrize("conn_type", CONNECTIONS)
def test_defaults_of_the_form_are_the_hooks_own(conn_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A form that is saved as it stands means the same as a connection without extras."""
    fields = CONNECTIONS[conn_type]["conn-fields"]
    defaults = {name: field["schema"].get("default") for name, field in fields.items()}
    module, _, name = CONNECTIONS[conn_type]["hook-class-name"].rpartition(".")
    hook = getattr(import_module(module), name)
    host = {"insightly": "na1", "insightly_webhook": "https://receiver.example.com"}[conn_type]
    settings = []
    for extra in ({}, defaults):
        connection = {"conn_type": conn_type, "host": host, "password": "a-made-up-key", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_FORM", json.dumps(connection))
        opened = hook("form")
        read = vars(opened._client.account if conn_type == "insightly" else opened._settings)
        if "rate_limit" in read:
            read |= {
                "transport": getattr(read.get("transport"), "settings", None),
                "rate_limit": vars(read["rate_limit"]) | {"_lock": None},
            }
        settings.append(read)
    assert settings[0] == settings[1]


def test_secret_fields_are_hidden() -> None:
    """What is secret is a password field in the form, which Airflow stores encrypted and never shows."""
    assert CONNECTIONS["insightly_webhook"]["conn-fields"]["signing_secret"]["schema"]["format"] == "password"
    assert "password" not in CONNECTIONS["insightly"]["ui-field-behaviour"]["hidden-fields"]
    assert "password" not in CONNECTIONS["insightly_webhook"]["ui-field-behaviour"]["hidden-fields"]


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

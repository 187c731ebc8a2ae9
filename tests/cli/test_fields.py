"""``fields``: the fields of a record type."""

from __future__ import annotations

import json

import pytest

from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.cli.conftest import Command


def test_standard_and_custom_fields(command: Command, insightly: RunningSandbox) -> None:
    """Each field has its type, custom ones their label and options, too."""
    ran = command("fields", "Contacts", "-o", "json")
    assert ran.code == 0
    fields = {field["field"]: field for field in json.loads(ran.out)}
    assert fields["CONTACT_ID"] == {
        "field": "CONTACT_ID",
        "kind": "standard",
        "type": "int64",
        "read_only": True,
        "label": None,
        "options": [],
    }
    assert fields["Region__c"] == {
        "field": "Region__c",
        "kind": "custom",
        "type": "dropdown",
        "read_only": False,
        "label": "Region",
        "options": ["Americas", "Asia", "Europe"],
    }


def test_standard_fields_need_no_connection(command: Command) -> None:
    """The package has them from the API's description."""
    ran = command("fields", "Contacts", "--standard", "-o", "plain")
    assert ran.code == 0
    assert "FIRST_NAME" in ran.out
    assert "__c" not in ran.out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["Contcts"], 2, "error: 'Contcts' is not a record type of Insightly's API"),
        (["Contacts", "--conn", "nowhere"], 3, "error: The conn_id `nowhere` isn't defined: add it"),
    ],
)
def test_wrong_input(command: Command, arguments: list[str], code: int, said: str) -> None:
    """An unknown record type and a missing connection are refused."""
    ran = command("fields", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith(said)

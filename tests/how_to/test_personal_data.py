"""The commands of docs/how-to/personal-data.md are Airflow's; its places are searched in tests/e2e."""

from __future__ import annotations

import re

from airflow.models.xcom import XComModel
from sqlalchemy import text

from airflow_insightly_hooks.core.incoming.kept_entity import KeptName
from tests.how_to.airflow_commands import parse, parsed_commands, quoted_commands
from tests.how_to.pages import Page

PAGE = Page("personal-data.md")


def test_the_commands_are_airflows() -> None:
    """Each has the options that it uses."""
    assert len(list(parsed_commands(PAGE))) == 1
    for command in (
        "airflow db drop-archived --yes",
        "airflow insightly deliveries --record Contacts:300000061",
    ):
        assert command in quoted_commands(PAGE)
        parse(command)


def test_the_search_names_columns_of_airflows_table() -> None:
    """Airflow's table has these columns, which identify the XCom to delete."""
    (query,) = [code for kind, code in PAGE.blocks if kind == "sql"]
    assert str(text(query))
    named = re.match(r"select ([\w, ]+)\nfrom xcom\n", query)
    assert named is not None
    assert set(named[1].split(", ")) <= set(XComModel.__table__.columns.keys())


def test_a_kept_files_name_ends_as_the_page_says() -> None:
    """The record's id stands between the time and a digest."""
    (pattern,) = re.findall(r"-name '\*(Z-300000061-)\*\.json'", PAGE.text)
    name = "20261126T080000.000000Z-300000061-0123456789abcdef.json"
    assert pattern in name
    found = KeptName.parse(name)
    assert found is not None
    assert found.record_id == 300000061

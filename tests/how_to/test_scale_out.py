"""docs/how-to/scale-out.md: its commands and settings are Airflow's, and its blocks are right."""

from __future__ import annotations

import configparser
import re

from airflow.configuration import conf
from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG
from airflow.providers.celery.get_provider_info import get_provider_info as of_celery
from airflow.providers.common.io.get_provider_info import get_provider_info as of_common_io
from airflow.sdk import DAG

from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from tests.how_to.airflow_commands import parsed_commands
from tests.how_to.pages import Page

PAGE = Page("scale-out.md")
ROW = re.compile(r"^\| `\[(\w+)\] (\w+)`(?:, `(\w+)`)? \| ([^|]+) \|", re.MULTILINE)
NOT_IN_AIRFLOWS_REFERENCE = ("scheduler", "num_stuck_in_queued_retries")


def test_the_commands_are_airflows() -> None:
    """A pool is made, and old runs are deleted as in the package's tests of retention."""
    pool, clean = parsed_commands(PAGE)
    assert (pool.pool, pool.slots) == ("billing", 1)
    assert clean.tables == ["dag_run", "asset_event", "log", "job"]
    assert (clean.skip_archive, clean.yes) == (True, True)


def test_the_settings_are_airflows() -> None:
    """Airflow knows each setting, with the default that the page names."""
    known = {**conf.configuration_description}
    for provider in (of_celery(), of_common_io()):
        known.update(provider["config"])
    rows = ROW.findall(PAGE.text)
    assert len(rows) >= 15
    for section, name, second, default in rows:
        if (section, name) == NOT_IN_AIRFLOWS_REFERENCE:
            continue
        for option in filter(None, (name, second)):
            assert option in known[section]["options"], f"[{section}] {option}"
        value = str(known[section]["options"][name]["default"])
        if name == "visibility_timeout":  # its default is not in the list of settings
            value = str(DEFAULT_CELERY_CONFIG["broker_transport_options"][name])
        if number := re.match(r"[\d,]+", default):
            assert float(number[0].replace(",", "")) == float(value), f"[{section}] {name}"


def test_the_xcom_settings_are_those_of_the_backend() -> None:
    """The block sets the settings that the backend reads, and no others."""
    (text,) = [text for kind, text in PAGE.blocks if kind == "ini"]
    parser = configparser.ConfigParser()
    parser.read_string(text)
    options = set(of_common_io()["config"]["common.io"]["options"])
    assert set(parser["common.io"]) == {option for option in options if option.startswith("xcom_")}
    assert parser["core"]["xcom_backend"].endswith(".XComObjectStorageBackend")


def test_the_chunks() -> None:
    """The block makes a task that is mapped over chunks with XComs of their own."""
    (code,) = [text for kind, text in PAGE.blocks if kind == "python"]
    names = {"BuildPayloadOperator": BuildPayloadOperator, "WebhookOperator": WebhookOperator}
    with DAG("chunks") as dag:
        matching = BuildPayloadOperator(task_id="matching", changes=[])
        exec(code, {**names, "matching": matching})  # noqa: S102 — the document's own
    assert dag.get_task("deliver").is_mapped

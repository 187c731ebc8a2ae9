"""Findings about the Celery executor: whether tasks survive while the broker is away."""

from __future__ import annotations

import json

import pytest
from celery_stack import SETTINGS

from airflow_insightly_hooks.diagnosis.celery_executor import ADVICE, check_celery_executor
from airflow_insightly_hooks.diagnosis.findings import OK, WARNING

LASTING = '{"task_publish_retry_policy": {"max_retries": 100, "interval_max": 0.5}}'
FOR_EVER = '{"task_publish_retry_policy": {"max_retries": null}}'


def level(extra: str | None, retries: str | None, executors: str = "CeleryExecutor") -> str | None:
    given = {"extra_celery_config": extra, "task_publish_max_retries": retries}
    findings = check_celery_executor(executors, given.get)
    return findings[0].level if findings else None


@pytest.mark.parametrize(
    ("extra", "retries", "expected"),
    [
        ("{}", "3", WARNING),  # the defaults of Airflow's provider
        (None, None, WARNING),
        ("{}", "600", WARNING),
        (LASTING, "3", WARNING),
        (LASTING, "a few", WARNING),
        (LASTING, "600", OK),
        (FOR_EVER, "600", OK),
        ('{"task_publish_retry_policy": {"max_retries": 2}}', "600", WARNING),
        ('{"task_publish_retry_policy": 5}', "600", WARNING),
        ("[]", "600", WARNING),
        ("no JSON", "600", WARNING),
    ],
)
def test_a_broker_that_is_away(extra: str | None, retries: str | None, expected: str) -> None:
    """Two settings are needed: Celery must go on trying, and Airflow must tolerate the time-outs."""
    assert level(extra, retries) == expected


@pytest.mark.parametrize("executors", ["LocalExecutor", "KubernetesExecutor", ""])
def test_other_executors(executors: str) -> None:
    """Without a Celery executor there is no finding."""
    assert level("{}", "3", executors) is None


def test_one_of_several_executors() -> None:
    """The Celery executor is checked at any place among several executors."""
    assert level("{}", "3", "LocalExecutor,my.module.MyCeleryExecutor") == WARNING


def test_what_is_advised_is_what_the_end_to_end_tests_run_with() -> None:
    """The advice has the retry policy with which the end-to-end tests survive the broker's absence."""
    policy = json.loads(SETTINGS["AIRFLOW__CELERY__EXTRA_CELERY_CONFIG"])["task_publish_retry_policy"]
    assert json.dumps(policy) in ADVICE

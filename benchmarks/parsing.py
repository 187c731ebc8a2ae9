"""The time to parse a folder of 200 YAML workflows, compared with the same DAGs written by hand.

Both are parsed as by Airflow's DAG processor: in a process that has loaded Airflow, but not this package. The
benchmark measures the whole DAG file with its imports several times, and takes the median.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

WORKFLOWS = 200
TIMES = 5
ALLOWED = 5.0
"""How many milliseconds a workflow may take more than the same DAG by hand."""

YAML = """\
name: Workflow {number}
record_type: Contacts
evaluate: created
criteria:
  all:
    - {{field: ADDRESS_MAIL_COUNTRY, operator: in, value: [France, Belgium, Luxembourg]}}
    - {{field: EMAIL_OPTED_OUT, operator: is_not_checked}}
    - any:
        - {{field: TAGS, operator: contains, value: VIP}}
        - {{field: DATE_CREATED_UTC, operator: within_last, value: 7d}}
webhooks:
  - name: Billing
    conn_id: billing_webhook
  - name: Newsletter
    conn_id: newsletter_webhook
    fields: [CONTACT_ID, FIRST_NAME, LAST_NAME, EMAIL_ADDRESS]
    date_format: iso8601
"""
BY_FILES = """
from airflow_insightly_hooks import load_workflows

dags = load_workflows("workflows")
"""
BY_HAND = """
from airflow.sdk import DAG
from airflow_insightly_hooks.operators.criteria import EvaluateCriteriaOperator
from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor

CRITERIA = {{
    "all": [
        {{"field": "ADDRESS_MAIL_COUNTRY", "operator": "in", "value": ["France", "Belgium", "Luxembourg"]}},
        {{"field": "EMAIL_OPTED_OUT", "operator": "is_not_checked"}},
        {{
            "any": [
                {{"field": "TAGS", "operator": "contains", "value": "VIP"}},
                {{"field": "DATE_CREATED_UTC", "operator": "within_last", "value": "7d"}},
            ]
        }},
    ]
}}
FIELDS = ["CONTACT_ID", "FIRST_NAME", "LAST_NAME", "EMAIL_ADDRESS"]

ARGUMENTS = {{"schedule": "*/5 * * * *", "catchup": False, "max_active_runs": 1, "tags": ["insightly"]}}

for number in range({workflows}):
    with DAG(f"workflow_{{number}}", **ARGUMENTS):
        detect = InsightlyRecordChangeSensor(
            task_id="detect", record_type="Contacts", events=["added"], deferrable=True
        )
        evaluate = EvaluateCriteriaOperator(task_id="evaluate", changes=detect.output, criteria=CRITERIA)
        for name, fields, dates in (("billing", None, "microsoft"), ("newsletter", FIELDS, "iso8601")):
            build = BuildPayloadOperator(
                task_id=f"build_{{name}}", changes=evaluate.output, fields=fields, date_format=dates
            )
            WebhookOperator(
                task_id=f"deliver_{{name}}", webhook_conn_id=f"{{name}}_webhook", payloads=build.output
            )
"""


def parse(path: str) -> tuple[float, int]:
    """Parse a DAG file. Return the seconds, and how many DAGs it has."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=os.devnull)
    started = time.perf_counter()
    bag.process_file(path, safe_mode=False)
    taken = time.perf_counter() - started
    assert not bag.import_errors, bag.import_errors
    # Each workflow also has a retry DAG, which is a part of its cost.
    return taken, len([dag_id for dag_id in bag.dags if not dag_id.endswith("__retry")])


def median(path: Path) -> float:
    """Return the median of several parses, each in its own fork, as in the DAG processor."""
    taken = []
    for _ in range(TIMES):
        with multiprocessing.get_context("fork").Pool(1) as pool:
            seconds, dags = pool.apply(parse, (str(path),))
        assert dags == WORKFLOWS, dags
        taken.append(seconds)
    return statistics.median(taken)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ |= {"AIRFLOW_HOME": folder, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        (home / "workflows").mkdir()
        for number in range(WORKFLOWS):
            (home / "workflows" / f"{number}.yaml").write_text(YAML.format(number=number))
        (home / "by_files.py").write_text(BY_FILES)
        (home / "by_hand.py").write_text(BY_HAND.format(workflows=WORKFLOWS))

        import airflow.dag_processing.dagbag
        import airflow.sdk  # noqa: F401 — loaded before, as in the DAG processor

        by_hand, by_files = median(home / "by_hand.py"), median(home / "by_files.py")
    beyond = (by_files - by_hand) / WORKFLOWS * 1000
    print(f"{WORKFLOWS} DAGs by hand: {by_hand:.2f} s; from YAML files: {by_files:.2f} s")
    print(f"{by_files / by_hand:.2f} times as long; {beyond:.2f} ms a workflow more ({ALLOWED:g} allowed)")
    return 0 if beyond <= ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())

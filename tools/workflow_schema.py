"""Make ``airflow_insightly_hooks/workflow.schema.json`` from the models of ``core/workflow``."""

from __future__ import annotations

import json
from pathlib import Path

from airflow_insightly_hooks.core.workflow.json_schema import workflow_schema

SCHEMA = Path(__file__).parent.parent / "airflow_insightly_hooks" / "workflow.schema.json"


def text() -> str:
    """Return the file's contents."""
    return json.dumps(workflow_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(text(), encoding="utf-8")
    print(f"made {SCHEMA}")

"""Hold the documents to the code: what there is must be described, and what is linked must be there.

Part of ``make check``; prints each fault and ends with 1 if there is one.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from airflow_insightly_hooks import Schedule, Webhook, Workflow
from airflow_insightly_hooks.core.criteria import OPERATORS
from airflow_insightly_hooks.operators.criteria import EvaluateCriteriaOperator
from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor

ROOT = Path(__file__).parent.parent
PUBLIC_OPERATORS = (
    InsightlyRecordChangeSensor,
    EvaluateCriteriaOperator,
    BuildPayloadOperator,
    WebhookOperator,
    InsightlyWorkflowOperator,
)
REGISTRIES = re.compile(r"\b(pypi|pythonhosted|npmjs)\.(org|com)\b")


def faults() -> Iterator[str]:
    """Yield what is wrong, a sentence each."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [ROOT / name for name in tracked.stdout.splitlines()]
    yield from broken_links([path for path in files if path.suffix == ".md"])
    yield from registry_addresses(files)
    readme = (ROOT / "README.md").read_text()
    for operator in PUBLIC_OPERATORS:
        if missing := [name for name in arguments(operator) if f"`{name}`" not in readme]:
            yield f"README.md: {operator.__name__}'s {', '.join(missing)} not described"
    if missing := [name for name in OPERATORS if f"`{name}`" not in readme]:
        yield f"README.md: criteria operators {', '.join(missing)} not described"
    guide = (ROOT / "docs" / "workflows.md").read_text()
    for model in (Workflow, Webhook, Schedule):
        if missing := [name for name in model.model_fields if f"`{name}`" not in guide]:
            yield f"docs/workflows.md: {model.__name__}'s {', '.join(missing)} not described"
    if missing := [name for name in OPERATORS if f"`{name}`" not in guide]:
        yield f"docs/workflows.md: operators {', '.join(missing)} not described"
    yield from unlisted_modules(files)
    yield from missing_modules()


def unlisted_modules(files: list[Path]) -> Iterator[str]:
    """Yield the modules that neither the rooms of docs/architecture.md nor docs/sandbox.md name."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    rooms = set(re.findall(r"[\w.]+", page.partition("## The rooms")[2].partition("## ")[0]))
    sandbox = (ROOT / "docs" / "sandbox.md").read_text()
    for path in files:
        module = path.relative_to(ROOT).as_posix().removeprefix("airflow_insightly_hooks/")
        if path.is_relative_to(ROOT / "airflow_insightly_hooks") and path.suffix in (".py", ".json"):
            if path.name == "__init__.py":
                continue
            name = path.stem if path.suffix == ".py" else path.name
            is_listed = f"`{module}`" in sandbox if module.startswith("sandbox/") else name in rooms
            if not is_listed:
                yield f"docs/: {module} not listed"


def missing_modules() -> Iterator[str]:
    """Yield the files that docs/architecture.md names and that are not there."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    for name in sorted(set(re.findall(r"`([\w/]+/\w+\.py)`", page))):
        if not any((folder / name).is_file() for folder in (ROOT / "airflow_insightly_hooks", ROOT)):
            yield f"docs/architecture.md: there is no {name}"


def broken_links(documents: list[Path]) -> Iterator[str]:
    """Yield the relative links that lead nowhere."""
    for document in documents:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            if not (document.parent / target).exists():
                yield f"{document.relative_to(ROOT)}: the link to {target} leads nowhere"


def registry_addresses(files: list[Path]) -> Iterator[str]:
    """Yield the files that name a package registry: installing must go by the user's own settings."""
    for path in files:
        if path.is_file() and path != Path(__file__) and REGISTRIES.search(path.read_text(errors="replace")):
            yield f"{path.relative_to(ROOT)}: it names a package registry"


def arguments(operator: type) -> list[str]:
    """Return the names of an operator's own arguments."""
    parameters = inspect.signature(operator.__init__).parameters.values()  # type: ignore[misc]  # of classes of ours
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def main() -> int:
    """Print what is wrong; return the exit code."""
    found = list(faults())
    for fault in found:
        print(fault)
    print(f"docs: {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

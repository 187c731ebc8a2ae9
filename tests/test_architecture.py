"""The rules of the architecture: which way imports run, what loading a DAG costs, and what is public."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import GenericAlias

import pytest

PACKAGE = "airflow_insightly_hooks"
ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
}

HOOKS_SHARE = {
    "hooks.blocked_addresses",
    "hooks.connection_extras",
    "hooks.connection_failures",
    "hooks.connection_fields",
    "hooks.header_values",
    "hooks.hints",
    "hooks.masking",
    "hooks.process_registry",
    "hooks.rate_limit",
}
"""What asking Insightly and POSTing both need."""

MAY_IMPORT = {
    "": {"core.workflow.parts", "workflows"},
    "version": set(),
    "provider": {"hooks.connection_fields"},
    "core": {"core"},
    "hooks": {"hooks", "core"},
    "triggers": {"triggers", "hooks", "core"},
    "hooks.api": {"hooks.api", *HOOKS_SHARE, "core"},
    "hooks.post": {"hooks.post", *HOOKS_SHARE, "core"},
    "operators.common": {"operators.common", "runs", "triggers", "hooks", "core"},
    "operators.delivery": {"operators.delivery", "operators.common", "runs", "triggers", "hooks", "core"},
    "operators.one_task": {
        "operators.one_task",
        "operators.delivery",
        "operators.common",
        "runs",
        "triggers",
        "hooks",
        "core",
    },
    "runs": {"runs", "triggers", "hooks", "core"},
    "sensors": {"sensors", "runs", "triggers", "hooks", "core"},
    "operators": {"operators", "runs", "triggers", "hooks", "core"},
    "plugin": {"plugin", "ui", "incoming", "operators", "sensors", "runs", "triggers", "hooks", "core"},
    "ui": {"ui", "previews", "workflows", "diagnosis", "database", "operators", "hooks", "core", "version"},
    "incoming": {"incoming", "database", "hooks", "core"},
    "database": {"database", "hooks.assets", "core"},
    "workflows": {"workflows", "operators", "sensors", "runs", "triggers", "hooks", "core"},
    "diagnosis": {"diagnosis", "database", "hooks", "core"},
    "previews": {"previews", "operators", "hooks", "core"},
    "cli": {
        "cli",
        "previews",
        "diagnosis",
        "database",
        "workflows",
        "operators",
        "hooks",
        "core",
    },
    "__main__": {"cli"},
    "demo": {"demo"},
    "pytest_plugin": {"testing", "sandbox.server"},
    "testing": {"testing", "sandbox.server", "workflows", "operators", "hooks", "core"},
    "sandbox": {"sandbox", "core.records", "core.exact_json"},
    "sandbox.http": {
        "sandbox.http",
        "sandbox.webhooks",
        "sandbox.seed",
        "sandbox.crm",
        "core.records",
        "core.exact_json",
        "core.plurals",
    },
    "sandbox.webhooks": {"sandbox.webhooks", "sandbox.crm", "core.records", "core.exact_json"},
    "sandbox.seed": {"sandbox.seed", "sandbox.crm", "core.records"},
    "sandbox.crm": {"sandbox.crm", "core.records", "core.exact_json"},
}
"""The packages, and which packages of this project each may import: lower ones only, and no sandbox."""

CORE_LIBRARIES = {"pydantic", "pydantic_core", "yaml"}
"""What core may import besides Python's own library."""

CORE_AVOIDS = {
    "asyncio",
    "http",
    "os",
    "random",
    "secrets",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "time",
    "urllib",
}
"""What of Python's own library core has no use for: it neither waits nor talks to anybody."""

CLOCKS = {"now", "utcnow", "today"}


def package_of(module: str) -> str:
    """Return the innermost listed package of the module, or its first folder if none is listed."""
    name = module.removeprefix(PACKAGE).lstrip(".")
    packages = [package for package in MAY_IMPORT if name == package or name.startswith(f"{package}.")]
    return max(packages, key=len, default=name.split(".")[0])


def layer_of(module: str) -> str:
    return module.removeprefix(PACKAGE).lstrip(".").split(".")[0]


def imports_of(module: str) -> Iterator[str]:
    """Yield the full names of a module's imports, inside functions and for type checking as well."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            )
            source = ".".join(filter(None, (base, node.module)))
            for alias in node.names:
                name = f"{source}.{alias.name}"
                yield name if name in MODULES else source


def is_allowed(imported: str, allowed: set[str]) -> bool:
    name = imported.removeprefix(PACKAGE).lstrip(".")
    return name == "version" or any(name == package or name.startswith(f"{package}.") for package in allowed)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downwards(module):
    """A module imports only its own and lower packages of this project. No module imports the sandbox."""
    ours = [name for name in imports_of(module) if name.split(".")[0] == PACKAGE]
    allowed = MAY_IMPORT[package_of(module)]
    assert [name for name in ours if not is_allowed(name, allowed)] == []


@pytest.mark.parametrize("module", [module for module in MODULES if layer_of(module) == "core"])
def test_the_core_is_pure(module):
    """Core imports neither Airflow nor a client, only Python's own library, and has no clock of its own."""
    others = {name.split(".")[0] for name in imports_of(module)} - {PACKAGE}
    assert others <= set(sys.stdlib_module_names) | CORE_LIBRARIES
    assert not others & CORE_AVOIDS
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert not [
        node.lineno for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in CLOCKS
    ]


def test_this_test_sees_imports():
    """The tests above really find imports."""
    assert len(MODULES) > 20
    assert {package_of(module) for module in MODULES} <= set(MAY_IMPORT)
    assert f"{PACKAGE}.core.delivery.ledger" in imports_of(
        f"{PACKAGE}.core.delivery.report"
    )  # from … import ledger
    assert f"{PACKAGE}.hooks.webhook" in imports_of(f"{PACKAGE}.operators.webhook")  # inside a function
    assert "airflow.sdk" in imports_of(f"{PACKAGE}.operators.webhook")
    assert not is_allowed(f"{PACKAGE}.sensors.record_change", MAY_IMPORT["operators"])
    assert not is_allowed(f"{PACKAGE}.operators.links", MAY_IMPORT["sensors"])
    assert not is_allowed(f"{PACKAGE}.core.payload", MAY_IMPORT["sandbox"])
    assert not is_allowed(f"{PACKAGE}.corelib", MAY_IMPORT["core"])
    assert not any(
        is_allowed(f"{PACKAGE}.sandbox.app", packages)
        for name, packages in MAY_IMPORT.items()
        if name != "sandbox"
    )
    assert package_of(f"{PACKAGE}.sandbox.crm.search") == "sandbox.crm"
    assert not is_allowed(f"{PACKAGE}.sandbox.http.state", MAY_IMPORT["sandbox.seed"])
    assert not is_allowed(f"{PACKAGE}.sandbox.seed.seeded_records", MAY_IMPORT["sandbox.crm"])


# --- how large things are ----------------------------------------------------------------------------------

LONGEST_MODULE = 400
"""Lines; a longer one holds two nouns."""
FULLEST_FOLDER = 15
"""Modules, ``__init__`` included."""


def test_there_are_no_circles():
    """No chain of imports is a circle, including imports of types and inside functions."""
    graph = {
        module: {name for name in imports_of(module) if name in MODULES and name != module}
        for module in MODULES
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_long(module):
    """A module has 400 lines at most, so that it can be read in one go."""
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= LONGEST_MODULE


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in MODULES.values()}), ids=lambda path: path.name
)
def test_no_folder_is_full(folder):
    """A folder has 15 modules at most, so that it can be seen at one glance."""
    assert len(list(folder.glob("*.py"))) <= FULLEST_FOLDER


# --- what loading costs ------------------------------------------------------------------------------------

LOAD = """
import importlib, json, runpy, sys

def heavy():
    ours = (f"airflow_insightly_hooks.{name}" for name in ("hooks.post.exchange", "sandbox"))
    names = ("airflow", "requests", *ours)
    return [name for name in names if name in sys.modules]

loaded = {}
for step in json.loads(sys.argv[1]):
    runpy.run_path(step) if step.endswith(".py") else importlib.import_module(step)
    loaded[step] = heavy()
print(json.dumps(loaded))
"""

PURE = [PACKAGE, f"{PACKAGE}.provider", *(module for module in MODULES if layer_of(module) == "core")]
DAG_LAYERS = ("operators", "sensors", "runs", "triggers", "plugin", "workflows")
DAG_PARTS = [module for module in MODULES if layer_of(module) in DAG_LAYERS]
DAGS = [str(path) for path in sorted((ROOT / "dags").glob("*.py"))]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> dict[str, list[str]]:
    """The modules that are loaded after each step, in a new interpreter with the lightest steps first."""
    steps = [*PURE, "airflow.sdk", *DAG_PARTS, *DAGS]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, json.dumps(steps)],
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow"))},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


DEFINITIONS = [m for m in MODULES if m.startswith(f"{PACKAGE}.cli.definition")]


@pytest.mark.parametrize("module", DEFINITIONS)
def test_the_definitions_of_commands_are_light(module):
    """Airflow imports them whenever ``airflow`` starts, so they import only modules already loaded."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    found = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    found |= {name.name for node in tree.body if isinstance(node, ast.Import) for name in node.names}
    light = {"__future__", "airflow.cli.cli_config", "argparse", "collections.abc", "importlib"}
    assert found <= light | set(DEFINITIONS)


@pytest.mark.parametrize("module", PURE)
def test_the_pure_part_loads_no_airflow(loaded, module):
    """The package itself, its provider information and its core load without Airflow."""
    assert loaded[module] == []


def test_airflows_sdk_loads_no_client(loaded):
    """Airflow's own part of a DAG file doesn't load requests, so the tests below find this package's."""
    assert loaded["airflow.sdk"] == ["airflow"]


@pytest.mark.parametrize("step", [*DAG_PARTS, *DAGS], ids=lambda step: step.removeprefix(f"{ROOT}/"))
def test_parsing_a_dag_stays_light(loaded, step):
    """The imports of a DAG file, and each example DAG, load neither requests nor the sandbox."""
    assert loaded[step] == ["airflow"]


def test_there_are_dags_to_load():
    """The examples are where this test looks for them."""
    assert DAGS


# --- what is public ----------------------------------------------------------------------------------------

STATING = [
    m for m, path in MODULES.items() if "__all__" in path.read_text("utf-8") and layer_of(m) != "version"
]
"""The modules that state what others may import from them: all but most packages."""


def in_order(name: str) -> tuple[int, str]:
    """Constants first, then classes, then functions, each sorted."""
    return (0 if re.fullmatch(r"[A-Z0-9_]+", name) else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("module", STATING)
def test_the_public_surface_is_stated(module):
    """Each module has a sorted ``__all__`` of names that exist and that no underscore makes private."""
    imported = importlib.import_module(module)
    names = imported.__all__
    assert list(names) == sorted(set(names), key=in_order)
    private = [name for name in names if name.startswith("_") and name != "__version__"]
    assert [name for name in names if not hasattr(imported, name)] == private == []


def test_every_module_states_its_surface():
    """Only a package without names of its own has no ``__all__``."""
    assert {MODULES[module].name for module in set(MODULES) - set(STATING)} <= {"__init__.py", "version.py"}


PAGE = (ROOT / "docs" / "reference" / "compatibility.md").read_text("utf-8")
LISTED = {
    module: re.findall(r"`(\w+)`", names)
    for module, names in re.findall(rf"^\| `({PACKAGE}[\w.]*)` \| (.*) \|$", PAGE, re.MULTILINE)
}
"""What docs/reference/compatibility.md lists: names by module."""


@pytest.mark.parametrize("module", LISTED)
def test_what_is_listed_as_public_is_there(module):
    """Each name that docs/reference/compatibility.md lists can be imported, and its module states it."""
    imported = importlib.import_module(module)
    assert LISTED[module]
    assert [name for name in LISTED[module] if name not in imported.__all__] == []
    if MODULES[module].name == "__init__.py":  # all that a package exports is public
        assert set(LISTED[module]) == set(imported.__all__)


PACKAGES = [module for module, path in MODULES.items() if path.name == "__init__.py" and module != PACKAGE]


@pytest.mark.parametrize("module", PACKAGES)
def test_packages_say_what_is_public(module):
    """A package's docstring names its public modules, as the page of public names does, or "Private"."""
    text = importlib.import_module(module).__doc__ or ""
    stated = re.search(r"^Public: (.*?)\.$", text, re.MULTILINE | re.DOTALL)
    here = {name.removeprefix(f"{module}.") for name in LISTED if name.rpartition(".")[0] == module}
    if stated is None:
        assert not here
        assert module in LISTED or "Private" in text or layer_of(module) == "plugin"
    else:
        assert set(re.findall(r"``(\w+)``", stated[1])) == here


STORED = [
    "hooks.incoming.InsightlyIncomingHook",
    "hooks.insightly.InsightlyHook",
    "hooks.webhook.WebhookHook",
    "operators.criteria.EvaluateCriteriaOperator",
    "operators.links.DeliveriesLink",
    "operators.links.ReceiverLink",
    "operators.links.WorkflowRecordsLink",
    "operators.payload.BuildPayloadOperator",
    "operators.pending.DueWebhooksOperator",
    "operators.pending.ScheduleWebhooksOperator",
    "operators.pending.WakeUpOperator",
    "operators.retry.RetryAfterPolicy",
    "operators.retry_queue.CollectRetriesOperator",
    "operators.retry_queue.RetryWebhookOperator",
    "operators.webhook.WebhookOperator",
    "operators.workflow.InsightlyWorkflowOperator",
    "operators.workflow_delivery.WorkflowDelivery",
    "operators.workflow_delivery.WorkflowWebhookOperator",
    "plugin.InsightlyHooksPlugin",
    "sensors.links.InsightlyRecordsLink",
    "sensors.record_change.InsightlyRecordChangeSensor",
    "triggers.record_change.InsightlyRecordChangeEventTrigger",
    "triggers.record_change.InsightlyRecordChangeTrigger",
]
"""What Airflow stores by its dotted path: in serialized DAGs, with triggers, with connection types."""


@pytest.mark.parametrize("path", STORED)
def test_stored_paths_stay(path):
    """Classes whose paths Airflow's database stores stay at their paths."""
    module, _, name = path.rpartition(".")
    found = getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)
    assert f"{found.__module__}.{found.__qualname__}" == f"{PACKAGE}.{path}"


def test_all_stored_paths_are_pinned():
    """The test above has every operator, sensor, trigger, link, policy and hook."""
    from airflow.sdk import BaseHook, BaseOperator, BaseOperatorLink, RetryPolicy
    from airflow.triggers.base import BaseTrigger

    kinds = (BaseHook, BaseOperator, BaseOperatorLink, BaseTrigger, RetryPolicy)
    found = {
        f"{thing.__module__.removeprefix(PACKAGE)}.{thing.__qualname__}".lstrip(".")
        for module in MODULES
        if layer_of(module) in ("hooks", "operators", "sensors", "triggers", "workflows", "runs")
        for thing in vars(importlib.import_module(module)).values()
        # On Python 3.10, list[int] passes for a type.
        if isinstance(thing, type) and not isinstance(thing, GenericAlias)
        if issubclass(thing, kinds) and thing.__module__.startswith(PACKAGE)
    }
    assert found <= set(STORED)
    assert len(found) == len(STORED) - 1  # the plugin is none of these

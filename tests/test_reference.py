"""The reference is complete, and its generated parts are up to date."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import reference
from blocks import api, commands, connections, criteria, errors, metrics, shelves, state, workflow_keys
from blocks.markdown import described

from airflow_insightly_hooks.core import errors as core_errors
from airflow_insightly_hooks.core import metrics as core_metrics
from airflow_insightly_hooks.core.criteria import OPERATORS, compile_criteria
from airflow_insightly_hooks.core.errors import InsightlyHooksError
from airflow_insightly_hooks.core.metrics import METRICS, Metric
from airflow_insightly_hooks.hooks.connection_fields import CONNECTION_FIELDS, ConnectionField
from airflow_insightly_hooks.hooks.insightly import InsightlyHook
from airflow_insightly_hooks.hooks.webhook import WebhookHook
from airflow_insightly_hooks.operators.webhook import WebhookOperator

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "airflow_insightly_hooks"
REFERENCE = ROOT / "docs" / "reference"
BLOCKS = reference.blocks()
VALUES = {
    "DateFormat",
    "Explanation",
    "Incomparable",
    "Compared",
    "Predicate",
    "MAX_DEPTH",
    "OPERATORS",
    "RECORD_TYPES",
    "__version__",
}
"""Public names that are no classes and no functions with arguments: constants, and names of types."""


def page(name: str) -> str:
    return (REFERENCE / f"{name}.md").read_text(encoding="utf-8")


def public_names() -> list[tuple[str, str]]:
    """Module, without the package, and name of all that docs/reference/compatibility.md lists."""
    rows = re.findall(
        r"^\| `airflow_insightly_hooks\.?([\w.]*)` \| (.*) \|$", page("compatibility"), re.MULTILINE
    )
    return [(module, name) for module, names in rows for name in re.findall(r"`(\w+)`", names)]


@pytest.mark.parametrize("path", list(reference.pages()), ids=lambda path: path.stem)
def test_the_blocks_are_up_to_date(path: Path) -> None:
    """Each block is the one that `make reference` makes now."""
    text = path.read_text(encoding="utf-8")
    assert reference.made(text) == text


@pytest.mark.parametrize(("module", "name"), public_names())
def test_every_public_name_has_its_place(module: str, name: str) -> None:
    """A class or a function has a block, an error a section."""
    subjects = {
        about.removesuffix(" with methods")
        for kind, about in BLOCKS
        if kind in ("class", "function", "fixture")
    }
    path = f"{module}.{name}" if module else name
    errors_of_all = {error.__name__ for error in errors.all_errors()}
    assert path in subjects or name in errors_of_all | VALUES


@pytest.mark.parametrize(
    ("kind", "subjects"),
    [
        ("command", commands.command_names()),
        ("connection-fields", list(CONNECTION_FIELDS)),
        ("criteria-operators", [""]),
        ("errors", [""]),
        ("faults", [""]),
        ("metrics", [""]),
        ("shelf", list(shelves.SHELVES)),
        ("state", list(state.STORES)),
        ("workflow-keys", list(workflow_keys.MODELS)),
    ],
)
def test_every_subject_has_a_block(kind: str, subjects: list[str]) -> None:
    """Each command, connection type, model and store of state has one, and no block is of something else."""
    assert sorted(about for found, about in BLOCKS if found == kind) == sorted(subjects)


def test_every_error_has_a_section() -> None:
    """This includes errors that are raised only inside the package, since logs show them."""
    found = {error.__name__ for error in errors.all_errors()}
    declared = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                bases = {ast.unparse(base) for base in node.bases}
                if bases & (found | {"InsightlyHooksError"}):
                    declared.add(node.name)
    assert declared - found == set()
    assert found == set(re.findall(r"^### (\w+)$", page("errors"), re.MULTILINE))


def test_errors_say_their_cause_and_their_remedy() -> None:
    """The paragraphs begin with these words."""
    says = {error.__name__: described(vars(error)["__doc__"]) for error in errors.all_errors()}
    lacking = {
        name for name, text in says.items() if not (text.labelled("Cause") and text.labelled("Remedy"))
    }
    assert lacking == set()


def test_errors_have_the_attributes_that_the_page_lists() -> None:
    """Each argument of an error is kept under its name, by its class or a base class."""
    for error in errors.all_errors():
        makers = [vars(b).get("__init__") for b in error.__mro__ if issubclass(b, InsightlyHooksError)]
        source = "".join(inspect.getsource(maker) for maker in makers if maker)
        kept = set(re.findall(r"^ +self\.(\w+) = ", source, re.MULTILINE))
        assert set(errors.attribute_names(error)) <= kept, error.__name__


def test_the_tree_of_errors_names_all() -> None:
    """At the top of ``core/errors.py``, each below its base class."""
    tree = (core_errors.__doc__ or "").split("\n\n")[1]
    parents: list[str] = []
    listed = {}
    for line in tree.splitlines():
        indent, name = re.findall(r"^([│├└─ ]*)(\w+)", line)[0]
        depth = len(indent) // 4
        parents[depth:] = [name]
        listed[name] = parents[depth - 1] if depth else ""
    bases = {error.__name__: {base.__name__ for base in error.__bases__} for error in errors.all_errors()}
    assert set(listed) == set(bases)
    assert [name for name, parent in listed.items() if parent and parent not in bases[name]] == []


def test_metrics_are_declared_in_one_place() -> None:
    """No module sends a metric of another name than one of ``core/metrics.py``, which the page lists."""
    senders = set()
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if not re.search(r"\bobservability\b|\bStats\b", text):
            continue
        senders.add(path.relative_to(PACKAGE).as_posix())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("stats."):
                assert ast.unparse(node.args[0]).endswith(".name"), f"{path.name}: {ast.unparse(node)}"
    assert senders == {"incoming/metrics.py", "operators/delivery/metrics.py", "triggers/metrics.py"}
    assert set(METRICS) == {value for value in vars(core_metrics).values() if isinstance(value, Metric)}
    assert [f"| `{metric.name}` |" in page("metrics") for metric in METRICS] == [True] * len(METRICS)
    assert len({metric.name for metric in METRICS}) == len(METRICS)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_examples_of_criteria(name: str) -> None:
    """The record that an example says meets its condition does, and the other one does not."""
    example = criteria.EXAMPLES[name]
    is_met = compile_criteria(
        criteria.condition(name), now=datetime.fromisoformat(criteria.NOW.replace("Z", "+00:00"))
    )
    assert is_met({example.field: example.met})
    assert not is_met({example.field: example.not_met})


def test_the_defaults_of_webhooks() -> None:
    """Where neither a webhook nor its workflow sets a key, the page names the operator's default."""
    parameters = inspect.signature(WebhookOperator.__init__).parameters
    names = ("ordered", "on_undelivered", "undelivered_asset", "retries", "retry_delay", "give_up_after")
    ordered, on_undelivered, asset, retries, delay, give_up_after = (
        parameters[name].default for name in names
    )
    assert (ordered, asset) == (False, None)
    first = f"no order, `{on_undelivered}`, no asset, {retries} retries"
    assert f"{first}, {delay.seconds} s, and {give_up_after} failures" in page("workflow-files")


@pytest.mark.parametrize("name", ["operators", "python"])
def test_what_the_pages_import_is_there(name: str) -> None:
    """Each block that begins with an import runs."""
    found = re.findall(r"^```python\n(from .*?)^```$", page(name), re.MULTILINE | re.DOTALL)
    assert len(found) > 10
    for block in found:
        exec(block, {})  # noqa: S102 — the page's own


def test_the_connections_that_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands make connections that the hooks read."""
    (block,) = re.findall(r"^```bash\n(.*?)^```$", page("connections"), re.MULTILINE | re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines():
        arguments = shlex.split(line)
        assert arguments[:3] == ["airflow", "connections", "add"]
        pairs = zip(arguments[4::2], arguments[5::2], strict=True)
        given = {option.removeprefix("--conn-"): value for option, value in pairs}
        connection = {"conn_type": given.pop("type"), **given}
        monkeypatch.setenv(f"AIRFLOW_CONN_{arguments[3].upper()}", json.dumps(connection))
    assert InsightlyHook().base_url == "https://api.na1.insightly.com/v3.1"
    assert WebhookHook("billing_webhook").get_conn().url == "https://billing.example.com/insightly"


# --- what is not described is refused ----------------------------------------------------------------------


class Bare:
    """A class.

    :param told: an argument.
    """

    def __init__(self, *, told: int = 1, untold: str = "x") -> None:
        """Take them."""


class Fields(NamedTuple):
    """A tuple."""

    told: int
    """It is told of."""
    untold: int


def function(untold: int) -> None:
    """Do nothing."""


def likewise(one: int, two: int) -> None:
    """Do nothing.

    :param one: a number.
    :param two: likewise.
    """


class Gone:
    """A class.

    :param gone: it was an argument once.
    """


@pytest.mark.parametrize(
    ("of", "block", "error"),
    [
        (Bare, api.class_block, "x: its docstring does not describe the argument untold"),
        (Fields, api.class_block, "x: its docstring does not describe the argument untold"),
        (function, api.function_block, "x: its docstring does not describe the argument untold"),
        (likewise, api.function_block, "x: its docstring does not describe the argument two"),
        (Gone, api.class_block, "x: its docstring describes gone, which is not an argument"),
    ],
)
def test_an_argument_that_is_not_described(monkeypatch, of, block, error) -> None:
    """No table is made if an argument is not described, or a described one doesn't exist any more."""
    monkeypatch.setattr(api, "_import", lambda path: of)
    with pytest.raises(ValueError, match=error):
        block("x")


def test_a_connection_field_that_is_not_described(monkeypatch) -> None:
    """A field needs a description or details."""
    bare = ConnectionField(name="colour", label="Colour", kind="string")
    monkeypatch.setattr(connections, "CONNECTION_FIELDS", {"insightly": (bare,)})
    with pytest.raises(ValueError, match="insightly: the field colour needs a description or details"):
        connections.block("insightly")


def test_a_key_that_is_not_described(monkeypatch) -> None:
    """Each key of a workflow stands in its model's docstring."""
    monkeypatch.setattr(workflow_keys, "described", lambda text: described(text)._replace(arguments={}))
    with pytest.raises(ValueError, match="Schedule: its docstring does not describe the key cron"):
        workflow_keys.block("Schedule")


def test_an_argument_of_a_command_that_is_not_described(monkeypatch) -> None:
    """Each has a help."""
    bare = SimpleNamespace(name="check", args=(SimpleNamespace(flags=("--colour",), kwargs={}),))
    monkeypatch.setattr(commands, "COMMANDS", (bare,))
    with pytest.raises(ValueError, match="check: the argument --colour has no help"):
        commands.block("check")
    with pytest.raises(ValueError, match="there is no command colour"):
        commands.block("colour")


def test_an_operator_of_criteria_without_an_example(monkeypatch) -> None:
    """Each has one."""
    monkeypatch.delitem(criteria.EXAMPLES, "between")
    with pytest.raises(ValueError, match="no example for between"):
        criteria.block("")


class UntoldError(InsightlyHooksError):
    """It failed.

    :param told: an argument.
    """

    def __init__(self, told: int, untold: int) -> None:
        super().__init__(told, untold)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (type("BareError", (InsightlyHooksError,), {}), "BareError has no docstring"),
        (UntoldError, "UntoldError: its docstring does not describe untold"),
    ],
)
def test_an_error_that_is_not_described(monkeypatch, error, fault) -> None:
    """Each error says what it means, and what its attributes are."""
    monkeypatch.setattr(errors, "all_errors", lambda: [error])
    with pytest.raises(ValueError, match=fault):
        errors.block("")


def test_a_block_of_an_unknown_kind() -> None:
    """A mistake in a marker is an error."""
    with pytest.raises(ValueError, match="there is no block 'colour'"):
        reference.made("<!-- begin: colour red -->\n<!-- end -->")


@pytest.mark.parametrize(
    ("store", "key", "is_listed"),
    [
        ("asset", "cursor/flow/detect", True),
        ("asset", "cursor/flow/detect~a1", True),
        ("asset", "cursors/f", True),
        ("asset", "triggered/flow/open/12ab", True),
        ("asset", "watched", True),
        ("asset", "watched/1", False),
        ("asset", "colour", False),
        ("task", "delivery/3-ab/head", True),
        ("task", "sales_desk/delivery/3-ab/texts/0", True),
        ("task", "received/Tasks/told", True),
        ("task", "colour/red", False),
    ],
)
def test_which_keys_are_listed(store: str, key: str, is_listed: bool) -> None:
    """Keys match by pattern. ``tests/e2e/test_stored_state.py`` checks the keys that real runs store."""
    assert state.described(store, key) is is_listed


def test_docstrings_are_read_as_they_are_written() -> None:
    """Paragraphs, arguments over several lines, errors, attributes, what is returned."""
    says = described(
        """Do it.

        More of ``it``,
        in two lines.

        :param one: the first,
            in two lines.
        :param two: the second.
        :ivar three: an attribute.
        :returns: a number.
        :raises ValueError: if it is wrong.

        XCom: a list.
        """
    )
    assert says.paragraphs == ["Do it.", "More of `it`, in two lines.", "XCom: a list."]
    assert says.arguments == {"one": "the first, in two lines.", "two": "the second."}
    assert says.attributes == {"three": "an attribute."}
    assert says.raises == [("ValueError", "if it is wrong.")]
    assert says.returns == "a number."
    both = described("It failed.\n\nCause: the network.\nRemedy: clear the task.\n")
    assert (both.labelled("Cause"), both.labelled("Remedy")) == ("the network.", "clear the task.")
    assert both.without("Cause", "Remedy") == ["It failed."]


def test_metrics_have_a_unit_and_a_meaning() -> None:
    """No cell of the table is empty."""
    rows = metrics.block("").splitlines()[2:]
    assert [row for row in rows if re.search(r"\|\s*\|", row)] == []

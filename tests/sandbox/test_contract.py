"""The table of record types and the sandbox's answers, held to Insightly's own API description.

The description is Insightly's text and not part of this project: the environment variable
INSIGHTLY_API_DESCRIPTION names the file (Swagger 2.0, v3.1). Without it, everything here is skipped.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
from collections import Counter
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.core.failures import Failure, FailureGroup

from airflow_insightly_hooks.core.records import LIST_ITEMS, RECORD_TYPES
from airflow_insightly_hooks.sandbox.crm.record_input import LIST_KINDS

SOURCE = os.environ.get("INSIGHTLY_API_DESCRIPTION")
if not SOURCE:
    pytest.skip(
        "INSIGHTLY_API_DESCRIPTION does not name Insightly's API description", allow_module_level=True
    )

pytestmark = pytest.mark.contract
DESCRIPTION = json.loads(Path(SOURCE).read_text())
ROOT = Path(__file__).parents[2]

# Answers that the description leaves out, and that the API is known to give: no access, not in the plan
# or no such thing, a method that isn't there, too many requests.
KNOWN_STATUSES = {403, 404, 405, 429}
# As it writes times, in UTC.
TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}$"
HELP_PAGE_TASK = 99922875
CUSTOM_OBJECT = "Invoice__c"
GENERATED = settings(
    max_examples=8,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def as_the_api_answers(schema, *, required=False):
    """Return a schema of the description, without the known differences between it and the API.

    1. It describes times by RFC 3339; the API answers ``YYYY-MM-DD HH:MM:SS``.
    2. It does not say that fields may be null; the API answers null for what is blank. Only for fields
       that hold one value and are not required: lists are empty, and what is required is there.
    3. It says ``maxLength: 0`` where there is no limit.
    4. It says that the value of a custom field is an object; the API answers texts, numbers and booleans.
    5. It does not describe the answer for one pipeline. The answer is like the list's pipelines.

    The schema is stricter in one point: the range of int32 and int64, which JSON Schema does not check.
    """
    if isinstance(schema, list):
        return [as_the_api_answers(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    names = schema.get("required") if isinstance(schema.get("required"), list) else []
    adapted = {
        key: {name: as_the_api_answers(one, required=name in names) for name, one in value.items()}
        if key == "properties"
        else as_the_api_answers(value, required=True)
        for key, value in schema.items()
    }
    if "$ref" in adapted and not required:
        return {"allOf": [adapted], "x-nullable": True}
    if adapted.get("maxLength") == 0:
        del adapted["maxLength"]
    if adapted.get("format") == "date-time":
        del adapted["format"]
        adapted["pattern"] = TIME
    if adapted.get("format") in ("int32", "int64"):
        bits = int(adapted["format"][3:])
        adapted |= {"minimum": -(2 ** (bits - 1)), "maximum": 2 ** (bits - 1) - 1}
    if isinstance(adapted.get("type"), str) and adapted["type"] not in ("array", "object") and not required:
        adapted["x-nullable"] = True
    return adapted


def adapted_description():
    adapted = copy.deepcopy(DESCRIPTION)
    listed = adapted["paths"]["/Pipelines"]["get"]["responses"]["200"]
    one = {"description": "", "schema": listed["schema"]["items"]}
    adapted["paths"]["/Pipelines/{id}"]["get"]["responses"].setdefault("200", one)
    adapted["definitions"] = as_the_api_answers(adapted["definitions"], required=True)
    adapted["definitions"]["APICustomField"]["properties"]["FIELD_VALUE"] = {}
    for operations in adapted["paths"].values():
        for operation in operations.values():
            operation["responses"] = as_the_api_answers(operation["responses"], required=True)
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "body":
                    parameter["schema"] = as_the_api_answers(parameter["schema"], required=True)
    return adapted


SCHEMA = schemathesis.openapi.from_dict(adapted_description())


LISTS = (
    *("ActivitySets", "Countries", "Currencies", "LeadSources", "LeadStatuses", "OpportunityCategories"),
    *("OpportunityStateReasons", "Pipelines", "PipelineStages", "ProjectCategories", "Relationships"),
    *("Tags", "TaskCategories", "TeamMembers", "Teams"),
)
"""The lists beside the records; the sandbox has them to be read only."""


def _is_in_the_sandbox(path, method):
    """Whether the sandbox has this operation of the description."""
    names = {*RECORD_TYPES, "{objectName}"}
    first, *rest = path.strip("/").split("/")
    if first in LISTS:
        return method == "get"
    if first in ("CustomFields", "CustomObjects", "Instance"):
        return True
    if first not in names or len(rest) > 3:
        return False
    if rest in ([], ["Search"], ["SearchByTag"], ["{id}"], ["{id}", "Tags"], ["Me"]):
        return True
    return len(rest) > 1 and rest[1] in RECORD_TYPES and first in RECORD_TYPES[rest[1]].parents


OPERATIONS = [
    (method.upper(), path)
    for path, operations in DESCRIPTION["paths"].items()
    for method in operations
    if _is_in_the_sandbox(path, method)
]
OTHERS = [
    (method.upper(), path)
    for path, operations in DESCRIPTION["paths"].items()
    for method in operations
    if not _is_in_the_sandbox(path, method)
]
CHECKED = Counter()


@pytest.fixture(scope="module", autouse=True)
def _tell_how_much_was_checked(request):
    yield
    terminal = request.config.pluginmanager.getplugin("terminalreporter")
    if terminal:
        terminal.write_line(
            f"\ncontract: {CHECKED.total()} answers of {len(CHECKED)} operations held to the description"
        )


def check(sandbox, method, path, url, **options):
    """Ask the sandbox, and compare the answer's status and the shape of its body with the description."""
    response = sandbox.api(method, url, **options)
    operation = SCHEMA[path][method]
    described = {int(status) for status in operation.definition.raw["responses"]}
    assert response.status_code in described | KNOWN_STATUSES, response.text
    if response.status_code >= 400:
        assert [type(text) for text in response.json().values()] == [str]
        assert list(response.json()) == ["Message"]
    elif response.status_code == 202:
        assert response.content == b""
    else:
        assert response.headers["Content-Type"] == "application/json"
        operation.validate_response(response)
    CHECKED[method, path] += 1
    return response


def _example(sandbox, path):
    """Return a path of the description with the ids of seeded records in it, and a body for it.

    The body is a record as the sandbox answers it, so that all of its fields are sent.
    """
    first, *rest = path.replace("{objectName}", CUSTOM_OBJECT).strip("/").split("/")
    if first in ("CustomFields", "CustomObjects", "Instance"):
        return path.format(objectName="Contacts", customObjectName=CUSTOM_OBJECT), None
    if first in LISTS:
        if not rest:
            return path, None
        item = sandbox.get(f"/{first}")[0]
        return path.format(id=item[next(iter(item))]), None
    parent = RECORD_TYPES[first]
    records = sandbox.get(f"/{first}", top=500)
    if len(rest) > 1 and rest[1] in RECORD_TYPES:
        child_type = RECORD_TYPES[rest[1]]
        child = next(one for one in sandbox.get(f"/{rest[1]}", top=500) if _parent_id(parent, one))
        child_id = child[child_type.id_field]
        ids = {"id": _parent_id(parent, child), "childEntityId": child_id, "milestoneId": child_id}
        return f"/{first}/{'/'.join(rest)}".format(**ids), child
    if rest[-1:] in (["Tags"], ["SearchByTag"]):
        records = [record for record in records if record["TAGS"]]
        return "/".join(["", first, *rest]).format(id=records[0][parent.id_field]), records[0]["TAGS"][0]
    return "/".join(["", first, *rest]).format(id=records[0][parent.id_field]), records[0]


def _sandbox(request, method):
    """Return a sandbox of the test's own, or one for all tests that change nothing."""
    return request.getfixturevalue("still" if method == "GET" else "sandbox")


def _parent_id(parent, child):
    """Return the id of a child's parent, or ``None`` if the parent is of another type."""
    links = {link["LINK_OBJECT_NAME"]: link["LINK_OBJECT_ID"] for link in child.get("LINKS", ())}
    return child.get(parent.id_field, links.get(parent.title))


# The table


def test_the_table_is_what_the_tool_makes_of_the_description():
    """core/record_types.json is what tools/record_types.py makes, so it can be made anew at any time."""
    spec = importlib.util.spec_from_file_location("record_types", ROOT / "tools" / "record_types.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.record_types(DESCRIPTION) == json.loads(tool.TABLE.read_text())


def _described(schema):
    schema = schema.get("items", schema)
    return DESCRIPTION["definitions"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema


@pytest.mark.parametrize("name", [*RECORD_TYPES, "{objectName}"])
@pytest.mark.parametrize("source", ["single", "list", "search"])
def test_the_fields_of_a_record_type(name, source):
    """Names, order, kinds, lengths, required and read-only of every field are those of every GET."""
    path = {"single": f"/{name}/{{id}}", "list": f"/{name}", "search": f"/{name}/Search"}[source]
    schema = _described(DESCRIPTION["paths"][path]["get"]["responses"]["200"]["schema"])
    record_type = RECORD_TYPES[name.replace("{objectName}", CUSTOM_OBJECT)]
    assert list(record_type.fields) == list(schema["properties"])
    assert record_type.id_field == next(iter(schema["properties"]))
    for field, facts in schema["properties"].items():
        ours = record_type.fields[field]
        kind = {
            ("integer", "int32"): "int32",
            ("integer", "int64"): "int64",
            ("string", "date-time"): "datetime",
            ("string", "string"): "text",
            ("string", None): "text",
            ("boolean", "boolean"): "boolean",
            ("boolean", None): "boolean",
            ("number", "string"): "number",
        }.get((facts["type"], facts.get("format")), "list")
        assert (kind == ours.kind) or (kind == "list" and ours.kind in LIST_KINDS), field
        assert (ours.length or 0) == (facts.get("maxLength") or 0 if kind == "text" else 0), field
        assert ours.required == (field in (schema.get("required") or [])), field
        assert ours.read_only == bool(facts.get("readOnly")), field


@pytest.mark.parametrize("name", [*RECORD_TYPES, "{objectName}"])
def test_the_methods_and_parents_of_a_record_type(name):
    """Records can be created, changed and deleted, under the same parents, as in the description."""
    record_type = RECORD_TYPES[name.replace("{objectName}", CUSTOM_OBJECT)]
    paths = DESCRIPTION["paths"]
    methods = {*paths[f"/{name}"], *paths[f"/{name}/{{id}}"]}
    assert {method.lower() for method in record_type.methods} == methods - {"get"}
    parents = {parent for parent in RECORD_TYPES if "post" in paths.get(f"/{parent}/{{id}}/{name}", {})}
    assert set(record_type.parents) == parents
    assert ("TAGS" in record_type.fields) == (f"/{name}/{{id}}/Tags" in paths)
    assert ("TAGS" in record_type.fields) == (f"/{name}/SearchByTag" in paths)


@pytest.mark.parametrize(
    ("kind", "definition"),
    [
        ("tags", "APITag"),
        ("links", "APILinkDto"),
        ("dates", "APIDate"),
        ("email_domains", "APIEmailDomain"),
    ],
)
def test_the_items_of_lists(kind, definition):
    """The fields, kinds and lengths of what stands in a record's lists are the description's."""
    facts = DESCRIPTION["definitions"][definition]["properties"]
    assert [field.name for field in LIST_ITEMS[kind]] == list(facts)
    for field in LIST_ITEMS[kind]:
        described = facts[field.name]
        assert field.length == (described.get("maxLength") or None)
        kinds = {"string": "text", "boolean": "boolean", "integer": described.get("format")}
        expected = "datetime" if described.get("format") == "date-time" else kinds[described["type"]]
        assert field.kind == expected


# The answers


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_an_answer_is_as_described(request, method, path):
    """Each operation with a usual request succeeds with the status and shape of the description."""
    sandbox = _sandbox(request, method)
    url, body = _example(sandbox, path)
    options = {}
    if method in ("POST", "PUT") or (method == "DELETE" and path.endswith("/Tags")):
        options["body"] = body
    elif path.endswith("/SearchByTag"):
        options["params"] = {"tagName": body["TAG_NAME"], "top": 500}
    elif path == "/Tags":
        options["params"] = {"record_type": "Contacts"}
    elif path == "/CustomFields/{objectName}/Search":
        options["params"] = {"fieldName": "Region__c"}
    elif path.removeprefix("/{objectName}").count("/") < 2:
        options["params"] = {"top": 500}
    response = check(sandbox, method, path, url, **options)
    assert response.is_success, response.text
    if method == "GET" and isinstance(response.json(), list):
        assert response.json(), "nothing to check"


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_generated_requests_are_answered_as_described(request, method, path):
    """No request that the description allows gets a 5xx, with ids of seeded records and others."""
    sandbox = _sandbox(request, method)
    url, _ = _example(sandbox, path)

    @GENERATED
    @given(SCHEMA[path][method].as_strategy(), st.booleans())
    def ask(case, seeded):
        sent = case.as_transport_kwargs(base_url="")
        options = {name: sent[name] for name in ("params", "json", "content") if name in sent}
        check(sandbox, method, path, url if seeded else case.formatted_path, **options)

    ask()


@pytest.mark.parametrize(("method", "path"), OTHERS)
def test_what_the_sandbox_has_not_is_404(still, method, path):
    """The sandbox answers 404 to the rest of the description, and 405 if a path can be read only."""
    url = path.replace("{objectName}", CUSTOM_OBJECT).replace("{", "").replace("}", "")
    url = "/".join("5" if part.lower().endswith("id") else part for part in url.split("/"))
    response = still.api(method, url)
    is_read_only = path.strip("/").split("/")[0] in LISTS and "get" in DESCRIPTION["paths"][path]
    assert (response.status_code, list(response.json())) == (405 if is_read_only else 404, ["Message"])


@pytest.mark.parametrize("name", [*RECORD_TYPES, "{objectName}"])
def test_every_seeded_record_is_as_described(still, name):
    """Each seeded record fits the description, and has no other fields. One record is Insightly's own.

    The task of the help page has two fields that the description does not list.
    """
    record_type = RECORD_TYPES[name.replace("{objectName}", CUSTOM_OBJECT)]
    fields = set(
        _described(DESCRIPTION["paths"][f"/{name}/{{id}}"]["get"]["responses"]["200"]["schema"])["properties"]
    )
    for record in still.get(f"/{record_type.name}", top=500):
        record_id = record[record_type.id_field]
        check(still, "GET", f"/{name}/{{id}}", f"/{record_type.name}/{record_id}")
        extra = {"PUBLICLY_VISIBLE", "TASKLINKS"} if record_id == HELP_PAGE_TASK else set()
        assert set(record) - fields == extra


@pytest.mark.parametrize("name", LISTS)
def test_every_item_of_a_list_has_the_described_fields(still, name):
    """No field is missing or added, and they have the description's order."""
    path = f"/{name}"
    schema = _described(DESCRIPTION["paths"][path]["get"]["responses"]["200"]["schema"])
    params = {"Tags": {"record_type": "Contacts"}, "LeadStatuses": {"include_converted": "true"}}.get(name)
    items = check(still, "GET", path, path, params=params).json()
    assert len(items) > 1
    for item in items:
        assert list(item) == list(schema["properties"])


@pytest.mark.parametrize(
    "name", ["Contacts", "Leads", "Opportunities", "Tasks", "Ticket", CUSTOM_OBJECT, "Site__c"]
)
def test_every_custom_field_is_as_described(still, name):
    """The metadata of each custom field fits the description, also when one field is asked for."""
    path = "/CustomFields/{objectName}"
    for field in check(still, "GET", path, f"/CustomFields/{name}").json():
        url = f"/CustomFields/{name}/Search"
        check(still, "GET", f"{path}/Search", url, params={"fieldName": field["FIELD_NAME"]})


def test_a_wrong_answer_is_noticed(still):
    """The checks fail for records that break the description's kinds, lengths and times."""
    operation = SCHEMA["/Contacts/{id}"]["GET"]
    response = still.api("GET", "/Contacts/300000001")
    record = response.json()
    operation.validate_response(response)
    for field, value in {
        "FIRST_NAME": None,
        "LAST_NAME": "x" * 256,
        "DATE_CREATED_UTC": "2025-11-24T10:26:40Z",
        "DATE_UPDATED_UTC": "2025-11-24 10:26:40.787",
        "OWNER_USER_ID": 2**31,
        "EMAIL_OPTED_OUT": "false",
        "TAGS": None,
        "LINKS": [{"LINK_ID": "5"}],
    }.items():
        response._content = json.dumps({**record, field: value}).encode()
        with pytest.raises((Failure, FailureGroup)):
            operation.validate_response(response)

"""Make ``airflow_insightly_hooks/core/record_types.json`` from Insightly's API description.

The description is Insightly's text, and stays outside this project. The table holds the facts in it.
Usage: INSIGHTLY_API_DESCRIPTION=path/to/insightly-v3.1.json python tools/record_types.py
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent.parent / "airflow_insightly_hooks" / "core" / "record_types.json"

# For lists, the description only says {"type": "array"}. This is the kind of list, by the items' definition.
LISTS = {
    "APICustomField": "custom_fields",
    "APITag": "tags",
    "APILinkDto": "links",
    "APIDate": "dates",
    "APIEmailDomain": "email_domains",
}
CUSTOM_OBJECT = "{objectName}"


def record_types(description: dict[str, Any]) -> dict[str, Any]:
    """Return the table: record type name -> title, methods, parents and fields."""
    paths = description["paths"]
    names = sorted(
        path.split("/")[1]
        for path in paths
        if path.endswith("/Search") and path.count("/") == 2 and not path.startswith("/CustomFields/")
    )
    return {name.replace(CUSTOM_OBJECT, "__c"): _record_type(description, name) for name in names}


def _record_type(description: dict[str, Any], name: str) -> dict[str, Any]:
    paths = description["paths"]
    schema = resolve(description, paths[f"/{name}/Search"]["get"]["responses"]["200"]["schema"])
    methods = [m for m in ("post", "put") if m in paths[f"/{name}"]]
    methods += [m for m in ("delete",) if m in paths[f"/{name}/{{id}}"]]
    parents = sorted(
        path.split("/")[1] for path in paths if path.endswith(f"/{{id}}/{name}") and "post" in paths[path]
    )
    required = schema.get("required") or []
    return {
        "title": schema["title"],
        "methods": " ".join(methods).upper(),
        **({"parents": " ".join(parents)} if parents else {}),
        "fields": {
            field: _field(facts, required=field in required) for field, facts in schema["properties"].items()
        },
    }


def _field(facts: dict[str, Any], *, required: bool) -> str:
    words = [_kind(facts)]
    if required:
        words.append("required")
    if facts.get("readOnly"):
        words.append("read-only")
    return " ".join(words)


def _kind(facts: dict[str, Any]) -> str:
    if facts["type"] == "array":
        return LISTS[facts["items"]["$ref"].rsplit("/", 1)[1]]
    if facts["type"] == "integer":
        return str(facts["format"])
    if facts.get("format") == "date-time":
        return "datetime"
    if facts["type"] == "string":
        return f"text({length})" if (length := facts.get("maxLength")) else "text"
    return str(facts["type"])


def resolve(description: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of the object: of a list's items, or of a reference's definition."""
    schema = schema.get("items", schema)
    reference = schema.get("$ref")
    return description["definitions"][reference.rsplit("/", 1)[1]] if reference else schema


def main() -> None:
    """Write the table."""
    source = os.environ.get("INSIGHTLY_API_DESCRIPTION")
    if not source:
        sys.exit("set INSIGHTLY_API_DESCRIPTION to the file of Insightly's API description (v3.1)")
    table = record_types(json.loads(Path(source).read_text()))
    TABLE.write_text(json.dumps(table, indent=1) + "\n")
    print(f"{TABLE.name}: {len(table)} record types, {sum(len(t['fields']) for t in table.values())} fields")


if __name__ == "__main__":
    main()

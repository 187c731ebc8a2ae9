"""How many records a second criteria evaluate on one core, and how much faster they are than an interpreter.

There are five conditions of different kinds. All of them hold for every record, so that each is evaluated.
The interpreter reads the criteria again for each record, like code that compiles nothing. Both figures are
from the same run, so their ratio is also valid on a busy machine.

Usage: python benchmarks/criteria.py [records]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from airflow_insightly_hooks.core.criteria import compile_criteria
from airflow_insightly_hooks.core.dates import api_time, parse_duration
from airflow_insightly_hooks.core.records import RECORD_TYPES, field_value

NOW = datetime(2024, 6, 1, 12, tzinfo=timezone.utc)
CRITERIA = {
    "all": [
        {"field": "OPPORTUNITY_STATE", "operator": "equals", "value": "open"},
        {"field": "BID_AMOUNT", "operator": "greater_than", "value": 1000},
        {"field": "Approved__c", "operator": "is_checked"},
        {"field": "DATE_UPDATED_UTC", "operator": "within_last", "value": "7d"},
        {"field": "Region__c", "operator": "equals", "value": "north"},
    ]
}
ROUNDS = 5


def record(number: int) -> dict[str, Any]:
    """Return an opportunity with every field of its type, and ten custom fields."""
    custom = {f"Field{i}__c": f"Text {i}" for i in range(8)} | {"Region__c": "North", "Approved__c": True}
    return {
        **dict.fromkeys(RECORD_TYPES["Opportunities"].fields),
        "OPPORTUNITY_ID": number,
        "OPPORTUNITY_NAME": f"Opportunity {number}",
        "OPPORTUNITY_STATE": "OPEN",
        "BID_AMOUNT": 1000.5 + number,
        "DATE_UPDATED_UTC": (NOW - timedelta(minutes=number % 9_000)).strftime("%Y-%m-%d %H:%M:%S"),
        "CUSTOMFIELDS": [{"FIELD_NAME": name, "FIELD_VALUE": value} for name, value in custom.items()],
    }


def interpret(spec: dict[str, Any], record: dict[str, Any]) -> bool:
    """Evaluate criteria like the compiled ones, as far as this benchmark needs it."""
    if "all" in spec:
        return all(interpret(member, record) for member in spec["all"])
    value, wanted = field_value(record, spec["field"]), spec.get("value")
    if value is None or value == "":
        return False
    if spec["operator"] == "equals":
        return str(value).casefold() == str(wanted).casefold()
    if spec["operator"] == "greater_than":
        return Decimal(str(value)) > Decimal(str(wanted))
    if spec["operator"] == "is_checked":
        return value is True
    return NOW - parse_duration(wanted) <= api_time(value) <= NOW


def rate(decide: Callable[[dict[str, Any]], bool], records: list[dict[str, Any]]) -> float:
    """Return the records a second of the best of several rounds."""
    best = 0.0
    for _ in range(ROUNDS):
        started = time.perf_counter()
        met = sum(map(decide, records))
        best = max(best, len(records) / (time.perf_counter() - started))
        assert met == len(records)
    return best


def main() -> None:
    records = [record(i) for i in range(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)]
    compiled = rate(compile_criteria(CRITERIA, now=NOW), records)
    plain = rate(lambda record: interpret(CRITERIA, record), records)
    print(f"{len(records):,} records, {len(CRITERIA['all'])} conditions, best of {ROUNDS} rounds")
    print(f"compiled     {compiled:9,.0f} records/s")
    print(f"interpreted  {plain:9,.0f} records/s")
    print(f"ratio        {compiled / plain:9.1f}")


if __name__ == "__main__":
    main()

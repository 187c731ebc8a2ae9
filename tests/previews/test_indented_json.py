"""JSON with line breaks."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from airflow_insightly_hooks.core import exact_json
from airflow_insightly_hooks.previews.indented_json import indented
from tests.strategies import exact_values


@given(exact_values)
def test_only_blanks_are_added(value: object) -> None:
    """Numbers and texts stay as they were written."""
    text = exact_json.dumps({"value": value})
    shown = indented(text)
    assert exact_json.dumps(exact_json.loads(shown)) == exact_json.dumps(exact_json.loads(text))


def test_it_looks_as_pythons_own() -> None:
    """But for what Python would write in another way."""
    value = {"a": {"x": [1.5, {"d": '\\/ " [,'}], "e": [], "f": {}}, "t": True, "n": None}
    assert indented(json.dumps(value, separators=(",", ":"))) == json.dumps(value, indent=2)
    assert indented(r'{"d":"\/Date(1)\/","n":1.50,"m":1E2}') == (
        '{\n  "d": "\\/Date(1)\\/",\n  "n": 1.50,\n  "m": 1E2\n}'
    )


@pytest.mark.parametrize("text", ["[" * 200_000, "[" * 99 + ",".join("1" * 100_000) + "]" * 99])
def test_what_nests_deep_stays_small(text: str) -> None:
    """A line is indented by 40 blanks at most: a few MB of JSON must not become gigabytes."""
    assert len(indented(text)) < 42 * len(text)

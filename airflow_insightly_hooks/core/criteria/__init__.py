"""Workflow criteria: how they are written, and what they are compiled to.

::

    criteria  := none | group | {"conditions": [condition…], "logic": "1 AND (2 OR NOT 3)"}
    group     := {"all": [criteria…]} | {"any": [criteria…]} | {"none": [criteria…]}
    condition := {"field", "operator", "value"?, "case_sensitive"?}

A field is a record's own (``TITLE``), a custom one (``Region__c``), ``TAGS`` (the tags' names), or a dotted
path into nested data (``LINKS.ROLE``). Where a path leads to several values, an operator holds if it holds
for one of them. A missing field is blank: negative operators hold for it, positive ones don't. The same goes
for values that an operator can't compare. Without a logic line, all numbered conditions must hold.

A ``Criteria`` object parses them once. It knows the fields that they ask for, and compiles them to a
predicate, which tells whether a record meets them, or to an explanation, which tells how each condition came
out. Everything that can be wrong with them is found then, and not when a record is decided on.
"""

from __future__ import annotations

from airflow_insightly_hooks.core.criteria.criteria import (
    ConditionOutcome,
    Criteria,
    Explanation,
    check_criteria,
    compile_criteria,
    compile_explanation,
)
from airflow_insightly_hooks.core.criteria.explanation import Compared, GroupOutcome
from airflow_insightly_hooks.core.criteria.operators import OPERATORS
from airflow_insightly_hooks.core.criteria.parsing import MAX_DEPTH
from airflow_insightly_hooks.core.criteria.predicates import Incomparable, Predicate

__all__ = [
    "MAX_DEPTH",
    "OPERATORS",
    "Compared",
    "ConditionOutcome",
    "Criteria",
    "Explanation",
    "GroupOutcome",
    "Incomparable",
    "Predicate",
    "check_criteria",
    "compile_criteria",
    "compile_explanation",
]

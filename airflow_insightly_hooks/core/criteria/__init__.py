"""A workflow's criteria: how they are written, and what they are compiled to.

::

    criteria  := none | group | {"conditions": [condition…], "logic": "1 AND (2 OR NOT 3)"}
    group     := {"all": [criteria…]} | {"any": [criteria…]} | {"none": [criteria…]}
    condition := {"field", "operator", "value"?, "case_sensitive"?}

A field is a record's own (``TITLE``), a custom one (``Region__c``), ``TAGS`` (the tags' names), or a dotted
path into nested data (``LINKS.ROLE``). Where a path leads to several values, an operator holds if it holds
for one of them. A negative operator holds if its opposite holds for none of them. A missing field is blank:
negative operators hold for it, and positive operators don't. The same is true of values that an operator
can't compare. Without a logic line, all numbered conditions must hold.

A ``Criteria`` object parses the criteria once. It lists the fields that they use. It compiles them to a
predicate, which returns whether a record meets them, or to an explanation, which returns the result of each
condition. Every mistake in the criteria is found then, before any record is tested.
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

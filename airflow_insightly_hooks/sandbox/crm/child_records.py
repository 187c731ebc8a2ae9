"""Child records: they are created and listed below another record's path, such as a project's milestones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_insightly_hooks.core.records import RecordType

__all__ = ["ChildRelation"]


@dataclass(frozen=True)
class ChildRelation:
    """The relation between the record type of a parent and the record type of its children.

    Notes belong to their parents by links. The response to a new or changed note is an object. All other
    children hold the id of their parent, and the response is a list.
    """

    parent: RecordType
    child: RecordType

    @property
    def is_linked(self) -> bool:
        """Whether a link ties a child to its parent."""
        return self.parent.id_field not in self.child.fields

    def parent_fields(self, parent: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a child that make it belong to ``parent``."""
        parent_id = parent[self.parent.id_field]
        if self.is_linked:
            return {"LINKS": [{"LINK_OBJECT_NAME": self.parent.title, "LINK_OBJECT_ID": parent_id}]}
        # A comment also holds the id of the forum that its post belongs to.
        shared = {
            name: parent[name]
            for name, field in self.child.fields.items()
            if field.required and name.endswith("_ID") and name in parent
        }
        return {**shared, self.parent.id_field: parent_id}

    def is_child(self, parent: Mapping[str, Any], child: Mapping[str, Any]) -> bool:
        """Whether ``child`` belongs to ``parent``."""
        parent_id = parent[self.parent.id_field]
        if not self.is_linked:
            return bool(child.get(self.parent.id_field) == parent_id)
        parent_link = (self.parent.title, parent_id)
        return any(
            (link["LINK_OBJECT_NAME"], link["LINK_OBJECT_ID"]) == parent_link for link in child["LINKS"]
        )

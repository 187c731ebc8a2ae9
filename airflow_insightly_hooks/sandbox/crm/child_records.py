"""Records that are made and found under another record's path, such as a project's milestones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_insightly_hooks.core.records import RecordType

__all__ = ["ChildRelation"]


@dataclass(frozen=True)
class ChildRelation:
    """A parent's record type and that of its children.

    Notes are tied to their parents by links, and answered one by one; the others hold their parent's id,
    and are answered in lists.
    """

    parent: RecordType
    child: RecordType

    @property
    def is_linked(self) -> bool:
        """Whether a child is tied to its parent by a link."""
        return self.parent.id_field not in self.child.fields

    def parent_fields(self, parent: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that say that a child belongs to ``parent``."""
        parent_id = parent[self.parent.id_field]
        if self.is_linked:
            return {"LINKS": [{"LINK_OBJECT_NAME": self.parent.title, "LINK_OBJECT_ID": parent_id}]}
        # A comment belongs to its post, and to the forum that the post belongs to.
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

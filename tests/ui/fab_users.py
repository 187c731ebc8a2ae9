"""Users and roles of the FAB auth manager: ``python -m tests.ui.fab_users``, after ``tests.ui.seed``.

There is one user for each of FAB's own roles, and ``sales``, who may see all DAGs except hidden ones.
"""

from __future__ import annotations

from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
from airflow.utils.providers_configuration_loader import providers_configuration_loaded

from tests.ui.workflows import HIDDEN, PASSWORDS, dags

__all__ = ["ROLES"]

ROLES = {
    "admin": "Admin",
    "op": "Op",
    "user": "User",
    "viewer": "Viewer",
    "sales": "Sales",
    "public": "Public",  # a role without any right
}
"""User -> role."""


@providers_configuration_loaded
def main() -> None:
    with get_application_builder() as builder:
        manager = builder.sm
        sales = manager.add_role(ROLES["sales"])
        for permission in manager.find_role("Viewer").permissions:
            if permission.resource.name != "DAGs":
                manager.add_permission_to_role(sales, permission)
        for dag in dags():
            if not dag.dag_id.startswith(HIDDEN):
                permission = manager.create_permission("can_read", f"DAG:{dag.dag_id}")
                manager.add_permission_to_role(sales, permission)
        for user, role in ROLES.items():
            address = f"{user}@example.com"
            assert manager.add_user(
                user, user, "Example", address, manager.find_role(role), PASSWORDS[user]
            ), user


if __name__ == "__main__":
    main()

"""An auth manager that can refuse single DAGs. Airflow's simple auth manager knows roles only."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

__all__ = ["Refuses", "Strict"]

Refuses = Callable[[str, DagAccessEntity | None, str], bool]
"""A method, a DAG's part and a DAG's id -> whether that is refused."""


class Strict(SimpleAuthManager):
    """Refuses some of the rights that a role has.

    :param hidden: DAGs that nobody may see.
    :param untouchable: DAGs whose tasks nobody may clear.
    :param secret: DAGs whose XCom nobody may read.
    :param refuses: other rights that are refused.
    """

    def __init__(
        self,
        *,
        hidden: Collection[str] = (),
        untouchable: Collection[str] = (),
        secret: Collection[str] = (),
        refuses: Refuses = lambda *_: False,
    ) -> None:
        super().__init__()
        self.hidden, self.untouchable, self.secret, self.refuses = hidden, untouchable, secret, refuses

    def is_authorized_dag(
        self, *, method: Any, access_entity: Any = None, details: Any = None, **kwargs: Any
    ) -> bool:
        """Return whether a person may do something with a DAG."""
        dag_id = details.id if details is not None else None
        if dag_id in self.hidden or (method == "PUT" and dag_id in self.untouchable):
            return False
        if access_entity == DagAccessEntity.XCOM and dag_id in self.secret:
            return False
        if dag_id is not None and self.refuses(method, access_entity, dag_id):
            return False
        return super().is_authorized_dag(
            method=method, access_entity=access_entity, details=details, **kwargs
        )

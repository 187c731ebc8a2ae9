"""What a person may see and do here, by the rules of Airflow's auth manager."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import Enum
from functools import cached_property
from typing import Annotated

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.base_auth_manager import BaseAuthManager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.models import DagModel
from fastapi import Depends
from sqlalchemy.orm import Session

from airflow_insightly_hooks.ui.problems import Forbidden

__all__ = ["Access", "AccessDep", "Right"]


class Right(Enum):
    """What Airflow asks before it lets a person do the same by its own pages: a method, and a DAG's part."""

    READ = ("GET", DagAccessEntity.TASK_INSTANCE)
    """See deliveries: they stand in the state of task instances."""
    READ_CONTENTS = ("GET", DagAccessEntity.XCOM)
    """See payloads, which stand in XCom, and what receivers have answered."""
    RESEND = ("PUT", DagAccessEntity.TASK_INSTANCE)
    """Clear deliver tasks, and edit their state."""
    START_RUNS = ("POST", DagAccessEntity.RUN)
    """Cancel pending webhooks or send them now, which are runs of a DAG; and read from Insightly for a
    preview, or POST a test, as a run of the DAG would."""

    def words(self, of: str) -> str:
        """Return what it takes, as in "you need to be allowed to …".

        :param of: a DAG's id, or what stands for several.
        """
        return _WORDS[self].format(of)


_WORDS = {
    Right.READ: "read task instances of {}",
    Right.READ_CONTENTS: "read XComs of {}",
    Right.RESEND: "clear task instances of {} and edit their state",
    Right.START_RUNS: "trigger runs of {}",
}


class Access:
    """What one person may see and do, during one request.

    :param user: who asks.
    :param session: of Airflow's database.
    :param manager: Airflow's auth manager.
    """

    def __init__(self, user: BaseUser, session: Session, manager: BaseAuthManager[BaseUser]) -> None:
        self._user, self._session, self._manager = user, session, manager
        self._known: dict[tuple[Right, str], bool] = {}
        self._teams: dict[str, str | None] = {}

    @property
    def user_name(self) -> str:
        """The person's name, as Airflow's audit log has it."""
        return self._user.get_name()

    @cached_property
    def dag_ids(self) -> frozenset[str]:
        """All DAGs that the person may see; not yet whether their task instances, too."""
        found = self._manager.get_authorized_dag_ids(user=self._user, method="GET", session=self._session)
        return frozenset(found)

    def those(self, right: Right, dag_ids: Iterable[str]) -> frozenset[str]:
        """Return those of the DAGs of which the person has a right."""
        wanted = self.dag_ids.intersection(dag_ids)
        self._look_up_teams(wanted)
        return frozenset(dag_id for dag_id in wanted if self.may(right, dag_id))

    def may(self, right: Right, dag_id: str) -> bool:
        """Return whether the person has a right of a DAG, whether or not there is such a DAG."""
        if (right, dag_id) not in self._known:
            if dag_id not in self._teams:
                self._look_up_teams([dag_id])
            method, entity = right.value
            self._known[right, dag_id] = self._manager.is_authorized_dag(
                method=method,  # type: ignore[arg-type]  # one of Airflow's literals
                access_entity=entity,
                details=DagDetails(id=dag_id, team_name=self._teams.get(dag_id)),
                user=self._user,
            )
        return self._known[right, dag_id]

    def check(self, right: Right, dag_ids: Iterable[str]) -> None:
        """Refuse the request if the person lacks a right of one of the DAGs, or may not see it at all.

        :raises Forbidden: if so.
        """
        for dag_id in dict.fromkeys(dag_ids):
            if not self.may(Right.READ, dag_id) or not self.may(right, dag_id):
                raise Forbidden(dag_id, right.words(dag_id))

    def _look_up_teams(self, dag_ids: Collection[str]) -> None:
        missing = [dag_id for dag_id in dag_ids if dag_id not in self._teams]
        if missing:
            found = DagModel.get_dag_id_to_team_name_mapping(missing, session=self._session)
            self._teams |= dict.fromkeys(missing) | found


async def _access(user: GetUserDep, session: SessionDep) -> Access:
    return Access(user, session, get_auth_manager())


AccessDep = Annotated[Access, Depends(_access)]
"""A route's parameter: the person's access. Who isn't logged in gets no further."""

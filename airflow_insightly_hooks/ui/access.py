"""What a person may see and do on these pages. Airflow's auth manager decides it."""

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
    """A method and a part of a DAG. Airflow's own pages check the same ones for the same actions."""

    READ = ("GET", DagAccessEntity.TASK_INSTANCE)
    """See deliveries, which are kept in the state of task instances."""
    READ_CONTENTS = ("GET", DagAccessEntity.XCOM)
    """See payloads, which are kept in XCom, and the answers of receivers."""
    RESEND = ("PUT", DagAccessEntity.TASK_INSTANCE)
    """Clear deliver tasks, and edit their state."""
    START_RUNS = ("POST", DagAccessEntity.RUN)
    """Start the runs that cancel pending webhooks or send them now. Also read a record from Insightly for a
    preview, or POST a test, because a run of the DAG would do the same."""

    def words(self, of: str) -> str:
        """Return the right in words that follow "you need to be allowed to".

        :param of: a DAG's id, or words for several DAGs.
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

    :param user: the person who sent the request.
    :param session: a session of Airflow's database.
    :param manager: Airflow's auth manager.
    """

    def __init__(self, user: BaseUser, session: Session, manager: BaseAuthManager[BaseUser]) -> None:
        self._user, self._session, self._manager = user, session, manager
        self._known: dict[tuple[Right, str], bool] = {}
        self._teams: dict[str, str | None] = {}

    @property
    def user_name(self) -> str:
        """The person's name, as Airflow's audit log writes it."""
        return self._user.get_name()

    @cached_property
    def dag_ids(self) -> frozenset[str]:
        """All DAGs that the person may see. The person may not be allowed to see their task instances."""
        found = self._manager.get_authorized_dag_ids(user=self._user, method="GET", session=self._session)
        return frozenset(found)

    def permitted(self, right: Right, dag_ids: Iterable[str]) -> frozenset[str]:
        """Return the DAGs for which the person has a right."""
        wanted = self.dag_ids.intersection(dag_ids)
        self._look_up_teams(wanted)
        return frozenset(dag_id for dag_id in wanted if self.may(right, dag_id))

    def may(self, right: Right, dag_id: str) -> bool:
        """Return whether the person has a right for a DAG. The DAG need not exist."""
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
        """Check that the person may see all the DAGs, and has a right for each of them.

        :raises Forbidden: if not.
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
"""A route's parameter: the person's access. The request is refused if the person isn't logged in."""

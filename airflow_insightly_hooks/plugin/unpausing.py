"""Start a watcher as soon as its DAG is unpaused, not when Airflow next reads the DAG's file.

Airflow ends a watcher when it reads the file of a paused DAG. It starts the watcher again when it next reads
the file of the unpaused DAG. That may take as long as ``[dag_processor] min_file_process_interval``. So when
a DAG is unpaused in the UI or through the API, this module asks Airflow to read the files of DAGs without
watchers at once. Airflow's button "Reparse Dag" does the same. ``airflow dags unpause`` doesn't use the API,
so its watchers start with the next regular reading.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.orm import Session
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["StartWatchers", "request_parsing"]

log = logging.getLogger(__name__)

_DAGS = re.compile(r"/api/v2/dags(/[^/]+)?/?$")


class StartWatchers:
    """A middleware of the API server. After a DAG was changed, it starts the missing watchers.

    :param app: the application that answers the request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or scope["method"] != "PATCH" or not _DAGS.search(scope["path"]):
            await self._app(scope, receive, send)
            return
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        await self._app(scope, receive, noting)
        if status == 200:
            from starlette.concurrency import run_in_threadpool

            await run_in_threadpool(_start)


def _start() -> None:
    from airflow.utils.session import create_session

    try:
        with create_session(scoped=False) as session:
            request_parsing(session)
    except Exception as error:  # for example, another request has asked for the same file meanwhile
        log.info(
            "Airflow could not be asked to read DAG files at once: %s; it reads them at its next interval",
            type(error).__name__,
        )


def request_parsing(session: Session) -> None:
    """Ask Airflow to soon read the files of unpaused DAGs that lack watchers of this package.

    :param session: a session of Airflow's database.
    """
    from airflow.models.asset import AssetModel, DagScheduleAssetReference
    from airflow.models.dag import DagModel
    from airflow.models.dagbag import DagPriorityParsingRequest
    from sqlalchemy import select

    files = session.execute(
        select(DagModel.bundle_name, DagModel.relative_fileloc)
        .join(DagScheduleAssetReference, DagScheduleAssetReference.dag_id == DagModel.dag_id)
        .join(AssetModel, AssetModel.id == DagScheduleAssetReference.asset_id)
        .where(
            DagModel.is_paused.is_(False),
            DagModel.is_stale.is_(False),
            AssetModel.uri.startswith("insightly://"),
            ~AssetModel.watchers.any(),
        )
        .distinct()
    )
    waiting = session.scalars(select(DagPriorityParsingRequest))
    requested = {(request.bundle_name, request.relative_fileloc) for request in waiting}
    for bundle_name, relative_fileloc in files:
        if relative_fileloc is not None and (bundle_name, relative_fileloc) not in requested:
            session.add(DagPriorityParsingRequest(bundle_name, relative_fileloc))

"""Starting a watcher as soon as its DAG is unpaused, not when Airflow next reads the DAG's file.

Airflow ends a watcher when it reads the file of a paused DAG, and starts it again when it next reads the file
of an unpaused one: after up to ``[dag_processor] min_file_process_interval``. So when DAGs were unpaused by
the UI or the API, this has Airflow read the files at once whose watchers are missing, as its button "Reparse
Dag" does. ``airflow dags unpause`` goes another way, and waits.
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
    """The API server's middleware: after a DAG was changed, it has missing watchers started.

    :param app: what answers the request.
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
    except Exception as error:  # such as one that another request has made meanwhile: Airflow reads it anyway
        log.info("No DAG file is read out of turn: %s", type(error).__name__)


def request_parsing(session: Session) -> None:
    """Ask Airflow to read the files of unpaused DAGs soon whose watchers of ours are missing.

    :param session: of Airflow's database.
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

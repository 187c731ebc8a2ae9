"""The endpoint's application: its one route, and the order of the checks of a request."""

from __future__ import annotations

import logging
import re
from datetime import datetime, timezone

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_insightly_hooks.core.errors import UnknownRecordType, type_and_place
from airflow_insightly_hooks.core.incoming.announced import span_of
from airflow_insightly_hooks.core.incoming.received_entity import InvalidEntity, ReceivedEntity, read_entity
from airflow_insightly_hooks.hooks.header_values import whole_number
from airflow_insightly_hooks.incoming.announcer import Announcers
from airflow_insightly_hooks.incoming.answers import Refusal, unauthorized, unavailable
from airflow_insightly_hooks.incoming.entity_keeper import EntityKeeper
from airflow_insightly_hooks.incoming.metrics import count_webhook
from airflow_insightly_hooks.incoming.request_body import check_content_type, read_body
from airflow_insightly_hooks.incoming.senders import Sender, Senders

__all__ = ["make_app"]

log = logging.getLogger(__name__)

CLOCK_TOLERANCE = 300
"""Seconds by which a signature's time may differ from this machine's, as Standard Webhooks advises."""
_MESSAGE_ID = re.compile(r"[!-~]{1,256}")


def make_app() -> FastAPI:
    """Return the application. Only its route checks credentials: Airflow checks none before it."""
    app = FastAPI(
        title="Insightly webhooks to Airflow",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={Refusal: _refused, HTTPException: _no_route},
    )
    endpoint = Endpoint()
    app.add_api_route("/{connection}", endpoint.receive, methods=["POST"], response_model=None)
    app.add_middleware(_Guard)
    return app


class Endpoint:
    """Receives webhooks, in one process of the API server."""

    def __init__(self) -> None:
        self._senders = Senders()
        self._announcers = Announcers()
        self._keeper = EntityKeeper()

    async def receive(self, connection: str, request: Request) -> JSONResponse:
        """Accept a webhook as soon as Airflow's database holds an event that covers its record's change."""
        sender = await self._senders.authenticated(connection, request)
        sender.count_request()
        check_content_type(request)
        body = await read_body(request, sender.settings.max_body_bytes)
        message_id = _message_id(sender, request)
        _check_signature(sender, request, body)
        if message_id is not None and sender.has_sent(message_id):
            return _taken("The webhook was accepted before.")
        entity = _entity(sender, request, body)
        kept = await self._keeper.keep(sender.settings, entity, message_id or body)
        announcer = self._announcers.of(sender.settings.insightly_conn_id, entity.record_type)
        span = span_of(entity.changed_at, datetime.now(timezone.utc))
        if not await announcer.announce(span, new_event=kept is not None):
            log.warning(
                "Connection %r received a webhook, but no DAG is scheduled by changes of %s of connection "
                "%r: check the DAGs' schedules, or stop sending these webhooks",
                *(sender.conn_id, entity.record_type, sender.settings.insightly_conn_id),
            )
            if kept is not None:
                await self._keeper.discard(kept)
            raise Refusal(
                404, f"No DAG is scheduled by changes of {entity.record_type}: check the DAGs' schedules."
            )
        if message_id is not None:
            sender.keep_id(message_id)
        return _taken(f"Airflow knows that {entity.record_type} have changed.")


def _taken(detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail})


def _message_id(sender: Sender, request: Request) -> str | None:
    """Return the message's id; ``None`` if it has no id. Insightly's own webhooks have none."""
    message_id = request.headers.get("webhook-id")
    if message_id is None and sender.settings.signer is not None:
        raise unauthorized("A signed webhook is needed: webhook-id is missing.")
    if message_id is not None and not _MESSAGE_ID.fullmatch(message_id):
        raise Refusal(400, "webhook-id must be 1 to 256 printable ASCII characters, without spaces.")
    return message_id


def _check_signature(sender: Sender, request: Request, body: bytes) -> None:
    signer = sender.settings.signer
    if signer is None:
        return
    timestamp = whole_number(request.headers.get("webhook-timestamp"))
    now = datetime.now(timezone.utc).timestamp()
    if timestamp is None or abs(timestamp - now) > CLOCK_TOLERANCE:
        raise unauthorized(
            f"A signed webhook is needed: webhook-timestamp must be the present time, in seconds since 1970. "
            f"It may differ from Airflow's clock by {CLOCK_TOLERANCE} s at most."
        )
    signatures = request.headers.get("webhook-signature", "")
    if not signer.has_signed(request.headers["webhook-id"], timestamp, body, signatures):
        raise unauthorized("A signed webhook is needed: webhook-signature is missing or wrong.")


def _entity(sender: Sender, request: Request, body: bytes) -> ReceivedEntity:
    try:
        entity = read_entity(body, request.query_params.get("record_type"))
    except InvalidEntity as error:
        raise Refusal(400, f"The body is not a webhook of Insightly: {error}.") from None
    except UnknownRecordType:
        raise Refusal(
            404,
            "The query's record_type is not a record type of Insightly. A custom object's name ends in __c.",
        ) from None
    if not sender.settings.accepts(entity.record_type):
        raise Refusal(
            404, f"The connection does not accept {entity.record_type}: add it to the field record_types."
        )
    return entity


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)  # noqa: S101 — the handler is registered for this class
    return error.response()


async def _no_route(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 — likewise
    details = {404: "POST to /insightly/hooks/{connection}.", 405: "Only POST is allowed here."}
    detail = details.get(error.status_code, str(error.detail))
    return Refusal(error.status_code, detail, error.headers).response()


class _Guard:
    """Counts answers, and answers 503 if the endpoint fails. The server would log the body's contents."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            log.error("A webhook can't be accepted, the endpoint failed: %s", type_and_place(error))
            if not status:
                await unavailable().response()(scope, receive, noting)
        count_webhook(status)

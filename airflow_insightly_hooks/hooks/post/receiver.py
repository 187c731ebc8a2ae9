"""Read and check the settings of a receiver, from a connection of type ``insightly_webhook`` or a URI."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from airflow_insightly_hooks.core.delivery.signing import PREFIX, Signer
from airflow_insightly_hooks.core.errors import InvalidConnection, InvalidPayload, WorkerExhausted
from airflow_insightly_hooks.hooks.connection_extras import ConnectionExtras
from airflow_insightly_hooks.hooks.connection_failures import own_fault
from airflow_insightly_hooks.hooks.connection_fields import WEBHOOK_FIELDS
from airflow_insightly_hooks.hooks.masking import mask
from airflow_insightly_hooks.hooks.post.endpoint import Endpoint
from airflow_insightly_hooks.hooks.post.tls import bare_context, load_client_certificate, tls_context
from airflow_insightly_hooks.hooks.post.transport import Transport, TransportSettings
from airflow_insightly_hooks.hooks.rate_limit import RateLimit

if TYPE_CHECKING:
    from airflow.sdk import Connection

__all__ = ["AUTHORIZATION", "IN_CLEAR", "ReceiverSettings", "checked_headers"]

PROTECTED_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that users can't set, like all ``webhook-…``. They frame the request, or describe the body."""

IN_CLEAR = "authentication over http shows the password: use https (or allow_insecure_http)"

AUTHORIZATION = "Authorization"
_CUSTOMARY = {
    name.lower(): name for name in (AUTHORIZATION, "Accept", "Accept-Encoding", "Host", "User-Agent")
}

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class ReceiverSettings:
    """The settings of a receiver, checked.

    :raises InvalidConnection: if they can't be used.
    :raises WorkerExhausted: if this worker lacks a resource to read them, such as file descriptors.
    """

    def __init__(self, endpoint: Endpoint, extras: ConnectionExtras, conn_id: str) -> None:
        self.endpoint = endpoint
        try:
            self.headers = checked_headers(extras.texts("headers"), "the connection")
        except InvalidPayload as error:
            raise extras.invalid("headers", error.reason) from None
        if endpoint.authorization and AUTHORIZATION in self.headers:
            raise extras.invalid(
                "headers", "there is an Authorization, and the connection has credentials, too: give one"
            )
        self.rate_limit = RateLimit(extras.number("requests_per_second"))
        self.max_body_bytes = extras.whole_number("max_body_bytes")
        self.web_url = extras.text("web_url")
        if self.web_url and not re.match(r"https?://[^\s@]+$", self.web_url):
            raise extras.invalid("web_url", "an http(s) address without user information is needed")
        self.allow_redirects = extras.flag("allow_redirects")
        self.expect_body = extras.text("expect_body").encode()
        self.transport = _transport(endpoint, extras)
        if extras.is_blank("signing_secret"):  # somebody meant to sign, so POSTs must not go unsigned
            raise extras.invalid("signing_secret", "it is only white space: give a secret, or leave it empty")
        secrets = extras.text("signing_secret").split()
        try:
            self.signer = Signer(" ".join(secrets)) if secrets else None
        except ValueError as error:
            raise extras.invalid("signing_secret", str(error)) from None
        in_clear = not endpoint.is_secured and not endpoint.is_loopback
        self.refuses_credentials = in_clear and not extras.flag("allow_insecure_http")
        if self.refuses_credentials and (endpoint.authorization or AUTHORIZATION in self.headers):
            raise InvalidConnection(conn_id, "schema", IN_CLEAR)
        mask(*secrets, *self.headers.values())
        mask(endpoint.password, *(endpoint.authorization or "").split())
        self.keep_response = extras.flag("keep_response")
        self.signing_secrets = frozenset(secrets) | {secret.removeprefix(PREFIX) for secret in secrets}

    @classmethod
    def from_connection(cls, connection: Connection) -> ReceiverSettings:
        """Return the settings of an Airflow connection."""
        extras = ConnectionExtras(connection, WEBHOOK_FIELDS)
        return cls(Endpoint.from_connection(connection, extras.text("path")), extras, connection.conn_id)

    @classmethod
    def from_uri(cls, uri: str) -> ReceiverSettings:
        """Return the settings of a URI, and the defaults."""
        from airflow.sdk import Connection

        extras = ConnectionExtras(Connection(conn_id="uri", conn_type=""), WEBHOOK_FIELDS)
        return cls(Endpoint.from_uri(uri), extras, "uri")


def _transport(endpoint: Endpoint, extras: ConnectionExtras) -> Transport:
    settings = TransportSettings(
        timeout=extras.number("timeout"),
        verify=extras.flag_or_text("verify"),
        trust_env=extras.flag("trust_env"),
        allow_private=extras.flag("allow_private_networks"),
    )
    # Reading all trusted certificates takes 30 ms, so it is left out if nothing uses them. But settings of
    # TLS are always checked.
    cert = extras.text("cert")
    needs_tls = endpoint.is_secured or settings.verify is not True or cert
    try:
        tls = tls_context(settings.verify, trust_env=settings.trust_env) if needs_tls else bare_context()
        transport = Transport(endpoint, settings, tls)
    except OSError as error:
        _check_worker(error)
        raise extras.invalid("verify", "its file of certificates can't be read") from None
    certificate, comma, key = cert.partition(",")
    try:
        if certificate or comma:
            load_client_certificate(tls, certificate.strip(), key.strip() if comma else None)
    except OSError as error:
        _check_worker(error)
        raise extras.invalid(
            "cert", "a readable PEM file of a certificate and its key, or certificate,key, is needed"
        ) from None
    return transport


def _check_worker(error: OSError) -> None:
    """Raise ``WorkerExhausted`` if the reason is that this worker lacks a resource, and not the file."""
    lack = own_fault(error)
    if lack is not None:
        raise WorkerExhausted(lack) from None


def checked_headers(headers: Mapping[str, str], where: str) -> dict[str, str]:
    """Return headers as they are sent: well-known names in their usual case, other names as they are given.

    The case of a name has no meaning in HTTP, but some receivers look for ``Authorization`` exactly.

    :param where: where the headers come from, for an error.
    :raises InvalidPayload: if they can't be sent. The error names the header, not its value.
    """
    for name, value in headers.items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name) or not isinstance(value, str):
            raise InvalidPayload(where, "a header's name must be a token, and its value a text")
        if name.lower() in PROTECTED_HEADERS or name.lower().startswith("webhook-"):
            raise InvalidPayload(where, f"the header {name} can't be set")
        if not value.isprintable() or not value.isascii():
            raise InvalidPayload(
                where, f"the header {name} holds characters that aren't allowed: printable ASCII is needed"
            )
    if len({name.lower() for name in headers}) < len(headers):
        raise InvalidPayload(where, "a header is given twice, in different upper and lower case")
    return {_CUSTOMARY.get(name.lower(), name): value.strip() for name, value in headers.items()}

"""Connect to a receiver without sending a request, to see whether it accepts connections, and its TLS."""

from __future__ import annotations

from airflow_insightly_hooks.hooks.post.connection import Connection
from airflow_insightly_hooks.hooks.post.deadline import Deadline
from airflow_insightly_hooks.hooks.post.endpoint import Endpoint
from airflow_insightly_hooks.hooks.post.exchange import FAILURES, check_address, not_delivered
from airflow_insightly_hooks.hooks.post.stream import TlsState
from airflow_insightly_hooks.hooks.post.transport import Transport

__all__ = ["probe"]


def probe(endpoint: Endpoint, transport: Transport) -> TlsState | None:
    """Connect as a POST would, through a proxy if there is one, and close the connection.

    :returns: the state of TLS; ``None`` without TLS.
    :raises NotDelivered: if no connection can be made, or its certificate is refused.
    """
    check_address(transport)
    connection = Connection(transport, Deadline(transport.settings.timeout))
    try:
        connection.open(endpoint)
        return connection.stream.tls_state()
    except FAILURES as error:
        raise not_delivered(error, connection, transport) from None
    finally:
        connection.close()

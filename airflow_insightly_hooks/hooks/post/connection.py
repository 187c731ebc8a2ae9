"""A connection of HTTP/1.1. h11 implements the protocol, and keeps track of its state."""

from __future__ import annotations

import h11
import httpcore

from airflow_insightly_hooks.hooks.post.deadline import Deadline
from airflow_insightly_hooks.hooks.post.endpoint import Endpoint
from airflow_insightly_hooks.hooks.post.response import Response, new_client, read_body, take_head
from airflow_insightly_hooks.hooks.post.stream import Stream
from airflow_insightly_hooks.hooks.post.transport import NotDialled, SessionRefused, Transport

__all__ = ["Connection", "Headers", "ProxyRefused"]

Headers = list[tuple[str, str]]


class ProxyRefused(Exception):
    """The proxy refused the request, so nothing was sent to the receiver."""

    def __init__(self, status: int) -> None:
        super().__init__(f"it answered {status}")


class Connection:
    """A connection to the receiver, or to the proxy before it.

    :param transport: the transport that connects.
    :param deadline: the deadline of the first exchange.
    :ivar stream: the stream of the connection's bytes.
    """

    def __init__(self, transport: Transport, deadline: Deadline) -> None:
        self._transport = transport
        self._http = new_client()
        self.stream = Stream(transport, deadline)

    def open(self, endpoint: Endpoint) -> None:
        """Connect. With a proxy, TLS to the receiver goes through a tunnel.

        :raises NotDialled: if no connection can be made.
        :raises ProxyRefused: if the proxy opens no tunnel.
        """
        try:
            self._open(endpoint)
        except SessionRefused:
            self.stream.close()
            self.stream = Stream(self._transport, self.stream.deadline)
            self._http = new_client()
            self._open(endpoint)

    def _open(self, endpoint: Endpoint) -> None:
        self.stream.open()
        if not self._transport.has_tunnel:
            return
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        authority = f"{host}:{endpoint.port}"
        headers = [("Host", authority), ("Accept", "*/*"), *self._proxy_headers()]
        response = self._ask(h11.Request(method="CONNECT", target=authority, headers=headers), b"")
        if not 200 <= response.status < 300:
            raise ProxyRefused(response.status)
        if self._http.trailing_data[0]:
            raise NotDialled("the proxy sent data in the tunnel before the receiver could")
        self._http = new_client()
        self.stream.secure()

    def post(self, endpoint: Endpoint, headers: Headers, body: bytes, *, is_last: bool = True) -> Response:
        """POST ``body`` and return the final response.

        :param is_last: whether to ask the receiver to close the connection.
        :raises ProxyRefused: if the proxy asks for other credentials.
        :raises ValueError: if a header or the target is not valid in HTTP; nothing was sent.
        """
        is_forwarded = self._transport.proxy is not None and not self._transport.has_tunnel
        target = endpoint.url if is_forwarded else endpoint.target
        headers = [*headers, ("Content-Length", str(len(body)))]
        if is_last:
            headers.append(("Connection", "close"))
        if is_forwarded:
            headers += self._proxy_headers()
        try:
            request = h11.Request(method="POST", target=target, headers=headers)
        except h11.LocalProtocolError as error:
            raise ValueError("a header or the target holds characters that HTTP doesn't allow") from error
        response = self._ask(request, body)
        if is_forwarded and response.status == 407:
            raise ProxyRefused(407)
        return response

    def _ask(self, request: h11.Request, body: bytes) -> Response:
        """Send a request, and read the final response."""
        http, stream = self._http, self.stream
        parts = [http.send(request), http.send(h11.Data(data=body)) if body else b""]
        parts.append(http.send(h11.EndOfMessage()))
        try:
            stream.write(b"".join(filter(None, parts)))
            is_sent = True
        except httpcore.WriteError:  # a receiver may refuse a request without reading all of it
            is_sent = False
        head = None
        if early := stream.take_early():
            http.receive_data(early)
            head = take_head(http)
        is_early = not is_sent or head is not None or bool(early and http.trailing_data[0])
        while head is None:
            http.receive_data(stream.read())
            head = take_head(http)
        if request.method == b"CONNECT" and head.status < 300:  # TLS follows, not a body
            return Response(head.status, head.headers)
        content, note = read_body(http, stream.read)
        return Response(head.status, head.headers, note, content, is_early)

    def _proxy_headers(self) -> Headers:
        """Return the headers with the credentials for the proxy."""
        authorization = self._transport.proxy.authorization if self._transport.proxy is not None else None
        return [] if authorization is None else [("Proxy-Authorization", authorization)]

    @property
    def is_complete(self) -> bool:
        """Whether the response was received to its end."""
        return self._http.their_state in (h11.DONE, h11.MUST_CLOSE)

    @property
    def has_surplus(self) -> bool:
        """Whether bytes came after the response."""
        return bool(self._http.trailing_data[0])

    @property
    def allows_another(self) -> bool:
        """Whether both sides are ready for another exchange."""
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    def begin(self, deadline: Deadline) -> None:
        """Begin another exchange."""
        self._http.start_next_cycle()
        self.stream.begin(deadline)

    def close(self) -> None:
        """Close it, even if more bytes may come."""
        self.stream.close()

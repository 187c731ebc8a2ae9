"""Messages, as receivers verify them with the specification's library ``standardwebhooks``."""

from __future__ import annotations

import base64
import json

import pytest

from airflow_insightly_hooks.hooks.webhook import WebhookHook
from tests.conftest import Connect
from tests.servers import Request, answer, serving

SECRETS = ["whsec_" + base64.b64encode(letter * 24).decode() for letter in (b"s", b"t")]
OTHER = "whsec_" + base64.b64encode(b"u" * 24).decode()
BODY = '{"entity":{"FIRST_NAME":"Zoë","N":1.0}}'


@pytest.fixture
def received(connect: Connect) -> Request:
    """Return a request that was signed with two secrets, as a receiver gets it."""
    with serving([answer()]) as server:
        connect("receiver", host=server.url, extra={"signing_secret": " ".join(SECRETS)})
        assert WebhookHook("receiver").send(BODY, message_id="msg_1").acknowledged
    return server.requests[0]


@pytest.mark.parametrize("secret", SECRETS)
def test_verified(received: Request, secret: str) -> None:
    """A receiver verifies a message with either secret, so that secrets can be replaced."""
    library = pytest.importorskip("standardwebhooks")
    assert library.Webhook(secret).verify(received.body, received.headers) == json.loads(BODY)


def test_not_verified(received: Request) -> None:
    """With another secret, body, id or time, it verifies nothing."""
    library = pytest.importorskip("standardwebhooks")
    headers = received.headers
    earlier = str(int(headers["webhook-timestamp"]) - 1)
    for secret, body, changed in (
        (OTHER, received.body, {}),
        (SECRETS[0], received.body + b" ", {}),
        (SECRETS[0], received.body, {"webhook-id": "msg_2"}),
        (SECRETS[0], received.body, {"webhook-timestamp": earlier}),
    ):
        with pytest.raises(library.WebhookVerificationError):
            library.Webhook(secret).verify(body, headers | changed)

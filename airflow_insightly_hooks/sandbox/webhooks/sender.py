"""The POSTs of one webhook: three attempts at most for each body."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

from airflow_insightly_hooks.sandbox.webhooks.json_post import JSONPost
from airflow_insightly_hooks.sandbox.webhooks.webhook import Webhook

__all__ = ["WebhookSender"]

ATTEMPTS = 3
"""From Insightly's help page: without a positive acknowledgement, there are two more tries."""


@dataclass
class _Message:
    body: bytes
    attempts: int = 0


class WebhookSender:
    """Sends the bodies of one webhook in their order, one at a time, in a task of the running event loop.

    If a body is not acknowledged, it waits for its next attempt. The other bodies don't wait for it.

    :ivar acknowledged: how many bodies were answered with a 2xx.
    :ivar given_up: how many bodies have no attempt left.
    :ivar attempts: how many attempts were made.
    :ivar pending: how many bodies are neither acknowledged nor given up.
    """

    def __init__(self, webhook: Webhook) -> None:
        self.webhook = webhook
        self.acknowledged = self.given_up = self.attempts = self.pending = 0
        self._post = JSONPost(webhook.uri, webhook.username, webhook.password)
        self._queue: deque[_Message] = deque()
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False

    def send(self, body: str) -> None:
        """Send a body as soon as all earlier bodies have had their first attempt."""
        self.pending += 1
        self._enqueue(_Message(body.encode()))

    def stop(self) -> None:
        """Drop the pending bodies, and cancel the current attempt."""
        self._is_stopped = True
        self._queue.clear()
        if self._task is not None:
            self._task.cancel()

    def counts(self) -> dict[str, Any]:
        """Return how many bodies are in each state, as ``GET /_sandbox`` shows it."""
        return {
            "uri": self.webhook.uri,
            "record_type": self.webhook.record_type,
            "acknowledged": self.acknowledged,
            "given_up": self.given_up,
            "attempts": self.attempts,
            "pending": self.pending,
        }

    def _enqueue(self, message: _Message) -> None:
        if self._is_stopped:
            return
        self._queue.append(message)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._send_queue())

    async def _send_queue(self) -> None:
        while self._queue:
            await self._attempt(self._queue.popleft())

    async def _attempt(self, message: _Message) -> None:
        message.attempts += 1
        self.attempts += 1
        try:
            status = await asyncio.wait_for(self._post.send(message.body), self.webhook.timeout)
        except Exception:  # after any error, there is no answer, and the next attempt may get one
            status = None
        if status is not None and 200 <= status < 300:
            self.acknowledged += 1
        elif message.attempts < ATTEMPTS:
            asyncio.get_running_loop().call_later(self.webhook.delay, self._enqueue, message)
            return
        else:
            self.given_up += 1
        self.pending -= 1

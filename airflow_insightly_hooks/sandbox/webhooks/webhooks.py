"""All webhooks of a sandbox."""

from __future__ import annotations

from typing import Any

from airflow_insightly_hooks.sandbox.crm.record_store import RecordWrite
from airflow_insightly_hooks.sandbox.webhooks.entity_body import entity_body, times_of_change
from airflow_insightly_hooks.sandbox.webhooks.sender import WebhookSender
from airflow_insightly_hooks.sandbox.webhooks.webhook import Webhook

__all__ = ["Webhooks"]


class Webhooks:
    """Sends created and updated records to the receivers in the setting ``webhook``."""

    def __init__(self) -> None:
        self._setting: Webhook | tuple[Webhook, ...] | None = None
        self._senders: list[WebhookSender] = []

    def configure(self, setting: Webhook | tuple[Webhook, ...] | None) -> None:
        """Replace the setting. Pending bodies of the previous webhooks are dropped. Counts begin at 0."""
        for sender in self._senders:
            sender.stop()
        webhooks = (setting,) if isinstance(setting, Webhook) else setting or ()
        self._setting, self._senders = setting, [WebhookSender(webhook) for webhook in webhooks]

    def record_written(self, write: RecordWrite) -> None:
        """Send the record that was written. Its body is made at once."""
        name = write.record_type.name
        senders = [sender for sender in self._senders if sender.webhook.record_type == name]
        if senders:
            body = entity_body(write.record_type, write.record, times_of_change(write))
            for sender in senders:
                sender.send(body)

    def setting_as_json(self) -> Any:
        """Return the setting as ``GET /_sandbox`` shows it, without passwords."""
        if isinstance(self._setting, tuple):
            return [webhook.as_json() for webhook in self._setting]
        return self._setting and self._setting.as_json()

    def counts(self) -> list[dict[str, Any]]:
        """Return how many bodies of each webhook are in each state, as ``GET /_sandbox`` shows it."""
        return [sender.counts() for sender in self._senders]

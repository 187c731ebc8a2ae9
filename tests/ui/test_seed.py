"""The package reads the seeded data as the tests of the pages expect it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session

from airflow_insightly_hooks.core.delivery.receiver_status import ReceiverStatus
from airflow_insightly_hooks.core.delivery.resend_requests import read_requests
from airflow_insightly_hooks.core.state.retry_queue import RetryQueue
from airflow_insightly_hooks.database.deliveries import UNDELIVERED, DeliveryFilter, search_deliveries
from airflow_insightly_hooks.database.pending import pending_webhooks
from airflow_insightly_hooks.database.state import DatabaseStateStore
from airflow_insightly_hooks.hooks.assets import records_asset
from tests.metadata_database import AssetState, asset_of, metadata_database
from tests.ui.seed import Seed, seed


@pytest.fixture(scope="module")
def seeded() -> Iterator[tuple[Session, Seed]]:
    with metadata_database() as sessions, sessions() as session:
        yield session, seed(session)


def test_deliveries(seeded: tuple[Session, Seed]) -> None:
    """All deliveries are found, with the right number of undelivered ones."""
    session, made = seeded
    found = search_deliveries(session, DeliveryFilter(), limit=1_000)
    workflows = Counter(row.key.dag_id.partition("__")[0] for row in found.rows)
    assert workflows == made.deliveries
    assert found.unreadable == 0
    states = {row.message.state for row in found.rows}
    assert states == {"delivered", "failed", "gone", "in doubt", "left", "dry run"}
    undelivered = search_deliveries(session, DeliveryFilter(state=UNDELIVERED), limit=1_000)
    assert len(undelivered.rows) == sum(made.undelivered.values())


def test_named_messages(seeded: tuple[Session, Seed]) -> None:
    """Each named message is found, with its task and its record."""
    session, made = seeded
    assert len(made.messages) == 9
    for name, message in made.messages.items():
        (row,) = search_deliveries(session, DeliveryFilter(message_ids=[message])).rows
        assert [row.key.dag_id, row.key.run_id, row.key.task_id] == made.tasks[name]
        assert row.message.about is not None
        assert [row.message.about.record_type, row.message.about.record_id] == made.records[name]


def test_request_to_send_again(seeded: tuple[Session, Seed]) -> None:
    """One task has a request that waits."""
    session, made = seeded
    (row,) = search_deliveries(session, DeliveryFilter(message_ids=[made.messages["resent"]])).rows
    (request,) = read_requests(DatabaseStateStore(session, row.key))
    assert list(request.messages[""]) == [made.messages["resent"]]


def test_pending(seeded: tuple[Session, Seed]) -> None:
    """All pending webhooks are found, with the DAGs that send them."""
    session, made = seeded
    page = pending_webhooks(session)
    assert Counter(row.dag_id for row in page.rows) == made.pending
    assert all(row.pending_dag_id for row in page.rows)
    assert page.unreadable == []


def test_receiver_that_is_down(seeded: tuple[Session, Seed]) -> None:
    """It is reported as down, and the messages left for it wait."""
    session, _ = seeded
    asset_id = asset_of(session, records_asset("insightly_default", "Organisations"))
    state = AssetState(session, asset_id)
    status = ReceiverStatus.of(state.get("receiver/organisations_to_billing/billing"))
    assert status is not None
    assert status.is_down
    assert RetryQueue(state, "retry/organisations_to_billing/billing").waiting == 6

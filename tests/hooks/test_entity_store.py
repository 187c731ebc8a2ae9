"""The store of webhooks' contents: on a disk, and in an object store."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.sdk.io import store as airflow_store
from fsspec.implementations.memory import MemoryFileSystem

from airflow_insightly_hooks.core.errors import InvalidConnection
from airflow_insightly_hooks.core.incoming.kept_entity import KeptEntity, KeptName
from airflow_insightly_hooks.hooks.entity_store import EntityStore
from airflow_insightly_hooks.hooks.incoming import IncomingSettings, InsightlyIncomingHook
from tests.conftest import Connect

EIGHT = datetime(2017, 3, 10, 8, tzinfo=timezone.utc)


class ObjectsOnly(MemoryFileSystem):
    """A store that caches its listings, as some clouds' clients do."""

    protocol = "objects"
    cachable = False
    listings: dict[str, list[str]]

    def __init__(self) -> None:
        super().__init__()
        self.listings = {}

    def ls(self, path: str, detail: bool = True, **_: object) -> list[str]:
        assert not detail
        if path not in self.listings:
            self.listings[path] = super().ls(path, detail=False)
        return self.listings[path]

    def invalidate_cache(self, path: str | None = None) -> None:
        assert path is None
        self.listings.clear()


@pytest.fixture(params=["file", "objects"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The place of a store: on a disk, or in a stand-in for a cloud's."""
    if request.param == "file":
        yield f"file://{tmp_path}/a [b]"
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(airflow_store, "_STORE_CACHE", {})
        patch.setattr(MemoryFileSystem, "store", {})
        patch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
        airflow_store.attach(protocol="memory", fs=ObjectsOnly())
        yield "memory://bucket/kept/"


def kept(record_id: int = 7, received_at: datetime = EIGHT, record_type: str = "Contacts") -> KeptEntity:
    return KeptEntity(received_at, record_type, record_id, {"FIRST_NAME": "Zoé"})


def name_of(entity: KeptEntity, message: str = "m") -> KeptName:
    return KeptName.of_message(entity.received_at, entity.record_id, message)


def test_keep_and_read(url: str) -> None:
    """Stored webhooks are listed from one day to another, in order of time, and can be read."""
    store = EntityStore(url, "insightly_default")
    assert store.names("Contacts", EIGHT, EIGHT) == []
    entities = [kept(number, EIGHT + timedelta(hours=12 * number)) for number in (3, 1, 2, 9)]
    for entity in entities:
        store.keep(name_of(entity), entity)
    store.keep(name_of(kept()), kept(record_type="Leads"))
    EntityStore(url, "other").keep(name_of(kept()), kept())
    names = store.names("Contacts", EIGHT, EIGHT + timedelta(days=2))
    assert [name.record_id for name in names] == [1, 2, 3]
    contents = list(store.contents("Contacts", [*names, name_of(kept(5))]))
    assert [KeptEntity.of(content).record_id for content in contents if content] == [1, 2, 3]
    assert contents[-1] is None
    for entity in (entities[1], kept(4)):  # one of them again, and another one
        store.keep(name_of(entity), entity)
    names = store.names("Contacts", EIGHT, EIGHT + timedelta(days=2))
    assert [name.record_id for name in names] == [4, 1, 2, 3]


def test_discard(url: str) -> None:
    """A discarded webhook is deleted. Discarding it again does nothing."""
    store = EntityStore(url, "insightly_default")
    store.keep(name_of(kept()), kept())
    for _ in range(2):
        store.discard(name_of(kept()), "Contacts")
        assert store.names("Contacts", EIGHT, EIGHT) == []


def test_delete_before(url: str) -> None:
    """Whole days are deleted, for all record types of the account."""
    store, other = EntityStore(url, "insightly_default"), EntityStore(url, "other")
    for days in range(4):
        for record_type in ("Contacts", "Leads"):
            entity = kept(days + 1, EIGHT + timedelta(days=days), record_type)
            store.keep(name_of(entity), entity)
            other.keep(name_of(entity), entity)
    assert store.delete_before(date(2017, 3, 12)) == 4
    assert store.delete_before(date(2017, 3, 12)) == 0
    for record_type in ("Contacts", "Leads"):
        left = store.names(record_type, EIGHT, EIGHT + timedelta(days=9))
        assert [name.record_id for name in left] == [3, 4]
        assert len(other.names(record_type, EIGHT, EIGHT + timedelta(days=9))) == 4


@pytest.mark.parametrize("conn_id", ["..", ".", "a/b", "a%2Fb", "Ä" * 300])
@pytest.mark.parametrize("record_type", ["Invoice__c", f"A{'a' * 3000}__c"])
def test_folders(tmp_path: Path, conn_id: str, record_type: str) -> None:
    """Whatever the names of connection and record type are, each becomes one folder below the path."""
    root = tmp_path / "kept"
    store = EntityStore(f"file://{root}", conn_id)
    store.keep(name_of(kept()), kept(record_type=record_type))
    (path,) = (found for found in tmp_path.rglob("*") if found.is_file())
    assert len(path.relative_to(root).parts) == 4
    assert store.names(record_type, EIGHT, EIGHT) == [name_of(kept())]
    assert store.delete_before(date(2017, 3, 11)) == 1


def test_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file gets its name when it is complete, so nobody reads half a record."""
    store = EntityStore(f"file://{tmp_path}", "insightly_default")

    def fail(_: int) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="no space"):
            store.keep(name_of(kept()), kept())
    assert store.names("Contacts", EIGHT, EIGHT) == []
    store.keep(name_of(kept()), kept())
    assert store.names("Contacts", EIGHT, EIGHT) == [name_of(kept())]


# --- the connection ----------------------------------------------------------------------------------------


def settings(**extra: object) -> IncomingSettings:
    connection = SimpleNamespace(conn_id="crm", login="i", password="secret", extra=json.dumps(extra))
    return IncomingSettings.from_connection(connection)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path",
    [
        "s3://aws_default@bucket/insightly",
        "s3://bucket",
        "file:///var/lib/airflow/in sightly",
        "hdfs://name-node:8020/insightly",
        "abfs://azure.default@container/a/b/",
    ],
)
def test_path(path: str) -> None:
    """Webhooks' contents are stored at the connection's path, for the connection's time."""
    found = settings(accept="entity", entity_path=path)
    assert (found.entity_path, found.entity_days) == (path, 7)
    assert settings(accept=" Entity ", entity_path=path, entity_days="30").entity_days == 30


def test_notice() -> None:
    """By default nothing is stored, even if there is a path."""
    for extra in ({}, {"accept": ""}, {"accept": "notice"}):
        assert settings(**extra, entity_path="s3://bucket").entity_path is None


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ({"accept": "entity"}, "entity_path"),
        ({"accept": "entity", "entity_path": "  "}, "entity_path"),
        ({"accept": "everything"}, "accept"),
        ({"accept": True}, "accept"),
        ({"entity_days": 0}, "entity_days"),
        ({"entity_days": 1.5}, "entity_days"),
        *(
            ({"accept": "entity", "entity_path": path}, "entity_path")
            for path in [
                *("/var/lib", "var/lib", "file://var/lib", "file://", "s3://", "s3:/bucket", "://bucket"),
                *("s3://key:secret@bucket/x", "s3://a@b@c", "s3://bucket/../x", "file:///a/..", "file:///.."),
                *("s3://bucket?token=secret", "s3://bucket#secret", "file:///a\nb", "s3://bucket/a\tb"),
            ]
        ),
    ],
)
def test_refused_settings(extra: dict[str, object], field: str) -> None:
    """An invalid path, or one with a password, is refused. The error names the field and shows no value."""
    with pytest.raises(InvalidConnection) as caught:
        settings(**extra)
    assert caught.value.field == f"extra.{field}"
    assert "secret" not in str(caught.value)


def test_the_form_tells(connect: Connect) -> None:
    """The form's test says that the path is missing."""
    connect("crm", "insightly_incoming", login="i", password="p", extra={"accept": "entity"})
    is_good, text = InsightlyIncomingHook("crm").test_connection()
    assert not is_good
    assert "extra.entity_path: it is empty" in text

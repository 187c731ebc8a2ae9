"""The object store of webhooks' contents. The endpoint writes them, and tasks read them.

An object is ``{entity_path}/{account's connection}/{record type}/{day, UTC}/{name}``.
``core.incoming.kept_entity`` defines its name and its contents. A file on a disk gets its name only after it
was written completely.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from functools import cached_property
from typing import Any
from urllib.parse import quote

from airflow_insightly_hooks.core.digest import digest_of
from airflow_insightly_hooks.core.incoming.kept_entity import KeptEntity, KeptName, day_in, day_name

__all__ = ["EntityStore"]

READERS = 8
"""The number of objects that are read at the same time."""
LONGEST_FOLDER = 200
"""The most characters of a folder's name. File systems allow 255 bytes."""


class EntityStore:
    """The kept contents of one account's webhooks.

    All methods block, and raise the errors of the object store.

    :param path: a URL for Airflow's ``ObjectStoragePath``.
    :param insightly_conn_id: the id of the account's connection.
    """

    def __init__(self, path: str, insightly_conn_id: str) -> None:
        self._url = path
        self._conn_id = insightly_conn_id

    def keep(self, name: KeptName, entity: KeptEntity) -> None:
        """Keep the contents of a webhook."""
        path = self._path(entity.record_type, name.day, str(name))
        content = entity.as_bytes()
        if self._is_local:
            _write_file(path, content)
            return
        try:
            self._fs.pipe_file(path, content)
        except FileNotFoundError:  # the store has real folders
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(path, content)

    def discard(self, name: KeptName, record_type: str) -> None:
        """Delete the kept contents of a webhook."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(record_type, name.day, str(name)))

    def names(self, record_type: str, since: datetime, until: datetime) -> list[KeptName]:
        """Return the sorted names of the contents received on the days from ``since`` to ``until``."""
        days = filter(None, map(day_in, self._list(self._path(record_type))))
        within = [day_name(day) for day in days if since.date() <= day <= until.date()]
        listed = [KeptName.parse(name) for day in within for name in self._list(self._path(record_type, day))]
        return sorted(name for name in listed if name is not None)

    def contents(self, record_type: str, names: Sequence[KeptName]) -> Iterator[bytes | None]:
        """Yield the contents of objects in the order of the names; ``None`` for a deleted object."""
        fs = self._fs  # created in this thread

        def content(name: KeptName) -> bytes | None:
            try:
                read: bytes = fs.cat_file(self._path(record_type, name.day, str(name)))
            except FileNotFoundError:
                return None
            return read

        if self._is_local:
            yield from map(content, names)
            return
        with ThreadPoolExecutor(READERS) as readers:
            yield from readers.map(content, names)

    def delete_before(self, day: date) -> int:
        """Delete the folders of all days before ``day``, of all record types, and return their number."""
        deleted = 0
        for record_type in self._list(self._path()):
            for name in self._list(self._path(record_type, is_quoted=True)):
                known = day_in(name)
                if known is not None and known < day:
                    with contextlib.suppress(FileNotFoundError):  # another process was faster
                        self._fs.rm(self._path(record_type, name, is_quoted=True), recursive=True)
                        deleted += 1
        return deleted

    def _list(self, path: str) -> list[str]:
        """Return the names in a folder; an empty list if the folder doesn't exist."""
        self._fs.invalidate_cache()  # some file systems cache listings
        try:
            return [listed.rstrip("/").rpartition("/")[2] for listed in self._fs.ls(path, detail=False)]
        except FileNotFoundError:
            return []

    def _path(self, *parts: str, is_quoted: bool = False) -> str:
        folders = parts if is_quoted else map(_folder, parts)
        return "/".join([self._root, _folder(self._conn_id), *folders])

    @cached_property
    def _base(self) -> Any:
        # Importing it takes a second, and parsing a DAG doesn't need it.
        from airflow.sdk import ObjectStoragePath

        return ObjectStoragePath(self._url)

    @property
    def _root(self) -> str:
        path: str = self._base.path
        return path.rstrip("/")

    @property
    def _fs(self) -> Any:
        return self._base.fs  # Airflow caches it, with the connection's credentials

    @property
    def _is_local(self) -> bool:
        return bool(getattr(self._fs, "local_file", False))


def _folder(name: str) -> str:
    """Return the name of a folder, quoted so that it has no separator and leads to no other folder."""
    quoted = quote(name, safe="")
    if len(quoted) > LONGEST_FOLDER:
        quoted = digest_of(name)
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted


def _write_file(path: str, content: bytes) -> None:
    folder, _, name = path.rpartition("/")
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103 — fsspec's paths are texts
    part = f"{folder}/.{name}.part"
    with open(part, "wb") as file:  # noqa: PTH123 — fsspec's paths are texts
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)  # noqa: PTH105 — fsspec's paths are texts

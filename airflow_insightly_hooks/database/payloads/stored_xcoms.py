"""Read the value of an XCom in the API server, with any XCom backend."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.core.xcom_address import is_address, is_object_storage

if TYPE_CHECKING:
    from airflow.models.xcom import XComModel

__all__ = ["MissingXComFileError", "XComTooLargeError", "stored_value"]


class XComTooLargeError(Exception):
    """An XCom is larger than the caller allows."""


class MissingXComFileError(Exception):
    """The file of an XCom is missing, or can't be seen from this machine."""


def stored_value(row: XComModel, most: int) -> Any:
    """Return the value of an XCom as plain JSON.

    Airflow's own function would create any object that a task has named there, in the API server. So values
    in the database and in the files of ``XComObjectStorageBackend`` are read as plain JSON. Values of any
    other backend are read by that backend.

    :param most: the most bytes of a file, unpacked; a larger file isn't read.
    :raises XComTooLargeError: if the file is larger.
    :raises MissingXComFileError: if the file is missing.
    :raises Exception: any other error of a backend or its storage; its text may hold an address.
    """
    from airflow.sdk.bases.xcom import BaseXCom
    from airflow.sdk.execution_time.xcom import resolve_xcom_backend

    backend = resolve_xcom_backend()
    value = row.value
    if isinstance(value, str):
        with suppress(ValueError):  # text that is not JSON is the value itself
            value = json.loads(value)
    if backend is BaseXCom or isinstance(value, list):
        return value
    if not is_object_storage(backend):
        return backend.deserialize_value(row)
    return _in_file(value, most) if is_address(value) else value


def _in_file(address: str, most: int) -> Any:
    """Return the value in a file of the object storage; an address outside of it is returned as it is."""
    from airflow.sdk import ObjectStoragePath
    from airflow.sdk.configuration import conf

    path = ObjectStoragePath(address)
    base = ObjectStoragePath(conf.get("common.io", "xcom_objectstorage_path"))
    # is_relative_to compares texts: a ".." or another connection would lead to a place outside the storage.
    if not path.is_relative_to(base) or ".." in path.parts or path.conn_id != base.conn_id:
        return address
    try:
        if path.stat().st_size > most:
            raise XComTooLargeError
        with path.open("rb", compression="infer") as file:
            content = file.read(most + 1)
    except FileNotFoundError:
        raise MissingXComFileError from None
    if len(content) > most:
        raise XComTooLargeError
    return json.loads(content)

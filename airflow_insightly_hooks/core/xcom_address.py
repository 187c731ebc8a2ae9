"""Airflow's object storage of XComs: the backend, and the addresses of files in the database."""

from __future__ import annotations

import re
from typing import TypeGuard

__all__ = ["ADVISED_THRESHOLD", "OBJECT_STORAGE_BACKEND", "is_address", "is_object_storage", "not_a_list"]

OBJECT_STORAGE_BACKEND = "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend"
"""The value of ``[core] xcom_backend`` for object storage."""
ADVISED_THRESHOLD = 65_536
"""From this number of bytes on, XComs should go to files. Smaller ones can be seen on Airflow's pages."""

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S.*")


def is_object_storage(backend: type) -> bool:
    """Return whether an XCom backend is Airflow's object storage, without loading its module."""
    return f"{backend.__module__}.{backend.__name__}" == OBJECT_STORAGE_BACKEND


def is_address(value: object) -> TypeGuard[str]:
    """Return whether an XCom's value is a text that looks like the address of a file."""
    return isinstance(value, str) and _ADDRESS.fullmatch(value) is not None


def not_a_list(value: object, of: str) -> str:
    """Return why ``value`` is refused where a list is needed.

    :param of: what the list should hold, such as ``payloads``.
    """
    if is_address(value):
        return (
            f"a list of {of} is needed, but the XCom backend returned the address of its file. The file was "
            f"deleted, or this machine can't read it: [common.io] xcom_objectstorage_path must be a place "
            f"that all workers share. If the file is gone, clear the task that has made the {of}"
        )
    return f"a list of {of} is needed, not {type(value).__name__}"

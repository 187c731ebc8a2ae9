"""Chunks of payloads, each in an XCom of its own.

A mapped task reads the whole list that it is expanded over, and takes its own item. If the list holds the
chunks themselves, each task reads the payloads of all tasks. If it holds references, which take a few bytes
each, a task reads only its own chunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from airflow.sdk.exceptions import AirflowFailException

from airflow_insightly_hooks.core.errors import InsightlyHooksError
from airflow_insightly_hooks.core.payload import CHUNK_KEY, Payload
from airflow_insightly_hooks.core.plurals import counted

__all__ = ["ChunkReference", "MissingChunkError", "is_reference", "push_chunks", "read_chunk"]


class ChunkReference(TypedDict):
    """The place of a chunk in XCom.

    :ivar chunk: the XCom's key.
    :ivar task_id: the task that pushed it, in the same run.
    :ivar map_index: the map index of that task; -1 if it isn't mapped.
    :ivar count: the number of payloads in the chunk.
    """

    chunk: str
    task_id: str
    map_index: int
    count: int


class MissingChunkError(InsightlyHooksError, AirflowFailException):
    """A chunk is missing from XCom, or doesn't hold the payloads that were pushed.

    Cause: Raised when the XCom was deleted or changed after the task ``build`` pushed it. Nothing was sent,
    and Airflow doesn't retry the task, since a retry would not find the chunk either.

    Remedy: Clear the task that made the chunk, and the tasks after it. It makes its payloads again.

    :param reference: the place of the chunk in XCom.
    :param found: the number of payloads that are there.
    """

    def __init__(self, reference: ChunkReference, found: int) -> None:
        super().__init__(reference, found)
        self.reference = reference
        self.found = found

    def __str__(self) -> str:
        where = self.reference
        return (
            f"the XCom {where['chunk']!r} of the task {where['task_id']!r} should hold "
            f"{counted(where['count'], 'payload')} and holds {self.found:,}: nothing was sent. Clear that "
            "task and the tasks after it: it makes its payloads again"
        )


def push_chunks(ti: Any, chunks: Sequence[Sequence[Payload]]) -> list[ChunkReference]:
    """Push each chunk under a key of its own, and return references to the chunks, in their order.

    :param ti: the task instance that made them.
    """
    references = []
    for number, chunk in enumerate(chunks):
        key = f"{CHUNK_KEY}{number}"
        ti.xcom_push(key=key, value=list(chunk))
        map_index = -1 if ti.map_index is None else ti.map_index
        references.append(
            ChunkReference(chunk=key, task_id=ti.task_id, map_index=map_index, count=len(chunk))
        )
    return references


def is_reference(value: object) -> bool:
    """Return whether a value is a reference to a chunk."""
    return isinstance(value, Mapping) and value.keys() == ChunkReference.__annotations__.keys()


def read_chunk(payloads: Any, ti: Any) -> Any:
    """Return the payloads to which a reference points; return any other value unchanged.

    :param ti: a task instance of the same run.
    :raises MissingChunkError: if XCom doesn't hold these payloads any more.
    """
    if not is_reference(payloads):
        return payloads
    found = ti.xcom_pull(
        task_ids=payloads["task_id"], key=payloads["chunk"], map_indexes=payloads["map_index"]
    )
    number = len(found) if isinstance(found, list) else 0
    if number != payloads["count"]:
        raise MissingChunkError(payloads, number)
    return found

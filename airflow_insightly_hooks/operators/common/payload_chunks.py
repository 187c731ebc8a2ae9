"""Chunks of payloads, each in an XCom of its own.

A mapped task reads all of the list that it is expanded over, and takes its own item. If the chunks themselves
stand in that list, each task reads the payloads of all tasks. So the list can hold references instead, of
some bytes each, and a task reads its own chunk alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from airflow.sdk.exceptions import AirflowFailException

from airflow_insightly_hooks.core.errors import InsightlyHooksError
from airflow_insightly_hooks.core.payload import CHUNK_KEY, Payload

__all__ = ["ChunkReference", "MissingChunkError", "is_reference", "push_chunks", "read_chunk"]


class ChunkReference(TypedDict):
    """Where a chunk stands in XCom.

    :ivar chunk: the key.
    :ivar task_id: the task that has made it, in the same run.
    :ivar map_index: that task's.
    :ivar count: how many payloads it has.
    """

    chunk: str
    task_id: str
    map_index: int
    count: int


class MissingChunkError(InsightlyHooksError, AirflowFailException):
    """A chunk is not in XCom, or not as it was: a retry wouldn't find it either.

    :ivar reference: where it should be.
    :ivar found: how many payloads are there.
    """

    def __init__(self, reference: ChunkReference, found: int) -> None:
        super().__init__(reference, found)
        self.reference = reference
        self.found = found

    def __str__(self) -> str:
        where = self.reference
        return (
            f"{self.found} of {where['count']} payloads are in the XCom {where['chunk']!r} of the task "
            f"{where['task_id']!r}, and nothing was sent. Clear that task with what follows it: it makes its "
            "payloads again"
        )


def push_chunks(ti: Any, chunks: Sequence[Sequence[Payload]]) -> list[ChunkReference]:
    """Push each chunk under a key of its own, and return what refers to them, in their order.

    :param ti: the task instance that has made them.
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
    """Return whether a value refers to a chunk."""
    return isinstance(value, Mapping) and value.keys() == ChunkReference.__annotations__.keys()


def read_chunk(payloads: Any, ti: Any) -> Any:
    """Return the payloads that a reference refers to; another value as it is.

    :param ti: a task instance of the same run.
    :raises MissingChunkError: if they are not in XCom any more.
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

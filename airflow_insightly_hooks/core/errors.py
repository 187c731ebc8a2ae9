"""The errors of the package, and the tree of all.

InsightlyHooksError
├── UnknownRecordType          a name that is no record type of Insightly's API
├── InvalidTime                text that is no time as Insightly writes it
├── InvalidDuration            text that is no duration such as '3d'
├── InvalidWindow              a window without both ends, or that ends before it starts
├── InvalidCriteria            criteria that cannot be compiled; says where in them
├── InvalidWorkflow            a workflow with mistakes; holds each with its path
│   └── InvalidWorkflowFile        a workflow file with mistakes; holds each with its line
├── InvalidChange              an object that is not a change; says what is missing
├── InvalidPayload             an object that is not a payload; says what is missing
├── InvalidConnection          an Airflow connection that cannot be used; says which field
├── WorkerExhausted            this worker has no file descriptors or the like left to connect with
├── LostCursor                 a sensor's cursor is gone although it has run before
├── UntrustedClock             a sensor's cursor is ahead of the API server's clock
├── IncompleteScan             a search that couldn't be read to its end
├── InsightlyAPIError          an answer of Insightly's API that is none of the following
│   ├── InsightlyUnreachable       no answer, or a server error each time (hooks.api.api_errors)
│   ├── InsightlyAccessError       401, 403, 404 or 405: asking again changes nothing
│   └── InsightlyRateLimitError    429 for longer than could be waited, or the day is spent
├── InvalidState               state that this version can't read
├── StoppedError               a task that was told to end before it was done
├── SupersededError            a later try of the same task has taken over; this one stops
├── LostPayloads               payloads that a run has left are gone from its XCom
├── MissingPayloadsError       messages are to be sent again, and have no payload (operators.webhook)
├── MissingChunkError          a chunk of payloads is gone from XCom (operators.common.payload_chunks)
├── OtherModeError             a run was begun in its workflow's other mode (operators.common.mode_change)
├── UnreadableQueueError       what waits for a receiver can't be read (operators.retry_queue)
├── OrphanedMessagesError      messages wait for a webhook that is gone (operators.retry_queue)
├── MissingInletError          a task has no place for its cursor (runs.received_changes)
├── DatabaseNotFound           Airflow's database isn't at hand (database.presence)
├── PendingDagNotFound         no DAG sends what is pending of a webhook (database.pending)
└── UndeliveredError           payloads that no receiver has acknowledged; holds the report
    └── UndeliverableError         the receiver will never take them (operators.webhook)

No message holds a password, an API key, a URI's user information, or a record's contents. Each class
builds its message from its attributes, which are its arguments, so that errors survive pickling.
"""

from __future__ import annotations

from airflow_insightly_hooks.core.error_types.delivery_errors import (
    InvalidState,
    LostPayloads,
    StoppedError,
    SupersededError,
    UndeliveredError,
)
from airflow_insightly_hooks.core.error_types.input_errors import (
    InvalidChange,
    InvalidConnection,
    InvalidDuration,
    InvalidPayload,
    InvalidTime,
    InvalidWindow,
    UnknownRecordType,
)
from airflow_insightly_hooks.core.error_types.reading_errors import (
    IncompleteScan,
    LostCursor,
    UntrustedClock,
    WorkerExhausted,
)
from airflow_insightly_hooks.core.error_types.root import InsightlyHooksError
from airflow_insightly_hooks.core.error_types.texts import missing_keys, told
from airflow_insightly_hooks.core.error_types.workflow_errors import (
    InvalidCriteria,
    InvalidWorkflow,
    InvalidWorkflowFile,
)

__all__ = [
    "IncompleteScan",
    "InsightlyHooksError",
    "InvalidChange",
    "InvalidConnection",
    "InvalidCriteria",
    "InvalidDuration",
    "InvalidPayload",
    "InvalidState",
    "InvalidTime",
    "InvalidWindow",
    "InvalidWorkflow",
    "InvalidWorkflowFile",
    "LostCursor",
    "LostPayloads",
    "StoppedError",
    "SupersededError",
    "UndeliveredError",
    "UnknownRecordType",
    "UntrustedClock",
    "WorkerExhausted",
    "missing_keys",
    "told",
]

for _name in __all__:  # tracebacks and pickles name the errors by this module, not by where they are defined
    globals()[_name].__module__ = __name__

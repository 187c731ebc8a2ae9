"""The errors of this package, and how they derive from each other.

InsightlyHooksError
├── UnknownRecordType          a name is not a record type of Insightly's API
├── InvalidTime                a value is not a time
├── InvalidDuration            a value is not a duration such as '3d'
├── InvalidWindow              a window of time is not valid
├── InvalidCriteria            a workflow's criteria are not valid; says where
├── InvalidWorkflow            a workflow is not valid; holds each mistake with its path
│   └── InvalidWorkflowFile        a workflow file is not valid; holds each mistake with its line
├── InvalidChange              an object in a list of changes is not a change
├── InvalidPayload             a payload or another input of a task can't be used
├── InvalidEntity              a body is not a webhook of Insightly's (core.incoming.received_entity)
├── InvalidKeptEntity          a kept webhook can't be read (core.incoming.kept_entity)
├── InvalidRecordText          a JSON text is not a record (previews.record_source)
├── RecordNotFound             an account has no such record (previews.record_source)
├── InvalidConnection          an Airflow connection can't be used; says which field
├── WorkerExhausted            this worker can't open any connection
├── LostCursor                 a task has run before, but its cursor is gone
├── UntrustedClock             a cursor is ahead of the API server's clock
├── IncompleteScan             a search could not be read to its end
├── InsightlyAPIError          an unexpected answer of Insightly's API (hooks.api.api_errors)
│   ├── InsightlyUnreachable       there was no answer, or a server error each time
│   ├── InsightlyAccessError       401, 403, 404 or 405: asking again changes nothing
│   └── InsightlyRateLimitError    429 for longer than the task waits, or the day's requests are used up
├── InvalidState               a value in Airflow's state store can't be read
│   └── NewerState                 a newer release has written it
├── StoppedError               a task was stopped before it had finished
├── SupersededError            a later try of the same task has taken over
├── LostPayloads               payloads that waited to be sent again are gone from XCom
│   └── LostPayloadsError          it fails a task without a retry (operators.retry_queue)
├── MissingPayloadsError       messages to send again have no payload (operators.webhook)
├── MissingChunkError          a chunk of payloads is gone from XCom (operators.common.payload_chunks)
├── OtherModeError             a run began in its workflow's other mode (operators.common.mode_change)
├── UnreadableQueueError       the messages that wait for a receiver can't be read (operators.retry_queue)
├── OrphanedMessagesError      messages wait for a webhook that was removed (operators.retry_queue)
├── MissingInletError          a task has no asset for its cursor (runs.received_changes)
├── DatabaseNotFound           Airflow's database can't be found (database.presence)
├── PendingDagNotFound         no DAG sends a webhook's pending messages (database.pending)
└── UndeliveredError           the receiver did not acknowledge some of the payloads
    └── UndeliverableError         none of them may be sent again (operators.webhook)

No message holds a password, an API key, a URI's user information, or a record's contents. Each class builds
its message from its attributes, which are its arguments, so that errors survive pickling. Each class's
docstring has its cause and its remedy.
"""

from __future__ import annotations

from airflow_insightly_hooks.core.error_types.delivery_errors import (
    InvalidState,
    LostPayloads,
    NewerState,
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
from airflow_insightly_hooks.core.error_types.texts import missing_keys, type_and_place
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
    "NewerState",
    "StoppedError",
    "SupersededError",
    "UndeliveredError",
    "UnknownRecordType",
    "UntrustedClock",
    "WorkerExhausted",
    "missing_keys",
    "type_and_place",
]

for _name in __all__:  # tracebacks and pickles name the errors by this module, not by where they are defined
    globals()[_name].__module__ = __name__

"""Declare the extra fields of the connection types: name, type, default, bounds and meaning.

The connection forms (``provider.py``), the hooks (``connection_extras.py``) and the tables of the reference
(``tools/blocks/connections.py``) use these declarations. Airflow loads this module while it starts, so it
imports neither Airflow nor an HTTP client.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["CONNECTION_FIELDS", "INCOMING_FIELDS", "INSIGHTLY_FIELDS", "WEBHOOK_FIELDS", "ConnectionField"]


@dataclass(frozen=True, kw_only=True)
class ConnectionField:
    """One field of a connection's extra.

    :param name: its key in the extra.
    :param label: its name in the form.
    :param kind: its type in the form, as a type of JSON Schema.
    :param default: the value of an empty field; ``None`` for no value.
    :param description: the description in the form and in the reference; may be empty.
    :param details: additional text of the reference, after the description.
    :param at_least: the smallest accepted number; only for numbers.
    :param at_most: the largest accepted number; only for numbers.
    :param may_be_zero: whether 0 is accepted, too, and means no limit.
    :param is_secret: whether it is a password field in the form.
    """

    name: str
    label: str
    kind: Literal["string", "number", "integer", "boolean"]
    default: str | float | bool | None = None
    description: str = ""
    details: str = ""
    at_least: float = 0
    at_most: float = 1_000_000_000
    may_be_zero: bool = False
    is_secret: bool = False


LONGEST_TIMEOUT = 3600
"""Seconds."""
MOST_A_SECOND = 1_000_000
"""More requests than one process can send."""

INSIGHTLY_FIELDS = (
    ConnectionField(
        name="api_version",
        label="API version",
        kind="string",
        default="v3.1",
        details="The last part of the API's address. If the host is a URL, the URL has the version, and "
        "another version here is an error.",
    ),
    ConnectionField(
        name="timeout",
        label="Time-out",
        kind="number",
        default=30,
        at_least=0.1,
        at_most=LONGEST_TIMEOUT,
        description="The most seconds without data.",
    ),
    ConnectionField(
        name="answer_timeout",
        label="Time-out of an answer",
        kind="number",
        default=300,
        at_least=0.1,
        at_most=24 * 3600,
        description="The most seconds until an answer is complete.",
    ),
    ConnectionField(
        name="max_answer_bytes",
        label="Largest answer",
        kind="integer",
        default=64_000_000,
        at_least=1_000,
        description="The most bytes of an answer, unpacked. A larger answer is an error.",
    ),
    ConnectionField(
        name="requests_per_second",
        label="Requests a second",
        kind="number",
        default=10,
        at_least=0.01,
        at_most=MOST_A_SECOND,
        description="For each process; Insightly allows 10.",
    ),
    ConnectionField(
        name="requests_per_day",
        label="Requests a day",
        kind="integer",
        default=0,
        at_least=1,
        may_be_zero=True,
        description="Send no request if the account has made this many today; 0 for the plan's limit.",
        details="The requests of all users of the account since midnight UTC count.",
    ),
    ConnectionField(
        name="allow_insecure_http",
        label="Allow insecure http",
        kind="boolean",
        default=False,
        description="Send the API key over http, too.",
        details="Otherwise it goes over https only, except to this machine itself.",
    ),
)
"""The fields of the connection type ``insightly``, in the order of its form."""

WEBHOOK_FIELDS = (
    ConnectionField(
        name="path",
        label="Path",
        kind="string",
        description="Added to the address; starts with /.",
    ),
    ConnectionField(
        name="headers",
        label="Headers",
        kind="string",
        description="A JSON object of additional HTTP headers.",
    ),
    ConnectionField(
        name="timeout",
        label="Time-out",
        kind="number",
        default=30,
        at_least=0.1,
        at_most=LONGEST_TIMEOUT,
        description="The most seconds for a whole exchange.",
    ),
    ConnectionField(
        name="verify",
        label="Verify TLS",
        kind="string",
        default="true",
        description="true, false, or the path of a file of trusted CAs.",
    ),
    ConnectionField(
        name="cert",
        label="Client certificate",
        kind="string",
        description="A PEM file, or two with a comma: certificate,key.",
        details="A single file must hold both certificate and key.",
    ),
    ConnectionField(
        name="trust_env",
        label="Trust the environment",
        kind="boolean",
        default=True,
        description="Use HTTPS_PROXY, REQUESTS_CA_BUNDLE and similar variables.",
    ),
    ConnectionField(
        name="allow_insecure_http",
        label="Allow insecure http",
        kind="boolean",
        default=False,
        description="Send credentials over http, too.",
        details="Otherwise credentials go over https only.",
    ),
    ConnectionField(
        name="allow_private_networks",
        label="Allow private networks",
        kind="boolean",
        default=True,
        description="Send to addresses of private networks and of this machine, too.",
        details="Link-local and cloud metadata addresses are never allowed. If POSTs go through a proxy, "
        "only IP addresses can be checked, not names.",
    ),
    ConnectionField(
        name="allow_redirects",
        label="Allow redirects",
        kind="boolean",
        default=False,
        description="Follow 307 and 308 to the same scheme, host and port.",
    ),
    ConnectionField(
        name="expect_body",
        label="Expected in the answer",
        kind="string",
        description="A 2xx whose body lacks this text is a failure.",
        details="The first 16 KiB of the body must hold it. If the field is empty, any 2xx is a success.",
    ),
    ConnectionField(
        name="keep_response",
        label="Keep responses of failures",
        kind="boolean",
        default=False,
        description="Show the first 500 characters of a failing receiver's response in log, report and "
        "delivery record.",
        details="The connection's credentials are removed. Personal data that the receiver echoes is not.",
    ),
    ConnectionField(
        name="requests_per_second",
        label="Requests a second",
        kind="number",
        default=0,
        at_least=0.001,
        at_most=MOST_A_SECOND,
        may_be_zero=True,
        description="For each task; 0 sets no limit.",
        details="With a pool of one slot, it is the limit of all tasks together.",
    ),
    ConnectionField(
        name="signing_secret",
        label="Signing secret",
        kind="string",
        is_secret=True,
        description="whsec_… of Standard Webhooks; separate several secrets by spaces.",
        details="It adds a signature to each request.",
    ),
    ConnectionField(
        name="max_body_bytes",
        label="Largest body",
        kind="integer",
        default=25_000_000,
        at_least=1,
        description="Bytes; a larger one is not sent.",
    ),
    ConnectionField(
        name="web_url",
        label="Page of the receiver",
        kind="string",
        description="The address of a page that shows what arrived; tasks link to it.",
    ),
)
"""The fields of the connection type ``insightly_webhook``, in the order of its form."""

INCOMING_FIELDS = (
    ConnectionField(
        name="insightly_conn_id",
        label="Account",
        kind="string",
        default="insightly_default",
        description="The id of the Insightly connection of the account that sends the webhooks.",
    ),
    ConnectionField(
        name="record_types",
        label="Record types",
        kind="string",
        description="The accepted record types, such as Contacts, Tasks; all if empty.",
        details="Separated by commas or spaces.",
    ),
    ConnectionField(
        name="signing_secret",
        label="Signing secret",
        kind="string",
        is_secret=True,
        description="whsec_… of Standard Webhooks. If it is given, each webhook must be signed.",
        details="Insightly itself doesn't sign. Separate several secrets by spaces; a signature with any of "
        "them is accepted.",
    ),
    ConnectionField(
        name="max_body_bytes",
        label="Largest body",
        kind="integer",
        default=1_000_000,
        at_least=1,
        at_most=100_000_000,
        description="Bytes; a larger one is refused.",
    ),
    ConnectionField(
        name="requests_per_minute",
        label="Requests a minute",
        kind="integer",
        default=6_000,
        at_least=1,
        may_be_zero=True,
        description="For each process of the API server; 0 sets no limit.",
        details="Only requests with the right credentials count.",
    ),
    ConnectionField(
        name="accept",
        label="Accept",
        kind="string",
        default="notice",
        description="notice: a webhook wakes DAGs, and its contents are dropped. entity: they are kept, too.",
        details="docs/how-to/incoming.md describes how tasks read them.",
    ),
    ConnectionField(
        name="entity_path",
        label="Path of entities",
        kind="string",
        description="Where contents are kept: a URL of Airflow's object storage, such as s3://conn_id@bucket/path.",
        details="Needed with entity. The connection in the URL has the credentials.",
    ),
    ConnectionField(
        name="entity_days",
        label="Days of entities",
        kind="integer",
        default=7,
        at_least=1,
        at_most=3_650,
        description="The number of days after which contents are deleted.",
    ),
)
"""The fields of the connection type ``insightly_incoming``, in the order of its form."""

CONNECTION_FIELDS: Mapping[str, tuple[ConnectionField, ...]] = {
    "insightly": INSIGHTLY_FIELDS,
    "insightly_webhook": WEBHOOK_FIELDS,
    "insightly_incoming": INCOMING_FIELDS,
}
"""The fields by connection type."""

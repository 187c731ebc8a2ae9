"""What ``PUT /_sandbox`` can set."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from airflow_insightly_hooks.sandbox.errors import BadRequest
from airflow_insightly_hooks.sandbox.json_body import checked_whole

__all__ = ["Fault", "Settings"]


@dataclass
class Fault:
    """An answer in place of the API's own.

    :param path: the path it stands in for, as in ``/v3.1/Contacts/Search``; ``{id}`` stands for any id.
    :param status: the HTTP status to answer.
    :param times: for how many requests; ``None`` for all.
    :param retry_after: seconds to name in ``Retry-After``; ``None`` leaves the header out.
    """

    path: str
    status: int
    times: int | None = None
    retry_after: int | None = None

    @classmethod
    def parse(cls, given: Any) -> Fault:
        """Read it from a request's body.

        :raises BadRequest: if a key is unknown or missing, or a value is of the wrong kind.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(given, dict) or not given.keys() <= known or not {"path", "status"} <= given.keys():
            raise BadRequest("fault has the keys path and status, and may have times and retry_after")
        if not isinstance(given["path"], str):
            raise BadRequest("fault.path is not a text")
        return cls(
            path=given["path"],
            status=checked_whole("fault.status", given["status"], 200, 599),
            **{
                key: checked_whole(f"fault.{key}", given[key])
                for key in ("times", "retry_after")
                if given.get(key) is not None
            },
        )

    def applies(self, *paths: str) -> bool:
        """Whether it is to be answered now at one of ``paths``; counts one time if so."""
        if self.path not in paths or self.times == 0:
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass
class Settings:
    """How the stand-in behaves.

    :param requests_per_second: more in any one second are answered 429.
    :param requests_per_day: after that many, all are answered 429 until midnight UTC.
    :param fault: an answer in place of the API's own.
    :param no_access: record types that the API key has no access to: 403.
    :param not_in_plan: record types that the account's plan lacks: 404.
    """

    requests_per_second: int = 10
    requests_per_day: int = 100_000
    fault: Fault | None = None
    no_access: tuple[str, ...] = ()
    not_in_plan: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the settings as ``GET /_sandbox`` shows them."""
        return asdict(self)

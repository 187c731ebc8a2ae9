"""The API's errors. They have an HTTP status, and a text that the response's body holds as ``Message``.

::

    ApiError
    ├── BadRequest        400
    ├── Forbidden         403
    ├── NotFound          404
    └── MethodNotAllowed  405

A text names fields and parameters. It never holds a value that a client has sent.
"""

from __future__ import annotations

__all__ = ["ApiError", "BadRequest", "Forbidden", "MethodNotAllowed", "NotFound"]


class ApiError(Exception):
    """The API answers with an error.

    :ivar status: the HTTP status.
    :ivar message: the text of ``Message``.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class BadRequest(ApiError):
    """400: the request is invalid; ``message`` names the field or parameter."""

    def __init__(self, message: str) -> None:
        super().__init__(400, message)


class Forbidden(ApiError):
    """403: the API key has no access to the record type."""

    def __init__(self, message: str) -> None:
        super().__init__(403, message)


class NotFound(ApiError):
    """404: there is no such path or record."""

    def __init__(self, message: str = "There is nothing at this path.") -> None:
        super().__init__(404, message)


class MethodNotAllowed(ApiError):
    """405: the path exists, but not with this method."""

    def __init__(self) -> None:
        super().__init__(405, "The API does not offer this method here.")

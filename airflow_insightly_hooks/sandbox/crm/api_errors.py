"""The refusals of the stand-in: an HTTP status and the text of ``Message``.

No message holds a value that a client has sent, only names of fields and parameters.
"""

from __future__ import annotations

__all__ = ["ApiError", "BadRequest", "Forbidden", "MethodNotAllowed", "NotFound"]


class ApiError(Exception):
    """An answer that is no success.

    :ivar status: the HTTP status.
    :ivar message: the text of ``Message``.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class BadRequest(ApiError):
    """400: the request can't be read; ``message`` names the field or parameter."""

    def __init__(self, message: str) -> None:
        super().__init__(400, message)


class Forbidden(ApiError):
    """403: the API key has no access to it."""

    def __init__(self, message: str) -> None:
        super().__init__(403, message)


class NotFound(ApiError):
    """404: there is no such path or record."""

    def __init__(self, message: str = "There is nothing at this path.") -> None:
        super().__init__(404, message)


class MethodNotAllowed(ApiError):
    """405: the path is there, the method isn't."""

    def __init__(self) -> None:
        super().__init__(405, "The API does not offer this method here.")

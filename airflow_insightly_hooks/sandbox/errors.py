"""The refusals of the stand-in: an HTTP status and the text of ``Message``.

No message holds a value that a client has sent, only names of fields and parameters.
"""

from __future__ import annotations

from starlette.exceptions import HTTPException

__all__ = ["BadRequest", "MethodNotAllowed", "NotFound"]


class BadRequest(HTTPException):
    """400: the request can't be read; ``message`` names the field or parameter."""

    def __init__(self, message: str) -> None:
        super().__init__(400, message)


class NotFound(HTTPException):
    """404: there is no such path or record."""

    def __init__(self, message: str = "There is nothing at this path.") -> None:
        super().__init__(404, message)


class MethodNotAllowed(HTTPException):
    """405: the path is there, the method isn't."""

    def __init__(self) -> None:
        super().__init__(405, "The API does not offer this method here.")

"""Errors that the error page shows: why a page can't be shown, or why an action failed."""

from __future__ import annotations

__all__ = ["BadRequest", "Forbidden", "ForeignOrigin", "NotFound", "Problem"]


class Problem(Exception):
    """An error that the error page shows instead of the requested page.

    :param detail: what was wrong, and what to do. It holds no contents of records, and no secrets.
    """

    status = 500
    title = "Something went wrong"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BadRequest(Problem):
    """The address or the form holds something that can't be used."""

    status = 400
    title = "That can't be done"


class NotFound(Problem):
    """The page's subject does not exist, or no longer exists."""

    status = 404
    title = "Not found"


class Forbidden(Problem):
    """The person lacks a right.

    :param dag_id: the DAG that the right is for.
    :param right: the right in words, from ``Right.words``.
    """

    status = 403
    title = "Not allowed"

    def __init__(self, dag_id: str, right: str) -> None:
        super().__init__(
            f"For this you need to be allowed to see the DAG {dag_id}, and to {right}. "
            "Ask the administrator of this Airflow for a role with these permissions."
        )


class ForeignOrigin(Problem):
    """A form does not come from these pages."""

    status = 403
    title = "Not allowed"

    def __init__(self) -> None:
        super().__init__(
            "The form does not seem to come from this Airflow's own pages. If it does, Airflow does not know "
            "the address that you use. Set [api] base_url to this address, or have the reverse proxy pass on "
            "the Host header."
        )

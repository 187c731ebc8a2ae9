"""Why a page can't be shown, or something can't be done, as the error page says it."""

from __future__ import annotations

__all__ = ["BadRequest", "Forbidden", "ForeignOrigin", "NotFound", "Problem"]


class Problem(Exception):
    """What the error page shows instead of the page that was asked for.

    :param detail: what was wrong, and what to do; no contents of records, no secrets.
    """

    status = 500
    title = "Something went wrong"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BadRequest(Problem):
    """The address or the form holds something that isn't understood."""

    status = 400
    title = "That can't be done"


class NotFound(Problem):
    """There is no such thing, or no longer."""

    status = 404
    title = "Not found"


class Forbidden(Problem):
    """The person lacks a right.

    :param dag_id: of which DAG.
    :param right: what it takes, in words.
    """

    status = 403
    title = "Not allowed"

    def __init__(self, dag_id: str, right: str) -> None:
        super().__init__(
            f"For this you need to be allowed to see the DAG {dag_id}, and to {right}. "
            "Ask whoever gives out roles in this Airflow."
        )


class ForeignOrigin(Problem):
    """A form was sent that was not shown by these pages."""

    status = 403
    title = "Not allowed"

    def __init__(self) -> None:
        super().__init__(
            "The form was not sent from this Airflow's own pages. If it was, Airflow does not know the "
            "address that you use: set [api] base_url to it, or have the reverse proxy pass on the Host "
            "header."
        )

"""The result of one POST."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_insightly_hooks.hooks.post.kept_connections import ProvisionalAnswer

__all__ = ["PostResult"]


@dataclass(frozen=True, kw_only=True)
class PostResult:
    """The result of one POST.

    :param acknowledged: whether the receiver answered with a final 2xx in time.
    :param status: the final status; ``None`` if there is none.
    :param error: why the message is not acknowledged, or a note on an acknowledged one. It holds no content
        of request or response.
    :param response: the beginning of a failing receiver's response, without credentials. ``None`` if the
        connection doesn't keep it (``keep_response``), or if it has no text. It may hold personal data.
    :param retry_after: seconds that the receiver asks to wait; ``None`` if it asks for none.
    :param elapsed: seconds that the POST took.
    :param sent: whether the receiver may have read any of it. If not, the POST doesn't count as an attempt.
    :param gone: whether the receiver will never accept it (410, or ``webhook-delivery: abort-message``).
    :param is_own_fault: whether this worker lacked a resource to connect, so that the receiver may be all
        right.
    :param provisional: says, once its connection has ended, whether this result counts. ``None``: it counts.
    """

    acknowledged: bool
    status: int | None = None
    error: str | None = None
    response: str | None = field(default=None, repr=False)
    retry_after: float | None = None
    elapsed: float = 0.0
    sent: bool = True
    gone: bool = False
    is_own_fault: bool = False
    provisional: ProvisionalAnswer | None = field(default=None, repr=False, compare=False)

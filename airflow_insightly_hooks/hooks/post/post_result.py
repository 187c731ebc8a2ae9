"""What became of one POST."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_insightly_hooks.hooks.post.kept_connections import ProvisionalAnswer

__all__ = ["PostResult"]


@dataclass(frozen=True, kw_only=True)
class PostResult:
    """What became of one POST.

    :param acknowledged: whether a final 2xx came in time.
    :param status: the final status; ``None`` without one.
    :param error: why it is not acknowledged, or a note on one that is; no content of any side.
    :param response: the beginning of a failing receiver's response, without credentials; ``None`` where its
        connection doesn't keep it (``keep_response``), or it has no text. It may hold personal data.
    :param retry_after: seconds that the receiver asks to wait; ``None`` where it doesn't.
    :param elapsed: seconds that it took.
    :param sent: whether the receiver may have read anything; if not, it was no attempt.
    :param gone: whether the receiver will never take it (410, or ``webhook-delivery: abort-message``).
    :param is_own_fault: whether this worker lacked what it takes to connect, whatever the receiver is like.
    :param provisional: what tells, once its connection has ended, whether this counts; ``None``: it counts.
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

"""Errors of workflows, of their criteria, and of the files that hold them."""

from __future__ import annotations

from airflow_insightly_hooks.core.error_types.root import InsightlyHooksError
from airflow_insightly_hooks.core.error_types.texts import printable

__all__ = [
    "InvalidCriteria",
    "InvalidWorkflow",
    "InvalidWorkflowFile",
]


class InvalidCriteria(InsightlyHooksError, ValueError):
    """Criteria that cannot be compiled: ``path`` says where (``criteria.all[1].operator``).

    ``others`` are the paths and reasons of further mistakes; ``problems`` are those of all.
    """

    def __init__(self, path: str, reason: str, others: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(path, reason, others)
        self.path = path
        self.reason = reason
        self.others = others

    @classmethod
    def of(cls, mistakes: list[InvalidCriteria]) -> InvalidCriteria:
        """Return one error for one mistake or more."""
        first, *others = (problem for mistake in mistakes for problem in mistake.problems)
        return cls(*first, tuple(others))

    @property
    def problems(self) -> tuple[tuple[str, str], ...]:
        """Path and reason of each mistake."""
        return ((self.path, self.reason), *self.others)

    def __str__(self) -> str:
        most = InvalidWorkflow.SHOWN
        return str(InvalidWorkflow(self.problems[:most], max(len(self.problems) - most, 0)))


class InvalidWorkflow(InsightlyHooksError, ValueError):
    """A workflow with mistakes: ``problems`` are their paths (``webhooks[0].name``) and reasons.

    Of many, the first ones are there, and ``more`` counts the others.
    """

    SHOWN = 20

    def __init__(self, problems: tuple[tuple[str, str], ...], more: int = 0) -> None:
        super().__init__(problems, more)
        self.problems = problems
        self.more = more

    def __str__(self) -> str:
        lines = [f"{printable(path) or 'workflow'}: {printable(reason)}" for path, reason in self.problems]
        return "\n".join([*lines, *self._rest()])

    def _rest(self) -> list[str]:
        return [f"and {self.more} more"] if self.more else []


class InvalidWorkflowFile(InvalidWorkflow):
    """A workflow file with mistakes: ``file``'s name, and with each path and reason its line, from 1."""

    def __init__(
        self, file: str, problems: tuple[tuple[str, str], ...], lines: tuple[int, ...], more: int = 0
    ) -> None:
        super().__init__(problems, more)
        self.args = (file, problems, lines, more)
        self.file = file
        self.lines = lines

    def __str__(self) -> str:
        shown = [
            ": ".join([f"{printable(self.file)}:{line}", *map(printable, filter(None, problem))])
            for line, problem in zip(self.lines, self.problems, strict=True)
        ]
        return "\n".join([*shown, *self._rest()])

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
    """A workflow's criteria are not valid.

    Cause: Raised when a group or a condition has the wrong form, an operator or a field is not known, or a
    value does not fit its operator.

    Remedy: Correct each part of the criteria that the message names by its path.

    :param path: where the first mistake is, such as ``criteria.all[1].operator``.
    :param reason: what is wrong there.
    :param others: the paths and reasons of further mistakes.
    """

    def __init__(self, path: str, reason: str, others: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(path, reason, others)
        self.path = path
        self.reason = reason
        self.others = others

    @classmethod
    def of(cls, mistakes: list[InvalidCriteria]) -> InvalidCriteria:
        """Return one error that holds all of the mistakes, which are one or more."""
        first, *others = (problem for mistake in mistakes for problem in mistake.problems)
        return cls(*first, tuple(others))

    @property
    def problems(self) -> tuple[tuple[str, str], ...]:
        """The path and the reason of each mistake."""
        return ((self.path, self.reason), *self.others)

    def __str__(self) -> str:
        most = InvalidWorkflow.SHOWN
        return str(InvalidWorkflow(self.problems[:most], max(len(self.problems) - most, 0)))


class InvalidWorkflow(InsightlyHooksError, ValueError):
    """A workflow is not valid.

    Cause: Raised when the arguments of a ``Workflow`` are missing, are not valid, or contradict each other.

    Remedy: Correct each argument that the message names by its path.

    :param problems: the path (such as ``webhooks[0].name``) and the reason of each mistake, the first 20.
    :param more: how many further mistakes there are.
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
    """A workflow file is not valid.

    Cause: Raised when a file is not YAML, or holds a workflow that is not valid.

    Remedy: Correct each line that the message names.

    :param file: the file's name.
    :param problems: the path and the reason of each mistake, the first 20.
    :param lines: the line of each of these mistakes, from 1.
    :param more: how many further mistakes there are.
    """

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

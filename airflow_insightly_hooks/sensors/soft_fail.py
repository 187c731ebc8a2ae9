"""``soft_fail`` skips a sensor for its time-out, and for nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowSensorTimeout, AirflowSkipException

__all__ = ["only_a_timeout_is_soft"]


@contextmanager
def only_a_timeout_is_soft(*, soft_fail: bool) -> Iterator[None]:
    """Raise the errors that ``soft_fail`` would turn into a skip, except a time-out.

    With ``soft_fail``, Airflow's sensor also skips for errors that fail a task without a retry, such as a
    refused API key, and after a deferral for each of Airflow's own errors. The task would then look
    successful although it never finds a change.

    :param soft_fail: the sensor's argument.
    """
    try:
        yield
    except AirflowSkipException as skipped:
        cause = skipped.__cause__
        if soft_fail and isinstance(cause, Exception) and not isinstance(cause, AirflowSensorTimeout):
            raise cause from None
        raise

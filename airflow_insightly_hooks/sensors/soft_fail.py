"""What ``soft_fail`` may skip a sensor for: nothing but its time-out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowSensorTimeout, AirflowSkipException

__all__ = ["only_a_timeout_is_soft"]


@contextmanager
def only_a_timeout_is_soft(*, soft_fail: bool) -> Iterator[None]:
    """Raise what ``soft_fail`` would turn into a skip although more than time is wanting.

    Airflow's sensor skips for errors that fail a task without a retry, such as a refused API key, and after a
    deferral for each of Airflow's own: such a task would be green, and no change ever be found.

    :param soft_fail: the sensor's argument.
    """
    try:
        yield
    except AirflowSkipException as skipped:
        cause = skipped.__cause__
        if soft_fail and isinstance(cause, Exception) and not isinstance(cause, AirflowSensorTimeout):
            raise cause from None
        raise

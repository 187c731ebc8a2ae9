"""Hints what to do about a failure, for errors, logs, reports and the test of a connection."""

from __future__ import annotations

import os
import re

__all__ = ["UNKNOWN_HOST", "api_hint", "for_a_test", "receiver_hint"]

UNKNOWN_HOST = "there is no such host"

_AUTHORITY = re.compile("TLS: (self.signed|unable to get (local )?issuer)", re.IGNORECASE)
_NAME = re.compile("TLS: (hostname|ip address) mismatch", re.IGNORECASE)
_TIME = re.compile("TLS: certificate (has expired|is not yet valid)", re.IGNORECASE)

_RECEIVER_STATUS = {
    401: "check login and password",
    403: "check login and password",
    404: "check the path",
    405: "check the path: it does not accept POST",
}
_POD = (
    "is the pod right? Insightly shows it beside the API key in the User Settings, and in the account's "
    "address (crm.<pod>.insightly.com)"
)


def receiver_hint(why: str | int) -> str | None:
    """Return what to do if a receiver didn't acknowledge; ``None`` if there is no hint.

    :param why: the receiver's final status, or the reason why there was none.
    """
    if isinstance(why, int):
        return _RECEIVER_STATUS.get(why)
    if _AUTHORITY.search(why):
        return "give the file of its authority's certificate as verify"
    if why.endswith("certificate required"):
        return "give a client certificate as cert"
    if "the host can't be looked up" in why:
        return "check the host"
    return _certificate_hint(why)  # no hint for a refused connection: most often, the receiver is down


def api_hint(why: str | int) -> str | None:
    """Return what to do if Insightly's API gave no usable answer; ``None`` if there is no hint.

    :param why: the status of the answer, or the reason why there was none.
    """
    if isinstance(why, int):
        return "redirects are not followed: check the host" if 300 <= why < 400 else None
    if why == UNKNOWN_HOST:
        return _POD
    if _AUTHORITY.search(why):
        return "set REQUESTS_CA_BUNDLE to the file of its authority's certificate"
    if "connection refused" in why:
        return "check host and port"
    return _certificate_hint(why)


def _certificate_hint(why: str) -> str | None:
    if _NAME.search(why):
        return "the certificate belongs to another host: check the host"
    if _TIME.search(why):
        return "its owner has to renew it, unless this worker's clock is wrong"
    return None


def for_a_test(error: BaseException, conn_id: str) -> str:
    """Return an error's text for the user who tests a connection.

    Airflow's form uses a random id for the test. It means nothing to the user, so it is left out.
    """
    text = str(error)
    is_made_up = re.fullmatch("[A-Za-z0-9]{8}", conn_id) and f"AIRFLOW_CONN_{conn_id.upper()}" in os.environ
    return text.replace(f"connection {conn_id!r}", "this connection") if is_made_up else text

"""TLS settings: the trusted certificates, and the client's own certificate."""

from __future__ import annotations

import os
import ssl

import certifi

__all__ = ["bare_context", "load_client_certificate", "tls_context"]


def tls_context(verify: bool | str = True, *, trust_env: bool = True) -> ssl.SSLContext:
    """Return the TLS settings of a connection, with TLS 1.2 or later.

    :param verify: whether to verify certificates, or the path of a file of trusted certificates.
    :param trust_env: whether to use the CA bundle variables of the environment.
    :raises OSError: if the file of trusted certificates can't be read. If it has no certificates, the error
        is an ``ssl.SSLError``.
    """
    if verify is False:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif isinstance(verify, str):
        context = ssl.create_default_context(cafile=verify)
    else:
        names = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE") if trust_env else ()
        named = filter(None, map(os.environ.get, names))
        context = ssl.create_default_context(cafile=next(named, certifi.where()))
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # even if this machine's OpenSSL settings differ
    context.set_alpn_protocols(["http/1.1"])
    return context


def bare_context() -> ssl.SSLContext:
    """Return TLS settings that trust no certificate, for connections without TLS."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def load_client_certificate(context: ssl.SSLContext, file: str, key_file: str | None) -> None:
    """Have the client's certificate sent to receivers that ask for one.

    :param key_file: the file of its key, without a password; ``None`` if the certificate's file has the key.
    :raises OSError: if a file can't be read. If it holds no certificate, or no matching key, the error is an
        ``ssl.SSLError``.
    """
    context.load_cert_chain(file, key_file, password=lambda: "")  # or OpenSSL would ask in the terminal

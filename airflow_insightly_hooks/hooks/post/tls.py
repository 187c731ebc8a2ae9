"""TLS settings: whose certificates are trusted, and which is shown."""

from __future__ import annotations

import os
import ssl

import certifi

__all__ = ["bare_context", "load_client_certificate", "tls_context"]


def tls_context(verify: bool | str = True, *, trust_env: bool = True) -> ssl.SSLContext:
    """Return the TLS settings: at least 1.2, certificates verified unless the connection says otherwise.

    :param verify: whether to verify certificates, or the path of a file of trusted ones.
    :param trust_env: whether the environment's CA bundle variables count.
    :raises OSError: if the file of trusted certificates can't be read; a ``ssl.SSLError`` if it holds none.
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
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # whatever the machine's own settings of OpenSSL say
    context.set_alpn_protocols(["http/1.1"])
    return context


def bare_context() -> ssl.SSLContext:
    """Return TLS settings that trust nobody, for who speaks none."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def load_client_certificate(context: ssl.SSLContext, file: str, key_file: str | None) -> None:
    """Have a client's certificate shown to receivers that ask for one.

    :param key_file: the file of its key, without a password; ``None`` if that stands beside the certificate.
    :raises OSError: if they can't be read; a ``ssl.SSLError`` if they are no certificate and its key.
    """
    context.load_cert_chain(file, key_file, password=lambda: "")  # else OpenSSL asks the terminal for it

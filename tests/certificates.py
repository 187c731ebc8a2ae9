"""A certificate authority of the tests' own."""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Authority"]

NOW = datetime.now(timezone.utc)


_SIGNS_CERTIFICATES = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=False,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    """A certificate authority of the tests' own; its certificates are files in a folder.

    :ivar file: the file of its own certificate, for clients that trust it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Tests {folder.name}")])
        builder = self._builder(self._name, self._key, NOW - timedelta(days=1), NOW + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_SIGNS_CERTIFICATES, critical=True)
        self.file = folder / "ca.pem"
        self.file.write_bytes(self._signed(builder).public_bytes(serialization.Encoding.PEM))

    def server(
        self,
        address: str = "127.0.0.1",
        *,
        since: timedelta = timedelta(days=-1),
        until: timedelta = timedelta(days=1),
        newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        asks_for_certificate: bool = False,
    ) -> ssl.SSLContext:
        """Return the TLS settings of a server whose certificate is for a name or an IP address."""
        file = self._issue("server.pem", address, NOW + since, NOW + until)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        context.maximum_version = newest
        if asks_for_certificate:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.file)
        return context

    def client(self, password: bytes | None = None) -> Path:
        """Return the file of a client's certificate and its key. A password encrypts the key."""
        return self._issue("client.pem", "client", NOW - timedelta(days=1), NOW + timedelta(days=1), password)

    def _issue(
        self, file_name: str, subject: str, since: datetime, until: datetime, password: bytes | None = None
    ) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
        alternative: x509.GeneralName = x509.DNSName(subject)
        with contextlib.suppress(ValueError):
            alternative = x509.IPAddress(ipaddress.ip_address(subject))
        builder = self._builder(name, key, since, until)
        builder = builder.add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        encryption = (
            serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        )
        file = self._folder / file_name
        file.write_bytes(
            self._signed(builder).public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
        return file

    def _builder(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, since: datetime, until: datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(since)
            .not_valid_after(until)
            # Python 3.13 and later want both identifiers, and an authority's use of its key.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )

    def _signed(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        return builder.sign(self._key, hashes.SHA256())

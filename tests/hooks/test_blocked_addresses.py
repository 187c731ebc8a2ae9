"""Which addresses are blocked: tables."""

from __future__ import annotations

import pytest

from airflow_insightly_hooks.hooks.blocked_addresses import literal_address, why_not_sent_to

METADATA = [
    "169.254.169.254",  # Amazon, Google, Azure, Oracle and others
    "169.254.170.2",  # Amazon: credentials of containers
    "168.63.129.16",  # Azure's wire server
    "100.100.100.200",  # Alibaba
    "192.0.0.192",  # Oracle
    "fd00:ec2::254",  # Amazon
    "fd00:ec2::23",  # Amazon: credentials of pods
    "fd20:ce::254",  # Google
    "fd00:c1::a9fe:a9fe",  # Oracle
    "fd00:42::42",  # Scaleway
    "fe80::a9fe:a9fe",  # OpenStack
    "fe80::1%eth0",
    "::ffff:169.254.169.254",
    "::ffff:168.63.129.16",
    "::169.254.169.254",
    "::ffff:0:169.254.169.254",
    "64:ff9b::169.254.169.254",
    "64:ff9b::100.100.100.200",
    "64:ff9b:1::169.254.169.254",
    "2002:a9fe:a9fe::1",
    "2002:a83f:8110::1",
    "2001:0:4136:e378:8000:63bf:5601:5601",  # Teredo
    "2600::5efe:169.254.169.254",  # ISATAP
    "2600::200:5efe:169.254.169.254",
    "2600::5efe:168.63.129.16",
    "2600::5efe:169.254.3.4",
    "64:ff9b:1:a9fe:a9:fe00::",  # a private NAT64 prefix: the lengths of RFC 6052, 2.2
    "64:ff9b:1:a9:fe:a9fe::",
    "64:ff9b:1:1:a9:fea9:fe00::",
    "64:ff9b:1:64:64:64c8::",
    "2600:1:a9fe:a9fe::",
    "2600:1:a9fe:a9fe::7",
    "2600:1:a9:fea9:fe::",
    "2600:1:2:a9fe:a9:fe00::",
    "2600:1:2:a9:fe:a9fe::",
    "2600:1:2:3:a9:fea9:fe00::",
    "2600:1:2:3:4:5:a9fe:aa02",
]
PRIVATE = [
    "10.1.2.3",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "127.0.0.1",
    "127.8.9.10",
    "0.0.0.0",
    "100.64.0.1",
    "100.127.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "198.51.100.1",
    "203.0.113.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fc00::1",
    "fd12:3456::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "100::1",
    "3fff::1",
    "5f00::1",
    "4000::1",
    "2600::5efe:10.1.2.3",
    "2001:db8::5efe:8.8.8.8",
    "64:ff9b:1::8.8.8.8",
    "64:ff9b:1:a01:2:300::",
    "::ffff:10.1.2.3",
    "::ffff:127.0.0.1",
    "64:ff9b::10.1.2.3",
    "2002:a01:203::1",
]
PUBLIC = [
    "9.255.255.255",
    "100.63.255.255",
    "100.128.0.1",
    "172.32.0.1",
    "192.0.1.1",
    "2600::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
    "2600::5efe:8.8.8.8",
    "2a00:1450:4001:800::200e",
    "3ffe::1",
    "2600:1:2:3:4:5:a9fe:1",
]


@pytest.mark.parametrize("address", METADATA)
@pytest.mark.parametrize("allow_private", [True, False])
def test_metadata(address: str, allow_private: bool) -> None:
    """Nothing is sent to link-local and metadata addresses, or to an IPv6 address that leads to one."""
    assert "metadata" in (why_not_sent_to(address, allow_private=allow_private) or "")


@pytest.mark.parametrize("address", PRIVATE)
def test_private(address: str) -> None:
    """Addresses outside of the public internet are allowed unless the connection forbids them."""
    assert why_not_sent_to(address) is None
    assert "private network" in (why_not_sent_to(address, allow_private=False) or "")


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    """Addresses of the public internet are always allowed."""
    assert why_not_sent_to(address, allow_private=False) is None


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("0177.1", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("::1", "::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("localhost", None),
        ("receiver.example.com", None),
        ("127.0.0.1.example.com", None),
        ("xn--bcher-kva.example", None),
    ],
)
def test_literal_address(host: str, address: str | None) -> None:
    """An address is recognized in each spelling that the system's look-up takes. No name is looked up."""
    assert literal_address(host) == address

"""Decide which IP addresses may not be connected to. The checked address is the one that is dialled.

If an IPv6 address leads to an IPv4 address (mapped, NAT64, 6to4, Teredo, ISATAP), both are checked.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from functools import lru_cache

__all__ = ["METADATA_REFUSED", "is_loopback", "literal_address", "why_not_sent_to"]

METADATA_REFUSED = "link-local and cloud metadata addresses are not allowed"

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA = tuple(
    ipaddress.ip_network(network)
    for network in (
        "fd00:ec2::/32",  # Amazon: metadata, credentials of pods, time, names
        "fd20:ce::254/128",  # Google
        "168.63.129.16/32",  # Azure's wire server
        "100.100.100.200/32",  # Alibaba
        "192.0.0.192/32",  # Oracle
        "fd00:c1::a9fe:a9fe/128",  # Oracle
        "fd00:42::42/128",  # Scaleway
    )
)
"""Services of clouds for their machines, outside of the link-local ranges."""

_ON_LINK = tuple(
    ipaddress.ip_network(f"169.254.{last_two}")
    for last_two in ("169.254", "169.253", "169.123", "170.2", "170.23")
)
"""Link-local addresses of metadata, names, time and credentials. They are also searched for in NAT64."""

_ENDS_IN_IPV4 = tuple(
    ipaddress.ip_network(network) for network in ("::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "::/96")
)
"""Mapped, translated (SIIT), NAT64, compatible."""

_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "100.64.0.0/10",  # for providers
        "192.0.0.0/24",  # for protocols
        "192.88.99.0/24",  # 6to4 relays, in the past
        "198.18.0.0/15",  # for tests
        "3fff::/20",  # for documentation
    )
)
"""Networks outside of the public internet. Some versions of Python count them as public (``is_global``)."""

_PUBLIC_IPV6 = (ipaddress.ip_network("2000::/3"),)
"""All addresses that were ever assigned as global unicast. Most special addresses are outside of it."""


@lru_cache(maxsize=1_024)
def why_not_sent_to(address: str, *, allow_private: bool = True) -> str | None:
    """Return why an IP address may not be connected to; ``None`` if it may.

    :param allow_private: whether addresses of private networks and of this machine are allowed. Link-local
        addresses and the metadata services of clouds never are.
    """
    outer = ipaddress.ip_address(address.partition("%")[0])
    inner = list(_inner(outer))
    if any(one.is_link_local or _within(one, _METADATA) for one in (outer, *inner)):
        return METADATA_REFUSED
    if any(_within(one, _METADATA + _ON_LINK) for one in _embedded(outer)):
        return METADATA_REFUSED
    judged = inner if _is_translation(outer) else [outer, *inner]
    if not allow_private and any(_is_private(one) for one in judged):
        return "addresses of private networks are not allowed (allow_private_networks)"
    return None


def is_loopback(host: str) -> bool:
    """Return whether a host's name or address means this machine."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def literal_address(host: str) -> str | None:
    """Return the IP address if a host is one, in any notation; ``None`` for a name."""
    try:
        return str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host.removesuffix(".")))  # 127.1, 2130706433, 0x7f.1
    except (OSError, UnicodeError):
        return None


def _inner(address: _Address) -> Iterator[_Address]:
    """Yield the IPv4 addresses that an IPv6 address certainly leads to."""
    if not isinstance(address, ipaddress.IPv6Address):
        return
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield address.teredo[1]
    is_isatap = (int(address) >> 32) & 0xFCFFFFFF == 0x5EFE  # RFC 5214, 6.1
    if is_isatap or (_within(address, _ENDS_IN_IPV4) and int(address) > 1):  # :: and ::1 are this machine
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def _embedded(address: _Address) -> Iterator[_Address]:
    """Yield the IPv4 addresses to which an IPv6 address may lead if its network has its own NAT64.

    There are several, because the length of its prefix is known only in that network.
    """
    if not isinstance(address, ipaddress.IPv6Address):
        return
    octets = address.packed
    for first in (4, 5, 6, 7, 9, 12):  # octet 8 is skipped (RFC 6052, 2.2)
        places = [place for place in range(first, 16) if place != 8][:4]
        yield ipaddress.IPv4Address(bytes(octets[place] for place in places))


def _is_translation(address: _Address) -> bool:
    """Return whether an address is only another way to write an IPv4 address."""
    return isinstance(address, ipaddress.IPv6Address) and (
        address.sixtofour is not None
        or address.teredo is not None
        or (_within(address, _ENDS_IN_IPV4) and int(address) > 1)
    )


def _is_private(address: _Address) -> bool:
    if not address.is_global or address.is_multicast or _within(address, _NOT_PUBLIC):
        return True
    return address.version == 6 and not _within(address, _PUBLIC_IPV6)


def _within(address: _Address, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> bool:
    return any(address in network for network in networks)  # false for a network of the other version

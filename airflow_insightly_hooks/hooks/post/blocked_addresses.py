"""Which addresses are not sent to. It is the resolved address that is judged, the one that is dialled.

An IPv6 address that leads to an IPv4 one (mapped, NAT64, 6to4, Teredo) is judged by that one, too.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from functools import lru_cache

__all__ = ["literal_address", "why_not_sent_to"]

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
"""The cloud's services for its machines that are outside of the link-local ranges."""

_ENDS_IN_IPV4 = tuple(
    ipaddress.ip_network(network)
    for network in ("::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "::/96")
)
"""Mapped, translated (SIIT), NAT64, NAT64 of one's own, compatible."""

_LOCAL = tuple(
    ipaddress.ip_network(network)
    for network in ("100.64.0.0/10", "192.0.0.0/24", "198.18.0.0/15", "fc00::/7", "fec0::/10")
)
"""Not of the public internet, whatever this version of Python says: of providers, tests and sites."""


@lru_cache(maxsize=1_024)
def why_not_sent_to(address: str, *, allow_private: bool = True) -> str | None:
    """Return why an IP address is not sent to; ``None`` for one that is.

    :param allow_private: whether those of private networks and of this machine are; link-local addresses
        and the cloud's metadata services never are.
    """
    outer = ipaddress.ip_address(address.partition("%")[0])
    inner = list(_inner(outer))
    if any(one.is_link_local or _within(one, _METADATA) for one in (outer, *inner)):
        return "a link-local or cloud metadata address is not sent to"
    if not allow_private and any(_is_private(one) for one in inner or [outer]):
        return "an address of a private network is not sent to (allow_private_networks)"
    return None


def literal_address(host: str) -> str | None:
    """Return the IP address that a host is, however it is spelled; ``None`` for a name."""
    try:
        return str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host.removesuffix(".")))  # 127.1, 2130706433, 0x7f.1
    except (OSError, UnicodeError):
        return None


def _inner(address: _Address) -> Iterator[_Address]:
    """Yield the IPv4 addresses that an IPv6 address leads to."""
    if not isinstance(address, ipaddress.IPv6Address):
        return
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield address.teredo[1]
    if _within(address, _ENDS_IN_IPV4) and int(address) > 1:  # :: and ::1 are this machine
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def _is_private(address: _Address) -> bool:
    return not address.is_global or address.is_multicast or _within(address, _LOCAL)


def _within(address: _Address, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> bool:
    return any(address in network for network in networks)  # false for a network of the other version

"""Decides which addresses this server connects to for its callers. Pure: no socket, no lookup.

Who connects, and only to what was checked, is `outgoing.py`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpx2

from simple_asr.errors import AddressRefused, AsrError, ConfigurationError

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

MAX_URL_CHARACTERS = 2048
DEFAULT_PORTS = {"http": 80, "https": 443}
# What the internet routes as IPv6 (RFC 4291, 2.4); IPv4 in the forms ::ffff:0:0/96 (mapped) and
# 64:ff9b::/96 (NAT64) lies outside.
GLOBAL_IPV6 = IPv6Network("2000::/3")
# Global by their registries, or to some Pythons, and yet a way to where the rules forbid.
NOT_GLOBAL = tuple(
    ip_network(network)
    for network in (
        "100.64.0.0/10",  # Carriers' NAT (RFC 6598)
        "192.0.0.0/24",  # Protocol assignments (RFC 6890)
        "192.88.99.0/24",  # Relays of 6to4 (RFC 7526)
        "2001::/23",  # Protocol assignments, Teredo among them (RFC 2928, 4380)
        "2002::/16",  # 6to4: holds an IPv4 address (RFC 3056)
        "3fff::/20",  # Documentation (RFC 9637)
    )
)
_HOST_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?", re.ASCII)
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class AddressRules:
    """The ports one may connect to, and the networks that may be reached though not global."""

    ports: frozenset[int] = frozenset(DEFAULT_PORTS.values())
    allowed: tuple[IPNetwork, ...] = ()

    def checked_url(self, text: str) -> httpx2.URL:
        """The URL, by the very reader that connects. Raises AddressRefused."""
        if len(text) > MAX_URL_CHARACTERS:
            raise AddressRefused(
                f"The address has {len(text)} characters; this server takes at most "
                f"{MAX_URL_CHARACTERS}. Shorten it."
            )
        url = _parsed(text.strip())
        self._check_url(url)
        return url

    def check_address(self, text: str) -> None:
        """Raises AddressRefused for an address that callers may not have this server reach."""
        address = ip_address(text)
        if not is_global(address) and not any(address in network for network in self.allowed):
            raise AddressRefused(
                "The host's address is not one of the public internet. Use a public address, or "
                "have the operator allow this one (ALLOWED_ADDRESSES)."
            )

    def _check_url(self, url: httpx2.URL) -> None:
        if url.scheme not in DEFAULT_PORTS:
            raise AddressRefused("The address should begin with https:// or http://.")
        if url.userinfo:
            raise AddressRefused(
                "The address holds a user name or a password. Leave them out; a signed address "
                "needs neither."
            )
        _check_host(url.raw_host.decode("ascii", "replace"))
        port = url.port if url.port is not None else DEFAULT_PORTS[url.scheme]
        if port not in self.ports:
            ports = ", ".join(str(port) for port in sorted(self.ports))
            raise AddressRefused(
                f"Port {port} is not among those this server connects to: {ports} (ALLOWED_PORTS)."
            )


@contextmanager
def about(field: str) -> Iterator[None]:
    """What goes wrong in here says that it is about this field."""
    try:
        yield
    except AsrError as error:
        error.field = field
        raise


def is_global(address: IPAddress) -> bool:
    """Whether it is of one host of the public internet, and stands for no other address."""
    if address.is_multicast or address.is_reserved or not address.is_global:
        return False
    if address.version == 6 and address not in GLOBAL_IPV6:
        return False
    return not any(address in network for network in NOT_GLOBAL)


def origin(url: httpx2.URL) -> str:
    """What may be shown of a URL: path and query may hold secrets."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def read_networks(text: str) -> tuple[IPNetwork, ...]:
    """The networks of ALLOWED_ADDRESSES, by commas. Raises ConfigurationError."""
    try:
        return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ConfigurationError(
            f"ALLOWED_ADDRESSES: {error}. Write networks by commas, such as 10.1.0.0/16,fd00::/8."
        ) from None


def read_ports(text: str) -> frozenset[int]:
    """The ports of ALLOWED_PORTS, by commas. Raises ConfigurationError."""
    try:
        ports = frozenset(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        ports = frozenset({0})
    if not all(0 < port < 65536 for port in ports):
        raise ConfigurationError(
            "ALLOWED_PORTS: should be ports from 1 to 65535 by commas, such as 80,443."
        )
    return ports


def _parsed(text: str) -> httpx2.URL:
    try:
        return httpx2.URL(text)
    except (httpx2.InvalidURL, UnicodeError):
        raise AddressRefused(
            "This is not the address of a file, such as https://example.com/talk.mp3."
        ) from None


def _check_host(host: str) -> None:
    """Names, and addresses in their usual spelling: not 127.1, 0x7f000001 or 2130706433."""
    if _is_address(host):
        return
    last_label = host.removesuffix(".").rpartition(".")[2]
    if _NUMBER.fullmatch(last_label) or not _HOST_NAME.fullmatch(host):
        raise AddressRefused(
            "The host is neither a name nor an IP address in its usual spelling, such as "
            "example.com, 203.0.113.7 or [2001:db8::7]."
        )


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return "%" not in host  # A zone of this machine (RFC 4007).

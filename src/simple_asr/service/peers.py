"""Who counts as one caller: proxies that speak for others, and how much an address has open."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

# What stands in an address's place for who comes by a socket file.
UNIX = "unix"
# The network a provider gives to one customer: whoever has one address of it has them all.
IPV6_PREFIX = 64


class Proxies:
    """Addresses and networks, separated by commas, and `unix`. Raises ValueError."""

    def __init__(self, text: str) -> None:
        names = [name.strip() for name in text.split(",") if name.strip()]
        self._has_unix = UNIX in names
        self._networks = [_network(name) for name in names if name != UNIX]

    def __contains__(self, host: str) -> bool:
        if host == UNIX:
            return self._has_unix
        try:
            address = _address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def _network(name: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(name)
    except ValueError:
        raise ValueError(
            f"{name!r} is no address such as 192.0.2.7, no network such as 10.0.0.0/8, and not "
            f"{UNIX!r}"
        ) from None


def caller_of(host: str) -> str:
    """The name under which a host's doings are added up: of IPv6, the network around it."""
    try:
        address = _address(host)
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        return str(ip_network((address, IPV6_PREFIX), strict=False))
    return str(address)


def _address(host: str) -> IPv4Address | IPv6Address:
    """Of IPv4 as such, also where it is written as IPv6. Raises ValueError."""
    address = ip_address(host)
    return getattr(address, "ipv4_mapped", None) or address


class OpenPerCaller:
    """At most `most` things open at once for each caller, 0 for any number; `proxies` are no
    callers.

    Owned by the event loop.
    """

    def __init__(self, most: int, proxies: Proxies) -> None:
        self.most = most
        self._proxies = proxies
        self._open: Counter[str] = Counter()

    def enter(self, host: str) -> bool:
        """Whether there is a place; who got one must `leave`."""
        caller = caller_of(host)
        if self.most and self._open[caller] >= self.most and host not in self._proxies:
            return False
        self._open[caller] += 1
        return True

    def leave(self, host: str) -> None:
        caller = caller_of(host)
        self._open[caller] -= 1
        if not self._open[caller]:
            del self._open[caller]

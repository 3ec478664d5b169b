"""Who counts as one caller, and how much each may have open."""

from __future__ import annotations

import pytest

from simple_asr.service.peers import OpenPerCaller, Proxies, caller_of


@pytest.mark.parametrize(
    ("host", "is_trusted"),
    [
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("10.255.0.1", True),
        ("2001:db8::1", True),
        ("2001:0db8:0::1", True),
        ("2001:db8::2", False),
        ("::ffff:10.0.0.1", True),
        ("::ffff:11.0.0.1", False),
        ("unix", True),
        ("", False),
        ("localhost", False),
    ],
)
def test_proxies_are_named_by_address_network_and_socket(host: str, is_trusted: bool) -> None:
    proxies = Proxies("192.0.2.7, 10.0.0.0/8,2001:db8::1 ,unix")

    assert (host in proxies) is is_trusted


def test_nobody_is_trusted_where_nobody_is_named() -> None:
    assert "127.0.0.1" not in Proxies("")
    assert "unix" not in Proxies(" , ")


@pytest.mark.parametrize("name", ["*", "example.org", "10.0.0.1/8", "192.0.2.256", "10.0.0.0/33"])
def test_a_name_that_is_no_address_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no address such as"):
        Proxies(f"127.0.0.1,{name}")


@pytest.mark.parametrize(
    ("host", "caller"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("unix", "unix"),
        ("_hidden", "_hidden"),
    ],
)
def test_a_customers_whole_ipv6_network_is_one_caller(host: str, caller: str) -> None:
    assert caller_of(host) == caller


def test_a_caller_has_so_many_places_and_gets_them_back() -> None:
    places = OpenPerCaller(2, Proxies(""))
    entered = [places.enter("192.0.2.1") for _ in range(3)]
    other = places.enter("192.0.2.2")
    places.leave("192.0.2.1")

    assert entered == [True, True, False]
    assert other
    assert places.enter("192.0.2.1")


@pytest.mark.parametrize(("most", "proxies"), [(0, ""), (1, "192.0.2.1")])
def test_a_proxy_and_a_server_without_the_limit_have_any_number(most: int, proxies: str) -> None:
    places = OpenPerCaller(most, Proxies(proxies))

    assert all(places.enter("192.0.2.1") for _ in range(100))

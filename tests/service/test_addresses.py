"""Where this server connects for its callers, and where it does not."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from simple_asr.errors import AddressRefused, ConfigurationError
from simple_asr.service.addresses import (
    AddressRules,
    about,
    is_global,
    origin,
    read_networks,
    read_ports,
)

RULES = AddressRules()


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/talk.mp3",
        "http://example.com:80/talk.mp3?signature=x#part",
        "HTTPS://EXAMPLE.com./",
        "https://bücher.example/ü.mp3",
        "https://my_bucket.s3.example/a",
        "http://93.184.215.14/a",
        "http://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/a",
    ],
)
def test_the_address_of_a_file_is_taken(url: str) -> None:
    assert RULES.checked_url(url).host != ""


@pytest.mark.parametrize(
    "url",
    [
        "",
        "talk.mp3",
        "//example.com/a",
        "ftp://example.com/a",
        "file:///etc/passwd",
        "gopher://example.com/",
        "data:audio/wav;base64,UklGRg==",
        "http://",
        "http:///etc/passwd",
        "https://alice@example.com/",
        "https://alice:secret@example.com/",
        "https://example.com:22/",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com:x/",
        "http://exa mple.com/",
        "http://example.com\r\nHost: evil/",
        "http://example.com\\@127.0.0.1/",
        "http://%31%32%37.0.0.1/",
        "http://a..b/",
        "http://[::1",
        "http://[fe80::1%25eth0]/",
        # Addresses by other spellings, which the machine's resolver would understand.
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0X7F.0.0.1/",
        "http://0x7f.1/",
        "http://127.1/",
        "http://0177.0.0.1/",
        "http://127.0.0.0x1/",
        "http://127.0.0.1./",
        "http://0x/",
        "http://１２７.0.0.1/",
        "https://example.com/" + 2048 * "a",
    ],
)
def test_what_is_no_address_of_a_file_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused):
        RULES.checked_url(url)


@pytest.mark.parametrize("address", ["93.184.215.14", "1.1.1.1", "2606:4700::1111"])
def test_an_address_of_the_internet_is_allowed(address: str) -> None:
    RULES.check_address(address)

    assert is_global(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104 - it is refused
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:1.1.1.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::7f00:1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_an_address_of_nobody_or_of_ones_own_network_is_refused(address: str) -> None:
    with pytest.raises(AddressRefused, match="ALLOWED_ADDRESSES"):
        RULES.check_address(address)


def test_the_operator_may_allow_networks_and_ports() -> None:
    rules = AddressRules(read_ports("80, 8080"), read_networks("10.1.0.0/16,fd00::/8"))

    rules.check_address("10.1.2.3")
    rules.check_address("fd00::7")
    rules.checked_url("http://example.com:8080/")

    with pytest.raises(AddressRefused):
        rules.check_address("10.2.0.1")
    with pytest.raises(AddressRefused, match=r"Port 443 is not among .*: 80, 8080"):
        rules.checked_url("https://example.com/")


@pytest.mark.parametrize("text", ["10.1.2.3/16", "example.com", "10.1.0.0/33"])
def test_a_network_that_is_none_stops_the_start(text: str) -> None:
    with pytest.raises(ConfigurationError, match="ALLOWED_ADDRESSES"):
        read_networks(text)


@pytest.mark.parametrize("text", ["http", "0", "65536", "-1"])
def test_a_port_that_is_none_stops_the_start(text: str) -> None:
    with pytest.raises(ConfigurationError, match="ALLOWED_PORTS"):
        read_ports(text)


def test_nothing_is_allowed_where_nothing_is_said() -> None:
    assert (read_networks(""), read_ports("")) == ((), frozenset())
    assert read_networks("10.0.0.0/8") == (ip_network("10.0.0.0/8"),)


def test_a_refusal_says_which_field_it_is_about() -> None:
    with pytest.raises(AddressRefused) as refused, about("audio_url"):
        RULES.checked_url("ftp://example.com/")

    assert refused.value.field == "audio_url"


def test_only_the_origin_of_a_url_is_shown() -> None:
    url = RULES.checked_url("https://example.com:443/private/talk.mp3?signature=secret")

    assert origin(url) == "https://example.com"

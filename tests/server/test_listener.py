"""The address of a server, as it is written."""

from __future__ import annotations

import pytest

from simple_asr.server.listener import reachable, url_of


@pytest.mark.parametrize(
    ("host", "is_https", "url"),
    [
        ("asr.example", True, "https://asr.example:9854"),
        ("127.0.0.1", False, "http://127.0.0.1:9854"),
        ("::1", False, "http://[::1]:9854"),
    ],
)
def test_an_address_has_its_scheme_and_brackets_for_ipv6(
    host: str, is_https: bool, url: str
) -> None:
    assert url_of(host, 9854, is_https=is_https) == url


@pytest.mark.parametrize(
    ("listens_on", "found_at"),
    [
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104  (nothing is bound)
        ("::", "::1"),
        ("192.0.2.1", "192.0.2.1"),
    ],
)
def test_who_listens_on_every_address_is_found_at_this_machines_own(
    listens_on: str, found_at: str
) -> None:
    assert reachable(listens_on) == found_at

"""Hosts that are addresses, judged by ``ipaddress``."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apex_llm.protocol.addresses import ipv4, ipv6, is_address, is_link_local, is_loopback

HOSTS = [
    *("127.0.0.1", "127.255.255.255", "128.0.0.1", "169.254.169.254", "169.255.0.1", "0.0.0.0", "255.255.255.255"),
    *(
        "256.1.1.1",
        "1.2.3",
        "1.2.3.4.5",
        "01.2.3.4",
        "1.2.3.00",
        "1.2.3.",
        "1..2.3",
        "1.2.3.+4",
        "1.2.3.4 ",
        "1.2.3.-0",
    ),
    *("١.٢.٣.٤", "1.2.3.²", "0x7f.0.0.1", "127.1", "2130706433", "1_0.0.0.1", ""),  # noqa: RUF001
    *(
        "::1",
        "::",
        "::2",
        "fe80::1",
        "fe80::1%eth0",
        "febf::1",
        "fec0::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
    ),
    *("fd00:ec2::254", "[::1]", ":", ":::", "1::2::3", "::1%", "12345::", "localhost", "example.com", "a.b.c.d"),
]


def _judge(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _agrees(host: str) -> None:
    expected = _judge(host)
    assert is_address(host) is (expected is not None)
    assert is_loopback(host) is (expected is not None and expected.is_loopback)
    assert is_link_local(host) is (expected is not None and expected.is_link_local)
    assert (ipv4(host) is not None) is isinstance(expected, ipaddress.IPv4Address)
    assert ipv6(host) == (expected if isinstance(expected, ipaddress.IPv6Address) else None)


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_is_judged_as_ipaddress_judges_it(host: str) -> None:
    _agrees(host)


@given(st.lists(st.integers(-1, 300).map(str) | st.sampled_from(["", "0", "00", "1 ", "a"]), min_size=1, max_size=5))
def test_numbers_with_dots_are_judged_as_ipaddress_judges_them(parts: list[str]) -> None:
    _agrees(".".join(parts))


@given(st.ip_addresses().map(str))
def test_every_address_is_one(host: str) -> None:
    _agrees(host)


@given(st.text("0123456789abcdef:.%", max_size=40))
def test_what_looks_like_an_address_is_judged_as_ipaddress_judges_it(host: str) -> None:
    _agrees(host)

"""Which requests are answered: a web page of somebody else cannot watch or steer a robot through a user's browser."""

import socket
from email.message import Message

import pytest

from streaming.preview.guard import is_known_host, is_loopback_host, is_own_page, may_act


def headers(**fields: str) -> "Message[str, str]":
    made: Message[str, str] = Message()
    for name, value in fields.items():
        made[name.replace("_", "-")] = value
    return made


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8080", "localhost", "localhost:1", "[::1]:8080", "192.168.1.20:8080", "LOCALHOST:8080"],
)
def test_addresses_and_localhost_are_known(host: str) -> None:
    assert is_known_host(host)


def test_the_machines_own_name_is_known() -> None:
    assert is_known_host(f"{socket.gethostname()}:8080")
    assert is_known_host(f"{socket.gethostname()}.local:8080")


@pytest.mark.parametrize(
    "host",
    [None, "", "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "[::1", "a b"],
)
def test_a_name_somebody_else_can_point_here_is_not(host: str | None) -> None:
    assert not is_known_host(host)


@pytest.mark.parametrize(
    ("site", "own"), [("same-origin", True), ("none", True), ("cross-site", False), ("same-site", False)]
)
def test_browsers_tell_whose_page_asks(site: str, own: bool) -> None:
    assert is_own_page(headers(Sec_Fetch_Site=site)) is own
    assert is_own_page(headers())


def test_only_this_page_may_act() -> None:
    good = {"Host": "127.0.0.1:8080", "Origin": "http://127.0.0.1:8080", "Content_Type": "application/json"}
    assert may_act(headers(**good))
    for name, value in {
        "Origin": "http://evil.example",
        "Host": "127.0.0.1:9090",
        "Content_Type": "text/plain",
        "Sec_Fetch_Site": "cross-site",
    }.items():
        assert not may_act(headers(**(good | {name: value})))
    for origin in ("null", "", "http://[::1"):
        assert not may_act(headers(**(good | {"Origin": origin})))
    assert not may_act(headers(Host="127.0.0.1:8080", Content_Type="application/json"))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("192.168.1.2", False),
        ("robot", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback_host(host) is loopback

"""Internal addresses are never contacted: not by name, not by number in any spelling, not by a changed DNS answer."""

import asyncio
import ipaddress
from typing import Any

import pytest

from controlplane.notifications import destinations, sending
from controlplane.notifications.destinations import DestinationRefused
from controlplane.server import checks
from tests.support.receivers import Listener, status

REFUSED = [
    # loopback, in every spelling that some resolver accepts
    "https://127.0.0.1/", "https://127.0.0.53/", "https://127.1/", "https://127.0.1/", "https://2130706433/",
    "https://0x7f000001/", "https://0x7f.0.0.1/", "https://0177.0.0.1/", "https://017700000001/", "https://127.0.0.01/",
    "https://[::1]/", "https://[0:0:0:0:0:0:0:1]/", "https://localhost/", "https://LOCALHOST/", "https://localhost./",
    # this host, this network, broadcast
    "https://0.0.0.0/", "https://0/", "https://0.1.2.3/", "https://[::]/", "https://255.255.255.255/",
    # private
    "https://10.0.0.1/", "https://10.255.255.255/", "https://172.16.0.1/", "https://172.31.255.255/",
    "https://192.168.0.1/", "https://192.168.255.255/", "https://100.64.0.1/", "https://100.127.255.255/",
    "https://167772161/", "https://0x0a000001/", "https://012.0.0.1/", "https://0xc0.0xa8.0x00.0x01/",
    "https://[fc00::1]/", "https://[fd12:3456:789a::1]/",
    # link-local, and the metadata services of the clouds
    "https://169.254.169.254/latest/meta-data/", "https://169.254.170.2/", "https://169.254.0.1/",
    "https://2852039166/", "https://0xa9fea9fe/", "https://0251.0376.0251.0376/", "https://[fe80::1]/",
    "https://[fd00:ec2::254]/", "https://100.100.100.200/", "https://168.63.129.16/", "https://192.0.0.192/",
    # IPv4 within IPv6
    "https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/", "https://[::ffff:10.0.0.1]/",
    "https://[::ffff:169.254.169.254]/", "https://[::127.0.0.1]/", "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b::a9fe:a9fe]/", "https://[64:ff9b:1::a00:1]/", "https://[2002:7f00:1::]/",
    "https://[2002:a9fe:a9fe::1]/", "https://[2001:0:0:0:0:0:80ff:fffe]/",
    # documentation, benchmarks, reserved, multicast, relays
    "https://192.0.2.1/", "https://198.51.100.7/", "https://203.0.113.9/", "https://198.18.0.1/", "https://240.0.0.1/",
    "https://224.0.0.1/", "https://239.255.255.255/", "https://192.88.99.1/", "https://[2001:db8::1]/",
    "https://[ff02::1]/", "https://[fec0::1]/", "https://[100::1]/", "https://192.0.0.1/",
    # names that resolve internally
    "https://intranet/", "https://metadata/", "https://kubernetes/",
    # schemes, credentials, URLs that parsers read differently
    "http://example.org/", "ftp://example.org/", "file:///etc/passwd", "gopher://example.org/", "//example.org/",
    "https://user:word@example.org/", "https://example.org@127.0.0.1/", "https://example.org\\@127.0.0.1/",
    "https://example.org:0/", "https://example.org:99999/", "https://exa mple.org/", "https://example.org/\r\nHost: a",
    "https://example.org/#fragment", "https://", "https://[::1", "https://[::ffff:127.0.0.1%25eth0]/", "https://-a.org/",
    "https://１２７.０.０.１/", "https://ex\tample.org/", "https://example.org/" + "a" * 600, "https://.../",
    "javascript:1",
]  # fmt: skip
INSIDE = ["10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "fd00::1", "64:ff9b::a00:1"]


def test_the_list_of_internal_addresses_is_long_enough() -> None:
    assert len(set(REFUSED)) >= 90


@pytest.mark.parametrize("url", REFUSED, ids=ascii)
def test_it_refuses_internal_addresses(url: str) -> None:
    with pytest.raises(DestinationRefused) as refused:
        destinations.resolved(destinations.read(url), _answers("93.184.216.34"))
    assert refused.value.code == "destination_refused"


@pytest.mark.parametrize(
    "url", ["https://example.org/", "https://example.org:8443/a?b=c", "https://93.184.216.34/"]
)
def test_it_accepts_external_addresses(url: str) -> None:
    assert destinations.resolved(destinations.read(url), _answers("93.184.216.34")) == "93.184.216.34"


@pytest.mark.parametrize("address", INSIDE)
def test_it_refuses_a_name_that_resolves_to_an_internal_address(address: str) -> None:
    found = destinations.read("https://innocent.example.org/")
    with pytest.raises(DestinationRefused):
        destinations.resolved(found, _answers(address))
    with pytest.raises(DestinationRefused):  # one internal address among external ones is enough
        destinations.resolved(found, _answers("93.184.216.34", address))


def test_it_refuses_a_name_that_does_not_resolve() -> None:
    with pytest.raises(DestinationRefused):
        destinations.resolved(destinations.read("https://nothing.example.org/"), _answers())


# IANA's special-purpose registries: networks that are not globally reachable.
SPECIAL = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4", "::1/128",
    "fc00::/7", "fe80::/10", "2001:db8::/32", "100::/64",
]  # fmt: skip


@pytest.mark.parametrize("text", SPECIAL)
def test_both_ends_of_a_special_network_are_internal(text: str) -> None:
    network = ipaddress.ip_network(text)
    assert not destinations.is_public(network[0])
    assert not destinations.is_public(network[-1])


def test_the_settings_can_allow_internal_hosts_and_networks(settings: Any) -> None:
    settings.WEBHOOK_ALLOWED = ["hooks.internal", "10.1.0.0/16", "chat"]
    assert (
        destinations.resolved(destinations.read("http://hooks.internal/"), _answers("192.168.1.1"))
        == "192.168.1.1"
    )
    assert destinations.resolved(destinations.read("http://10.1.2.3:9000/"), _answers()) == "10.1.2.3"
    assert destinations.resolved(destinations.read("https://chat/"), _answers("10.9.9.9")) == "10.9.9.9"
    assert (
        destinations.resolved(destinations.read("https://in.example.org/"), _answers("10.1.0.1"))
        == "10.1.0.1"
    )
    for url in ("https://10.2.0.1/", "http://example.org/", "https://other/"):
        with pytest.raises(DestinationRefused):
            destinations.resolved(destinations.read(url), _answers("93.184.216.34"))


def test_it_connects_to_the_address_that_it_checked(
    listener: Listener, settings: Any, monkeypatch: Any
) -> None:
    """The name is resolved only once, so a different second answer has no effect."""
    settings.WEBHOOK_ALLOWED = ["rebinding.example.org"]
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    monkeypatch.setattr(destinations, "_ask", resolve)
    url = listener.url.replace("127.0.0.1", "rebinding.example.org")
    outcome = asyncio.run(sending.attempt(sending.Post(url, {}, b"{}")))
    assert (outcome.delivered, asked) == (True, ["rebinding.example.org"])
    assert listener.got[0][1]["host"].startswith("rebinding.example.org:")


def test_it_follows_no_redirects(listener: Listener) -> None:
    listener.answers = [status(307, Location=f"{listener.url}/inside")]
    outcome = asyncio.run(sending.attempt(sending.Post(listener.url, {}, b"{}")))
    assert (outcome.delivered, outcome.status, len(listener.got)) == (False, 307, 1)
    assert "redirects are not followed" in outcome.answer


def test_the_proxy_of_the_environment_is_not_used(listener: Listener, monkeypatch: Any) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9/")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9/")
    assert asyncio.run(sending.attempt(sending.Post(listener.url, {}, b"{}"))).delivered


def _answers(*addresses: str) -> destinations.Resolve:
    return lambda host, port: addresses


@pytest.mark.parametrize(
    "text", ["hooks.internal", "chat", "10.1.0.0/16", "10.1.2.3/16", "127.0.0.1", "fc00::/7"]
)
def test_a_host_or_a_network_can_be_allowed(settings: Any, text: str) -> None:
    settings.WEBHOOK_ALLOWED = [text]
    assert checks.check_webhooks(None) == []


@pytest.mark.parametrize(
    "text",
    ["10.1.0.0/33", "http://hooks.internal", "hooks.internal:8080", "Hooks.Internal", "[::1]", "*.internal"]
    + ["10.1.0.300", "127.1", "my host"],
)
def test_an_entry_that_no_address_can_match_is_refused(settings: Any, text: str) -> None:
    settings.WEBHOOK_ALLOWED = ["10.0.0.0/8", text]
    (message,) = checks.check_webhooks(None)
    assert message.id == "pointsman.E010" and repr(text) in message.msg and "WEBHOOK_ALLOWED" in message.msg

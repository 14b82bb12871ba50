"""Where connections of users may lead."""

from ipaddress import ip_address

import pytest

from services.connections.addresses import LOOPBACK, AddressRules, normalized
from services.errors import AddressNotAllowed, InvalidRequest

PUBLIC = ("8.8.8.8", "1.1.1.1", "104.18.6.192", "2606:4700::6810:6c0", "64:ff9b::808:808")
SPECIAL = (
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.7",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
)
DISGUISED = (
    "http://127.1/v1",
    "http://0177.0.0.1/",
    "http://0x7f.0.0.1/",
    "http://0x7f000001/",
    "http://2130706433/",
    "http://017700000001/",
    "http://user@8.8.8.8/",
    "http://user:password@8.8.8.8/",
    "http://8.8.8.8@127.0.0.1/",
    "http://8.8.8.8\\@127.0.0.1/",
    "http://127.0.0.1\t/",
    "http://127.0.0.1\n.example.com/",
    "http://[::1%25lo]/",
    "http://exa mple.com/",
    "http://%31%32%37.0.0.1/",
    "http://model.example:0/",
    "http://model.example:65536/",
    "http://model.example:http/",
    "http:///v1",
    "http://",
    "//model.example/v1",
    "model.example/v1",
    "ftp://model.example/",
    "file:///etc/passwd",
    "gopher://model.example/",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/",
    "unix:///var/run/docker.sock",
    "data:text/plain,hello",
    "https://model.example/v1?key=1",
    "https://model.example/v1#top",
    f"https://{'a' * 300}.example/",
    f"https://model.example/{'a' * 3000}",
    "",
)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address: str) -> None:
    assert AddressRules(()).allows("model.example", ip_address(address), 443)


@pytest.mark.parametrize("address", SPECIAL)
def test_a_special_address_is_not_allowed_whatever_its_form(address: str) -> None:
    rules = AddressRules(())
    host = f"[{address}]" if ":" in address else address

    assert not rules.allows("model.example", ip_address(address), 443)
    with pytest.raises((AddressNotAllowed, InvalidRequest)):
        rules.check(f"http://{host}:8080/v1")


@pytest.mark.parametrize("url", DISGUISED)
def test_what_is_no_plain_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        AddressRules(("0.0.0.0/0",)).check(url)
    assert refused.value.details["field"] == "base_url"


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "localhost.", "me.localhost", "ⓛocalhost"])
def test_this_machine_is_known_by_its_name(name: str) -> None:
    with pytest.raises(AddressNotAllowed):
        AddressRules(()).check(f"http://{name}:11434")
    assert AddressRules(LOOPBACK).check(f"http://{name}:11434").port == 11434


@pytest.mark.parametrize("port", [22, 25, 53, 443 + 22, 1023])
def test_ports_of_other_services_are_not_allowed_unless_they_are_named(port: int) -> None:
    with pytest.raises(AddressNotAllowed, match=f"port {port}"):
        AddressRules(()).check(f"http://model.example:{port}")
    assert AddressRules((f"model.example:{port}",)).check(f"http://model.example:{port}").port == port


@pytest.mark.parametrize(
    ("entry", "host", "address", "port", "allowed"),
    [
        ("10.0.0.0/8", "model.lan", "10.1.2.3", 8000, True),
        ("10.0.0.0/8", "model.lan", "11.1.2.3", 8000, True),  # public anyway
        ("10.0.0.0/8", "model.lan", "192.168.0.1", 8000, False),
        ("10.0.0.5", "model.lan", "10.0.0.5", 8000, True),
        ("10.0.0.5", "model.lan", "10.0.0.6", 8000, False),
        ("10.0.0.5:8000", "model.lan", "10.0.0.5", 8000, True),
        ("10.0.0.5:8000", "model.lan", "10.0.0.5", 8001, False),
        ("10.0.0.0/8", "model.lan", "::ffff:10.1.2.3", 8000, True),
        ("ollama", "ollama", "172.18.0.2", 11434, True),
        ("Ollama:11434", "ollama", "172.18.0.2", 11434, True),
        ("ollama:11434", "ollama", "172.18.0.2", 11435, False),
        ("ollama", "other", "172.18.0.2", 11434, False),
        ("ollama", "ollama.example.com", "172.18.0.2", 11434, False),
        ("::1", "model.lan", "::1", 8000, True),
        ("[::1]:8000", "model.lan", "::1", 8000, True),
        ("[::1]:8000", "model.lan", "::1", 8001, False),
        ("fd00::/8", "model.lan", "fd00::7", 8000, True),
    ],
)
def test_the_operator_opens_places_one_by_one(entry: str, host: str, address: str, port: int, allowed: bool) -> None:
    assert AddressRules((entry,)).allows(host, ip_address(address), port) is allowed


@pytest.mark.parametrize("entry", ["", "*", "*.lan", "http://lan", "lan/8", "10.0.0.1/8", "a b", "lan:0", "lan:70000"])
def test_an_entry_that_means_nothing_is_a_mistake_told_at_once(entry: str) -> None:
    with pytest.raises(ValueError, match="is no name, address or network"):
        AddressRules((entry,))


def test_loopback_as_the_default_opens_neither_the_network_nor_the_address_of_all_addresses() -> None:
    rules = AddressRules(LOOPBACK)
    opened = [address for address in SPECIAL if rules.allows("model.example", ip_address(address), 80)]
    assert opened == ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1"]


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("https://API.Example.COM/v1/", "https://api.example.com/v1"),
        ("https://api.example.com:443", "https://api.example.com"),
        ("http://api.example.com:443/", "http://api.example.com:443"),
        ("http://[2606:4700::1111]:80/v1", "http://[2606:4700::1111]/v1"),
        ("https://bücher.example/v1", "https://xn--bcher-kva.example/v1"),
        ("http://model.example.:8080/Path", "http://model.example:8080/Path"),
    ],
)
def test_an_address_is_stored_in_one_form(given: str, stored: str) -> None:
    assert normalized(given) == stored
    assert normalized(stored) == stored

from __future__ import annotations

import pytest

from reconciler.errors import UsageError
from reconciler.web import Address, parse_listen


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:9840", "127.0.0.1", 9840),
        ("localhost:0", "localhost", 0),
        ("0.0.0.0:80", "0.0.0.0", 80),
        ("[::1]:9840", "::1", 9840),
        ("[::]:65535", "::", 65535),
        ("[fe80::1%eth0]:9840", "fe80::1%eth0", 9840),
        ("db-host_1.example.com:9840", "db-host_1.example.com", 9840),
    ],
)
def test_host_and_port(text: str, host: str, port: int) -> None:
    address = parse_listen(text)
    assert (address.host, address.port) == (host, port)
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "9840",
        ":9840",
        "localhost",
        "localhost:",
        "localhost:65536",
        "localhost:999999",
        "localhost:-1",
        "localhost:+1",
        "localhost:http",
        "localhost:９８４０",
        "localhost: 9840",
        " localhost:9840",
        "localhost:9840\n",
        "::1:9840",
        "[::1]",
        "[]:9840",
        "[localhost]:9840",
        "http://localhost:9840",
        "user@localhost:9840",
        "localhost:9840/metrics",
    ],
)
def test_nonsense_is_refused_by_name_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_listen(text)
    assert repr(text) in refusal.value.message
    assert "127.0.0.1:9840" in refusal.value.remedy


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (Address("127.0.0.1", 9840), "http://127.0.0.1:9840"),
        (Address("::1", 9840), "http://[::1]:9840"),
        (Address("0.0.0.0", 9840), "http://127.0.0.1:9840"),
        (Address("::", 9840), "http://[::1]:9840"),
    ],
)
def test_the_url_is_one_to_go_to(address: Address, url: str) -> None:
    assert address.url == url

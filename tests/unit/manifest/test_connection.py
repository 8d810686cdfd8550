from __future__ import annotations

import pytest

from reconciler.manifest.connection import is_connection_string, passwords


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("postgresql://u:p%40ss@h/db", ["p%40ss", "p@ss"]),
        ("postgres://u:p@ss@h/d", ["p@ss", "p"]),
        ("postgres://u:a/b@h/d?x=1", ["a/b"]),
        ("postgres://u:a?b@h/d", ["a?b"]),
        ("postgres://u:a+b@h/d", ["a+b", "a b"]),
        ("postgres://u@h/d?%70assword=x%20y#z", ["x%20y#z", "x y#z"]),
        ("postgres://h/d?user=u&sslpassword=abcd", ["abcd"]),
        ("host=h password='a \\'b'", ["a 'b", "a"]),
        ("host = h  PASSWORD = abc\\ d", ["abc d", "abc\\"]),
        ("host=h password='abcd", ["abcd"]),
        ("postgres://h:5432/d", []),
        ("postgres://u@h/d?options=a:b@c", []),
        ("postgres://[::1]:5432?options=a:b@c", []),
        ("postgres://h1:1,h2:2/d?application_name=a:b@c", []),
        ("postgres://u:@h/d", []),
        ("host=h password=", []),
        ("host=h passfile=/x", []),
        ("", []),
    ],
)
def test_finds_every_password(text: str, found: list[str]) -> None:
    assert passwords(text) == found


@pytest.mark.parametrize(
    "text", ["postgres://", "postgresql://h", "host=h", "host = h dbname='a b' ", "service=x"]
)
def test_knows_a_connection_string(text: str) -> None:
    assert is_connection_string(text)


@pytest.mark.parametrize(
    "text", ["", " ", "h", "mysql://h", "http://h?a=b", "host=h db", "host='h", "=x", "Postgres://h"]
)
def test_knows_what_is_none(text: str) -> None:
    assert not is_connection_string(text)

from __future__ import annotations

import pytest

from reconciler.errors import UsageError
from reconciler.source.url import identity, is_remote, parse_url


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://example.org/team/app.git", "https://example.org/team/app.git"),
        ("https://git@example.org:8443/team/app", "https://example.org:8443/team/app"),
        ("ssh://git@example.org:2222/team/app.git", "ssh://example.org:2222/team/app.git"),
        ("git@example.org:team/app.git", "ssh://example.org/team/app.git"),
        ("file:///srv/app.git", "file:///srv/app.git"),
        ("/srv/app.git", "file:///srv/app.git"),
        ("http://127.0.0.1:3000/app.git", "http://127.0.0.1:3000/app.git"),
        ("http://[::1]:3000/app.git", "http://[::1]:3000/app.git"),
        ("ssh://git@[2001:db8::1]/app.git", "ssh://[2001:db8::1]/app.git"),
    ],
)
def test_good_urls(text: str, shown: str) -> None:
    assert parse_url(text).shown == shown


@pytest.mark.parametrize(
    "text",
    [
        "ext::sh -c touch% /tmp/x",
        "fd::17",
        "--upload-pack=touch /tmp/x",
        "-oProxyCommand=touch@host:path",
        "https://example.org/$HOME/app",
        "https://example.org/app\n[core]",
        "https://example.org/app%0a",
        "https://example.org/app%0Dhost=other",
        "https://example.org/a\x1b[31m",
        "https://example.org/a\\b",
        "git://example.org/app",
        "ftp://example.org/app",
        "http://example.org/app",
        "https://example.org",
        "https://example.org/",
        "https:///app",
        "https://exa mple.org/app",
        "https://example.org:port/app",
        "https://example.org/app?token=x",
        "https://example.org/app#main",
        "https://-oProxyCommand=x/app",
        "ssh://-oProxyCommand=x/app",
        "ssh://git@-host/app",
        "git@-host:app",
        "git@host:-app",
        "-git@host:app",
        "ssh://git@host%0a/app",
        "file://host/app",
        "file:relative",
        "",
        "nonsense",
    ],
)
def test_hostile_and_wrong_urls(text: str) -> None:
    with pytest.raises(UsageError):
        parse_url(text)


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        parse_url("https://ada:hunter2secret@example.org/app")
    assert "holds a password" in str(caught.value)
    assert "hunter2secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/team/app",
        "https://example.org/team/app.git",
        "https://example.org:443/team/app/",
        "https://user:password@EXAMPLE.org/team/app.git/",
        "ssh://git@example.org/team/app.git",
        "ssh://git@example.org:22/team/app.git",
        "git@example.org:team/app.git",
        "example.org:/team/app",
    ],
)
def test_one_repository_has_one_identity(text: str) -> None:
    assert identity(text) == "example.org/team/app"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://example.org:8443/app", "example.org:8443/app"),
        ("file:///srv/my%20app.git", "/srv/my app"),
        ("/srv/app.git", "/srv/app"),
        ("../app.git", "/home/ada/app"),
        ("/", "/"),
    ],
)
def test_identity_of_others(text: str, expected: str) -> None:
    assert identity(text, base="/home/ada/work") == expected


@pytest.mark.parametrize("text", ["https://h/p", "git@h:p", "h:p", "ext::x", "file:///p"])
def test_is_remote(text: str) -> None:
    assert is_remote(text)


@pytest.mark.parametrize("text", [".", "/srv/app", "../app", "app", "./a:b", "/a:b", "~/app"])
def test_is_a_folder(text: str) -> None:
    assert not is_remote(text)

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.errors import UsageError
from reconciler.redaction import Secret, redact
from reconciler.source.access import NO_NETWORK, GitCredentials, remote_access
from reconciler.source.failures import remote_failed
from reconciler.source.git import command_line, environment
from reconciler.source.url import parse_url

TOKEN = "glpat-canary-0123456789"


def test_nothing_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "GIT_DIR",
        "GIT_SSH_COMMAND",
        "GIT_CONFIG_COUNT",
        "GIT_EXTERNAL_DIFF",
        "GIT_TRACE_CURL",
        "ORDERS_DSN",
    ):
        monkeypatch.setenv(name, "hostile")
    monkeypatch.setenv("HOME", "/home/ada")
    made = environment(NO_NETWORK)
    assert "hostile" not in made.values()
    assert made["HOME"] == "/dev/null"
    assert made["GIT_ALLOW_PROTOCOL"] == "none"
    assert made["GIT_TERMINAL_PROMPT"] == "0"


def test_the_token_is_in_the_environment_only() -> None:
    access = remote_access(parse_url("https://example.org/app"), GitCredentials(token=Secret(TOKEN)))
    assert TOKEN not in " ".join(command_line([], ["fetch"], access))
    assert TOKEN in environment(access).values()
    assert TOKEN not in redact(f"fatal: {TOKEN}")


def test_the_token_is_bound_to_the_host() -> None:
    access = remote_access(parse_url("https://example.org:8443/app"), GitCredentials(token=Secret(TOKEN)))
    assert [name for name, _ in access.settings] == ["credential.https://example.org:8443.helper"]


def test_a_user_name_without_a_token_is_a_token_in_the_wrong_place() -> None:
    with pytest.raises(UsageError, match="--git-token") as caught:
        remote_access(parse_url(f"https://{TOKEN}@example.org/app"), GitCredentials())
    assert TOKEN not in str(caught.value)


def test_a_token_with_a_line_break_is_refused() -> None:
    with pytest.raises(UsageError, match="line break"):
        remote_access(parse_url("https://example.org/app"), GitCredentials(token=Secret("abcd\nefgh")))


def test_ssh_is_strict_and_quoted(tmp_path: Path) -> None:
    key, hosts = tmp_path / "a key; touch x", tmp_path / "known hosts"
    key.touch()
    hosts.touch()
    access = remote_access(parse_url("git@example.org:app"), GitCredentials(ssh_key=key, known_hosts=hosts))
    command = access.environment["GIT_SSH_COMMAND"]
    assert f"-i '{key}'" in command
    for option in (
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "IdentitiesOnly=yes",
        f'UserKnownHostsFile="{hosts}"',
    ):
        assert option in command
    assert access.protocols == ("ssh",)


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--git-ssh-key"):
        remote_access(parse_url("git@example.org:app"), GitCredentials(ssh_key=tmp_path / "none"))


def test_only_the_protocol_of_the_url_is_allowed() -> None:
    access = remote_access(parse_url("file:///srv/app.git"), GitCredentials())
    line = command_line([], ["fetch"], access)
    assert "protocol.allow=never" in line
    assert "protocol.file.allow=always" in line
    assert environment(access)["GIT_ALLOW_PROTOCOL"] == "file"
    assert "protocol.file.allow=always" not in command_line([], ["fetch"], NO_NETWORK)


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        ("fatal: Authentication failed for 'https://h/p'", "AuthenticationFailed"),
        ("fatal: could not read Username for 'https://h': terminal prompts disabled", "AuthenticationFailed"),
        ("git@h: Permission denied (publickey).\nfatal: Could not read from remote", "AuthenticationFailed"),
        ("Host key verification failed.\nfatal: Could not read", "AuthenticationFailed"),
        (
            "fatal: unable to access 'https://h/p/': The requested URL returned error: 403",
            "AuthenticationFailed",
        ),
        ("fatal: unable to access 'https://h/p/': Could not resolve host: h", "FetchFailed"),
        ("fatal: unable to access 'https://h/p/': server certificate verification failed", "FetchFailed"),
        ("", "FetchFailed"),
    ],
)
def test_failures_are_told_apart(errors: str, reason: str) -> None:
    problem = remote_failed("fetch from", "https://h/p", errors).problem
    assert problem.reason == reason
    assert problem.remedy


def test_what_a_server_says_cannot_fake_a_log_line() -> None:
    problem = remote_failed("fetch from", "https://h/p", "remote: \x1b[2Jgone\rforged\nfatal: x").problem
    assert problem.message.isprintable()

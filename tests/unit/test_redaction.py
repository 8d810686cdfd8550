from __future__ import annotations

import base64
import json
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reconciler.redaction import MASK, Redactor, Secret, mask_urls

CANARY = "hunter2/c+n?r y'%é\\~"


def test_a_secret_shows_itself_to_nobody_who_does_not_ask() -> None:
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {[secret]} {secret:}"
    assert secret.reveal() == "hunter2"
    assert secret == Secret("hunter2")
    assert secret != Secret("other")
    assert len({secret, Secret("hunter2")}) == 1
    assert not Secret("")


@pytest.mark.parametrize(
    "form",
    [
        CANARY,
        quote(CANARY),
        quote(CANARY, safe=""),
        quote(CANARY, safe="")
        .replace("%2F", "%2f")
        .replace("%3F", "%3f")
        .replace("%2B", "%2b")
        .replace("%C3%A9", "%c3%a9")
        .replace("%5C", "%5c"),
        quote_plus(CANARY),
        repr(CANARY)[1:-1],
        json.dumps(CANARY)[1:-1],
        base64.b64encode(CANARY.encode()).decode(),
        base64.urlsafe_b64encode(CANARY.encode()).decode(),
    ],
)
def test_every_form_is_masked(form: str) -> None:
    redactor = Redactor()
    redactor.add(CANARY)
    masked = redactor(f"before {form} after {form}")
    assert form not in masked
    assert masked.startswith(f"before {MASK}")
    assert f" after {MASK}" in masked


@given(before=st.binary(max_size=8), secret=st.text(min_size=6, max_size=40), after=st.binary(max_size=8))
@example(before=b"x", secret="hunter", after=b"")
def test_base64_is_masked_at_every_alignment(before: bytes, secret: str, after: bytes) -> None:
    redactor = Redactor()
    redactor.add(secret)
    raw = secret.encode()
    encoded = base64.b64encode(before + raw + after).decode()
    masked = redactor(f"<{encoded}>")
    # whole characters of the secret: those whose six bits all lie inside of it
    first, last = -(-len(before) * 8 // 6), (len(before) + len(raw)) * 8 // 6
    assert encoded[first:last] not in masked
    assert MASK in masked


@given(st.text(min_size=4), st.text(), st.text())
def test_the_raw_secret_never_remains(secret: str, before: str, after: str) -> None:
    redactor = Redactor()
    redactor.add(secret)
    assert secret not in redactor(before + secret + after).replace(MASK, "") or secret in (before + after)


def test_lone_surrogates_do_no_harm() -> None:
    redactor = Redactor()
    redactor.add("abc\udcff\ud800")
    assert redactor("x abc\udcff\ud800 y") == f"x {MASK} y"


def test_the_longest_of_two_secrets_wins() -> None:
    redactor = Redactor()
    redactor.add("abcd")
    redactor.add("abcdefgh")
    redactor.add("abcd")
    assert redactor("abcdefgh abcdef") == f"{MASK} {MASK}ef"


def test_short_values_are_not_searched_for() -> None:
    redactor = Redactor()
    redactor.add("abc")
    redactor.add("")
    assert redactor("abc") == "abc"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgres://user:pw@host/db", "postgres://***@host/db"),
        ("postgres://user@host/db", "postgres://***@host/db"),
        ("https://token@github.com/a/b.git", "https://***@github.com/a/b.git"),
        ("postgres://u:p@ss@host/db", "postgres://***@host/db"),
        ("postgres://u:a/b@host/db", "postgres://***@host/db"),
        ("('postgres://u:p@h/d')", "('postgres://***@h/d')"),
        ("http://host:8080/a@b", "http://host:8080/a@b"),
        ("http://host/a@b", "http://host/a@b"),
        ("git@github.com:a/b.git", "git@github.com:a/b.git"),
        ("ssh://git@host/a and ssh://git@host/b", "ssh://***@host/a and ssh://***@host/b"),
        ("host=h password=abc dbname=d", "host=h password=*** dbname=d"),
        ("host=h password = 'a b\\' c' dbname=d", "host=h password = *** dbname=d"),
        ("password='a b", "password=***"),
        ("PGPASSWORD=abc psql", "PGPASSWORD=*** psql"),
        ("?user=u&password=abc&x=1", "?user=u&password=***&x=1"),
        ("access_token=abc", "access_token=***"),
        ('{"password": "abc", "x": 1}', '{"password": ***, "x": 1}'),
        ("{'secret': 'a\\'b'}", "{'secret': ***}"),
        ("ALTER ROLE x PASSWORD 'abc';", "ALTER ROLE x PASSWORD ***;"),
        ("Authorization: Basic dTpw", "Authorization: Basic ***"),
        ("{'Authorization': 'Bearer abc.def'}", "{'Authorization': 'Bearer ***'}"),
        ('password authentication failed for user "app"', 'password authentication failed for user "app"'),
        ("manifests/dev.yaml:3:9: token is unknown", "manifests/dev.yaml:3:9: token is unknown"),
    ],
)
def test_places_that_give_a_secret_away_are_masked(text: str, masked: str) -> None:
    assert mask_urls(text) == masked
    assert Redactor()(text) == masked
    assert mask_urls(masked) == masked


def _seconds(redactor: Redactor, text: str) -> float:
    started = time.process_time()
    redactor(text)
    return time.process_time() - started


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "a.",
        "a-",
        "://",
        "://a:",
        "://a:b",
        "@",
        "password",
        "password=",
        "password='",
        "password='\\",
        "password \t",
        "'",
        "\\",
        '"password":"',
        "authorization:",
        "authorization: bearer ",
        " ",
        "\n",
        "aaaa",
        "aaab",
    ],
)
def test_a_line_of_a_megabyte_is_no_trouble(unit: str) -> None:
    redactor = Redactor()
    redactor.add("a" * 50 + "b")
    redactor.add("aaaac")
    assert (
        _seconds(redactor, unit * (1_000_000 // len(unit))) < 5
    )  # well under a second; minutes if it were quadratic


def test_thousands_of_secrets_cost_little() -> None:
    redactor = Redactor()
    started = time.process_time()
    for number in range(2000):
        redactor.add(f"postgresql://user{number}:secret-{number:04}@host{number}/database")
    assert time.process_time() - started < 10
    assert _seconds(redactor, "an ordinary line of text, as it is logged all day long" * 10) < 0.1
    assert (
        redactor("x secret-1999 postgresql://user1999:secret-1999@host1999/database")
        == f"x secret-1999 {MASK}"
    )


def test_old_secrets_are_forgotten_before_memory_runs_out() -> None:
    redactor = Redactor(most=100)
    redactor.add("kept-because-it-is-used")
    for number in range(101):
        if number == 90:
            redactor.add("kept-because-it-is-used")
        redactor.add(f"token{number:09}")
    assert redactor("kept-because-it-is-used") == MASK
    assert redactor(f"token{100:09}") == MASK
    assert redactor(f"token{0:09}") != MASK


def test_a_password_that_was_escaped_and_then_encoded() -> None:
    redactor = Redactor()
    secret = "first'\\\"last-canary"
    redactor.add(secret)
    for escaped in (secret.replace("\\", "\\\\").replace("'", "\\'"), json.dumps(secret)):
        for before in ("", "a", "ab"):
            text = base64.b64encode(f"{before}{escaped} dbname=d".encode()).decode()
            middle = base64.b64encode(f"{before}{escaped}".encode()).decode()[-16:-4]
            assert middle in text
            assert MASK in redactor(text)
            assert middle not in redactor(text)

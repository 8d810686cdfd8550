from __future__ import annotations

import time

import pytest

from reconciler.manifest import (
    CommandReference,
    DatabaseTarget,
    DestructivePolicy,
    DownPolicy,
    DriftPolicy,
    Embedded,
    Engine,
    EnvironmentReference,
    FileReference,
    GcpSecretReference,
    Literal,
    Manifest,
    ManifestError,
    OnFailure,
    Policy,
    Rollout,
    Timeouts,
    read_manifest,
)
from reconciler.manifest.references import secret_reference
from reconciler.model import Hook, Hooks, Place, Problem, Reason
from tests.unit.manifest.samples import COMPLETE, SMALLEST

PATH = "manifests/dev.yaml"


def problems_of(text: str | bytes) -> tuple[Problem, ...]:
    content = text.encode() if isinstance(text, str) else text
    with pytest.raises(ManifestError) as caught:
        read_manifest(PATH, content)
    problems = caught.value.problems
    assert caught.value.problem == problems[0]
    assert all(problem.reason is Reason.MANIFEST_INVALID and problem.place for problem in problems)
    return problems


def only_problem(text: str | bytes) -> Problem:
    problems = problems_of(text)
    assert len(problems) == 1, problems
    return problems[0]


def with_line(line: str) -> str:
    return SMALLEST + line + "\n"


def test_the_smallest_manifest_has_every_default() -> None:
    assert read_manifest(PATH, SMALLEST.encode()) == Manifest(
        environment="dev",
        path=PATH,
        target_version=3,
        migrations="migrations",
        databases=(DatabaseTarget(name="dev", dsn=EnvironmentReference("DSN")),),
        suspend=False,
        policy=Policy(),
        rollout=Rollout(),
        timeouts=Timeouts(),
    )


def test_a_complete_manifest_is_read_whole() -> None:
    manifest = read_manifest(PATH, COMPLETE.encode())
    assert manifest.environment == "production"
    assert manifest.target_version == 42
    assert manifest.migrations == "db/migrations"
    assert manifest.suspend is True
    orders, billing, local, plain, managed, told, pairs = manifest.databases
    assert orders == DatabaseTarget(
        name="orders",
        dsn=EnvironmentReference("ORDERS_DSN"),
        ca=EnvironmentReference("ORDERS_CA"),
        engine=Engine.POSTGRESQL,
        role="Migrator Role",
        history_schema="public",
    )
    assert billing == DatabaseTarget(name="billing", dsn=FileReference("/run/secrets/billing"))
    assert local.dsn == Embedded()
    assert plain.dsn == Literal("postgresql://app@db.example:5432/plain?sslmode=verify-full")
    assert plain.ca == Literal("/etc/ssl/ca.pem")
    assert managed.dsn == GcpSecretReference("projects/acme-1/secrets/orders_dsn/versions/latest")
    assert managed.ca == GcpSecretReference(
        "projects/example.com:acme/locations/europe-west3/secrets/ca/versions/7"
    )
    assert told.dsn == CommandReference(("vault", "kv", "get", "-field=dsn", "secret/orders"))
    assert pairs.dsn == Literal("host=db dbname=x application_name='a b'")
    assert manifest.policy.down is DownPolicy.DENY
    assert manifest.policy.destructive is DestructivePolicy.DENY
    assert manifest.policy.on_drift is DriftPolicy.BLOCK
    assert manifest.policy.approve_down_to == 40
    assert manifest.policy.accept_checksums == {7: ("0123456789abcdef" * 4,)}
    assert manifest.rollout == Rollout(max_parallel=2, on_failure=OnFailure.CONTINUE)
    assert manifest.timeouts == Timeouts(connect=10, acquire=5400, lock_timeout=0.5, statement_timeout=0)
    assert manifest.hooks == Hooks(
        before=(Hook(command=("/usr/local/bin/backup", "--jobs", "4"), timeout=7200, name="backup"),),
        after=(Hook(command=("notify", "done"), timeout=600),),
        on_failure=(Hook(command=("notify", "failed"), timeout=0),),
    )
    assert [hook.label for hook in (*manifest.hooks.before, *manifest.hooks.after)] == ["backup", "notify"]
    assert len(manifest.policy_digest) == 64


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_a_byte_order_mark_do_not_matter(ending: str, mark: bytes) -> None:
    content = mark + SMALLEST.replace("\n", ending).encode()
    assert read_manifest(PATH, content) == read_manifest(PATH, SMALLEST.encode())


def test_every_problem_is_reported_at_once_and_in_order() -> None:
    problems = problems_of(
        "target_version: ten\n"
        "migratons: x\n"
        "databases:\n"
        "  orders:\n"
        "    dsn: {env: A}\n"
        "    history_schema: [a]\n"
        "    dsn: {env: B}\n"
        "policy: {down: alow, max_down_steps: -1}\n"
    )
    assert [(str(problem.place), problem.message.partition(";")[0]) for problem in problems] == [
        (f"{PATH}:1:17", "target_version is 'ten'"),
        (f"{PATH}:2:1", "migratons is not a key of a manifest"),
        (f"{PATH}:6:21", "databases.orders.history_schema is a list"),
        (f"{PATH}:7:5", "the key 'dsn' stands twice, first in line 5"),
        (f"{PATH}:8:16", "policy.down is 'alow'"),
        (f"{PATH}:8:38", "policy.max_down_steps is '-1'"),
    ]
    assert problems[1].remedy == "did you mean migrations?"
    assert problems[4].message == "policy.down is 'alow'; expected allow or deny"


def test_the_excerpt_points_at_the_value() -> None:
    problem = only_problem("target_version: 1\ndatabase: {dsn: embedded, engine: mysql}\n")
    line, caret = problem.excerpt.split("\n")
    assert line == "database: {dsn: embedded, engine: mysql}"
    assert line[caret.index("^") :] == "mysql}"


def test_columns_count_characters() -> None:
    problem = only_problem("target_version: 1\ndatabase: {role: 'é😀', engine: x, dsn: embedded}\n")
    assert problem.place == Place(PATH, 2, 32)


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "~\n", "null"])
def test_an_empty_manifest_never_means_no_target(text: str) -> None:
    assert "is empty, which never means 'no target'" in only_problem(text).message


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ("010", "write 10: YAML takes a leading zero for an octal number"),
        ("0o7", "write 7, in decimal"),
        ("0x1F", "write 31, in decimal"),
        ("0b11", "write 3, in decimal"),
        ("1_000", "write 1000, without separators"),
        ("1:30", "base 60"),
        ("+5", "write 5"),
        ("42.0", "write 42, without a decimal point"),
        ("'42'", "remove the quotes"),
        ('"42"', "remove the quotes"),
    ],
)
def test_a_number_in_another_spelling_is_told_how_to_write_it(value: str, remedy: str) -> None:
    problem = only_problem(f"target_version: {value}\ndatabase: {{dsn: embedded}}\n")
    assert "expected a whole number from 0 to 9223372036854775807" in problem.message
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    "value", ["-1", "9223372036854775808", "1" * 5000, "1e3", "yes", "{}", "[1]", ".inf", "-0", "٣"]
)
def test_what_is_no_version_is_refused(value: str) -> None:
    message = only_problem(f"target_version: {value}\ndatabase: {{dsn: embedded}}\n").message
    assert message.startswith("target_version is ")
    assert len(message) < 200


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ("yes", "write true"),
        ("on", "write true"),
        ("True", "write true"),
        ("no", "write false"),
        ("off", "write false"),
        ("1", "write true"),
        ("'true'", "remove the quotes"),
        ("maybe", ""),
    ],
)
def test_booleans_are_true_and_false_alone(value: str, remedy: str) -> None:
    problem = only_problem(with_line(f"suspend: {value}"))
    assert problem.message.startswith("suspend is ")
    assert problem.remedy == remedy


@pytest.mark.parametrize("value", ["no", "On", "2024-01-01", "42", "1.5", "0x10"])
def test_a_name_that_yaml_takes_for_something_else_must_be_quoted(value: str) -> None:
    problem = only_problem(with_line(f"environment: {value}"))
    assert f"environment is {value}, which YAML reads as" in problem.message
    assert f'write "{value}" in quotes' in problem.remedy
    assert read_manifest(PATH, with_line(f"environment: '{value}'").encode()).environment == value


def test_a_key_that_yaml_takes_for_a_boolean_is_unknown_like_any_other() -> None:
    assert only_problem(with_line("on: push")).message == "on is not a key of a manifest"


def test_a_bare_duration_is_told_its_unit() -> None:
    problem = only_problem(with_line("timeouts: {connect: 30}"))
    assert problem.message == "timeouts.connect is '30', which has no unit"
    assert problem.remedy.startswith("write 30s")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: *b\n", "the alias *b is not supported"),
        ("a: &b 1\n", "the anchor &b is not supported"),
        ("a: !!int '1'\n", "the tag 'tag:yaml.org,2002:int' is not supported"),
        ("a: !custom x\n", "the tag '!custom' is not supported"),
        ("<<: {a: 1}\n", "the merge key << is not supported"),
        (SMALLEST + "---\n" + SMALLEST, "the file holds more than one document"),
        ("? [a]\n: 1\n", "a list or mapping stands where a key should be"),
        ("a: [\n", "this is not YAML"),
        ("a: b: c\n", "this is not YAML"),
        ("\ta: 1\n", "this is not YAML"),
        ("a: 'x\n", "this is not YAML"),
        ("just text", "the manifest is 'just text'; expected a mapping"),
    ],
)
def test_what_is_surprising_in_yaml_is_refused(text: str, message: str) -> None:
    assert message in "\n".join(problem.message for problem in problems_of(text))


@pytest.mark.parametrize(
    ("content", "message", "place"),
    [
        (b"a: 1\nb: \0\n", "the file holds a NUL byte", (2, 4)),
        (b"a: \x1b[31m\n", "the file holds the control character U+001B", (1, 4)),
        (b"a: 1\nb: \xff\n", "the file is not UTF-8: byte 0xFF at offset 8", (2, 4)),
        ("a: 1\n".encode("utf-16"), "the file is not UTF-8", (1, 1)),
        (b"\xef\xbb\xbfa: \xff\n", "the file is not UTF-8", (1, 4)),
    ],
)
def test_what_is_no_text_is_refused(content: bytes, message: str, place: tuple[int, int]) -> None:
    problem = only_problem(content)
    assert message in problem.message
    assert problem.place == Place(PATH, *place)


def _billion_laughs() -> str:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "content",
    [
        _billion_laughs().encode(),
        b"a" * 10_000_000,
        b"target_version: 1\n" * 600_000,
        b"[" * 1_000_000,
        b"- " * 500_000,
        b"? " * 500_000,
        b"{a: " * 250_000,
        b"a: 1\n" * 200_000,
        b"".join(b"k%d: 1\n" % number for number in range(100_000)),
        b"target_version: " + b"9" * 1_000_000,
        b"target_version: '" + b" " * 1_000_000 + b"'",
        b"\xff" * 1_000_000,
        b'a: "' + b"\\" * 1_000_000,
        b"target_version: 1\ndatabase: {dsn: '" + b"a= '" * 240_000 + b"'}",
        b"target_version: 1\ndatabase: {dsn: '" + b"password = " * 90_000 + b"'}",
        b"target_version: 1\nmigrations: " + b"a/" * 500_000 + b"*",
    ],
    ids=range(16),
)
def test_hostile_content_is_refused_fast_and_briefly(content: bytes) -> None:
    started = time.process_time()
    problems = problems_of(content)
    assert time.process_time() - started < 5  # a second or so at most here; endless if it were read naively
    assert len(problems) <= 51
    assert all(len(str(problem)) < 1000 for problem in problems)


def test_a_huge_file_is_named_as_such() -> None:
    assert "the file has 10,000,000 bytes" in only_problem(b"a" * 10_000_000).message


def test_many_problems_are_counted_and_not_all_listed() -> None:
    problems = problems_of(SMALLEST + "".join(f"unknown_{number}: 1\n" for number in range(80)))
    assert len(problems) == 51
    assert problems[-1].message == "30 more problems are not listed"


CANARY = "hunter2canary"


@pytest.mark.parametrize(
    "text",
    [
        f"database: {{dsn: 'postgres://u:{CANARY}@h/d'}}",
        f"database: {{dsn: 'postgres://u:{CANARY}@h/d}}",
        f"database:\n  dsn: postgres://u:{CANARY}@h/d: x",
        f"database: {{dsn: host=h password={CANARY}}}",
        f"database: {{dsn: 'postgres://h/d?sslpassword={CANARY}'}}",
        f"database: {{dsn: 'postgres://u:a/{CANARY}@h/d'}}",
        f"database: {{dsn: 'postgres://u:a?{CANARY}@h/d'}}",
        f"database: {{dsn: '{CANARY}'}}",
        f"database: {{dsn: {{env: '{CANARY} '}}}}",
        f"database: {{dsn: {{env: 'postgres://u:{CANARY}@h/d'}}}}",
        f"database: {{dsn: {{password: {CANARY}}}}}",
        f"database: {{dsn: {{postgres://u:{CANARY}@h/d: 1}}}}",
        f"database: {{dns: postgres://u:{CANARY}@h/d, dsn: embedded}}",
        f"database: postgres://u:{CANARY}@h/d",
        f"databases: [postgres://u:{CANARY}@h/d]",
        f"postgres://u:{CANARY}@h/d: 1",
        f"environment: postgres://u:{CANARY}@h/d",
        f"database: {{dsn: embedded, ca: '-----BEGIN PRIVATE KEY-----{CANARY}'}}",
    ],
)
def test_no_secret_is_repeated(text: str) -> None:
    problems = problems_of(f"target_version: 1\n{text}\n")
    shown = "".join(str(problem) + problem.excerpt + repr(problem) for problem in problems)
    # a value that looks like nothing secret may be in the excerpt, the person wrote it there; never in a place for secrets
    if "dsn: '" + CANARY in text or "env: '" + CANARY in text:
        shown = "".join(problem.message + problem.remedy for problem in problems)
    assert CANARY not in shown


def test_a_literal_password_is_to_be_changed() -> None:
    problem = only_problem("target_version: 1\ndatabase: {dsn: 'postgres://u:pw123@h/d'}\n")
    assert problem.message == "database.dsn holds a password, which git would keep for ever"
    assert problem.remedy.startswith("change that password")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"{{gcp_secret: {CANARY}}}",
            "database.dsn.gcp_secret holds something else (it is not shown); expected a full",
        ),
        (
            f"{{command: {CANARY}}}",
            "database.dsn.command holds something else (it is not shown); expected a list",
        ),
        (f"{{command: [./{CANARY}]}}", "database.dsn.command holds something else (it is not shown)"),
        ("{gcp_secret: }", "database.dsn.gcp_secret has no text; expected a full name"),
        ("{gcp_secret: [x]}", "database.dsn.gcp_secret has no text; expected a full name"),
    ],
)
def test_what_stands_in_the_place_of_a_reference_is_not_repeated(text: str, message: str) -> None:
    problem = only_problem(f"target_version: 1\ndatabase:\n  dsn:\n    {text}\n")
    assert problem.message.startswith(message)
    assert CANARY not in problem.message + problem.remedy


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("env:A", EnvironmentReference("A")),
        ("file:/a b", FileReference("/a b")),
        (
            "gcp_secret:projects/p/secrets/s/versions/3",
            GcpSecretReference("projects/p/secrets/s/versions/3"),
        ),
        ("command:gh auth 'the token'", CommandReference(("gh", "auth", "the token"))),
        ("gcp_secret:s", None),
        ("command:'", None),
        ("command: ", None),
        ("env:", None),
        ("postgresql://h/d", None),
        ("file://h/d", None),
    ],
)
def test_a_reference_in_one_word(text: str, reference: object) -> None:
    assert secret_reference(text) == reference


def test_embedded_is_no_certificate_and_a_private_key_neither() -> None:
    assert only_problem('target_version: 1\ndatabase: {dsn: embedded, ca: "a\\nb"}\n').message.startswith(
        "database.ca is no certificate"
    )
    message = only_problem(
        "target_version: 1\ndatabase: {dsn: embedded, ca: '-----BEGIN RSA PRIVATE KEY-----'}\n"
    ).message
    assert message.startswith("database.ca holds a private key")


def test_identifiers_are_measured_in_bytes() -> None:
    manifest = read_manifest(
        PATH, f"target_version: 1\ndatabase: {{dsn: embedded, role: {'é' * 31}}}\n".encode()
    )
    assert manifest.databases[0].role == "é" * 31
    assert (
        "of 1 to 63 bytes"
        in only_problem(f"target_version: 1\ndatabase: {{dsn: embedded, role: {'é' * 32}}}\n").message
    )


def test_an_escaped_nul_byte_is_refused() -> None:
    assert only_problem('target_version: 1\ndatabase: {dsn: embedded, role: "a\\0b"}\n').message.startswith(
        "database.role is "
    )


def test_the_file_name_must_make_a_name() -> None:
    with pytest.raises(ManifestError, match=r"the file's name makes 'my env' the environment's name"):
        read_manifest("manifests/my env.yaml", SMALLEST.encode())
    assert read_manifest("manifests/my env.yaml", b"environment: x\n" + SMALLEST.encode()).environment == "x"


@pytest.mark.parametrize(
    ("text", "environment"),
    [
        ("a: [", None),
        ("", None),
        ("environment: prod\n", "prod"),
        ("environment: [a]\n", None),
        ("target_version: x\n", "dev"),
    ],
)
def test_a_broken_manifest_still_says_what_it_stands_for(text: str, environment: str | None) -> None:
    with pytest.raises(ManifestError) as caught:
        read_manifest(PATH, text.encode())
    assert caught.value.environment == environment


def test_databases_keep_the_order_of_the_file() -> None:
    text = "target_version: 1\ndatabases:\n" + "".join(f"  {name}: {{dsn: embedded}}\n" for name in "zayb")
    assert [database.name for database in read_manifest(PATH, text.encode()).databases] == list("zayb")


def test_deep_nesting_and_countless_values_are_named_as_such() -> None:
    assert only_problem("[" * 1000).message == "the file is nested more than 20 levels deep"
    assert only_problem("a: [" + "1, " * 60_000 + "1]").message == "the file holds more than 50,000 values"

"""What `--allow-secret` allows: nothing of one environment to another, whatever the path looks like."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.credentials import Credentials, SecretRules
from reconciler.credentials.rules import Allowance
from reconciler.errors import UsageError
from reconciler.manifest import (
    CommandReference,
    Embedded,
    EnvironmentReference,
    FileReference,
    GcpSecretReference,
    Literal,
    Reference,
)
from reconciler.model import ErrorClass, Problem, ProblemError, Reason
from reconciler.redaction import Redactor


def rules(*allowances: str, commands: bool = True) -> SecretRules:
    return SecretRules(allowances=tuple(map(Allowance.parse, allowances)), commands=commands)


def problem_of(
    given: SecretRules, reference: Reference, environment: str = "staging", root: Path | None = None
) -> Problem | None:
    try:
        given.check(reference, environment, root)
    except ProblemError as error:
        problem = error.problem
        assert problem.reason is Reason.SECRET_NOT_ALLOWED
        assert problem.reason.error_class is ErrorClass.PERMANENT
        assert problem.remedy
        return problem
    return None


GCP = "projects/p/secrets/{}/versions/{}"


@pytest.mark.parametrize(
    ("pattern", "reference", "allowed"),
    [
        ("env:STAGING_*", EnvironmentReference("STAGING_DSN"), True),
        ("env:STAGING_*", EnvironmentReference("PRODUCTION_DSN"), False),
        ("env:STAGING_*", EnvironmentReference("OLD_STAGING_DSN"), False),
        ("env:DSN", EnvironmentReference("DSN2"), False),
        ("env:DSN", EnvironmentReference("dsn"), False),
        ("env:D?N", EnvironmentReference("DSN"), True),
        ("env:*", FileReference("/etc/passwd"), False),
        ("env:**", FileReference("/x/env:A"), False),
        ("file:/s/staging/*", FileReference("/s/staging/dsn"), True),
        ("file:/s/staging/*", FileReference("/s/staging/more/dsn"), False),
        ("file:/s/staging/**", FileReference("/s/staging/more/dsn"), True),
        ("file:/s/staging/*", FileReference("/s/staging/../production/dsn"), False),
        ("file:/s/staging/**", FileReference("/s/staging/../production/dsn"), False),
        ("file:/s/staging/**", FileReference("/s/staging/more/../../production/dsn"), False),
        ("file:/s/staging/*", FileReference("/s/./staging//dsn"), True),
        ("file:/s/staging/*", FileReference("/s/staging-old/dsn"), False),
        ("file:/s/*/dsn", FileReference("/s/a/b/dsn"), False),
        ("file:/s/[ab]", FileReference("/s/a"), False),
        ("file:/s/a.b", FileReference("/s/aXb"), False),
        (
            "gcp_secret:projects/p/secrets/stg-*/versions/*",
            GcpSecretReference(GCP.format("stg-a", "latest")),
            True,
        ),
        (
            "gcp_secret:projects/p/secrets/stg-*/versions/*",
            GcpSecretReference(GCP.format("prod-a", "1")),
            False,
        ),
        (
            "gcp_secret:projects/p/secrets/stg-*/versions/*",
            GcpSecretReference("projects/q/secrets/stg-a/versions/1"),
            False,
        ),
        ("gcp_secret:projects/p/secrets/s/versions/latest", GcpSecretReference(GCP.format("s", "7")), False),
        ("command:vault kv get secret/stg/*", CommandReference(("vault", "kv", "get", "secret/stg/a")), True),
        (
            "command:vault kv get secret/stg/*",
            CommandReference(("vault", "kv", "get", "secret/prod/a")),
            False,
        ),
        (
            "command:vault kv get secret/stg/*",
            CommandReference(("vault", "kv", "get", "secret/stg/a", "secret/prod/a")),
            False,
        ),
        (
            "command:vault kv get secret/stg/*",
            CommandReference(("vault", "kv", "get", "secret/stg/a\nsecret/prod/a")),
            False,
        ),
        ("command:get 'a b'", CommandReference(("get", "a b")), True),
        ("command:get 'a b'", CommandReference(("get", "a", "b")), False),
    ],
)
def test_a_pattern_stands_for_whole_references(pattern: str, reference: Reference, allowed: bool) -> None:
    assert (problem_of(rules(f"staging={pattern}"), reference) is None) is allowed


def test_an_environment_that_is_not_named_may_have_nothing() -> None:
    given = rules("production=env:*", "staging=env:STAGING_*")
    problem = problem_of(given, EnvironmentReference("A"), "dev")
    assert problem is not None
    assert problem.message == (
        "the manifest of dev refers to {env: A}, and no --allow-secret names that environment"
    )
    assert "--allow-secret 'dev=env:A'" in problem.remedy


def test_what_one_environment_may_have_another_may_not() -> None:
    given = rules("production=env:PRODUCTION_*", "staging=env:STAGING_*", "staging2=env:*")
    assert problem_of(given, EnvironmentReference("PRODUCTION_DSN"), "production") is None
    problem = problem_of(given, EnvironmentReference("PRODUCTION_DSN"), "staging")
    assert problem is not None
    assert "{env: PRODUCTION_DSN}, which no --allow-secret allows staging" in problem.message
    for environment in ("production", "staging"):
        for other in ("Production", "staging*", "stag", "*"):
            assert problem_of(given, EnvironmentReference(f"{environment.upper()}_DSN"), other) is not None


def test_without_any_allowance_everything_is_allowed_but_commands() -> None:
    given = SecretRules()
    assert problem_of(given, EnvironmentReference("A")) is None
    assert problem_of(given, FileReference("../x")) is None
    assert problem_of(given, CommandReference(("true",))) is not None


def test_commands_need_both_the_switch_and_a_pattern() -> None:
    command = CommandReference(("true",))
    assert problem_of(rules("staging=command:true", commands=False), command) is not None
    assert problem_of(rules("staging=env:*"), command) is not None
    assert problem_of(rules("staging=command:true"), command) is None


def test_what_holds_no_secret_needs_no_leave() -> None:
    given = rules("production=env:*")
    assert problem_of(given, Embedded()) is None
    assert problem_of(given, Literal("host=db user=u sslmode=require")) is None
    assert problem_of(given, Literal("postgresql://u@db/d?sslmode=require")) is None
    assert problem_of(given, Literal("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----")) is None
    assert problem_of(given, Literal("system")) is None


@pytest.mark.parametrize(
    "literal",
    [
        "host=db passfile=/s/production/pgpass",
        "host=db passfile='/s/production/pgpass'",
        "postgresql://u@db/d?passfile=/s/production/pgpass",
        "postgresql://u@db/d?pass%66ile=%2fs/production/pgpass",
        "host=db sslkey=/s/production/key.pem",
        "service=production",
        "host=db servicefile=/s/production/services",
        "host=db passfile=/s/staging/../production/pgpass",
        "host=db passfile=/s/staging/x passfile=/s/production/pgpass",
        "/s/production/key.pem",
    ],
)
def test_a_literal_cannot_lead_to_the_files_of_another_environment(literal: str) -> None:
    assert problem_of(rules("staging=file:/s/staging/*", "production=file:/s/production/*"), Literal(literal))


def test_a_literal_may_name_files_that_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "key.pem").touch()
    given = rules(f"staging=file:{tmp_path}/*")
    for literal in (f"host=db sslkey={tmp_path}/key.pem", f"{tmp_path}/key.pem"):
        assert problem_of(given, Literal(literal)) is None


def test_a_relative_path_begins_at_the_repository(tmp_path: Path) -> None:
    given = rules(f"staging=file:{tmp_path}/secrets/*")
    assert problem_of(given, FileReference("secrets/dsn"), root=tmp_path) is None
    assert problem_of(given, FileReference("other/dsn"), root=tmp_path) is not None
    assert problem_of(given, FileReference("secrets/dsn"), root=None) is not None


@pytest.mark.parametrize(
    "text",
    ["", "staging", "staging=", "=env:A", "staging=env", "staging=env:", "staging=vault:x", "staging=*", "env:A",
     "staging=file:secrets/*", "staging=file:/s/staging/../*"],
)  # fmt: skip
def test_what_is_no_allowance_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Allowance.parse(text)


# files and links


class Folders:
    """Secrets of two environments on disk, as real files."""

    def __init__(self, root: Path) -> None:
        self.staging, self.production = root / "staging", root / "production"
        for folder in (self.staging, self.production):
            folder.mkdir()
            (folder / "dsn").write_text(f"secret of {folder.name}")
        self.credentials = Credentials(
            {},
            None,
            Redactor(),
            rules=rules(f"staging=file:{root}/staging/*", f"production=file:{root}/production/*"),
        )

    async def read(self, path: Path, environment: str = "staging") -> str:
        return (await self.credentials.resolve(FileReference(str(path)), environment)).reveal()

    async def refused(self, path: Path) -> Problem:
        with pytest.raises(ProblemError) as caught:
            await self.read(path)
        assert caught.value.problem.reason is Reason.SECRET_NOT_ALLOWED
        assert "secret of" not in str(caught.value)
        return caught.value.problem


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


async def test_plain_files(folders: Folders) -> None:
    assert await folders.read(folders.staging / "dsn") == "secret of staging"
    assert await folders.read(folders.production / "dsn", "production") == "secret of production"
    await folders.refused(folders.production / "dsn")


async def test_a_link_to_another_environments_file(folders: Folders) -> None:
    (folders.staging / "link").symlink_to(folders.production / "dsn")
    problem = await folders.refused(folders.staging / "link")
    assert f"a link to {folders.production / 'dsn'}" in problem.message


async def test_a_linked_folder(folders: Folders, tmp_path: Path) -> None:
    (folders.staging / "link").symlink_to(folders.production)
    folders.credentials = Credentials(
        {}, None, Redactor(), rules=rules(f"staging=file:{tmp_path}/staging/**")
    )
    await folders.refused(folders.staging / "link" / "dsn")


async def test_a_link_within_the_folder(folders: Folders) -> None:
    (folders.staging / "link").symlink_to("dsn")
    assert await folders.read(folders.staging / "link") == "secret of staging"


async def test_a_mounted_secret_of_kubernetes(folders: Folders) -> None:
    versions = folders.staging / "..2026_01_02"
    versions.mkdir()
    (versions / "password").write_text("first")
    (folders.staging / "..data").symlink_to("..2026_01_02")
    (folders.staging / "password").symlink_to("..data/password")
    assert await folders.read(folders.staging / "password") == "first"
    newer = folders.staging / "..2026_02_03"
    newer.mkdir()
    (newer / "password").write_text("second")
    (folders.staging / "..new").symlink_to("..2026_02_03")
    (folders.staging / "..new").rename(folders.staging / "..data")
    assert await folders.read(folders.staging / "password") == "second"


async def test_the_folder_of_the_pattern_may_be_a_link_itself(folders: Folders, tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to(folders.staging)
    folders.credentials = Credentials({}, None, Redactor(), rules=rules(f"staging=file:{tmp_path}/run/*"))
    assert await folders.read(tmp_path / "run" / "dsn") == "secret of staging"


async def test_who_may_have_both_places_may_follow_the_link(folders: Folders, tmp_path: Path) -> None:
    (folders.staging / "link").symlink_to(folders.production / "dsn")
    both = rules(f"staging=file:{tmp_path}/staging/*", f"staging=file:{tmp_path}/production/dsn")
    folders.credentials = Credentials({}, None, Redactor(), rules=both)
    assert await folders.read(folders.staging / "link") == "secret of production"


async def test_the_operators_own_references_are_not_limited(folders: Folders) -> None:
    assert await folders.read(folders.production / "dsn", "") == "secret of production"

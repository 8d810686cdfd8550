from __future__ import annotations

import base64
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from reconciler.credentials import Credentials, dsn_from_environment
from reconciler.errors import UsageError
from reconciler.manifest import (
    DatabaseTarget,
    Embedded,
    Engine,
    EnvironmentReference,
    FileReference,
    Literal,
    Timeouts,
)
from reconciler.model import ProblemError, Reason, Secrets
from reconciler.redaction import MASK, Redactor, redact


async def refused(credentials: Secrets, reference: object) -> str:
    with pytest.raises(ProblemError) as caught:
        await credentials.resolve(reference, "")
    problem = caught.value.problem
    assert problem.reason is Reason.SECRET_UNAVAILABLE
    assert problem.remedy
    assert str(reference) in problem.message
    return problem.message


async def test_an_environment_variable() -> None:
    credentials = Credentials({"A": "postgresql://h/d\n"}, None, Redactor())
    assert (await credentials.resolve(EnvironmentReference("A"), "")).reveal() == "postgresql://h/d"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "is not set"),
        ({"A": ""}, "is empty"),
        ({"A": " \n"}, "is empty"),
        ({"A": "x\udcff"}, "is not UTF-8"),
        ({"A": "a\0b"}, "holds a NUL byte"),
    ],
)
async def test_an_environment_variable_that_is_of_no_use(environ: dict[str, str], message: str) -> None:
    assert (
        await refused(Credentials(environ, None, Redactor()), EnvironmentReference("A"))
        == f"the environment variable of {{env: A}} {message}"
    )


async def test_a_file_is_read_again_each_time(tmp_path: Path) -> None:
    path = tmp_path / "dsn"
    credentials = Credentials({}, None, Redactor())
    for value in ("postgresql://h/one", "postgresql://h/two\r\n"):
        path.write_bytes(value.encode())
        assert (await credentials.resolve(FileReference(str(path)), "")).reveal() == value.rstrip()


async def test_a_relative_path_begins_at_the_repository(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "dsn").write_text("host=h\n")
    reference = FileReference("secrets/dsn")
    assert (await Credentials({}, tmp_path, Redactor()).resolve(reference, "")).reveal() == "host=h"
    assert "has a relative path" in await refused(Credentials({}, None, Redactor()), reference)


async def test_a_mounted_secret_behind_links(tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "dsn").write_text("host=h")
    (tmp_path / "dsn").symlink_to("..data/dsn")
    assert (
        await Credentials({}, None, Redactor()).resolve(FileReference(str(tmp_path / "dsn")), "")
    ).reveal() == "host=h"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"hunter2\xff", "is not UTF-8 from byte 7 on"),
        (b"hunter2\0", "holds a NUL byte"),
        (b"hunter2" * 80_000, "is larger than 524,288 bytes"),
    ],
)
async def test_a_file_that_is_of_no_use(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "dsn"
    path.write_bytes(content)
    with pytest.raises(ProblemError) as caught:
        await Credentials({}, None, Redactor()).resolve(FileReference(str(path)), "")
    assert caught.value.problem.message == f"the file {path} of {{file: {path}}} {message}"
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


async def test_what_is_no_file(tmp_path: Path) -> None:
    credentials = Credentials({}, tmp_path, Redactor())
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    assert (await refused(credentials, FileReference("missing"))).endswith("does not exist")
    assert (await refused(credentials, FileReference("pipe"))).endswith("is no plain file")
    assert (await refused(credentials, FileReference("/dev/zero"))).endswith("is no plain file")
    assert "is a directory" in (await refused(credentials, FileReference("."))).lower()
    assert "cannot be read: " in await refused(credentials, FileReference("loop"))
    assert "cannot be read: " in await refused(credentials, FileReference("x" * 300))


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    """Root may read every file, so become nobody meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_a_file_that_may_not_be_read(tmp_path: Path, ordinary_user: None) -> None:
    path = tmp_path / "dsn"
    if os.geteuid() != 65534:  # else the folder is root's alone, and closed enough
        path.write_text("x")
        path.chmod(0)
    assert (await refused(Credentials({}, None, Redactor()), FileReference(str(path)))).endswith(
        "may not be read"
    )


async def test_a_literal_is_itself_and_no_secret() -> None:
    redactor = Redactor()
    assert (
        await Credentials({}, None, redactor).resolve(Literal("host=db.example"), "")
    ).reveal() == "host=db.example"
    assert redactor("host=db.example") == "host=db.example"


async def test_embedded_is_none_of_its_business() -> None:
    with pytest.raises(TypeError, match="holds no secret"):
        await Credentials({}, None, Redactor()).resolve(Embedded(), "")


CANARY = "c@nary/+é"


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://u:{quote(CANARY, safe='')}@h/d",
        f"postgresql://h/d?user=u&password={quote(CANARY, safe='')}",
        f"host=h password='{CANARY}'",
        f"host=h password = {CANARY}",
        f"postgresql://u:{CANARY}@h/d",
        CANARY,
    ],
)
async def test_the_redactor_knows_each_secret_in_every_form(dsn: str) -> None:
    redactor = Redactor()
    secret = await Credentials({"A": dsn}, None, redactor).resolve(EnvironmentReference("A"), "")
    assert secret.reveal() == dsn
    for form in (
        CANARY,
        quote(CANARY),
        quote(CANARY, safe=""),
        base64.b64encode(CANARY.encode()).decode(),
        dsn,
        base64.b64encode(dsn.encode()).decode(),
    ):
        assert redactor(f"before {form} after") == f"before {MASK} after"


async def test_the_process_redactor_is_the_default() -> None:
    await Credentials({"A": "postgresql://u:default-canary@h/d"}, None).resolve(EnvironmentReference("A"), "")
    assert redact("x default-canary") == f"x {MASK}"


@pytest.mark.parametrize(
    "value", ["/etc/ssl/ca.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"]
)
async def test_a_certificate_is_no_secret(value: str) -> None:
    redactor = Redactor()
    await Credentials({"CA": value}, None, redactor).resolve(EnvironmentReference("CA"), "")
    assert redactor(value) == value


def test_a_database_from_the_environment() -> None:
    found = dsn_from_environment(
        {
            "DSN": "postgresql://u:p@h/d",
            "CA": "/ca.pem",
            "DB_DRIVER": "Postgres",
            "DB_MAX_CONNS": "4",
            "DB_TIMEOUT": "1m",
        }
    )
    assert found is not None
    assert found.database == DatabaseTarget(
        name="default",
        dsn=EnvironmentReference("DSN"),
        ca=EnvironmentReference("CA"),
        engine=Engine.POSTGRESQL,
    )
    assert found.timeouts == Timeouts(connect=60)
    assert found.max_connections == 4


def test_the_environment_may_say_nothing_but_where() -> None:
    found = dsn_from_environment(
        {"DSN": "host=h", "CA": "", "DB_DRIVER": "", "DB_TIMEOUT": " "}, name="orders"
    )
    assert found is not None
    assert found.database == DatabaseTarget(name="orders", dsn=EnvironmentReference("DSN"))
    assert found.timeouts == Timeouts()
    assert found.max_connections is None
    embedded = dsn_from_environment({"DSN": "embedded"})
    assert embedded is not None
    assert embedded.database.dsn == Embedded()


@pytest.mark.parametrize("environ", [{}, {"DSN": ""}, {"DB_DRIVER": "nonsense"}])
def test_no_dsn_no_database(environ: dict[str, str]) -> None:
    assert dsn_from_environment(environ) is None


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("DSN", "hunter2", "DSN is no connection string; write postgresql://"),
        ("DB_DRIVER", "mysql", "DB_DRIVER is 'mysql'; expected one of auto, postgres"),
        ("DB_MAX_CONNS", "0", "DB_MAX_CONNS is '0'; expected a whole number of at least 1"),
        ("DB_MAX_CONNS", "many", "DB_MAX_CONNS is 'many'"),
        ("DB_MAX_CONNS", "٣", "DB_MAX_CONNS is"),
        ("DB_MAX_CONNS", "9" * 5000, "DB_MAX_CONNS is"),
        ("DB_TIMEOUT", "30", "DB_TIMEOUT is '30', which has no unit; write 30s"),
        ("DB_TIMEOUT", "soon", "DB_TIMEOUT is 'soon', which is no duration; write"),
    ],
)
def test_nonsense_in_the_environment(variable: str, value: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        dsn_from_environment({"DSN": "host=h", variable: value})
    assert str(caught.value).startswith(message)
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value)) < 300

"""Google Secret Manager, asked over gRPC at a server of this machine."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api_core.exceptions import ServiceUnavailable

from reconciler.credentials import Credentials
from reconciler.credentials.content import UnreachableError
from reconciler.credentials.crc32c import crc32c
from reconciler.credentials.secret_manager import SecretManager, _problem
from reconciler.manifest import GcpSecretReference
from reconciler.model import ErrorClass, Problem, ProblemError, Reason
from reconciler.redaction import MASK, Redactor
from tests.secret_manager import SecretManagerServer, secret_manager_server

SECRET = "projects/acme/secrets/orders"
LATEST = GcpSecretReference(f"{SECRET}/versions/latest")
FIRST = GcpSecretReference(f"{SECRET}/versions/1")
PATIENCE = 1.0
CANARY = "canary-p4ss/word"
DSN = f"postgresql://u:{CANARY}@db/d"


@pytest.fixture
def manager() -> Iterator[SecretManagerServer]:
    with secret_manager_server() as server:
        server.put(SECRET, DSN)
        yield server


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def credentials_at(
    server: SecretManagerServer, redactor: Redactor | None = None, clock: Clock | None = None
) -> AsyncIterator[Credentials]:
    manager = SecretManager(server.variables, patience=PATIENCE, retrying=0.3)
    credentials = Credentials(
        {}, None, redactor or Redactor(), secret_manager=manager, clock=clock or Clock()
    )
    try:
        yield credentials
    finally:
        await credentials.close()


async def refused(server: SecretManagerServer, reference: GcpSecretReference = LATEST) -> Problem:
    async with credentials_at(server) as credentials:
        with pytest.raises(ProblemError) as caught:
            await credentials.resolve(reference, "")
    problem = caught.value.problem
    assert problem.reason is Reason.SECRET_UNAVAILABLE
    assert problem.reason.error_class is ErrorClass.TEMPORARY
    assert str(reference) in problem.message
    assert problem.remedy
    return problem


async def test_latest_follows_a_rotation_and_a_pinned_version_does_not(manager: SecretManagerServer) -> None:
    async with credentials_at(manager) as credentials:
        assert (await credentials.resolve(LATEST, "")).reveal() == DSN
        manager.put(SECRET, "host=db password=new\n")
        assert (await credentials.resolve(LATEST, "")).reveal() == "host=db password=new"
        assert (await credentials.resolve(FIRST, "")).reveal() == DSN
    assert manager.asked == [LATEST.name, LATEST.name, FIRST.name]


async def test_the_redactor_is_told(manager: SecretManagerServer) -> None:
    redactor = Redactor()
    async with credentials_at(manager, redactor) as credentials:
        await credentials.resolve(LATEST, "")
    assert redactor(f"{DSN} and {CANARY}") == f"{MASK} and {MASK}"


def test_a_library_at_its_most_talkative_logs_no_secret(manager: SecretManagerServer) -> None:
    program = (
        "import asyncio, os, logging; logging.basicConfig(level=0)\n"
        "from reconciler.credentials import Credentials\n"
        "from reconciler.manifest import GcpSecretReference\n"
        f"asyncio.run(Credentials(os.environ, None).resolve(GcpSecretReference({LATEST.name!r}), ''))"
    )
    talkative = {"GOOGLE_SDK_PYTHON_LOGGING_SCOPE": "google.cloud.secretmanager_v1"}
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **manager.variables, **talkative},
        capture_output=True,
        text=True,
        check=True,
    )
    assert manager.asked == [LATEST.name]
    assert CANARY not in answer.stderr
    assert base64.b64encode(DSN.encode()).decode() not in answer.stderr


async def test_a_secret_that_is_not_there(manager: SecretManagerServer) -> None:
    problem = await refused(manager, GcpSecretReference("projects/acme/secrets/other/versions/latest"))
    assert problem.message.startswith(
        "there is no {gcp_secret: projects/acme/secrets/other/versions/latest}: "
    )
    assert "create the secret" in problem.remedy


async def test_a_secret_that_is_denied(manager: SecretManagerServer) -> None:
    manager.refusal = grpc.StatusCode.PERMISSION_DENIED
    problem = await refused(manager)
    assert "may not be read" in problem.message
    assert "roles/secretmanager.secretAccessor on projects/acme/secrets/orders" in problem.remedy


async def test_a_version_that_was_destroyed(manager: SecretManagerServer) -> None:
    manager.destroy(FIRST.name)
    problem = await refused(manager, FIRST)
    assert "DESTROYED" in problem.message
    assert "enable the version" in problem.remedy


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "nobody vouches for us"),
        (grpc.StatusCode.INVALID_ARGUMENT, "cannot be read"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "cannot be asked"),
        (grpc.StatusCode.INTERNAL, "cannot be asked"),
        (grpc.StatusCode.UNIMPLEMENTED, "cannot be read"),
    ],
)
async def test_other_refusals(manager: SecretManagerServer, code: grpc.StatusCode, message: str) -> None:
    manager.refusal = code
    assert message in (await refused(manager)).message


@pytest.mark.parametrize("content", ["", "  \n", b"\xff\xfe", "a\0b", b"x" * 600_000])
async def test_a_secret_that_is_of_no_use(manager: SecretManagerServer, content: str | bytes) -> None:
    manager.put(SECRET, content)
    message = (await refused(manager)).message
    assert any(words in message for words in ("is empty", "is not UTF-8", "NUL byte", "is larger than"))


async def test_a_manager_that_is_not_there(manager: SecretManagerServer) -> None:
    manager.stop()
    problem = await refused(manager)
    assert problem.message.startswith(f"Google Secret Manager cannot be asked for {LATEST}")


async def test_a_manager_that_does_not_answer(manager: SecretManagerServer) -> None:
    manager.answering.clear()
    assert f"did not answer within {PATIENCE:g} s" in (await refused(manager)).message


async def test_a_moment_without_a_manager_is_not_noticed(manager: SecretManagerServer) -> None:
    manager.stop()
    patient = SecretManager(manager.variables, patience=5, retrying=10)
    credentials = Credentials({}, None, Redactor(), secret_manager=patient)
    asking = asyncio.create_task(credentials.resolve(LATEST, ""))
    await asyncio.sleep(0.2)
    manager.start()
    assert (await asking).reveal() == DSN
    await credentials.close()


async def test_the_environment_says_where_the_manager_is(manager: SecretManagerServer) -> None:
    credentials = Credentials(manager.variables, None, Redactor())
    assert (await credentials.resolve(LATEST, "")).reveal() == DSN
    await credentials.close()
    # a connection that was closed is opened again
    assert (await credentials.resolve(LATEST, "")).reveal() == DSN
    await credentials.close()


def test_credentials_that_are_worth_nothing_are_no_outage() -> None:
    said = "Getting metadata from plugin failed with error: ('invalid_grant: Token has been revoked.', {})"
    unavailable: Any = ServiceUnavailable
    assert not isinstance(_problem(unavailable(said), LATEST, 1), UnreachableError)
    said = "Getting metadata from plugin failed with error: timed out"
    assert isinstance(_problem(unavailable(said), LATEST, 1), UnreachableError)


async def test_one_damaged_answer_is_asked_for_again(manager: SecretManagerServer) -> None:
    manager.damaged = 1
    async with credentials_at(manager) as credentials:
        assert (await credentials.resolve(LATEST, "")).reveal() == DSN
    assert len(manager.asked) == 2


async def test_damaged_answers_are_not_used(manager: SecretManagerServer) -> None:
    manager.damaged = -1
    assert "its checksum is another" in (await refused(manager)).message


async def test_an_answer_without_checksum_is_taken(manager: SecretManagerServer) -> None:
    manager.unchecked = True
    async with credentials_at(manager) as credentials:
        assert (await credentials.resolve(LATEST, "")).reveal() == DSN


async def test_while_the_manager_cannot_be_reached_the_last_good_value_serves_on(
    manager: SecretManagerServer,
) -> None:
    clock = Clock()
    async with credentials_at(manager, clock=clock) as credentials:
        await credentials.resolve(LATEST, "")
        assert await credentials.stale(LATEST) is None
        manager.put(SECRET, "host=db password=new")
        manager.refusal = grpc.StatusCode.UNAVAILABLE
        assert (await credentials.resolve(LATEST, "")).reveal() == DSN
        asked = len(manager.asked)
        # it is not asked again before the pause is over
        assert (await credentials.resolve(LATEST, "")).reveal() == DSN
        warning = await credentials.stale(LATEST)
        assert warning is not None
        assert warning.reason is Reason.SECRET_UNAVAILABLE
        assert "the value that was read before serves on" in warning.message
        assert CANARY not in str(warning)
        assert len(manager.asked) == asked
        manager.refusal = None
        clock.now += 200
        assert await credentials.stale(LATEST) is None
        assert (await credentials.resolve(LATEST, "")).reveal() == "host=db password=new"


async def test_a_secret_that_was_never_read_has_no_last_good_value(manager: SecretManagerServer) -> None:
    async with credentials_at(manager) as credentials:
        await credentials.resolve(FIRST, "")
        manager.refusal = grpc.StatusCode.UNAVAILABLE
        with pytest.raises(ProblemError):
            await credentials.resolve(LATEST, "")


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAUTHENTICATED]
)
async def test_who_is_denied_a_secret_does_not_go_on_with_the_old_one(
    manager: SecretManagerServer, code: grpc.StatusCode
) -> None:
    async with credentials_at(manager) as credentials:
        await credentials.resolve(LATEST, "")
        # also not later, when nobody can be asked
        for manager.refusal in (code, grpc.StatusCode.UNAVAILABLE):
            with pytest.raises(ProblemError):
                await credentials.resolve(LATEST, "")
        assert await credentials.stale(LATEST) is None


async def test_without_credentials_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    with pytest.raises(ProblemError, match="there are no credentials of Google Cloud here"):
        await Credentials({}, None, Redactor()).resolve(LATEST, "")


def test_without_the_library_it_says_what_to_install() -> None:
    program = (
        "import asyncio, sys; sys.modules['google.cloud.secretmanager_v1'] = None\n"
        "from reconciler.credentials import Credentials\n"
        "from reconciler.manifest import GcpSecretReference\n"
        f"asyncio.run(Credentials({{}}, None).resolve(GcpSecretReference({LATEST.name!r}), ''))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "pip install 'reconciler[gcp]'" in answer.stderr


def test_the_library_is_imported_only_when_it_is_used() -> None:
    program = (
        "import sys, reconciler.cli.run, reconciler.daemon, reconciler.assembly\n"
        "print([name for name in sys.modules if name.startswith(('google', 'grpc'))])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"


def test_the_checksum_is_the_one_of_the_standard() -> None:
    # RFC 3720, B.4, and the check value of the catalogues
    assert crc32c(b"") == 0
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43

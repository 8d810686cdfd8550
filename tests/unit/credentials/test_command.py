"""Secrets that programs write, with real programs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from reconciler.credentials import Credentials, SecretRules
from reconciler.credentials.command import secret_of_command
from reconciler.credentials.content import LARGEST, UnreachableError
from reconciler.manifest import CommandReference
from reconciler.model import ProblemError, Reason
from reconciler.redaction import Redactor

CANARY = "canary-secret-of-a-program"
ENVIRON = {"PATH": os.defpath, "HOME": "/nowhere"}


def shell(script: str) -> CommandReference:
    return CommandReference(("sh", "-c", script))


async def written(reference: CommandReference, patience: float = 10.0) -> str:
    return await secret_of_command(reference, ENVIRON, Redactor(), patience)


async def refused(reference: CommandReference, patience: float = 10.0) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        await written(reference, patience)
    problem = caught.value.problem
    assert problem.reason is Reason.SECRET_UNAVAILABLE
    assert str(reference) in problem.message
    assert problem.remedy
    return caught.value


async def test_what_a_program_writes_is_the_secret() -> None:
    assert await written(CommandReference(("printf", "%s\\n", "host=db password='a b'"))) == (
        "host=db password='a b'"
    )


async def test_no_shell_reads_the_command() -> None:
    assert await written(CommandReference(("echo", "$HOME", "`id`", "*", ";"))) == "$HOME `id` * ;"


async def test_it_has_our_environment_variables_no_input_and_no_folder_of_ours() -> None:
    assert await written(shell('cat; echo "$HOME $(pwd)"')) == "/nowhere /"


async def test_a_program_that_is_not_there() -> None:
    error = await refused(CommandReference(("no-such-program-9f2",)))
    assert "cannot be started: No such file or directory" in error.problem.message


async def test_a_program_that_fails_says_why() -> None:
    error = await refused(shell("echo first >&2; echo 'no such secret' >&2; exit 3"))
    assert error.problem.message.endswith("ended with exit status 3: no such secret")
    assert not isinstance(error, UnreachableError)


async def test_what_it_says_is_masked() -> None:
    redactor = Redactor()
    redactor.add(CANARY)
    script = (
        f"echo wrote-{CANARY[:7]}-x; echo 'token {CANARY} wrote-{CANARY[:7]}-x password=hunter2' >&2; exit 1"
    )
    with pytest.raises(ProblemError) as caught:
        await secret_of_command(shell(script), ENVIRON, redactor, 10)
    said = caught.value.problem.message.rpartition("status 1: ")[2]
    assert said == "token *** *** password=***"


async def test_nothing_but_the_end_of_a_long_complaint_is_kept() -> None:
    error = await refused(shell("head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 1"))
    assert len(error.problem.message) < 1000


async def test_an_exit_status_asks_to_try_later() -> None:
    assert isinstance(await refused(shell("exit 75")), UnreachableError)


async def test_a_program_that_takes_too_long_is_ended_with_all_it_started(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    error = await refused(shell(f"sleep 100 & echo $! > {pid_file}; wait"), patience=0.5)
    assert isinstance(error, UnreachableError)
    assert "took longer than 0.5 s" in error.problem.message
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


async def test_a_program_that_is_waited_for_no_more_is_ended(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    asking = asyncio.create_task(written(shell(f"echo $$ > {pid_file}; exec sleep 100"), 60))
    while not pid_file.exists() or not pid_file.read_text():
        await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("true", "is empty"),
        ("echo; echo", "is empty"),
        ("printf '\\377\\376'", "is not UTF-8"),
        ("printf 'a\\000b'", "NUL byte"),
        ("yes", f"is larger than {LARGEST:,} bytes"),
    ],
)
async def test_output_that_is_of_no_use(script: str, message: str) -> None:
    assert message in (await refused(shell(script))).problem.message


async def test_what_was_written_is_not_shown_when_it_is_of_no_use() -> None:
    error = await refused(shell(f"printf '{CANARY}\\000'"))
    assert CANARY not in str(error).replace(str(shell(f"printf '{CANARY}\\000'")), "")


async def test_a_manifest_needs_leave_to_have_a_program_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    reference = shell(f"touch {mark}; echo secret")
    with pytest.raises(ProblemError) as caught:
        await Credentials(ENVIRON, None, Redactor()).resolve(reference, "staging")
    assert caught.value.problem.reason is Reason.SECRET_NOT_ALLOWED
    assert "--allow-secret-commands" in caught.value.problem.remedy
    assert not mark.exists()
    allowing = Credentials(ENVIRON, None, Redactor(), rules=SecretRules(commands=True))
    assert (await allowing.resolve(reference, "staging")).reveal() == "secret"
    # what the operator wrote on the command line needs none
    assert (await Credentials(ENVIRON, None, Redactor()).resolve(reference, "")).reveal() == "secret"


async def test_a_program_that_fails_for_a_while(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("0")
    redactor = Redactor()
    credentials = Credentials(ENVIRON, None, redactor)
    reference = shell(f"echo {CANARY}; exit $(cat {status})")
    assert (await credentials.resolve(reference, "")).reveal() == CANARY
    assert redactor(CANARY) == "***"
    status.write_text("75")
    assert (await credentials.resolve(reference, "")).reveal() == CANARY
    assert await credentials.stale(reference) is not None
    status.write_text("1")
    credentials = Credentials(ENVIRON, None, redactor)
    with pytest.raises(ProblemError):
        await credentials.resolve(reference, "")

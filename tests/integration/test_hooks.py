"""Hooks: real processes around real migrations, by operation, by command and by daemon."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from reconciler.hooks import Runner
from reconciler.manifest import read_manifest
from reconciler.model import Hook, HookMoment, HookOccasion, HookResult, Hooks, Problem, Reason
from reconciler.operations import Outcome, apply
from reconciler.redaction import Secret, redact
from tests.applying import actor, database_at, declare, migration, table
from tests.command_line import CommandLine
from tests.command_line import manifest as command_manifest
from tests.daemon import Daemon, manifest, wait_until
from tests.git import Repository
from tests.looking import applied, exists, journal, rows
from tests.servers import TestServer

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
FILES = {"1_a.sql": table("a"), "2_b.sql": table("b")}
BROKEN = {**FILES, "2_b.sql": migration("SELECT nope FROM a;")}


class Heard:
    """Remembers what a listener hears."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.lines: list[str] = []
        self.results: list[HookResult] = []

    def hook_started(self, hook: Hook, occasion: HookOccasion) -> None:
        self.started.append(f"{occasion.moment}: {hook.label}")

    def hook_output(self, hook: Hook, occasion: HookOccasion, line: str) -> None:
        self.lines.append(line)

    def hook_finished(self, result: HookResult) -> None:
        self.results.append(result)


def shell(script: str, timeout: float = 20.0, name: str | None = None) -> Hook:
    return Hook(command=("sh", "-c", script), timeout=timeout, name=name)


def runner_at(dsn: str, heard: Heard, surroundings: Mapping[str, str] | None = None) -> Runner:
    async def secret() -> Secret:
        return Secret(dsn)

    return Runner(secret, heard, os.environ if surroundings is None else surroundings)


OCCASION = HookOccasion(
    moment=HookMoment.BEFORE,
    environment="dev",
    database="orders",
    from_version=3,
    target_version=5,
    revision="a" * 40,
)


async def run_alone(hook: Hook, heard: Heard | None = None, dsn: str = "postgresql://x") -> HookResult:
    """Run a hook without a database."""
    return await runner_at(dsn, heard or Heard()).run(hook, OCCASION)


async def bring(
    dsn: str, files: Mapping[str, str], target: int, hooks: Hooks, heard: Heard | None = None
) -> Outcome:
    """Bring a database to a version, with hooks."""
    declaration = replace(declare(files, target), hooks=hooks)
    database = database_at(dsn)
    try:
        return await apply(
            database,
            declaration,
            actor(),
            now=lambda: datetime.now(UTC),
            acquire_timeout=5.0,
            hooks=runner_at(dsn, heard or Heard()),
        )
    finally:
        await database.close()


def reason_of(result: HookResult) -> str:
    assert result.problem is not None
    assert result.problem.reason is Reason.HOOK_FAILED
    return result.problem.message


def alive(pid: int) -> bool:
    """True for a process that runs, and is no zombie."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    except FileNotFoundError:
        return False


# one hook


async def test_a_hook_is_told_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    heard = Heard()
    surroundings = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PGPASSWORD": "x", "OTHER_DSN": "y"}
    problem = Problem(reason=Reason.STATEMENT_FAILED, message="it broke")
    occasion = replace(OCCASION, moment=HookMoment.ON_FAILURE, problem=problem)
    result = await runner_at("postgresql://h/d", heard, surroundings).run(Hook(command=("env",)), occasion)
    assert result.problem is None
    told = dict(line.partition("=")[::2] for line in heard.lines)
    for name in ("_", "PWD", "SHLVL"):
        told.pop(name, None)
    assert told == {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "RECONCILER_DSN": "postgresql://h/d",
        "RECONCILER_HOOK": "on_failure",
        "RECONCILER_ENVIRONMENT": "dev",
        "RECONCILER_DATABASE": "orders",
        "RECONCILER_FROM_VERSION": "3",
        "RECONCILER_TARGET_VERSION": "5",
        "RECONCILER_REVISION": "a" * 40,
        "RECONCILER_REASON": "StatementFailed",
        "RECONCILER_MESSAGE": "it broke",
    }


async def test_it_runs_in_a_folder_of_its_own_that_is_gone_afterwards() -> None:
    heard = Heard()
    await run_alone(shell("pwd; ls -a | wc -l; touch left-behind; cat"), heard)
    folder, count = heard.lines
    assert count.strip() == "2"
    assert Path(folder).name.startswith("reconciler-hook-")
    assert folder not in (f"/tmp/{name}" for name in os.listdir("/tmp"))


async def test_both_streams_are_heard_in_order_and_the_artefact_is_found() -> None:
    heard = Heard()
    script = "echo one; echo two >&2; echo 'reconciler-artefact:  /backups/x.dump '; printf three"
    result = await run_alone(shell(script), heard)
    assert result.problem is None
    assert result.artefact == "/backups/x.dump"
    assert heard.lines[:2] == ["one", "two"]
    assert heard.lines[-1] == "three"


async def test_a_failure_tells_status_and_last_lines() -> None:
    result = await run_alone(shell("echo first; echo last; exit 7", name="backup"))
    assert reason_of(result) == "the hook backup (before) ended with exit status 7: last"
    assert result.problem is not None
    assert result.problem.detail == "first\nlast"
    assert result.problem.reason.error_class.value == "temporary"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("no-such-program",), "no program no-such-program is on PATH"),
        (("/no/such/program",), "there is no /no/such/program"),
        (("/etc/passwd",), "/etc/passwd may not be executed"),
        (("sh", "-c", "kill -9 $$"), "was ended by SIGKILL"),
    ],
)
async def test_what_cannot_run_or_is_killed_has_failed(command: tuple[str, ...], told: str) -> None:
    assert told in reason_of(await run_alone(Hook(command=command)))


async def test_a_hook_that_takes_too_long_is_ended_with_all_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    # neither the shell nor what it started in the background heeds SIGTERM's default: the first ends, the other is killed
    script = (
        f"sh -c 'trap \"\" TERM; echo $$ >> {pids}; while :; do sleep 0.1; done' & echo $$ >> {pids}; wait"
    )
    result = await run_alone(shell(script, timeout=1))
    assert "took longer than 1s and was ended" in reason_of(result)
    found = [int(pid) for pid in pids.read_text().split()]
    assert len(found) == 2
    wait_until(lambda: not any(alive(pid) for pid in found), "the hook's processes end", 3)


async def test_nothing_that_a_hook_leaves_behind_outlives_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    began = time.monotonic()
    result = await run_alone(shell(f"sleep 60 & echo $! > {pid}; echo done"))
    assert result.problem is None
    assert time.monotonic() - began < 5
    wait_until(lambda: not alive(int(pid.read_text())), "the background process ends", 3)


async def test_one_that_left_its_group_does_not_hold_us_up(tmp_path: Path) -> None:
    if shutil.which("setsid") is None:
        pytest.skip("setsid is not installed")
    pid = tmp_path / "pid"
    began = time.monotonic()
    result = await run_alone(shell(f"setsid sh -c 'echo $$ > {pid}; exec sleep 60' & sleep 0.3; echo done"))
    assert result.problem is None
    assert time.monotonic() - began < 10
    os.kill(int(pid.read_text()), signal.SIGKILL)


async def test_a_cancelled_hook_is_ended(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    task = asyncio.ensure_future(run_alone(shell(f"echo $$ > {pid}; exec sleep 60")))
    async with asyncio.timeout(5):
        while not (pid.exists() and pid.read_text().strip()):
            await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(int(pid.read_text()))


async def test_a_hook_that_was_cut_short_is_told_of(tmp_path: Path) -> None:
    heard, begun = Heard(), tmp_path / "begun"
    task = asyncio.ensure_future(run_alone(shell(f"touch {begun}; exec sleep 60"), heard))
    async with asyncio.timeout(5):
        while not begun.exists():
            await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (result,) = heard.results
    assert result.problem is not None
    assert result.problem.reason is Reason.INTERRUPTED
    assert "was ended" in result.problem.message


async def test_output_is_bounded_and_never_blocks_the_hook() -> None:
    heard = Heard()
    script = (
        "head -c 3000000 /dev/zero | tr '\\0' x; echo; yes | head -n 600000; echo 'reconciler-artefact: z'"
    )
    result = await run_alone(shell(script), heard)
    assert result.problem is None
    assert result.artefact == "z"
    assert "cut, of 3000000 characters" in heard.lines[0]
    assert heard.lines[-1] == "(more output is not shown)"
    assert sum(map(len, heard.lines)) < 1_100_000


async def test_one_that_never_stops_writing_is_ended_in_time() -> None:
    heard = Heard()
    turns, longest, last = 0, 0.0, time.monotonic()

    async def others() -> None:
        nonlocal turns, longest, last
        while True:
            await asyncio.sleep(0.01)
            now = time.monotonic()
            turns, longest, last = turns + 1, max(longest, now - last), now

    beside = asyncio.ensure_future(others())
    began = time.monotonic()
    result = await run_alone(shell("exec yes", timeout=1), heard)
    beside.cancel()
    assert "took longer than 1s" in reason_of(result)
    assert time.monotonic() - began < 5
    assert len(heard.lines) < 6000
    assert longest < 1, "nothing else of this process had its turn meanwhile"


async def test_the_last_lines_of_much_are_still_told_and_masked() -> None:
    redact.add("canary-90aa31")
    heard = Heard()
    script = (
        "yes | head -n 20000; echo reconciler-artefact: /x/canary-90aa31; echo end of canary-90aa31; exit 2"
    )
    result = await run_alone(shell(script), heard)
    assert reason_of(result).endswith("ended with exit status 2: end of ***")
    assert result.artefact == "/x/***"
    assert heard.lines[-1] == "(more output is not shown)"


@pytest.fixture
def as_first_process() -> Iterator[None]:
    """Orphans become children of this process, as of the first process of a container."""
    control = ctypes.CDLL(None).prctl
    become_subreaper = 36
    assert control(become_subreaper, 1, 0, 0, 0) == 0
    yield
    control(become_subreaper, 0, 0, 0, 0)


async def test_what_a_hook_leaves_to_the_first_process_of_a_container_is_reaped(
    as_first_process: None, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    began = time.monotonic()
    result = await run_alone(shell(f"sleep 60 & echo $! > {pid}"))
    assert result.problem is None
    assert time.monotonic() - began < 3
    with pytest.raises(ProcessLookupError):
        # a zombie would be found
        os.kill(int(pid.read_text()), 0)


async def test_secrets_are_masked_in_lines_messages_and_artefacts() -> None:
    heard = Heard()
    redact.add("canary-5f2e77")
    # the script cuts the password out of the DSN
    script = (
        'p=${RECONCILER_DSN#*u:}; p=${p%@*}; echo "$RECONCILER_DSN"; '
        'echo "reconciler-artefact: /x/$p"; echo "it is $p" >&2; exit 1'
    )
    result = await run_alone(shell(script), heard, dsn="postgresql://u:canary-5f2e77@h/d")
    assert heard.lines[1:] == ["reconciler-artefact: /x/***", "it is ***"]
    assert "canary-5f2e77" not in repr((heard.lines, result))
    assert result.artefact == "/x/***"


# around a plan


async def test_hooks_run_once_a_plan_around_its_steps_and_are_journalled(any_database: str) -> None:
    heard = Heard()
    count = "psql -Atc \"SELECT count(*) FROM pg_tables WHERE tablename IN ('a', 'b')\" \"$RECONCILER_DSN\""
    hooks = Hooks(
        before=(shell(f"{count}; echo reconciler-artefact: dump-1", name="backup"), shell("true")),
        after=(shell(count, name="look"),),
        on_failure=(shell("false"),),
    )
    outcome = await bring(any_database, FILES, 2, hooks, heard)
    assert (outcome.problem, outcome.warnings) == (None, ())
    assert heard.started == ["before: backup", "before: sh", "after: look"]
    assert heard.lines == ["0", "reconciler-artefact: dump-1", "2"]
    found = [
        (each["name"], each["outcome"], each["artefact"], each["message"])
        for each in journal(any_database, "hook")
    ]
    assert found == [
        ("backup", "success", "dump-1", "before, from version 0 to 2"),
        ("sh", "success", None, "before, from version 0 to 2"),
        ("look", "success", None, "after, from version 0 to 2"),
    ]
    order = rows(any_database, "SELECT event FROM schema_migrations_journal ORDER BY recorded_at, id")
    assert [event for (event,) in order][:3] == ["hook", "hook", "started"]
    assert [event for (event,) in order][-1] == "hook"

    again = await bring(any_database, FILES, 2, hooks, heard)
    assert again.problem is None
    assert len(heard.started) == 3, "nothing to do: no hook"


async def test_a_before_hook_that_fails_stops_the_plan(fresh_database: str) -> None:
    heard = Heard()
    hooks = Hooks(
        before=(shell("echo no room; exit 3", name="backup"), shell("true", name="second")),
        on_failure=(shell("true"),),
    )
    outcome = await bring(fresh_database, FILES, 2, hooks, heard)
    assert outcome.problem is not None
    assert outcome.problem.reason is Reason.HOOK_FAILED
    assert outcome.problem.message == "the hook backup (before) ended with exit status 3: no room"
    assert heard.started == ["before: backup"]
    assert applied(fresh_database) == []
    assert not exists(fresh_database, "a")
    (event,) = journal(fresh_database, "hook")
    assert (event["outcome"], event["reason"]) == ("failed", "HookFailed")
    assert "no room" in event["message"]
    # nothing of it is remembered against the next attempt
    healed = await bring(fresh_database, FILES, 2, Hooks(before=(shell("true"),)))
    assert healed.problem is None
    assert applied(fresh_database) == [1, 2]


async def test_an_after_hook_that_fails_is_a_warning_and_undoes_nothing(fresh_database: str) -> None:
    outcome = await bring(
        fresh_database, FILES, 2, Hooks(after=(shell("exit 1"), shell("true", name="next")))
    )
    assert outcome.problem is None
    assert [warning.reason for warning in outcome.warnings] == [Reason.HOOK_FAILED]
    assert applied(fresh_database) == [1, 2]
    assert [event["outcome"] for event in journal(fresh_database, "hook")] == ["failed", "success"]


async def test_on_failure_runs_after_a_step_failed_for_good(fresh_database: str) -> None:
    heard = Heard()
    hooks = Hooks(
        after=(shell("true"),),
        on_failure=(
            shell(
                'echo "$RECONCILER_REASON $RECONCILER_HOOK"; echo "$RECONCILER_MESSAGE"; exit 1', name="tell"
            ),
        ),
    )
    outcome = await bring(fresh_database, BROKEN, 2, hooks, heard)
    assert outcome.problem is not None
    assert outcome.problem.reason is Reason.STATEMENT_FAILED
    assert heard.started == ["on_failure: tell"]
    assert heard.lines[0] == "StatementFailed on_failure"
    assert 'column "nope" does not exist' in heard.lines[1]
    assert [warning.reason for warning in outcome.warnings] == [Reason.HOOK_FAILED]
    # the failure, and not the hook, is what stands
    refused = await bring(fresh_database, BROKEN, 2, hooks, heard)
    assert refused.plan is not None
    assert [refusal.reason for refusal in refused.plan.refusals] == [Reason.STATEMENT_FAILED]
    assert heard.started == ["on_failure: tell"]


@pytest.mark.direct("counts advisory locks")
async def test_nobody_else_writes_while_a_before_hook_runs(fresh_database: str) -> None:
    held = 'psql -Atc "SELECT count(*) FROM pg_locks WHERE locktype = \'advisory\' AND granted" "$RECONCILER_DSN"'
    heard = Heard()
    await bring(fresh_database, FILES, 1, Hooks(before=(shell(held),)), heard)
    assert heard.lines == ["1"]


async def test_the_session_outlives_a_long_hook(any_server: TestServer, any_database: str) -> None:
    name = conninfo_to_dict(any_database)["dbname"]
    any_server.execute(f'ALTER DATABASE "{name}" SET idle_session_timeout = 300')
    any_server.execute(f'ALTER DATABASE "{name}" SET idle_in_transaction_session_timeout = 300')
    outcome = await bring(any_database, FILES, 2, Hooks(before=(shell("sleep 1"),)))
    assert outcome.problem is None
    assert applied(any_database) == [1, 2]


@pytest.mark.direct("a lease outlives the connection it was taken by")
async def test_a_lock_lost_meanwhile_stops_the_plan(fresh_database: str) -> None:
    kill = (
        "psql -qAtc \"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'reconciler'"
        ' AND datname = current_database()" "$RECONCILER_DSN"'
    )
    outcome = await bring(fresh_database, FILES, 2, Hooks(before=(shell(kill),)))
    assert outcome.problem is not None
    assert outcome.problem.reason in (Reason.CONNECTION_FAILED, Reason.LOCK_LOST)
    assert applied(fresh_database) == []


@pytest.mark.direct("a lease outlives the connection it was taken by")
async def test_a_hook_is_ended_when_the_lock_is_lost_meanwhile(fresh_database: str, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    heard = Heard()
    hooks = Hooks(before=(shell(f"echo $$ > {pid}; exec sleep 60", timeout=50, name="slow"),))
    task = asyncio.ensure_future(bring(fresh_database, FILES, 2, hooks, heard))
    async with asyncio.timeout(10):
        while not (pid.exists() and pid.read_text().strip()):
            await asyncio.sleep(0.02)
    rows(
        fresh_database,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'reconciler'"
        " AND datname = current_database()",
    )
    async with asyncio.timeout(10):
        outcome = await task
    assert not alive(int(pid.read_text()))
    assert outcome.problem is not None
    assert outcome.problem.reason in (Reason.CONNECTION_FAILED, Reason.LOCK_LOST)
    (result,) = heard.results
    assert result.problem is not None
    assert "was ended" in result.problem.message
    assert "lock" in result.problem.message
    assert applied(fresh_database) == []


async def test_being_told_to_stop_while_a_hook_is_journalled_runs_no_step(fresh_database: str) -> None:
    loop = asyncio.get_running_loop()

    class Stopping(Heard):
        """Has the journal of a hook wait, and this process told to stop meanwhile."""

        def hook_finished(self, result: HookResult) -> None:
            holder = psycopg.connect(fresh_database)
            holder.execute("LOCK TABLE public.schema_migrations_journal IN EXCLUSIVE MODE")
            loop.call_later(0.2, task.cancel)
            loop.call_later(0.4, holder.close)

    hooks = Hooks(before=(shell("true"),))
    task = asyncio.ensure_future(bring(fresh_database, FILES, 2, hooks, Stopping()))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [event["outcome"] for event in journal(fresh_database, "hook")] == ["success"]
    assert applied(fresh_database) == []


async def test_the_same_failure_of_a_hook_is_journalled_once(fresh_database: str, tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    hooks = Hooks(
        before=(
            shell("true", name="look"),
            shell("echo reconciler-artefact: dump", name="backup"),
            shell(f"echo no room; test -e {mended}", name="check"),
        )
    )
    for _ in range(3):
        assert (await bring(fresh_database, FILES, 1, hooks)).problem is not None

    def told() -> list[tuple[str, str]]:
        return [(event["name"], event["outcome"]) for event in journal(fresh_database, "hook")]

    backups = [("backup", "success")] * 2
    assert told() == [("look", "success"), ("backup", "success"), ("check", "failed"), *backups]
    mended.touch()
    assert (await bring(fresh_database, FILES, 1, hooks)).problem is None
    assert told()[5:] == [("backup", "success"), ("check", "success")]
    # another run, another story
    assert (await bring(fresh_database, FILES, 0, Hooks())).problem is None
    mended.unlink()
    assert (await bring(fresh_database, FILES, 1, hooks)).problem is not None
    assert told()[7:] == [("look", "success"), ("backup", "success"), ("check", "failed")]


async def test_hooks_of_one_name_are_all_journalled(fresh_database: str) -> None:
    assert (
        await bring(fresh_database, FILES, 1, Hooks(before=(shell("true"), shell("true"))))
    ).problem is None
    assert [event["name"] for event in journal(fresh_database, "hook")] == ["sh", "sh"]


async def test_the_journal_tells_what_a_failed_hook_wrote_once(fresh_database: str) -> None:
    await bring(fresh_database, FILES, 1, Hooks(before=(shell("echo one; echo two; exit 3", name="backup"),)))
    (event,) = journal(fresh_database, "hook")
    assert event["message"] == (
        "before, from version 0 to 1: the hook backup (before) ended with exit status 3\none\ntwo"
    )


async def test_an_interrupted_hook_is_journalled(fresh_database: str, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    hooks = Hooks(before=(shell(f"touch {begun}; exec sleep 60", name="slow"),))
    heard = Heard()
    task = asyncio.ensure_future(bring(fresh_database, FILES, 1, hooks, heard))
    async with asyncio.timeout(10):
        while not begun.exists():
            await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (event,) = journal(fresh_database, "hook")
    assert (event["name"], event["outcome"], event["reason"]) == ("slow", "interrupted", "Interrupted")
    assert len(heard.results) == 1
    assert applied(fresh_database) == []
    # the lock is free again, and nothing stands against the next attempt
    assert (await bring(fresh_database, FILES, 1, Hooks())).problem is None


# by command


HOOKS = """\
hooks:
  before: [{name: backup, command: [sh, -c, 'echo saved; echo "reconciler-artefact: dump-$RECONCILER_TARGET_VERSION"']}]
  after: [[echo, finished]]
"""


@pytest.fixture
def declared(reconciler: CommandLine, git_repository: Repository, fresh_database: str) -> Repository:
    git_repository.commit(
        "Declare",
        {
            "manifests/dev.yaml": command_manifest(2, more=HOOKS),
            "migrations/1_a.sql": table("a"),
            "migrations/2_b.sql": table("b"),
        },
    )
    reconciler.enter(git_repository.path)
    reconciler.set(ORDERS_DSN=fresh_database)
    return git_repository


def test_up_runs_hooks_only_when_allowed(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    refused = reconciler("up")
    assert refused.exit == 3
    assert "HooksNotAllowed" in refused.err
    assert "--allow-hooks" in refused.err
    assert applied(fresh_database) == []

    done = reconciler("up", "--allow-hooks")
    assert done.exit == 0, done.err
    assert "dev: hook backup: saved" in done.err
    assert "dev: hook backup done after" in done.err
    assert "made dump-2" in done.err
    assert "dev: hook echo: finished" in done.err
    assert applied(fresh_database) == [1, 2]
    history = reconciler("history")
    assert "hook backup: before, from version 0 to 2; made dump-2" in history.out
    events = reconciler("history", "--output", "json").json["databases"][0]["journal"]
    assert [each["details"].get("artefact") for each in events if each["event"] == "hook"] == ["dump-2", None]


def test_plan_and_dry_run_show_the_hooks_and_run_none(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    planned = reconciler("plan")
    assert planned.exit == 3
    assert "dev: hook before: backup, at most 10m: sh -c" in planned.out
    assert "dev: hook after: echo, at most 10m: echo finished" in planned.out
    assert "HooksNotAllowed" not in planned.out
    assert reconciler("plan", "--output", "json").json["databases"][0]["plan"]["hooks"]["after"] == [
        {"name": "echo", "command": ["echo", "finished"], "timeout_seconds": 600.0}
    ]
    dry = reconciler("up", "--dry-run", "--allow-hooks")
    assert "-- hook before: backup" in dry.out
    assert "; not run" in dry.out
    assert "saved" not in dry.err
    assert "HooksNotAllowed" in reconciler("up", "--dry-run").err
    assert not exists(fresh_database, "schema_migrations")


def test_a_failing_hook_is_an_error_of_the_command(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    declared.commit(
        "Break", {"manifests/dev.yaml": command_manifest(2, more="hooks: {before: [['false']]}\n")}
    )
    failed = reconciler("up", "--allow-hooks")
    assert failed.exit == 1
    assert "the hook false (before) ended with exit status 1 [HookFailed]" in failed.err
    answer = reconciler("up", "--allow-hooks", "--output", "json")
    assert answer.json["databases"][0]["problem"]["reason"] == "HookFailed"
    assert applied(fresh_database) == []


def test_status_knows_of_a_failed_hook_without_the_daemon(
    reconciler: CommandLine, declared: Repository, fresh_database: str
) -> None:
    hooks = "hooks: {before: [[sh, -c, 'true'], {name: backup, command: [sh, -c, 'echo no room; exit 3']}]}\n"
    declared.commit("Break", {"manifests/dev.yaml": command_manifest(2, more=hooks)})
    for _ in range(2):
        assert reconciler("up", "--allow-hooks").exit == 1
    (found,) = reconciler("status", "--output", "json").json["environments"][0]["databases"]
    assert (found["state"], found["problem"]["reason"]) == ("failed", "HookFailed")
    assert "the hook backup (before) ended with exit status 3: no room" in found["problem"]["message"]
    (event, *_) = [each for each in journal(fresh_database, "hook") if each["outcome"] == "failed"]
    assert found["since"][:19] == event["recorded_at"].astimezone(UTC).isoformat()[:19]
    # a hook that is not declared any more stands against nothing
    declared.commit("Mend", {"manifests/dev.yaml": command_manifest(2, more=HOOKS.replace("backup", "dump"))})
    (found,) = reconciler("status", "--output", "json").json["environments"][0]["databases"]
    assert (found["state"], found["problem"]) == ("pending", None)
    assert reconciler("up", "--allow-hooks").exit == 0
    assert reconciler("status").exit == 0


# by daemon


def test_a_chatty_hook_stops_nothing_else(git_repository: Repository, fresh_database: str) -> None:
    hooks = "hooks: {before: [{name: chatty, timeout: 60s, command: [sh, -c, 'yes | head -c 3000000; sleep 1'] }]}\n"
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest(fresh_database, 1, hooks),
            "migrations/1_a.sql": table("a"),
        }
    )
    with Daemon(git_repository, "--allow-hooks") as daemon:
        longest, deadline = 0.0, time.monotonic() + 30
        while not daemon.events("hook finished"):
            assert time.monotonic() < deadline
            began = time.monotonic()
            assert daemon.get("/healthz")[0] == 200
            longest = max(longest, time.monotonic() - began)
            time.sleep(0.05)
        assert longest < 2
        daemon.wait_ready("dev", 1)
        assert 10 < len(daemon.events("hook output")) < 6000


@pytest.mark.direct("ends the session that holds the lock; a lease is withdrawn")
def test_a_hook_is_ended_by_unlock_and_none_runs_beside_it(
    reconciler: CommandLine, git_repository: Repository, fresh_database: str, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    script = f"for each in $(cat {pids} 2>/dev/null); do kill -0 $each && echo beside; done; echo $$ >> {pids}; exec sleep 60"
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest(
                "{env: ORDERS_DSN}", 1, f"hooks: {{before: [[sh, -c, '{script}']]}}\n"
            ),
            "migrations/1_a.sql": table("a"),
        }
    )
    reconciler.enter(git_repository.path)
    reconciler.set(ORDERS_DSN=fresh_database)
    variables = {"ORDERS_DSN": fresh_database}
    with Daemon(git_repository, "--allow-hooks", "--grace", "0s", variables=variables) as daemon:
        wait_until(lambda: pids.exists() and pids.read_text().strip(), "the hook runs")
        freed = reconciler("unlock", "--yes", "--reason", "it hangs")
        assert freed.exit == 0, freed.err
        assert "a hook that its holder runs is ended" in freed.out
        told = daemon.wait_for_log(lambda event: event["event"] == "hook interrupted", 20)
        assert "the lock was lost" in str(told)
        first = int(pids.read_text().split()[0])
        assert not alive(first)
        wait_until(lambda: len(pids.read_text().split()) == 2, "the hook is tried again", 20)
        assert not [event for event in daemon.events("hook output") if event["line"] == "beside"]


@pytest.mark.direct("a lease of a daemon that was killed runs out only after a minute")
def test_a_hook_does_not_outlive_a_daemon_that_is_killed(
    git_repository: Repository, fresh_database: str, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    # the first heeds SIGTERM, the other has to be killed
    ignoring = "trap : TERM; while :; do sleep 0.1; done"
    script = f'pwd > {pids}.folder; sh -c "{ignoring}" & echo $$ $! >> {pids}; wait'
    hooks = f"hooks: {{before: [[sh, -c, '{script}']]}}\n"
    git_repository.commit(
        files={"manifests/dev.yaml": manifest(fresh_database, 1, hooks), "migrations/1_a.sql": table("a")}
    )
    with Daemon(git_repository, "--allow-hooks") as daemon:
        wait_until(lambda: pids.exists() and pids.read_text().strip(), "the hook runs")
        daemon.kill()
        found = [int(pid) for pid in pids.read_text().split()]
        folder = Path(Path(f"{pids}.folder").read_text().strip())
        wait_until(lambda: not any(alive(pid) for pid in found), "the hook's processes end", 10)
        wait_until(lambda: not folder.exists(), "the hook's folder goes", 10)
        git_repository.commit(files={"manifests/dev.yaml": manifest(fresh_database, 1)})
        daemon.start()
        daemon.wait_ready("dev", 1)


def test_without_consent_the_environment_is_refused_and_others_go_on(
    git_repository: Repository, server: TestServer, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    one, other = server.dsn(server.create_database()), server.dsn(server.create_database())
    git_repository.commit(
        files={
            "manifests/one.yaml": manifest(one, 1, f"hooks: {{before: [[touch, {mark}]]}}\n"),
            "manifests/other.yaml": manifest(other, 1),
            "migrations/1_a.sql": table("a"),
        }
    )
    with Daemon(git_repository) as daemon:
        problem = daemon.wait_problem("one", "HooksNotAllowed")
        assert "--allow-hooks" in problem["remedy"]
        assert daemon.status("one", "one")["state"] == "blocked"
        daemon.wait_ready("other", 1)
        assert applied(one) == []
        # taking the hooks out heals it without a restart
        git_repository.commit(files={"manifests/one.yaml": manifest(one, 1)})
        daemon.wait_ready("one", 1)
    assert not mark.exists()


def test_the_daemon_runs_hooks_and_tells_of_them(
    git_repository: Repository, server: TestServer, tmp_path: Path
) -> None:
    role = server.create_role(password="canary-77d0b1aa")
    dsn = server.tcp_url(server.create_database(owner=role.name), user=role.name, password=role.password)
    assert "canary-77d0b1aa" in dsn
    gate = tmp_path / "gate"
    hooks = f"""\
hooks:
  before:
    - name: backup
      command: [sh, -c, 'echo "dsn $RECONCILER_DSN"; echo "reconciler-artefact: of-$RECONCILER_DSN"; until test -e {gate}; do sleep 0.05; done']
  after:
    - [sh, -c, 'exit 4']
"""
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest("{env: ORDERS_DSN}", 1, hooks),
            "migrations/1_a.sql": table("a"),
        }
    )
    with Daemon(git_repository, "--allow-hooks", variables={"ORDERS_DSN": dsn}) as daemon:
        status = daemon.wait_for("dev", lambda status: status["state"] == "migrating")
        assert "running the hook backup (before)" in [
            each["message"] for each in status["conditions"] if each["type"] == "Reconciling"
        ]
        assert applied(dsn) == []
        gate.touch()
        daemon.wait_ready("dev", 1)
        output = daemon.wait_for_log(lambda event: event["event"] == "hook output")
        assert (output["hook"], output["moment"], output["environment"]) == ("backup", "before", "dev")
        daemon.wait_for_log(lambda event: event["event"] == "hook finished" and "artefact" in event)
        daemon.wait_for_log(lambda event: event["event"] == "hook failed" and event["moment"] == "after")
        warnings = daemon.wait_for("dev", lambda status: status["warnings"])["warnings"]
        assert warnings[0]["reason"] == "HookFailed"
        text = daemon.text
    assert "canary-77d0b1aa" not in text
    assert "canary-77d0b1aa" not in repr(journal(dsn, "hook"))
    assert journal(dsn, "hook")[0]["artefact"].startswith("of-")


def test_the_daemon_tries_again_after_a_failed_hook_and_ends_one_when_it_stops(
    git_repository: Repository, fresh_database: str, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    git_repository.commit(
        files={
            "manifests/dev.yaml": manifest(fresh_database, 1, "hooks: {before: [['false']]}\n"),
            "migrations/1_a.sql": table("a"),
        }
    )
    with Daemon(git_repository, "--allow-hooks", "--grace", "0s") as daemon:
        assert daemon.wait_problem("dev", "HookFailed")["class"] == "temporary"
        status = daemon.wait_for("dev", lambda status: status["next_retry_at"] is not None)
        assert status["state"] == "failed"
        # a commit that mends the hook is acted on at once
        slow = f"hooks: {{before: [[sh, -c, 'echo $$ > {pid}; exec sleep 60']]}}\n"
        git_repository.commit(files={"manifests/dev.yaml": manifest(fresh_database, 1, slow)})
        wait_until(lambda: pid.exists() and pid.read_text().strip(), "the second hook runs")
        daemon.stop()
        (told,) = daemon.events("interrupted", "dev")
        assert told["outcome"] == "the hook sh (before) was ended; no step was running"
        (ended,) = [event for event in daemon.events("hook interrupted") if event["hook"] == "sh"]
        assert ended["seconds"] >= 0
    assert journal(fresh_database, "hook")[-1]["outcome"] == "interrupted"
    assert not alive(int(pid.read_text()))
    assert applied(fresh_database) == []


# the documented example


def test_the_backup_of_the_readme_can_be_restored(
    reconciler: CommandLine, git_repository: Repository, server: TestServer, tmp_path: Path
) -> None:
    programs = server.installation.programs
    if not (programs / "pg_dump").exists():
        pytest.skip(f"pg_dump of PostgreSQL {server.major} is not in {programs}")
    section = README.partition("\n## Hooks\n")[2].partition("\n## ")[0]
    example = section.partition("```yaml\n")[2].partition("```")[0]
    assert "/var/backups" in example
    text = command_manifest(1, more=example.replace("/var/backups", str(tmp_path)))
    assert read_manifest("manifests/dev.yaml", text.encode()).hooks.before[0].label == "backup"
    dsn = server.dsn(server.create_database())
    reconciler.set(ORDERS_DSN=dsn, PATH=f"{programs}:{os.environ['PATH']}")
    rows(dsn, "CREATE TABLE kept AS SELECT 7 AS id")
    git_repository.commit(
        files={"manifests/dev.yaml": text, "migrations/1_a.sql": migration("DROP TABLE kept;", "SELECT 1;")}
    )
    reconciler.enter(git_repository.path)
    done = reconciler("up", "--allow-hooks")
    assert done.exit == 0, done.err
    assert not exists(dsn, "kept")
    artefact = Path(journal(dsn, "hook")[0]["artefact"])
    assert artefact.parent == tmp_path
    restore = subprocess.run(
        [programs / "pg_restore", "--dbname", dsn, "--table", "kept", artefact],
        capture_output=True,
        text=True,
        check=False,
    )
    assert restore.returncode == 0, restore.stderr
    assert rows(dsn, "SELECT id FROM kept") == [(7,)]

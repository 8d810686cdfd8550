"""Changes of CockroachDB's schema as jobs: what becomes of them, who waits for them, and what is told of it; by a simulator."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from reconciler.manifest import Timeouts
from reconciler.model import Database, LockHolder, Problem, Reason, Step, StepProgress
from reconciler.operations import Outcome, Silent
from tests.applying import actor, bring, database_at, declare, migration, table
from tests.cockroach.faults import DURING, Fault
from tests.cockroach.jobs import CANCELED, FAILED, PAUSED, REVERT_FAILED, Fate
from tests.cockroach.simulator import Simulator
from tests.looking import applied, rows

FILES = {
    "1_a.sql": table("a"),
    "2_index.sql": migration("CREATE INDEX a_id ON a (id);", "DROP INDEX a_id;"),
}


@pytest.fixture
async def database(simulator: Simulator) -> AsyncIterator[Database]:
    """A database whose first migration is applied."""
    database = database_at(simulator.dsn, lease=1.0)
    assert (await bring(database, declare(FILES, 1))).problem is None
    yield database
    await database.close()


def problem_of(outcome: Outcome) -> Problem:
    assert outcome.problem is not None
    return outcome.problem


def indexes(simulator: Simulator) -> list[str]:
    found = rows(simulator.postgresql, "SELECT indexname FROM pg_indexes WHERE tablename = 'a'")
    return [str(name) for (name,) in found]


@pytest.mark.parametrize(
    ("fate", "remedy"),
    [
        (Fate(end=FAILED, message="no space left"), "mend migrations/2_index.sql"),
        (Fate(end=CANCELED, message="job canceled by user"), "somebody ended it by CANCEL JOB"),
        (Fate(end=REVERT_FAILED, message="cannot revert"), "could not be undone: look at SHOW JOB"),
    ],
    ids=["failed", "canceled", "revert-failed"],
)
@pytest.mark.parametrize("notices", [True, False], ids=["told of its job", "not told"])
async def test_a_job_that_does_not_succeed_is_reported_with_its_number(
    simulator: Simulator, database: Database, fate: Fate, remedy: str, notices: bool
) -> None:
    simulator.job_notices = notices
    simulator.jobs.plan(fate, matching="CREATE INDEX")
    problem = problem_of(await bring(database, declare(FILES, 2)))
    job = simulator.jobs.find("CREATE INDEX")
    assert f"its job {job.job_id} ended as {fate.end}" in problem.message
    assert fate.message in problem.message
    assert remedy in problem.remedy
    await database.request_retry(actor())
    assert (await bring(database, declare(FILES, 2))).problem is None
    assert applied(simulator.postgresql) == [1, 2]


async def test_a_paused_job_is_for_a_person_and_then_goes_on(
    simulator: Simulator, database: Database
) -> None:
    simulator.jobs.plan(Fate(end=PAUSED), matching="CREATE INDEX")
    problem = problem_of(await bring(database, declare(FILES, 2)))
    number = simulator.jobs.find("CREATE INDEX").job_id
    for _ in range(2):
        assert problem.reason is Reason.OUTCOME_UNKNOWN
        assert (
            f"a change of the schema is paused: job {number} (CREATE INDEX a_id ON a (id))" in problem.message
        )
        assert f"RESUME JOB {number}, or CANCEL JOB {number}" in problem.remedy
        problem = problem_of(await bring(database, declare(FILES, 2)))
    simulator.jobs.resume(number)
    assert (await bring(database, declare(FILES, 2))).problem is None
    assert [job.statement for job in simulator.jobs.all() if "CREATE INDEX" in job.statement] == [
        "CREATE INDEX a_id ON a (id)"
    ]


class Heard(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.holders: list[LockHolder] = []
        self.progress: list[StepProgress] = []

    def waiting(self, holder: LockHolder) -> None:
        self.holders.append(holder)

    def progressed(self, step: Step, progress: StepProgress | None) -> None:
        if progress is not None:
            self.progress.append(progress)


async def test_a_job_that_outlives_its_client_is_waited_for_by_the_next(
    simulator: Simulator, database: Database
) -> None:
    simulator.jobs.plan(Fate(hold=True), matching="CREATE INDEX")
    simulator.arm(Fault(matching="CREATE INDEX", cut=True, when=DURING, portion=0.5))
    problem = problem_of(await bring(database, declare(FILES, 2)))
    job = simulator.jobs.find("CREATE INDEX")
    assert problem.reason is Reason.CONNECTION_FAILED
    assert f"its job {job.job_id} goes on" in problem.message
    # what was under way to the server may arrive yet: nobody gives this lease back
    assert rows(simulator.postgresql, "SELECT owner IS NOT NULL FROM schema_migrations_lock") == [(True,)]
    held = problem_of(await bring(database, declare(FILES, 2), acquire_timeout=0))
    assert held.reason is Reason.LOCK_HELD
    assert f"job {job.job_id} (CREATE INDEX a_id ON a (id)), 0 %" in held.message
    heard = Heard()
    waiting = asyncio.ensure_future(bring(database, declare(FILES, 2), listener=heard, acquire_timeout=10))
    while not heard.holders:
        await asyncio.sleep(0.01)
    simulator.jobs.release()
    assert (await waiting).problem is None
    assert f"job {job.job_id}" in heard.holders[0].owner
    assert applied(simulator.postgresql) == [1, 2]
    assert len([job for job in simulator.jobs.all() if "CREATE INDEX" in job.statement]) == 1


@pytest.mark.parametrize("sqlstate", ["57014", "55P03", "58C00"])
@pytest.mark.parametrize("notices", [True, False], ids=["told of its job", "not told"])
async def test_a_job_whose_client_gave_up_is_waited_for_and_settled(
    simulator: Simulator, database: Database, sqlstate: str, notices: bool
) -> None:
    simulator.job_notices = notices
    simulator.jobs.plan(Fate(delay=0.3), matching="CREATE INDEX")
    simulator.arm(Fault(matching="CREATE INDEX", sqlstate=sqlstate, when=DURING))
    assert (await bring(database, declare(FILES, 2))).problem is None
    assert "a_id" in indexes(simulator)
    (told,) = rows(
        simulator.postgresql, "SELECT message FROM schema_migrations_journal WHERE outcome = 'settled'"
    )
    assert "took effect" in str(told[0])
    assert len([job for job in simulator.jobs.all() if "CREATE INDEX" in job.statement]) == 1


async def test_a_statement_timeout_does_not_end_the_job(simulator: Simulator, database: Database) -> None:
    simulator.jobs.plan(Fate(delay=0.6), matching="CREATE INDEX")
    timeouts = Timeouts(statement_timeout=0.2)
    assert (await bring(database, declare(FILES, 2, timeouts=timeouts))).problem is None
    assert "a_id" in indexes(simulator)


async def test_who_is_told_to_stop_leaves_a_job_that_the_next_run_settles(
    simulator: Simulator, database: Database
) -> None:
    simulator.jobs.plan(Fate(hold=True), matching="CREATE INDEX")
    run = asyncio.ensure_future(bring(database, declare(FILES, 2)))
    while not any("CREATE INDEX" in job.statement for job in simulator.jobs.all()):
        await asyncio.sleep(0.01)
    run.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await run
    simulator.jobs.release()
    outcome = await bring(database, declare(FILES, 2), acquire_timeout=10)
    assert outcome.problem is None, outcome.problem
    assert len([job for job in simulator.jobs.all() if "CREATE INDEX" in job.statement]) == 1


async def test_progress_of_the_running_job_is_told(simulator: Simulator, database: Database) -> None:
    simulator.jobs.plan(Fate(hold=True), matching="CREATE INDEX")
    heard = Heard()
    run = asyncio.ensure_future(bring(database, declare(FILES, 2), listener=heard))
    while not heard.progress:
        await asyncio.sleep(0.02)
    job = simulator.jobs.find("CREATE INDEX")
    (progress,) = set(heard.progress)
    assert (progress.phase, progress.object) == ("schema change running", f"job {job.job_id}")
    assert progress.percent == 0
    asked = database_at(simulator.dsn)
    work = await asked.read_work()
    await asked.close()
    assert work is not None
    assert (work.step.version, work.step.transactional, work.progress) == (2, False, progress)
    simulator.jobs.release()
    assert (await run).problem is None
    assert (simulator.refusals, simulator.violations) == ([], [])


@pytest.mark.parametrize(
    "script",
    [
        "INSERT INTO a VALUES (7);\nINSERT INTO a VALUES (8);",
        "INSERT INTO a VALUES (7);\nCREATE TABLE b (id int);",
    ],
    ids=["data alone", "statement by statement"],
)
async def test_a_commit_that_nobody_asked_for_stops_the_run_until_somebody_has_looked(
    simulator: Simulator, database: Database, script: str
) -> None:
    files = {**FILES, "2_index.sql": migration(script), "3_c.sql": table("c")}
    simulator.arm(Fault(matching=r"VALUES \(7\)", commits=True))
    problem = problem_of(await bring(database, declare(files, 3)))
    assert problem.reason is Reason.INTERNAL_ERROR
    assert "the server committed a transaction that was still open: auto-committing" in problem.message
    for _ in range(2):
        outcome = await bring(database, declare(files, 3))
        assert outcome.plan is not None
        problems = [outcome.problem, *outcome.plan.refusals]
        in_force = applied(simulator.postgresql)
        if 2 in in_force:
            # what followed was committed as well, its record too
            assert rows(simulator.postgresql, "SELECT id FROM a WHERE id = 7") == [(7,)]
        else:
            assert Reason.OUTCOME_UNKNOWN in [problem.reason for problem in problems if problem is not None]
    assert len(rows(simulator.postgresql, "SELECT id FROM a WHERE id = 7")) == 1

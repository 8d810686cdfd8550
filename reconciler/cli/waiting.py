"""Looking at databases again and again until they are where they should be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic

from reconciler.cli.disk import is_bare_repository, repository_root
from reconciler.cli.options import RepositoryOptions, SelectionOptions
from reconciler.cli.terminal import write_note
from reconciler.model import ErrorClass, Observation, Problem, ProblemError, Reason, RowStatus
from reconciler.model.encoding import JsonObject
from reconciler.model.value import value
from reconciler.report.problems import without_promise
from reconciler.report.status import database_name
from reconciler.report.text import one_line


@value(kw_only=True)
class Sighting:
    """One look at one database, or at what should have told of it.

    Args:
        environment: its name; empty when not known.
        database: its name; empty when not known.
        current: the version found, None when it was not reached.
        wanted: the version to reach, None when not known yet.
        declared: the version that git declares, None when not known or not declared.
        busy: something runs on it, and the version found may not stay.
        trouble: why it was not reached, or why it will not come by itself.
    """

    environment: str = ""
    database: str = ""
    current: int | None = None
    wanted: int | None = None
    declared: int | None = None
    busy: bool = False
    trouble: str = ""

    @property
    def reached(self) -> bool:
        """It is where it should be."""
        return (
            self.current is not None
            and self.wanted is not None
            and self.current >= self.wanted
            and not self.busy
        )

    def as_dict(self) -> JsonObject:
        """With public keys."""
        return {
            "environment": self.environment or None,
            "database": self.database or None,
            "current_version": self.current,
            "wanted_version": self.wanted,
            "declared_version": self.declared,
            "busy": self.busy,
            "reached": self.reached,
            "trouble": self.trouble or None,
        }

    def __str__(self) -> str:
        parts = []
        if self.current is not None:
            parts.append(f"at version {self.current}")
        if self.wanted is not None and not self.reached:
            parts.append(f"waiting for {self.wanted}")
        if self.wanted is not None and self.declared is not None and self.declared < self.wanted:
            parts.append(f"git declares only {self.declared}")
        if self.busy:
            parts.append("something runs on it")
        if self.trouble:
            parts.append(self.trouble)
        known = self.environment or self.database
        name = f"{database_name(self.environment, self.database)}: " if known else ""
        return name + (", ".join(parts) or "not seen yet")


async def wait_until(
    version: int | None,
    repository: RepositoryOptions,
    selection: SelectionOptions,
    *,
    timeout: float,
    interval: float,
    verbose: bool,
) -> tuple[list[Sighting], bool]:
    """Look until every chosen database has reached the version, or the time is up.

    Args:
        version: to be reached; None for the declared one.
        repository: which repository.
        selection: which databases.
        timeout: seconds in all.
        interval: seconds between two looks.
        verbose: say on standard error what each look finds, when it is news.

    Returns:
        What was seen last, and whether all was reached.

    Raises:
        UsageError: what is asked for makes no sense; waiting would not change that.
        ProblemError: what stands against it stays until a person does something about it.
    """
    deadline = monotonic() + timeout
    seen: list[Sighting] = []
    while True:
        before = seen
        try:
            async with asyncio.timeout(max(deadline - monotonic(), _SHORTEST_LOOK)):
                seen = await _look(version, repository, selection)
        except ProblemError as error:
            if _lasts(error.problem, repository, selection):
                raise
            seen = _troubled(before, _trouble(error.problem))
        except TimeoutError:
            seen = _troubled(before, "no answer in time")
        if seen and all(each.reached for each in seen):
            return seen, True
        if verbose and [str(each) for each in seen] != [str(each) for each in before]:
            for each in seen:
                write_note(str(each))
        left = deadline - monotonic()
        if left <= 0:
            return seen, False
        await asyncio.sleep(min(interval, left))


_SHORTEST_LOOK = 1.0
"""Seconds that the first and the last look may take, whatever the timeout."""


def _troubled(before: list[Sighting], trouble: str) -> list[Sighting]:
    """The databases known from the look before, and that this one told nothing of them."""
    return [replace(each, trouble=trouble) for each in before] or [Sighting(trouble=trouble)]


def _lasts(problem: Problem, repository: RepositoryOptions, selection: SelectionOptions) -> bool:
    """True when waiting does not help."""
    if problem.reason is Reason.SUSPENDED or problem.reason.error_class is ErrorClass.PERMANENT:
        return True
    # a folder that does not exist yet may be cloned any moment; one that is there and is something else stays so
    folder = Path(repository.repo or ".")
    return (
        problem.reason is Reason.FETCH_FAILED
        and selection.server is None
        and folder.is_dir()
        and repository_root(folder) is None
        and not is_bare_repository(folder)
    )


def _trouble(problem: Problem) -> str:
    return one_line(str(replace(problem, remedy=without_promise(problem.remedy))))


async def _look(
    version: int | None, repository: RepositoryOptions, selection: SelectionOptions
) -> list[Sighting]:
    if selection.server is not None:
        from reconciler.cli.server import read_server

        return _told(await asyncio.to_thread(read_server, selection), version)
    from reconciler.cli.subjects import Subject, open_scope, refuse_broken, refuse_unreadable

    async with open_scope(repository, selection) as scope:
        refuse_broken(scope, selection)
        refuse_unreadable(scope)
        if scope.subjects and all(each.suspended for each in scope.subjects):
            raise _all_suspended(each.environment for each in scope.subjects)

        async def look(subject: Subject) -> Sighting:
            declared = subject.declaration.target if subject.declaration is not None else None
            sighting = Sighting(
                environment=subject.environment,
                database=subject.target.name,
                wanted=version if version is not None else declared,
                declared=declared if subject.manifest else None,
            )
            database = scope.workspace.open(subject.environment, subject.target, subject.timeouts)
            try:
                observation = await database.observe()
            except ProblemError as error:
                return replace(sighting, trouble=_trouble(error.problem))
            failure = observation.last_failure
            return replace(
                sighting,
                current=observation.current_version,
                busy=_busy(observation),
                trouble=_trouble(failure.problem) if failure is not None else "",
            )

        return list(await asyncio.gather(*(look(each) for each in scope.subjects if not each.suspended)))


def _all_suspended(environments: Iterable[str]) -> ProblemError:
    names = ", ".join(dict.fromkeys(environments))
    return ProblemError(
        Problem(
            reason=Reason.SUSPENDED,
            message=f"there is nothing to wait for: every environment asked for is suspended ({names})",
            remedy="remove `suspend: true` from its manifest, or name the database with --dsn",
        )
    )


def _busy(observation: Observation) -> bool:
    """A step runs, or more are to follow: only when the lock is free is what was applied there to stay."""
    return observation.holder is not None or any(row.status is RowStatus.RUNNING for row in observation.rows)


def _told(found: JsonObject, version: int | None) -> list[Sighting]:
    """What a daemon says of its databases."""
    environments = found["environments"]
    if environments and all(each.get("suspended") for each in environments):
        raise _all_suspended(str(each.get("environment")) for each in environments)
    return [
        sighting
        for environment in environments
        if not environment.get("suspended")
        for sighting in _told_of(environment, version)
    ]


def _told_of(environment: JsonObject, version: int | None) -> Iterator[Sighting]:
    name = str(environment.get("environment") or "")
    databases = environment.get("databases") or ()
    if not databases and environment.get("problem"):
        yield Sighting(environment=name, wanted=version, trouble=_message(environment))
    for database in databases:
        declared = _version(database.get("target_version"))
        # the version of a database that does not answer is the one of the last time it did
        reachable = database.get("reachable") is not False and database.get("state") != "unreachable"
        trouble = _message(database)
        yield Sighting(
            environment=name,
            database=str(database.get("database") or ""),
            current=_version(database.get("current_version")) if reachable else None,
            wanted=version if version is not None else declared,
            declared=declared,
            busy=_told_busy(database),
            trouble=trouble if trouble or reachable else "the daemon cannot reach it",
        )


def _told_busy(database: JsonObject) -> bool:
    """Something runs on it, or is about to take back what is applied there."""
    steps = [*(database.get("pending") or ()), database.get("running") or {}]
    return (
        database.get("state") in ("migrating", "waiting")
        or bool(database.get("running"))
        or bool(database.get("lock_holder"))
        or any(step.get("direction") == "down" for step in steps)
    )


def _message(told: JsonObject) -> str:
    return one_line(str((told.get("problem") or {}).get("message") or ""))


def _version(told: object) -> int | None:
    return told if isinstance(told, int) else None

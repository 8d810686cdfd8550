"""Looking at databases again and again until they are where they should be."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from time import monotonic

from reconciler.cli.options import RepositoryOptions, SelectionOptions
from reconciler.cli.terminal import write_note
from reconciler.model import Observation, ProblemError, RowStatus
from reconciler.model.encoding import JsonObject
from reconciler.model.value import value
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
        busy: something runs on it, and the version found may not stay.
        trouble: why it was not reached, or why it will not come by itself.
    """

    environment: str = ""
    database: str = ""
    current: int | None = None
    wanted: int | None = None
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
            "environment": self.environment,
            "database": self.database,
            "current_version": self.current,
            "wanted_version": self.wanted,
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
        if self.busy:
            parts.append("something runs on it")
        if self.trouble:
            parts.append(self.trouble)
        name = f"{database_name(self.environment, self.database)}: " if self.database else ""
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
    """
    deadline = monotonic() + timeout
    seen: list[Sighting] = []
    while True:
        before = seen
        try:
            async with asyncio.timeout(max(deadline - monotonic(), _SHORTEST_LOOK)):
                seen = await _look(version, repository, selection)
        except ProblemError as error:
            seen = _troubled(before, one_line(str(error.problem)))
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


async def _look(
    version: int | None, repository: RepositoryOptions, selection: SelectionOptions
) -> list[Sighting]:
    if selection.server is not None:
        from reconciler.cli.server import read_server

        return _told(await asyncio.to_thread(read_server, selection), version)
    from reconciler.cli.subjects import Subject, open_scope, refuse_broken

    async with open_scope(repository, selection) as scope:
        refuse_broken(scope, selection)

        async def look(subject: Subject) -> Sighting:
            declared = subject.declaration.target if subject.declaration is not None else None
            sighting = Sighting(
                environment=subject.environment,
                database=subject.target.name,
                wanted=version if version is not None else declared,
            )
            database = scope.workspace.open(subject.environment, subject.target, subject.timeouts)
            try:
                observation = await database.observe()
            except ProblemError as error:
                return replace(sighting, trouble=one_line(str(error.problem)))
            failure = observation.last_failure
            return replace(
                sighting,
                current=observation.current_version,
                busy=_busy(observation),
                trouble=one_line(str(failure.problem)) if failure is not None else "",
            )

        return list(await asyncio.gather(*(look(each) for each in scope.subjects if not each.suspended)))


def _busy(observation: Observation) -> bool:
    """A step runs, or more are to follow: only when the lock is free is what was applied there to stay."""
    return observation.holder is not None or any(row.status is RowStatus.RUNNING for row in observation.rows)


def _told(found: JsonObject, version: int | None) -> list[Sighting]:
    """What a daemon says of its databases."""
    sightings = []
    for environment in found["environments"]:
        if environment.get("suspended"):
            continue
        for database in environment.get("databases") or ():
            current, declared = database.get("current_version"), database.get("target_version")
            problem = database.get("problem") or {}
            sightings.append(
                Sighting(
                    environment=str(environment.get("environment") or ""),
                    database=str(database.get("database") or ""),
                    current=current if isinstance(current, int) else None,
                    wanted=version
                    if version is not None
                    else declared
                    if isinstance(declared, int)
                    else None,
                    busy=database.get("state") in ("migrating", "waiting")
                    or database.get("running") is not None,
                    trouble=one_line(str(problem.get("message") or "")),
                )
            )
    return sightings

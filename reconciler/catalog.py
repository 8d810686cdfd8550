"""The ordered set of migrations at one revision, and what is wrong with its files.

A file that cannot be read hides no other: it becomes a problem that carries its version where the name tells it, so that
a plan to a lower version is not held up by a broken newer file.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from reconciler.formats import Notice, ParsedFile, leading_version, parse
from reconciler.model import Migration, Place, Problem, ProblemError, Reason, Snapshot


class Catalog:
    """The migrations of one folder at one revision, by ascending version.

    Args:
        migrations: those that can be used, in any order, no version twice.
        problems: what is wrong with the files that cannot.
        notices: what is remarkable about those that can.
    """

    __slots__ = ("_by_version", "migrations", "notices", "problems", "versions")

    def __init__(
        self,
        migrations: Iterable[Migration] = (),
        problems: Iterable[Problem] = (),
        notices: Iterable[Notice] = (),
    ) -> None:
        self.migrations: tuple[Migration, ...] = tuple(
            sorted(migrations, key=lambda migration: migration.version)
        )
        self.versions: tuple[int, ...] = tuple(migration.version for migration in self.migrations)
        self.problems: tuple[Problem, ...] = tuple(sorted(problems, key=_order))
        self.notices: tuple[Notice, ...] = tuple(notices)
        self._by_version = dict(zip(self.versions, self.migrations, strict=True))

    def get(self, version: int) -> Migration | None:
        """The migration of `version`, or None."""
        return self._by_version.get(version)

    def ordinal(self, version: int) -> int:
        """How many migrations are at or below `version`."""
        return bisect_right(self.versions, version)

    def problem_for(self, version: int | None) -> Problem | None:
        """The first problem of the files of `version`; None asks for those whose version nobody can tell."""
        return next((problem for problem in self.problems if problem.version == version), None)

    def __contains__(self, version: object) -> bool:
        return version in self._by_version

    def __iter__(self) -> Iterator[Migration]:
        return iter(self.migrations)

    def __len__(self) -> int:
        return len(self.migrations)


class CatalogReader:
    """Reads catalogs, and parses a file only once while its content stays the same.

    What was parsed is kept for the files of the last snapshot of each folder, so a new revision costs what it changed.
    An unchanged folder gives the very same `Catalog`.
    """

    def __init__(self) -> None:
        self._folders: dict[str, _Folder] = {}

    def read(self, snapshot: Snapshot, folder: str) -> Catalog:
        """Return the catalog of the files directly in `folder` (from the repository's root) of `snapshot`. Never raises."""
        prefix = _prefix(folder)
        last = self._folders.get(prefix, _NOTHING)
        entries: dict[tuple[str, str], _Entry] = {}
        changed = False
        for path, file in snapshot.files.items():
            if not _is_migration(path, prefix):
                continue
            key = (path, file.blob)
            entry = last.entries.get(key)
            if entry is None:
                changed = True
                entry = _load(path, file.content)
            entries[key] = entry
        skipped = {path: why for path, why in snapshot.skipped.items() if _is_migration(path, prefix)}
        if (
            not changed
            and len(entries) == len(last.entries)
            and skipped == last.skipped
            and last.catalog is not None
        ):
            return last.catalog
        catalog = _assemble(entries.values(), skipped)
        self._folders[prefix] = _Folder(entries, skipped, catalog)
        return catalog


_Entry = ParsedFile | Problem


class _Folder(NamedTuple):
    entries: dict[tuple[str, str], _Entry]
    skipped: dict[str, str]
    catalog: Catalog | None


_NOTHING = _Folder({}, {}, None)


def _prefix(folder: str) -> str:
    parts = [part for part in folder.split("/") if part not in ("", ".")]
    return "/".join(parts) + "/" if parts else ""


def _is_migration(path: str, prefix: str) -> bool:
    """True for what looks like SQL directly in the folder. Hidden files are editors' and not ours."""
    return (
        path.startswith(prefix)
        and path[-4:].lower() == ".sql"
        and path.find("/", len(prefix)) < 0
        and not path.startswith(".", len(prefix))
    )


def _load(path: str, content: bytes) -> _Entry:
    try:
        return parse(path, content)
    except ProblemError as error:
        return error.problem


def _assemble(entries: Iterable[_Entry], skipped: dict[str, str]) -> Catalog:
    by_version: dict[int, list[ParsedFile]] = {}
    problems = [_skipped(path, why) for path, why in skipped.items()]
    for entry in entries:
        if isinstance(entry, Problem):
            problems.append(entry)
        else:
            by_version.setdefault(entry.migration.version, []).append(entry)
    usable = []
    for parsed in by_version.values():
        if len(parsed) == 1:
            usable.append(parsed[0])
        else:
            problems.append(_collision([each.migration for each in parsed]))
    return Catalog(
        [parsed.migration for parsed in usable],
        problems,
        [notice for parsed in usable for notice in parsed.notices],
    )


def _collision(migrations: Sequence[Migration]) -> Problem:
    files = sorted(migrations, key=lambda migration: migration.path)
    names = " and ".join(migration.file_name for migration in files)
    return Problem(
        reason=Reason.MIGRATION_INVALID,
        message=f"{names} have the same version, {files[0].version}",
        remedy="give one of them another number; if either was applied anywhere, renumber the other",
        place=Place(files[-1].path, 1),
        version=files[0].version,
    )


def _skipped(path: str, why: str) -> Problem:
    return Problem(
        reason=Reason.MIGRATION_INVALID,
        message=f"{path.rpartition('/')[2]} was not read: {why}",
        remedy="put a plain file of reasonable size in its place, or remove it",
        place=Place(path, 1),
        version=leading_version(path),
    )


def _order(problem: Problem) -> tuple[bool, int, str]:
    """By version, those without one last, then by path."""
    return problem.version is None, problem.version or 0, problem.place.path if problem.place else ""

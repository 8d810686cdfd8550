"""What `validate` finds in the manifests and migrations of one snapshot. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from reconciler.catalog import Catalog, CatalogReader
from reconciler.lint import Finding, Severity, check_catalog
from reconciler.manifest import Engine, Manifest, read_manifests
from reconciler.model import COCKROACHDB, POSTGRESQL, File, Place, Problem, Snapshot
from reconciler.model.value import value

INVALID_MANIFEST = "invalid-manifest"
UNKNOWN_TARGET = "unknown-target"
_TARGET_LINE = re.compile(rb"^(?P<quote>[\"']?)target_version(?P=quote)[ \t]*:", re.MULTILINE)


@value(kw_only=True)
class Checked:
    """What was looked at, and what was found.

    Args:
        findings: of all files, by path and line.
        manifests: how many manifest files there are.
        migrations: how many migration files there are.
    """

    findings: tuple[Finding, ...]
    manifests: int
    migrations: int


def check(
    manifests: Snapshot,
    folder: str,
    read: Callable[[Sequence[str]], Snapshot],
    *,
    usual: str,
    engines: AbstractSet[str] = frozenset(),
) -> Checked:
    """Check manifests and the migrations they name.

    Args:
        manifests: the snapshot of the manifests' folder.
        folder: where they are.
        read: reads the folders of the migrations.
        usual: the folder to check when no manifest names one.
        engines: the servers to check for; none for those that the manifests say.
    """
    found = read_manifests(manifests, folder)
    usable = [manifest for manifest in found.values() if isinstance(manifest, Manifest)]
    problems = [problem for each in found.values() if not isinstance(each, Manifest) for problem in each]
    folders = sorted({manifest.migrations for manifest in usable}) or [usual]
    snapshot = read(folders)
    reader = CatalogReader()
    catalogs = {each: reader.read(snapshot, each) for each in folders}
    findings = [_of_manifest(problem) for problem in problems]
    findings += _targets(usable, catalogs, manifests.files)
    for path, catalog in catalogs.items():
        findings += check_catalog(catalog, engines or _engines(path, usable))
    return Checked(
        findings=tuple(
            sorted(findings, key=lambda each: (each.place.path, each.place.line, each.place.column))
        ),
        manifests=len(
            {problem.place.path for problem in problems if problem.place} | {each.path for each in usable}
        ),
        migrations=sum(_files(catalog) for catalog in catalogs.values()),
    )


def _engines(folder: str, manifests: Iterable[Manifest]) -> frozenset[str]:
    """The servers that are to run the migrations of `folder`. Where it is left open it is PostgreSQL."""
    declared = {
        database.engine
        for manifest in manifests
        if manifest.migrations == folder
        for database in manifest.databases
    }
    found = {COCKROACHDB if engine is Engine.COCKROACHDB else POSTGRESQL for engine in declared}
    return frozenset(found or {POSTGRESQL})


def _files(catalog: Catalog) -> int:
    paths = {migration.path for migration in catalog}
    return len(paths | {problem.place.path for problem in catalog.problems if problem.place})


def _of_manifest(problem: Problem) -> Finding:
    place = problem.place or Place("manifests", 1)
    return Finding(INVALID_MANIFEST, Severity.ERROR, problem.message, problem.remedy, place, problem.excerpt)


def _targets(
    manifests: Iterable[Manifest], catalogs: Mapping[str, Catalog], files: Mapping[str, File]
) -> list[Finding]:
    """Targets that no migration has. One whose file cannot be read is reported for that file."""
    findings = []
    for manifest in manifests:
        catalog, target = catalogs[manifest.migrations], manifest.target_version
        if target == 0 or target in catalog or catalog.problem_for(target) is not None:
            continue
        newest = max(catalog.versions, default=None)
        have = f"the newest is {newest}" if newest is not None else f"there is none in {manifest.migrations}/"
        remedy = f"commit the file of migration {target}, or " + (
            f"set target_version to one that exists, {newest} say"
            if newest is not None
            else "set target_version: 0"
        )
        findings.append(
            Finding(
                UNKNOWN_TARGET,
                Severity.ERROR,
                f"target_version of {manifest.environment} is {target}, and no migration has this number; {have}",
                remedy,
                Place(manifest.path, _target_line(files[manifest.path].content)),
            )
        )
    return findings


def _target_line(content: bytes) -> int:
    match = _TARGET_LINE.search(content)
    return content.count(b"\n", 0, match.start()) + 1 if match else 1

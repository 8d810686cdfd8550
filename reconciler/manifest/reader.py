"""From the bytes of a manifest to its values, or to everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from reconciler.manifest import document
from reconciler.manifest.document import Document, Finding, Refused
from reconciler.manifest.keys import DATABASE, DATABASES, ENVIRONMENT, MANIFEST, NAME
from reconciler.manifest.values import DatabaseTarget, Manifest
from reconciler.model import Place, Problem, ProblemError, Reason, Snapshot

FOLDER = "manifests"
"""Where manifests are, from the repository's root."""
_EXTENSIONS = (".yaml", ".yml")
_MOST_PROBLEMS = 50

ReadManifests = dict[str, Manifest | tuple[Problem, ...]]
"""Environment -> its manifest, or why it cannot be used."""


class ManifestError(ProblemError):
    """A manifest cannot be used.

    Args:
        problems: everything that is wrong with it, in the order of the file; at least one.
        environment: what it stands for all the same; None when too little of it can be read to tell.
    """

    def __init__(self, problems: tuple[Problem, ...], environment: str | None) -> None:
        super().__init__(problems[0])
        self.problems = problems
        self.environment = environment

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


def read_manifest(path: str, content: bytes) -> Manifest:
    """Read one manifest.

    Args:
        path: its path from the repository's root; the file's name is the default of `environment`.
        content: the bytes of the file.

    Raises:
        ManifestError: it cannot be used.
    """
    parsed = document.parse(content)
    findings = list(parsed.findings)
    values: dict[str, Any] = {}
    if parsed.root is not None:
        try:
            values = _read_root(parsed, path)
        except Refused as refused:
            findings += refused.findings
    elif not findings:
        findings.append(_empty())
    if findings:
        raise ManifestError(_problems(path, parsed, findings), _environment(parsed, path))
    environment = values.setdefault(ENVIRONMENT, _stem(path))
    single, several = values.pop(DATABASE, None), values.pop(DATABASES, {})
    targets = {environment: single} if single is not None else several
    databases = tuple(DatabaseTarget(name=name, **target) for name, target in targets.items())
    return Manifest(path=path, databases=databases, **values)


def is_manifest(path: str, folder: str = FOLDER) -> bool:
    """True when `path` is directly in `folder` and named like a manifest."""
    pure = PurePosixPath(path)
    return pure.parent == PurePosixPath(folder) and pure.name.endswith(_EXTENSIONS)


class ManifestReader:
    """Reads all manifests of a snapshot, and each content only once.

    It remembers the environment each file stood for: a file that can no longer be parsed still stands for the same one,
    which must be told from an environment that was removed.
    """

    def __init__(self) -> None:
        self._results: dict[tuple[str, str], Manifest | ManifestError] = {}
        self._environments: dict[str, str] = {}

    def read(self, snapshot: Snapshot, folder: str = FOLDER) -> ReadManifests:
        """Read the manifests in `folder` of `snapshot`.

        Returns:
            Environment -> manifest, or the problems of its file. Empty when there are no manifests. Files of other names
            than `*.yaml` and `*.yml` do not count. Two files that name one environment are a problem for it.
        """
        files = {path: file for path, file in snapshot.files.items() if is_manifest(path, folder)}
        results: dict[tuple[str, str], Manifest | ManifestError] = {}
        by_path: dict[str, Manifest | ManifestError] = {}
        for path, file in files.items():
            known = self._results.get((path, file.blob))
            by_path[path] = results[path, file.blob] = known or _attempt(path, file.content)
        for path, why in snapshot.skipped.items():
            if is_manifest(path, folder):
                by_path[path] = _skipped(path, why)
        self._results = results
        self._environments = {path: self._environment(path, result) for path, result in by_path.items()}
        return _by_environment(by_path, self._environments)

    def _environment(self, path: str, result: Manifest | ManifestError) -> str:
        if result.environment is not None:
            return result.environment
        return self._environments.get(path, _stem(path))


def read_manifests(snapshot: Snapshot, folder: str = FOLDER) -> ReadManifests:
    """Read the manifests in `folder` of `snapshot` once; see `ManifestReader.read`."""
    return ManifestReader().read(snapshot, folder)


def _attempt(path: str, content: bytes) -> Manifest | ManifestError:
    try:
        return read_manifest(path, content)
    except ManifestError as error:
        # a kept error must not keep the frames, and with them the content, that raised it
        return error.with_traceback(None)


def _by_environment(
    by_path: Mapping[str, Manifest | ManifestError], environments: Mapping[str, str]
) -> ReadManifests:
    paths: dict[str, list[str]] = {}
    for path in sorted(by_path):
        paths.setdefault(environments[path], []).append(path)
    manifests: ReadManifests = {}
    for environment in sorted(paths):
        problems: list[Problem] = []
        for path in paths[environment]:
            result = by_path[path]
            others = [other for other in paths[environment] if other != path]
            if others:
                problems.append(_shared(path, environment, others))
            if isinstance(result, ManifestError):
                problems += result.problems
            elif not others:
                manifests[environment] = result
        if problems:
            manifests[environment] = tuple(problems)
    return manifests


def _shared(path: str, environment: str, others: list[str]) -> Problem:
    return Problem(
        reason=Reason.MANIFEST_INVALID,
        message=f"the environment {document.shown(environment)} is declared by {', '.join(others)} too",
        remedy="keep one of the files, or give them different names with 'environment:'",
        place=Place(path, 1),
    )


def _skipped(path: str, why: str) -> ManifestError:
    problem = Problem(
        reason=Reason.MANIFEST_INVALID,
        message=f"the manifest is no plain file: {why}",
        remedy="commit it as a regular file, or remove it",
        place=Place(path, 1),
    )
    return ManifestError((problem,), None)


def _stem(path: str) -> str:
    name = PurePosixPath(path).name
    return next((name.removesuffix(extension) for extension in _EXTENSIONS if name.endswith(extension)), name)


def _empty() -> Finding:
    message = "the manifest is empty, which never means 'no target'; expected at least target_version and a database"
    return Finding(
        document.Mark(1, 1), message, "restore its content, or delete the file to release the environment"
    )


def _read_root(parsed: Document, path: str) -> dict[str, Any]:
    """The values of the manifest's keys, after the rules that concern several keys."""
    root = parsed.root
    if isinstance(root, document.Scalar) and root.is_null:
        raise Refused([_empty()])
    findings: list[Finding] = []
    values: dict[str, Any] = {}
    try:
        values = MANIFEST.read(root, "") if root is not None else {}
    except Refused as refused:
        findings += refused.findings
    if isinstance(root, document.Mapping):
        findings += _databases_rule(root)
        if ENVIRONMENT not in root.entries:
            findings += _file_name_rule(path)
    if findings:
        raise Refused(findings)
    return values


def _databases_rule(root: document.Mapping) -> list[Finding]:
    if DATABASE in root.entries and DATABASES in root.entries:
        mark = root.entries[DATABASE][0].mark
        message = "database and databases are both given; expected one of them"
        return [Finding(mark, message, "move the one under 'database:' to 'databases:', with a name")]
    if DATABASE not in root.entries and DATABASES not in root.entries:
        remedy = "add 'database: {dsn: {env: NAME}}', or 'databases:' with a name for each"
        return [Finding(root.mark, "the manifest has no database; expected database or databases", remedy)]
    return []


def _file_name_rule(path: str) -> list[Finding]:
    mark = document.Mark(1, 1)
    try:
        NAME.read(document.Scalar(mark, _stem(path)), "the environment's name")
    except Refused:
        message = f"the file's name makes {document.shown(_stem(path))} the environment's name; expected {NAME.expected}"
        return [Finding(mark, message, "rename the file, or add 'environment:'")]
    return []


def _environment(parsed: Document, path: str) -> str | None:
    """The environment that a broken manifest stands for, as far as can be told."""
    if not isinstance(parsed.root, document.Mapping):
        return None
    if ENVIRONMENT not in parsed.root.entries:
        return _stem(path)
    try:
        return NAME.read(parsed.root.entries[ENVIRONMENT][1], ENVIRONMENT)
    except Refused:
        return None


def _problems(path: str, parsed: Document, findings: list[Finding]) -> tuple[Problem, ...]:
    findings = sorted(findings, key=lambda finding: (finding.mark.line, finding.mark.column))
    problems = [
        Problem(
            reason=Reason.MANIFEST_INVALID,
            message=finding.message,
            remedy=finding.remedy,
            place=Place(path, finding.mark.line, finding.mark.column),
            excerpt=parsed.excerpt(finding.mark),
        )
        for finding in findings[:_MOST_PROBLEMS]
    ]
    for finding in findings[_MOST_PROBLEMS : _MOST_PROBLEMS + 1]:
        problems.append(
            Problem(
                reason=Reason.MANIFEST_INVALID,
                message=f"{len(findings) - _MOST_PROBLEMS} more problems are not listed",
                remedy="correct the first ones",
                place=Place(path, finding.mark.line, finding.mark.column),
            )
        )
    return tuple(problems)

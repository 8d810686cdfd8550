"""`reconciler validate`: manifests and migration files, checked without a database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.cli.exits import Exit
from reconciler.cli.options import (
    OutputOptions,
    RepositoryOptions,
    example,
    output_options,
    repository_options,
)

if TYPE_CHECKING:
    from reconciler.cli.checks import Checked


@click.command(
    "validate",
    epilog=example(
        "reconciler validate",
        "reconciler validate --branch main --output json",
        "reconciler validate --engine cockroachdb",
    ),
)
@repository_options(working_tree=True)
@click.option("--migrations", metavar="FOLDER", help="The folder to check when no manifest names one.")
@click.option(
    "--engine",
    "engines",
    type=click.Choice(["postgresql", "cockroachdb"]),
    multiple=True,
    help="Check for this server, whatever the manifests say (may be given twice). Without it: for those that the "
    "manifests' databases have as their engine, else for PostgreSQL.",
)
@output_options()
def command(
    repository: RepositoryOptions, migrations: str | None, engines: tuple[str, ...], output_as: OutputOptions
) -> Exit:
    """Check manifests and migration files, without any database.

    Reads the files as they are on disk, since that is what one is about to commit; with --branch, or a URL as --repo, what
    is committed. Exit code 1 for errors, 0 when there are only warnings.
    """
    from reconciler.cli.terminal import write, write_finding, write_json
    from reconciler.lint import Severity
    from reconciler.report.findings import finding_as_dict, finding_text, findings_summary

    checked = _check(repository, migrations, frozenset(engines))
    findings = checked.findings
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    if output_as.json:
        write_json(
            {
                "valid": not errors,
                "manifests": checked.manifests,
                "migrations": checked.migrations,
                "errors": errors,
                "warnings": len(findings) - errors,
                "findings": [finding_as_dict(finding) for finding in findings],
            }
        )
    else:
        for finding in findings:
            write_finding(finding_text(finding))
        write(findings_summary(findings, manifests=checked.manifests, migrations=checked.migrations))
    return Exit.ERROR if errors else Exit.DONE


def _check(repository: RepositoryOptions, migrations: str | None, engines: frozenset[str]) -> Checked:
    from reconciler.cli.disk import MIGRATIONS

    usual = migrations if migrations is not None else MIGRATIONS
    if _is_committed(repository) and not repository.working_tree:
        from reconciler.cli.running import run_to_end

        return run_to_end(_check_committed(repository, usual, engines))
    return _check_disk(Path(repository.repo or "."), usual, engines)


def _is_committed(repository: RepositoryOptions) -> bool:
    """True when there is a branch to read, or no files on disk: a URL, or a bare repository."""
    if repository.branch is not None:
        return True
    if repository.repo is None:
        return False
    from reconciler.cli.disk import is_bare_repository

    folder = Path(repository.repo)
    return not folder.exists() or is_bare_repository(folder)


def _check_disk(start: Path, usual: str, engines: frozenset[str]) -> Checked:
    from reconciler.cli.checks import check
    from reconciler.cli.disk import MANIFESTS, read_folders, repository_root
    from reconciler.errors import ReconcilerError

    root = repository_root(start) or start
    try:
        checked = check(
            read_folders(root, [MANIFESTS]),
            MANIFESTS,
            lambda folders: read_folders(root, folders),
            usual=usual,
            engines=engines,
        )
    except OSError as error:
        raise ReconcilerError(f"cannot read {error.filename or root}: {error.strerror or error}") from error
    _refuse_nothing(checked, str(root), usual)
    return checked


async def _check_committed(repository: RepositoryOptions, usual: str, engines: frozenset[str]) -> Checked:
    from reconciler.cli.checks import check
    from reconciler.cli.disk import MANIFESTS
    from reconciler.cli.opening import open_workspace
    from reconciler.manifest import Manifest, read_manifests

    async with open_workspace(repository) as workspace:
        source = workspace.source
        revision = await source.head()
        manifests = await source.read(revision, [MANIFESTS])
        found = read_manifests(manifests, MANIFESTS).values()
        folders = {manifest.migrations for manifest in found if isinstance(manifest, Manifest)} or {usual}
        migrations = await source.read(revision, sorted(folders))
        checked = check(manifests, MANIFESTS, lambda _: migrations, usual=usual, engines=engines)
        _refuse_nothing(checked, str(revision), usual)
        return checked


def _refuse_nothing(checked: Checked, where: str, usual: str) -> None:
    """Finding nothing wrong with nothing would be taken for a pass."""
    from reconciler.errors import ReconcilerError

    if not checked.manifests and not checked.migrations:
        raise ReconcilerError(
            f"there is nothing to check: neither manifests/ nor {usual}/ has a file at {where}",
            remedy="run it in the repository, or name that with --repo",
        )

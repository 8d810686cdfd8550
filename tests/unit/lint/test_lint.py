"""Our own rules, and how a file silences a warning."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from reconciler.catalog import CatalogReader
from reconciler.lint import Finding, Severity, check_catalog, errors
from reconciler.model import File, Revision, Snapshot

REVISION = Revision("a" * 40, "main", datetime(2025, 1, 15, tzinfo=UTC), "Ada <ada@example.org>")


def check(*contents: str, skipped: str = "") -> list[Finding]:
    files = {}
    for version, content in enumerate(contents, start=1):
        path = f"migrations/{version * 10}_x.sql"
        files[path] = File(path, content, content.encode())
    snapshot = Snapshot(REVISION, files, {skipped: "a symbolic link"} if skipped else {})
    return check_catalog(CatalogReader().read(snapshot, "migrations"))


def migration(up: str, down: str | None = "SELECT 1;", head: str = "") -> str:
    return f"{head}-- UP MIGRATION\n{up}\n" + ("" if down is None else f"-- DOWN MIGRATION\n{down}\n")


def rules(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(str(finding.severity), finding.rule) for finding in findings]


def test_nothing_to_say_about_good_files() -> None:
    # gaps in the numbers are fine
    assert (
        check(
            migration("CREATE TABLE t (a int);", "DROP TABLE t;"),
            migration("CREATE INDEX CONCURRENTLY i ON t (a)"),
        )
        == []
    )


@pytest.mark.parametrize(
    ("content", "severity", "rule", "place"),
    [
        ("SELECT 1", "error", "invalid-migration", "1:1"),
        (migration("SELEC 1;"), "error", "syntax-error", "2:1"),
        (migration("SELECT 1;", "SELECT 2;\n SELEC 1;"), "error", "syntax-error", "5:2"),
        (migration("SELECT 1);"), "error", "invalid-sql", "2:9"),
        (migration("BEGIN; SELECT 1; COMMIT;"), "error", "transaction-control", "2:1"),
        (migration("SELECT 1; VACUUM t;"), "error", "mixed-transaction", "2:11"),
        (
            migration("VACUUM t; BEGIN;", head="-- reconciler: no-transaction\n"),
            "error",
            "transaction-control",
            "3:11",
        ),
        (migration("SELECT 1;", None), "warning", "missing-down", "1:1"),
        (migration("SELECT 1;", "-- nothing"), "warning", "empty-down", "3:1"),
        (migration("SELECT 1;", head="-- Migration: 9_y.sql\n"), "warning", "header-file-name", "1:15"),
        (migration("SELECT 1; DROP TABLE t;"), "warning", "data-loss", "2:11"),
        (
            migration("SELECT 1;", head="-- reconciler: no-transaction\n"),
            "warning",
            "needless-no-transaction",
            "1:1",
        ),
    ],
)
def test_each_rule(content: str, severity: str, rule: str, place: str) -> None:
    (finding,) = check(content)
    assert (finding.severity, finding.rule, str(finding.place)) == (
        severity,
        rule,
        f"migrations/10_x.sql:{place}",
    )
    assert finding.message
    assert finding.remedy
    assert errors([finding]) == ([finding] if severity == "error" else [])


def test_hidden_marker() -> None:
    assert ("warning", "marker-in-quotes") in rules(check(migration("SELECT '\n-- DOWN MIGRATION\n';", None)))


@pytest.mark.parametrize(
    ("head", "up", "down"),
    [
        ("-- reconciler: irreversible\n", "SELECT 1;", None),
        ("-- reconciler: ignore missing-down append only\n", "SELECT 1;", None),
        ("-- reconciler: ignore empty-down append only\n", "SELECT 1;", ""),
        ("-- reconciler: allow-destructive unused since May\n", "DROP TABLE t;", "SELECT 1"),
        ("-- reconciler: ignore data-loss unused since May\n", "DROP TABLE t;", "SELECT 1"),
        ("-- reconciler: no-transaction\n", "SELECT 1; VACUUM t;", "SELECT 1"),
        ("-- reconciler: no-transaction\n", "CALL p();", "SELECT 1"),
        ("-- reconciler: no-transaction\n", "BEGIN; SELECT 1; COMMIT", "SELECT 1"),
        ("", "SELECT 1", "DROP TABLE t; TRUNCATE u;"),
    ],
)
def test_silent(head: str, up: str, down: str | None) -> None:
    assert check(migration(up, down, head)) == []


def test_errors_are_never_silenced() -> None:
    found = check(migration("SELEC 1", head="-- reconciler: ignore syntax-error it is fine\n"))
    assert rules(found) == [("error", "syntax-error")]


def test_findings_come_in_the_order_of_the_files() -> None:
    found = check(
        migration("DROP TABLE a, b;\nSELECT 1;\nDROP SCHEMA s;", None),
        migration("SELEC 1"),
        skipped="migrations/05_link.sql",
    )
    assert [(finding.place.path, finding.place.line, finding.rule) for finding in found] == [
        ("migrations/05_link.sql", 1, "invalid-migration"),
        ("migrations/10_x.sql", 1, "missing-down"),
        ("migrations/10_x.sql", 2, "data-loss"),
        ("migrations/10_x.sql", 2, "data-loss"),
        ("migrations/10_x.sql", 4, "data-loss"),
        ("migrations/20_x.sql", 2, "syntax-error"),
    ]
    assert [finding.severity for finding in found].count(Severity.ERROR) == 2
    assert found[2].message == "this drops table a, and no down brings the data back"

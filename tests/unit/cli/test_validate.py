"""`reconciler validate`."""

from __future__ import annotations

from pathlib import Path

from tests.command_line import CommandLine, manifest, table
from tests.git import Repository


def test_good_files_are_fine(reconciler: CommandLine, git_repository: Repository) -> None:
    git_repository.write({"manifests/dev.yaml": manifest(1), "migrations/1_a.sql": table("a")})
    reconciler.enter(git_repository.path)
    answer = reconciler("validate")
    assert (answer.exit, answer.out) == (0, "1 manifest, 1 migration file: no errors, no warnings\n")


def test_errors_name_place_rule_and_remedy(reconciler: CommandLine, git_repository: Repository) -> None:
    git_repository.write(
        {
            "manifests/dev.yaml": manifest(1, more="frobnicate: true\n"),
            "migrations/1_a.sql": "-- UP MIGRATION\nCREATE TABLE a (;\n",
        }
    )
    reconciler.enter(git_repository.path)
    answer = reconciler("validate")
    assert answer.exit == 1
    assert "manifests/dev.yaml:3:1: error: frobnicate" in answer.out
    assert "[invalid-manifest]" in answer.out
    assert "migrations/1_a.sql:2:16: error:" in answer.out
    assert "\n    CREATE TABLE a (;\n                   ^\n  remedy: " in answer.out
    assert "migrations/1_a.sql:1:1: warning:" in answer.out


def test_warnings_alone_are_no_failure(reconciler: CommandLine, git_repository: Repository) -> None:
    git_repository.write({"migrations/1_a.sql": "-- UP MIGRATION\nSELECT 1;\n"})
    reconciler.enter(git_repository.path)
    answer = reconciler("validate")
    assert answer.exit == 0
    assert "no manifests, 1 migration file: no errors, 1 warning" in answer.out


def test_target_without_a_migration_is_an_error_at_its_line(
    reconciler: CommandLine, git_repository: Repository
) -> None:
    text = "# a comment\n" + manifest(7)
    git_repository.write({"manifests/dev.yaml": text, "migrations/3_a.sql": table("a")})
    reconciler.enter(git_repository.path)
    answer = reconciler("validate", "--output", "json")
    assert answer.exit == 1
    assert answer.json["valid"] is False
    (finding,) = answer.json["findings"]
    assert (finding["rule"], finding["file"], finding["line"]) == ("unknown-target", "manifests/dev.yaml", 2)
    assert "the newest is 3" in finding["message"]


def test_target_of_a_broken_file_is_reported_once(
    reconciler: CommandLine, git_repository: Repository
) -> None:
    git_repository.write({"manifests/dev.yaml": manifest(3), "migrations/3_a.sql": ""})
    reconciler.enter(git_repository.path)
    assert [each["rule"] for each in reconciler("validate", "--output", "json").json["findings"]] == [
        "invalid-migration"
    ]


def test_every_folder_a_manifest_names_is_checked(
    reconciler: CommandLine, git_repository: Repository
) -> None:
    git_repository.write(
        {
            "manifests/one.yaml": manifest(1, more="migrations: db/one\n"),
            "manifests/two.yaml": manifest(1, more="migrations: db/two\n"),
            "db/one/1_a.sql": table("a"),
            "db/two/1_a.sql": "",
        }
    )
    reconciler.enter(git_repository.path)
    assert [each["file"] for each in reconciler("validate", "--output", "json").json["findings"]] == [
        "db/two/1_a.sql"
    ]


def test_reads_the_disk_by_default_and_git_with_a_branch(
    reconciler: CommandLine, git_repository: Repository, tmp_path: Path
) -> None:
    git_repository.commit("Good", {"manifests/dev.yaml": manifest(1), "migrations/1_a.sql": table("a")})
    git_repository.write({"migrations/1_a.sql": "broken"})
    reconciler.enter(tmp_path)
    where = str(git_repository.path)
    assert reconciler("validate", "--repo", where).exit == 1
    assert reconciler("validate", "--repo", where, "--branch", "main").exit == 0
    assert reconciler("validate", "--repo", where, "--branch", "main", "--working-tree").exit == 1
    assert reconciler("validate", "--repo", f"{where}/.git").exit == 0
    missing = reconciler("validate", "--repo", where, "--branch", "gone")
    assert missing.exit == 1
    assert "gone" in missing.err


def test_nothing_to_check_is_no_pass(reconciler: CommandLine, tmp_path: Path) -> None:
    reconciler.enter(tmp_path)
    answer = reconciler("validate")
    assert answer.exit == 1
    assert "nothing to check" in answer.err


def test_hostile_names_do_not_reach_the_terminal(reconciler: CommandLine, git_repository: Repository) -> None:
    git_repository.write({"migrations/1_a\x1b[2J.sql": "", "migrations/\u202egnp.sql": ""})
    reconciler.enter(git_repository.path)
    answer = reconciler("validate")
    assert answer.exit == 1
    assert "\x1b" not in answer.out
    assert "\u202e" not in answer.out


def test_symbolic_links_are_not_followed(reconciler: CommandLine, git_repository: Repository) -> None:
    git_repository.write({"migrations/1_a.sql": table("a")})
    (git_repository.path / "migrations/2_b.sql").symlink_to("/etc/passwd")
    reconciler.enter(git_repository.path)
    answer = reconciler("validate")
    assert answer.exit == 1
    assert "symbolic link" in answer.out


def test_a_folder_is_checked_for_the_servers_that_its_databases_have(
    reconciler: CommandLine, git_repository: Repository
) -> None:
    def cockroach(folder: str) -> str:
        return (
            f"target_version: 1\nmigrations: {folder}\n"
            "databases:\n  a:\n    dsn: {env: A}\n    engine: cockroachdb\n"
        )

    upsert = "-- UP MIGRATION\nUPSERT INTO t VALUES (1);\n-- DOWN MIGRATION\nSELECT 1;\n"
    serial = "-- UP MIGRATION\nCREATE TABLE IF NOT EXISTS t (id SERIAL PRIMARY KEY);\n-- DOWN MIGRATION\nSELECT 1;\n"
    git_repository.write(
        {
            "manifests/one.yaml": cockroach("db/one"),
            "manifests/two.yaml": manifest(1, more="migrations: db/two\n"),
            "manifests/both.yaml": cockroach("db/both"),
            "manifests/other.yaml": manifest(1, more="migrations: db/both\n"),
            "db/one/1_a.sql": upsert,
            "db/two/1_a.sql": serial,
            "db/both/1_a.sql": serial + "-- the same\n",
        }
    )
    reconciler.enter(git_repository.path)

    def found(*options: str) -> list[tuple[str, str]]:
        findings = reconciler("validate", "--output", "json", *options).json["findings"]
        return [(each["file"], each["rule"]) for each in findings]

    key = "cockroachdb-sequential-key"
    assert found() == [("db/both/1_a.sql", key)]
    assert found("--engine", "cockroachdb") == [("db/both/1_a.sql", key), ("db/two/1_a.sql", key)]
    assert found("--engine", "postgresql") == [("db/one/1_a.sql", "syntax-error")]
    assert found("--engine", "postgresql", "--engine", "cockroachdb") == [
        ("db/both/1_a.sql", key),
        ("db/one/1_a.sql", "syntax-error"),
        ("db/two/1_a.sql", key),
    ]
    assert reconciler("validate", "--engine", "oracle").exit == 2


def test_the_engine_counts_for_what_is_committed_too(
    reconciler: CommandLine, git_repository: Repository
) -> None:
    git_repository.commit(
        "One",
        {"migrations/1_a.sql": "-- UP MIGRATION\nUPSERT INTO t VALUES (1);\n-- DOWN MIGRATION\nSELECT 1;\n"},
    )
    reconciler.enter(git_repository.path)
    assert reconciler("validate", "--branch", "main").exit == 1
    assert reconciler("validate", "--branch", "main", "--engine", "cockroachdb").exit == 0

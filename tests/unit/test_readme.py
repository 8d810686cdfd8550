"""The README is held against the code: what it lists is what there is."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler.formats import parse_migration
from reconciler.manifest import Policy, Timeouts, read_manifest
from reconciler.metrics import Metrics
from reconciler.model import (
    DaemonStatus,
    DatabaseStatus,
    Direction,
    EnvironmentStatus,
    LastStep,
    Reason,
    Revision,
    SourceStatus,
    State,
)

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def exported_metrics() -> set[str]:
    now = datetime.now(UTC)
    metrics = Metrics()
    metrics.declare("dev", "orders")
    metrics.declare_repository("repository")
    step = LastStep(direction=Direction.UP, version=1, finished_at=now, duration=1.0)
    database = DatabaseStatus(
        environment="dev",
        database="orders",
        state=State.IN_SYNC,
        target=1,
        current=1,
        target_since=now,
        last_steps=(step,),
    )
    status = DaemonStatus(
        source=SourceStatus(
            repository="repository", branch="main", revision=Revision("a" * 40, "main", now, "Ann")
        ),
        environments=(
            EnvironmentStatus(environment="dev", target=1, suspended=False, databases=(database,)),
        ),
    )
    text = metrics.render("", status)[0].decode()
    return set(re.findall(r"^# HELP (reconciler_\w+)", text, re.MULTILINE))


def test_every_metric_is_listed_and_every_listed_one_exists() -> None:
    assert set(re.findall(r"^\| `(reconciler_\w+)` \|", README, re.MULTILINE)) == exported_metrics()


def test_the_reasons_that_a_failure_is_counted_under_are_listed() -> None:
    table = README.partition("| `reason` | stands for |")[2].partition("\n\n")[0]
    listed = {
        label: set(re.findall(r"`(\w+)`", reasons))
        for label, reasons in re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE)
    }
    counted: dict[str, set[str]] = {}
    for reason in Reason:
        if reason.metric_label:
            counted.setdefault(reason.metric_label, set()).add(reason.value)
    assert listed == counted


def test_the_manifest_is_one_and_shows_the_defaults() -> None:
    text = blocks("yaml")[0]
    manifest = read_manifest("manifests/production.yaml", text.encode())
    assert manifest.policy == Policy()
    assert manifest.timeouts == Timeouts()
    assert manifest.databases[0].name == "orders"


def test_the_migration_is_one() -> None:
    (text,) = blocks("sql")
    migration = parse_migration("migrations/00007_index_orders.sql", text.encode())
    assert migration.directives.no_transaction
    assert migration.down is not None


@pytest.mark.parametrize("reason", sorted(set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)+)`", README))))
def test_every_reason_it_names_exists(reason: str) -> None:
    assert reason in {each.value for each in Reason}


def test_every_verb_is_listed() -> None:
    from reconciler.cli.application import application

    listed = set(re.findall(r"^\| `(\w+)[^|]*` \|", README, re.MULTILINE)) - exported_metrics()
    verbs = set(application.list_commands(None))  # type: ignore[arg-type]  # needs no context
    assert verbs <= listed


@pytest.mark.parametrize("name", ["run", "test"])
def test_each_command_that_sets_up_stands_on_one_line(name: str) -> None:
    (command,) = re.findall(
        rf"^<!-- command: {name} -->\n```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL
    )
    assert command.count("\n") == 1

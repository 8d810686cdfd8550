from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.metrics import Metrics
from reconciler.model import DaemonStatus, Problem, Reason, SourceStatus, State
from tests.unit.metrics.examples import COMMIT, at, daemon, failing, in_sync, never_reached
from tests.unit.metrics.scrape import Series, of_database, scrape, series


@pytest.fixture
def samples() -> dict[Series, float]:
    return scrape(Metrics(), daemon(in_sync(), failing(), never_reached()))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target_version", 42),
        ("current_version", 41),
        ("target_version_ordinal", 7),
        ("current_version_ordinal", 6),
        ("pending_migrations", 1),
        ("database_up", 0),
        ("drift_since_timestamp_seconds", 250),
        ("failing_since_timestamp_seconds", 300),
        ("suspended_since_timestamp_seconds", 260),
        ("migration_started_timestamp_seconds", 310),
        ("last_reconcile_timestamp_seconds", 0),
        ("last_reconcile_success_timestamp_seconds", 0),
    ],
)
def test_a_failing_database(samples: dict[Series, float], name: str, value: float) -> None:
    assert samples[series(name, environment="production", database="orders")] == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("current_version", 42),
        ("pending_migrations", 0),
        ("database_up", 1),
        ("target_since_timestamp_seconds", 100),
        ("drift_since_timestamp_seconds", 0),
        ("failing_since_timestamp_seconds", 0),
        ("suspended_since_timestamp_seconds", 0),
        ("migration_started_timestamp_seconds", 0),
        ("last_reconcile_timestamp_seconds", 200),
        ("last_reconcile_success_timestamp_seconds", 200),
    ],
)
def test_a_database_in_sync(samples: dict[Series, float], name: str, value: float) -> None:
    assert samples[series(name, environment="dev", database="dev")] == value


def test_what_is_not_known_has_no_series(samples: dict[Series, float]) -> None:
    names = {name.removeprefix("reconciler_") for name, _ in of_database(samples, "staging", "staging")}
    unknown = {"target_version", "current_version", "target_version_ordinal", "current_version_ordinal"}
    assert names.isdisjoint(unknown | {"database_up", "target_since_timestamp_seconds"})


def test_every_state_is_given_and_just_one_is_set(samples: dict[Series, float]) -> None:
    states = {
        dict(labels)["state"]: value
        for (name, labels), value in of_database(samples, "production", "orders").items()
        if name == "reconciler_database_state"
    }
    assert set(states) == {state.value for state in State}
    assert [state for state, value in states.items() if value] == ["failed"]


def test_before_the_first_look_no_state_is_set(samples: dict[Series, float]) -> None:
    values = [
        samples[series("database_state", environment="staging", database="staging", state=s)] for s in State
    ]
    assert values == [0] * len(State)


def test_info_has_the_versions_as_text_and_the_short_revision(samples: dict[Series, float]) -> None:
    key = series(
        "database_info",
        environment="dev",
        database="dev",
        engine="postgresql",
        server_version="18.1",
        target="42",
        current="42",
        target_revision=COMMIT[:12],
    )
    assert samples[key] == 1


def test_a_version_too_large_for_a_double_is_whole_in_the_info() -> None:
    largest = 2**63 - 1
    status = daemon(replace(in_sync(), target=largest, current=largest))
    infos = [key for key in scrape(Metrics(), status) if key[0] == "reconciler_database_info"]
    assert [dict(labels)["target"] for _, labels in infos] == [str(largest)]


def test_only_the_newest_step_of_each_direction_is_given(samples: dict[Series, float]) -> None:
    steps = {
        (dict(labels)["direction"], dict(labels)["version"]): value
        for (name, labels), value in of_database(samples, "dev", "dev").items()
        if name == "reconciler_last_migration_timestamp_seconds"
    }
    assert steps == {("up", "42"): 150, ("down", "43"): 120}
    assert (
        samples[series("last_migration_duration_seconds", environment="dev", database="dev", direction="up")]
        == 1.5
    )


def test_the_series_of_a_database_that_git_no_longer_declares_are_gone_at_the_next_scrape() -> None:
    metrics = Metrics()
    assert of_database(scrape(metrics, daemon(in_sync(), failing())), "production", "orders")
    assert not of_database(scrape(metrics, daemon(in_sync())), "production", "orders")


def test_the_source_and_the_queue(samples: dict[Series, float]) -> None:
    repository = "git.example.com/team/schema"
    assert samples[series("git_last_fetch_success_timestamp_seconds", repository=repository)] == 199
    assert samples[series("git_head_commit_timestamp_seconds", repository=repository)] == 90
    assert samples[series("git_head_info", repository=repository, branch="main", revision=COMMIT[:12])] == 1
    assert samples[series("queue_depth")] == 3
    assert samples[series("queue_oldest_timestamp_seconds")] == 198
    assert samples[series("workers")] == 8
    assert samples[series("workers_busy")] == 2
    assert samples[series("reconcile_interval_seconds")] == 30


def test_a_daemon_that_has_read_nothing_yet() -> None:
    samples = scrape(Metrics(), DaemonStatus(source=SourceStatus(repository="here", branch="main")))
    assert samples[series("git_last_fetch_success_timestamp_seconds", repository="here")] == 0
    assert series("git_head_commit_timestamp_seconds", repository="here") not in samples
    assert samples[series("queue_oldest_timestamp_seconds")] == 0


def test_configuration_errors() -> None:
    problem = Problem(reason=Reason.MANIFEST_INVALID, message="target_version is missing")
    broken = scrape(Metrics(), replace(daemon(in_sync(), problem=problem), problems=(problem, problem)))
    assert broken[series("config_errors", environment="dev")] == 1
    assert broken[series("config_errors", environment="")] == 2
    sound = scrape(Metrics(), daemon(in_sync()))
    assert sound[series("config_errors", environment="dev")] == 0
    assert sound[series("config_errors", environment="")] == 0


def test_names_from_git_cannot_break_out_of_a_label() -> None:
    hostile = 'x"} 1\nup{job="\\'
    samples = scrape(Metrics(), daemon(replace(in_sync(), environment=hostile)))
    assert samples[series("current_version", environment=hostile, database="dev")] == 42


def test_naive_instants_are_utc() -> None:
    status = daemon(replace(in_sync(), failing_since=at(300).replace(tzinfo=None)))
    samples = scrape(Metrics(), status)
    assert samples[series("failing_since_timestamp_seconds", environment="dev", database="dev")] == 300

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics

from reconciler import __version__
from reconciler.metrics import Metrics
from reconciler.model import Direction, Reason
from tests.unit.metrics.examples import daemon, failing, in_sync, never_reached
from tests.unit.metrics.scrape import of_database, of_environment, scrape, series

NOTHING = daemon()
REASONS = {
    "sql_error", "lock_timeout", "statement_timeout", "retry_exhausted", "connection", "permission",
    "checksum_mismatch", "irreversible", "verification", "internal",
}  # fmt: skip


def declared() -> Metrics:
    metrics = Metrics()
    metrics.declare("dev", "orders")
    metrics.declare_repository("here")
    return metrics


def test_every_series_of_a_declared_database_exists_at_0() -> None:
    samples = of_database(scrape(declared(), NOTHING), "dev", "orders")
    assert set(samples.values()) == {0}
    outcomes = {
        (dict(labels)["direction"], dict(labels)["result"])
        for name, labels in samples
        if name == "reconciler_migrations_total"
    }
    assert outcomes == {("up", "success"), ("up", "failed"), ("down", "success"), ("down", "failed")}
    reasons = {
        dict(labels)["reason"] for name, labels in samples if name == "reconciler_migration_failures_total"
    }
    assert reasons == REASONS


def test_every_series_of_its_environment_exists_at_0() -> None:
    samples = of_environment(scrape(declared(), NOTHING), "dev")
    assert set(samples.values()) == {0}
    for result in ("in_sync", "migrated", "failed", "skipped"):
        assert series("reconciles_total", environment="dev", result=result) in samples
    for lock in ("advisory", "ddl"):
        assert series("lock_wait_seconds_count", environment="dev", lock=lock) in samples
    for engine in ("postgresql",):
        for direction in Direction:
            key = series(
                "migration_duration_seconds_count", environment="dev", engine=engine, direction=direction
            )
            assert key in samples
    assert series("reconcile_duration_seconds_count", environment="dev") in samples
    assert series("merge_to_applied_seconds_count", environment="dev") in samples


def test_the_repository_and_the_log_levels_start_at_0() -> None:
    samples = scrape(declared(), NOTHING)
    for result in ("success", "failed"):
        assert samples[series("git_fetches_total", repository="here", result=result)] == 0
    assert samples[series("git_fetch_duration_seconds_count", repository="here")] == 0
    for level in ("debug", "info", "warning", "error", "critical"):
        assert samples[series("log_messages_total", level=level)] == 0


def test_what_happens_is_counted() -> None:
    metrics = declared()
    metrics.migration("dev", "orders", "postgresql", Direction.UP, "success", 2.0)
    metrics.migration("dev", "orders", "postgresql", Direction.UP, "failed", 0.01)
    metrics.failure("dev", "orders", Reason.STATEMENT_FAILED)
    metrics.reconcile("dev", "migrated", 3.0)
    metrics.lock_wait("dev", "advisory", 0.2)
    metrics.git_fetch("here", "success", 0.03)
    metrics.merge_to_applied("dev", 12.0)
    samples = scrape(metrics, NOTHING)

    def value(name: str, **labels: str) -> float:
        return samples[series(name, **labels)]

    step = {"environment": "dev", "database": "orders", "direction": "up"}
    assert value("migrations_total", **step, result="success") == 1
    assert value("migrations_total", **step, result="failed") == 1
    duration = {"environment": "dev", "engine": "postgresql", "direction": "up"}
    assert value("migration_duration_seconds_sum", **duration) == pytest.approx(2.01)
    assert value("migration_duration_seconds_bucket", **duration, le="0.05") == 1
    assert value("migration_duration_seconds_bucket", **duration, le="2.5") == 2
    assert value("migration_failures_total", environment="dev", database="orders", reason="sql_error") == 1
    assert value("reconciles_total", environment="dev", result="migrated") == 1
    assert value("reconcile_duration_seconds_sum", environment="dev") == 3
    assert value("lock_wait_seconds_sum", environment="dev", lock="advisory") == pytest.approx(0.2)
    assert value("git_fetches_total", repository="here", result="success") == 1
    assert value("merge_to_applied_seconds_sum", environment="dev") == 12


def test_a_commit_from_the_future_was_applied_after_no_time() -> None:
    metrics = declared()
    metrics.merge_to_applied("dev", -5.0)
    samples = scrape(metrics, NOTHING)
    assert samples[series("merge_to_applied_seconds_sum", environment="dev")] == 0
    assert samples[series("merge_to_applied_seconds_count", environment="dev")] == 1


@pytest.mark.parametrize("reason", [reason for reason in Reason if not reason.metric_label])
def test_a_reason_that_is_no_failure_is_not_counted(reason: Reason) -> None:
    metrics = declared()
    before = scrape(metrics, NOTHING).keys()
    metrics.failure("dev", "orders", reason)
    samples = scrape(metrics, NOTHING)
    assert samples.keys() - before == set()
    assert (
        sum(value for (name, _), value in samples.items() if name == "reconciler_migration_failures_total")
        == 0
    )


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason.metric_label])
def test_every_failure_falls_under_a_reason_of_the_catalogue(reason: Reason) -> None:
    assert reason.metric_label in REASONS


def test_log_levels_go_by_their_standard_names() -> None:
    metrics = Metrics()
    for level in ("WARN", "warning", "exception", "fatal"):
        metrics.log(level)
    samples = scrape(metrics, NOTHING)
    counts = {
        level: samples[series("log_messages_total", level=level)]
        for level in ("warning", "error", "critical")
    }
    assert counts == {"warning": 2, "error": 1, "critical": 1}


def test_a_forgotten_database_leaves_nothing_behind() -> None:
    metrics = Metrics()
    empty = scrape(metrics, NOTHING).keys()
    metrics.declare("dev", "orders")
    metrics.declare("dev", "users")
    metrics.forget("dev", "orders")
    samples = scrape(metrics, NOTHING)
    assert not of_database(samples, "dev", "orders")
    assert of_database(samples, "dev", "users")
    assert series("reconcile_duration_seconds_count", environment="dev") in samples
    metrics.migration("dev", "users", "some fork", Direction.DOWN, "success", 1.0)
    metrics.forget("dev", "users")
    assert scrape(metrics, NOTHING).keys() == empty
    metrics.forget("dev", "users")
    metrics.forget("never", "declared")


def test_a_step_that_ends_after_its_database_was_released_brings_no_series_back() -> None:
    metrics = Metrics()
    empty = scrape(metrics, NOTHING).keys()
    metrics.declare("dev", "orders")
    metrics.forget("dev", "orders")
    metrics.migration("dev", "orders", "postgresql", Direction.UP, "success", 1.0)
    metrics.failure("dev", "orders", Reason.STATEMENT_FAILED)
    metrics.reconcile("dev", "migrated", 1.0)
    metrics.lock_wait("dev", "advisory", 1.0)
    metrics.merge_to_applied("dev", 1.0)
    assert scrape(metrics, NOTHING).keys() == empty


def test_declaring_again_keeps_the_counts() -> None:
    metrics = declared()
    metrics.reconcile("dev", "in_sync", 0.1)
    metrics.failure("dev", "orders", Reason.CONNECTION_FAILED)
    metrics.declare("dev", "orders")
    metrics.declare("dev", "users")
    samples = scrape(metrics, NOTHING)
    assert samples[series("reconciles_total", environment="dev", result="in_sync")] == 1
    assert (
        samples[series("migration_failures_total", environment="dev", database="orders", reason="connection")]
        == 1
    )


def test_two_daemons_in_one_process_do_not_share_anything() -> None:
    first, second = declared(), declared()
    first.reconcile("dev", "in_sync", 0.1)
    assert scrape(second, NOTHING)[series("reconciles_total", environment="dev", result="in_sync")] == 0


def test_the_build_and_the_process_are_described() -> None:
    names = {name for name, _ in scrape(Metrics(), NOTHING)}
    assert {"process_resident_memory_bytes", "process_cpu_seconds_total", "python_info"} <= names
    builds = [
        dict(labels)
        for name, labels in scrape(Metrics(revision="abc"), NOTHING)
        if name.endswith("build_info")
    ]
    assert [(build["version"], build["revision"]) for build in builds] == [(__version__, "abc")]


def test_no_created_series() -> None:
    assert not [name for name, _ in scrape(declared(), NOTHING) if name.endswith("_created")]


def test_a_database_costs_at_most_45_series() -> None:
    def count(databases: int) -> int:
        metrics = Metrics()
        statuses = [in_sync("dev", f"d{number}") for number in range(databases)]
        for status in statuses:
            metrics.declare("dev", status.database)
        return len(scrape(metrics, daemon(*statuses)))

    assert count(11) - count(1) <= 450


class TestFormats:
    def test_text_by_default(self) -> None:
        body, content_type = Metrics().render("", NOTHING)
        assert content_type.startswith("text/plain; version=0.0.4")
        assert b"# TYPE reconciler_queue_depth gauge" in body

    def test_open_metrics_when_asked_for(self) -> None:
        accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
        body, content_type = declared().render(accept, daemon(in_sync(), failing(), never_reached()))
        assert content_type.startswith("application/openmetrics-text; version=1.0.0")
        parse: Callable[[str], Iterable[Metric]] = openmetrics.text_string_to_metric_families
        families = {family.name for family in parse(body.decode())}
        assert {"reconciler_migrations", "reconciler_database_state"} <= families

    @pytest.mark.parametrize(
        "accept",
        [
            "application/openmetrics-text;version=nonsense",
            "text/plain;version=1.x",
            ",;=,",
            "*/*",
            "ä" * 10_000,
        ],
    )
    def test_a_header_that_makes_no_sense_gets_the_text_format(self, accept: str) -> None:
        _, content_type = Metrics().render(accept, NOTHING)
        assert content_type.startswith("text/plain; version=0.0.4")


def test_scrapes_beside_declarations_see_whole_series() -> None:
    metrics = Metrics()
    stop = threading.Event()
    errors: list[Exception] = []

    def scrape_on() -> None:
        while not stop.is_set():
            try:
                scrape(metrics, NOTHING)
            except Exception as error:  # noqa: BLE001 - handed to the test's own thread
                errors.append(error)

    thread = threading.Thread(target=scrape_on)
    thread.start()
    for number in range(30):
        metrics.declare(f"e{number % 3}", f"d{number}")
        metrics.log("info")
        metrics.forget(f"e{number % 3}", f"d{number - 1}")
    stop.set()
    thread.join()
    assert errors == []


@pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool IS NOT INSTALLED: names and units are not checked (apt-get install prometheus)",
)
def test_promtool_has_nothing_to_object() -> None:
    metrics = declared()
    metrics.migration("dev", "orders", "postgresql", Direction.UP, "success", 2.0)
    body, _ = metrics.render("", daemon(in_sync(), failing(), never_reached()))
    check = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, check=False)
    assert (check.returncode, check.stdout + check.stderr) == (0, b"")

"""Reading a scrape back, as Prometheus does."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from reconciler.metrics import Metrics
from reconciler.model import DaemonStatus

Series = tuple[str, frozenset[tuple[str, str]]]


def scrape(metrics: Metrics, status: DaemonStatus) -> dict[Series, float]:
    """Every sample of a scrape in the text format; fails when a series appears twice."""
    body, _ = metrics.render("", status)
    samples: dict[Series, float] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            series = (sample.name, frozenset(sample.labels.items()))
            assert series not in samples, f"{series} appears twice"
            samples[series] = sample.value
    return samples


def series(name: str, **labels: str) -> Series:
    return f"reconciler_{name}", frozenset(labels.items())


def of_database(samples: dict[Series, float], environment: str, database: str) -> dict[Series, float]:
    """The samples that carry this environment and this database."""
    wanted = {("environment", environment), ("database", database)}
    return {key: value for key, value in samples.items() if wanted <= key[1]}


def of_environment(samples: dict[Series, float], environment: str) -> dict[Series, float]:
    """The samples that carry this environment."""
    return {key: value for key, value in samples.items() if ("environment", environment) in key[1]}

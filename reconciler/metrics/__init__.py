"""What Prometheus is told. The only package that imports prometheus_client; import it where it is used, for it is heavy.

Two kinds of series. The state of each database is computed at every scrape from one `DaemonStatus`, so that it can neither
be stale nor outlive a database that git no longer declares. What happened is counted by `Metrics` as it happens, in series
that exist from the moment a database is declared: a counter born at 1 is invisible to `increase()`.
"""

from reconciler.metrics.instruments import Metrics
from reconciler.metrics.state import state_families

__all__ = ["Metrics", "state_families"]

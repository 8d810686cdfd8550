"""From facts to a status: one state, the conditions, and since when.

A pure function of what is known now, the status before and the time. The status before is asked only for *since when*,
and for what cannot be known while a database is out of reach; what the state is comes from the facts alone.
"""

from reconciler.status.evaluation import evaluate, pending_step
from reconciler.status.facts import Facts
from reconciler.status.states import STATE_OF

__all__ = ["STATE_OF", "Facts", "evaluate", "pending_step"]

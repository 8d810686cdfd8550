"""One coroutine a verb, for the daemon and the one-off commands alike."""

from reconciler.operations.apply import Listener, Outcome, Silent, apply
from reconciler.operations.declaration import Declaration, plan_for
from reconciler.operations.hooking import failed_before

__all__ = ["Declaration", "Listener", "Outcome", "Silent", "apply", "failed_before", "plan_for"]

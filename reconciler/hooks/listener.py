"""What a hook's run tells while it lasts."""

from __future__ import annotations

from typing import Protocol

from reconciler.model import Hook, HookOccasion, HookResult


class HookListener(Protocol):
    """Hears what hooks do. All text is redacted already."""

    def hook_started(self, hook: Hook, occasion: HookOccasion) -> None:
        """A hook is about to run."""

    def hook_output(self, hook: Hook, occasion: HookOccasion, line: str) -> None:
        """A hook has written a line."""

    def hook_finished(self, result: HookResult) -> None:
        """A hook has ended."""

"""Which database each key reaches, to find two keys that reach the same one."""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.daemon.board import Key
from reconciler.model import ServerIdentity


@dataclass(slots=True)
class Identities:
    """Which server and database each key reaches, to find two keys that reach the same one."""

    _by_key: dict[Key, ServerIdentity] = field(default_factory=dict)

    def note(self, key: Key, identity: ServerIdentity) -> list[Key]:
        """Note what `key` reaches. Returns the other keys that reach it too."""
        self._by_key[key] = identity
        return [other for other, known in self._by_key.items() if known == identity and other != key]

    def forget(self, key: Key) -> list[Key]:
        """Forget what `key` reaches. Returns the keys that shared it."""
        identity = self._by_key.pop(key, None)
        return [other for other, known in self._by_key.items() if known == identity]

"""What follows from a repair once it is made, said before anybody says yes to it."""

from __future__ import annotations

from reconciler.model import Migration
from reconciler.operations.declaration import Declaration


def after_marking(
    version: int, migration: Migration | None, declaration: Declaration, declared_by: str, *, has_down: bool
) -> list[str]:
    """What a plan makes of a migration that counts as applied from now on, as notes.

    Args:
        version: of the migration.
        migration: its file; None when that is gone, or nobody knows the files.
        declaration: what git declares.
        declared_by: path of the manifest that declares the target; empty without one.
        has_down: something can take it back: a stored script or the file's.
    """
    lacking = []
    if not has_down:
        lacking = ["no down script is stored" if migration is None else "its file has no DOWN section"]
    gone = migration is None and bool(declaration.catalog.versions)
    declared = f"{declared_by} declares version {declaration.target}"
    if not declared_by or declaration.suspended:
        if gone:
            lacking.insert(0, "its file is gone")
        return [f"{', and '.join(lacking)}: the migration cannot be taken back"] if not has_down else []
    if version <= declaration.target:
        notes = ["its file is gone: every plan is refused until it is back"] if gone else []
        if lacking and migration is None:
            notes.append(f"{lacking[0]}: the migration cannot be taken back")
        return [", and ".join(notes)] if notes else []
    if has_down:
        return [f"{declared}: a running daemon takes it back at once"]
    if gone:
        lacking.append("its file is gone")
    back = "the file is back with a DOWN section" if gone else "the file has one"
    return [
        f"{', and '.join(lacking)}: {declared}, and every plan is refused as Irreversible from now on, until target_version "
        f"is {version} or above, or {back}"
    ]

"""Every key of a manifest: what it is called, what it may hold and what it means.

The reader and the JSON Schema are both made from this; the defaults come from `values.py`.
"""

from __future__ import annotations

from typing import Any

from reconciler.manifest.commands import Command, HookKind
from reconciler.manifest.containers import Key, ListOf, MapOf, OrNull, Record, Shared
from reconciler.manifest.kinds import HIGHEST_VERSION, Boolean, Choice, Duration, Integer, Text
from reconciler.manifest.private_keys import PrivateKeyKind
from reconciler.manifest.references import ReferenceKind
from reconciler.manifest.values import (
    ChangedDownPolicy,
    DatabaseTarget,
    DestructivePolicy,
    DownPolicy,
    DriftPolicy,
    Engine,
    LockKind,
    Manifest,
    OnFailure,
    OutOfOrderPolicy,
    Policy,
    Reference,
    Rollout,
    Timeouts,
)
from reconciler.model import Hook, Hooks

# names become metric labels and parts of URLs
_NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
NAME = Text(
    "a name of 1 to 63 letters, digits, '_', '.' or '-' that begins with a letter or digit", _NAME_PATTERN
)

_IDENTIFIER = Text("an SQL identifier of 1 to 63 bytes, without quotes around it", r"[^\0]+", longest=63)
# our tables in pg_temp would be forgotten with each connection; the others are refused by the server
_SCHEMA = Text(
    "the name of a schema, of 1 to 63 bytes, that is not one of the server's own (pg_..., information_schema, crdb_internal)",
    r"(?!pg_|information_schema$|crdb_internal$)[^\0]+",
    longest=63,
)
_FOLDER = Text(
    "a folder of this repository as a plain relative path, such as migrations or db/migrations (no '..', '\\' or wildcards)",
    # segments joined by single slashes; none is '.' or '..', begins with '-' or ':' or holds \ * ? [ ] or a control character
    r"(?:(?!\.{1,2}(?:/|$))(?![-:])[^/\\*?\[\]\u0000-\u001f\u007f]+(?:/(?=.)|$))+",
    longest=1024,
)
_CHECKSUM = Text(
    "a SHA-256 in 64 hexadecimal digits", "[0-9a-fA-F]{64}", whatever_it_looks_like=True, lower_case=True
)
_VERSION = Integer(1, HIGHEST_VERSION)
_VERSION_PATTERN = "[1-9][0-9]{0,18}"

_CONNECTION: Shared[Reference] = Shared("connection", ReferenceKind(connection=True))
_CERTIFICATE: Shared[Reference] = Shared("certificate", ReferenceKind(connection=False))
_PRIVATE_KEY: Shared[Reference] = Shared("private_key", PrivateKeyKind())
_DATABASE_KEYS: Record[dict[str, Any]] = Record(
    dict,
    DatabaseTarget,
    {
        "dsn": Key(
            _CONNECTION,
            "Where to connect: where a libpq connection string is kept, `embedded`, or a connection string without a "
            "password.",
            required=True,
        ),
        "ca": Key(
            OrNull(_CERTIFICATE),
            "The certificate authority of the server: PEM text or the path of a PEM file.",
        ),
        "client_certificate": Key(
            OrNull(_CERTIFICATE),
            "Our certificate, where the server asks for one: PEM text or the path of a PEM file.",
        ),
        "client_key": Key(
            OrNull(_PRIVATE_KEY),
            "The private key of `client_certificate`: where its PEM text is kept, or the path of a PEM file.",
        ),
        "engine": Key(Choice(Engine), "Which database server is expected; `auto` asks it."),
        "lock": Key(
            Choice(LockKind),
            "`auto`: an advisory lock on PostgreSQL, a lease on CockroachDB and behind a connection pooler. `lease`: a lease everywhere.",
        ),
        "role": Key(OrNull(_IDENTIFIER), "A role to `SET ROLE` to before anything runs."),
        "history_schema": Key(
            _SCHEMA, "The schema in which `schema_migrations` and the tables beside it live."
        ),
    },
)
_DATABASE: Shared[dict[str, Any]] = Shared("database", _DATABASE_KEYS)

_POLICY = Record(
    Policy,
    Policy,
    {
        "down": Key(Choice(DownPolicy), "Whether the database may be brought to a lower version."),
        "max_down_steps": Key(
            Integer(0, HIGHEST_VERSION),
            "The wipe-out guard: a plan that goes down by more migrations than this is refused.",
        ),
        "approve_down_to": Key(
            OrNull(Integer(0, HIGHEST_VERSION)),
            "Lets one plan past `max_down_steps` when it names exactly the target version. Void once that is reached.",
        ),
        "destructive": Key(
            Choice(DestructivePolicy), "Whether ups that drop data may run. Downs are governed by `down`."
        ),
        "out_of_order": Key(
            Choice(OutOfOrderPolicy),
            "What to do when a migration older than the current version appears and is not applied.",
        ),
        "changed_down": Key(
            Choice(ChangedDownPolicy),
            "Which down runs when the file's down differs from the one stored when the migration was applied.",
        ),
        "on_drift": Key(Choice(DriftPolicy), "Whether a schema that was changed by hand blocks a plan."),
        "accept_checksums": Key(
            MapOf(_VERSION, ListOf(_CHECKSUM), _VERSION_PATTERN, may_be_empty=True),
            "Version to list of SHA-256: files that were rewritten on purpose after they were applied.",
        ),
    },
)

_ROLLOUT = Record(
    Rollout,
    Rollout,
    {
        "max_parallel": Key(
            Integer(1, 1000), "How many databases of this environment are worked on at once."
        ),
        "on_failure": Key(Choice(OnFailure), "Whether the failure of one database stops those after it."),
    },
)

_TIMEOUTS = Record(
    Timeouts,
    Timeouts,
    {
        "connect": Key(Duration(), "To open one connection. `0s` means no limit, here and below."),
        "acquire": Key(Duration(), "How long a one-off command waits for the lock."),
        "lock_timeout": Key(Duration(), "The server's `lock_timeout` for each statement."),
        "statement_timeout": Key(Duration(), "The server's `statement_timeout` for each statement."),
    },
)

_HOOK: Shared[Hook] = Shared(
    "hook",
    HookKind(
        Record(
            Hook,
            Hook,
            {
                "command": Key(
                    Command(),
                    "A program, absolute or on the daemon's PATH, and its arguments. No shell reads them.",
                    required=True,
                ),
                "timeout": Key(
                    Duration(), "How long it may take; then it is ended and has failed. `0s` means no limit."
                ),
                "name": Key(OrNull(NAME), "What log and journal call it. Default: the program's name."),
            },
        )
    ),
)
_HOOK_LIST = ListOf(_HOOK, may_be_empty=True)

_HOOKS = Record(
    Hooks,
    Hooks,
    {
        "before": Key(
            _HOOK_LIST, "Run under the lock before the first step of a plan. One that fails stops the plan."
        ),
        "after": Key(_HOOK_LIST, "Run when all steps of a plan are in force."),
        "on_failure": Key(_HOOK_LIST, "Run when a step failed in a way that is not tried again by itself."),
    },
)

ENVIRONMENT = "environment"
DATABASE = "database"
DATABASES = "databases"

MANIFEST: Record[dict[str, Any]] = Record(
    dict,
    Manifest,
    {
        ENVIRONMENT: Key(NAME, "The environment's name. Default: the file's name without its extension."),
        "target_version": Key(
            Integer(0, HIGHEST_VERSION),
            "The version to which every database of this environment is brought, up or down. 0 means nothing applied.",
            required=True,
        ),
        "migrations": Key(_FOLDER, "The folder of the migration files, from the repository's root."),
        DATABASE: Key(_DATABASE, "The short form for one database, which is named like the environment."),
        DATABASES: Key(
            MapOf(NAME, _DATABASE, _NAME_PATTERN),
            "The databases by name, in the order in which they are rolled out.",
        ),
        "suspend": Key(
            Boolean(),
            "Suspended: no secret of this environment is resolved and no connection made to its databases.",
        ),
        "policy": Key(_POLICY, "What may be done to the databases."),
        "rollout": Key(_ROLLOUT, "How the databases of this environment follow each other."),
        "timeouts": Key(_TIMEOUTS, "How long each thing may take: `500ms`, `30s`, `5m`, `1h30m`."),
        "hooks": Key(
            _HOOKS,
            "Commands that are run around the steps of a plan, by a daemon or command started with `--allow-hooks`.",
        ),
    },
)

DEFINITIONS: tuple[Shared[Any], ...] = (_DATABASE, _CONNECTION, _CERTIFICATE, _PRIVATE_KEY, _HOOK)
"""What the schema defines once and refers to."""

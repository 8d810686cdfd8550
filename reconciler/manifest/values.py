"""What a manifest says, as values. Defaults live here and nowhere else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, field
from enum import StrEnum

from reconciler.model import Hooks
from reconciler.model.value import value


class Engine(StrEnum):
    """Which database server is expected."""

    AUTO = "auto"
    POSTGRESQL = "postgresql"
    COCKROACHDB = "cockroachdb"


class LockKind(StrEnum):
    """What makes one writer of many."""

    AUTO = "auto"
    LEASE = "lease"


class DownPolicy(StrEnum):
    """Whether the database may be brought to a lower version."""

    ALLOW = "allow"
    DENY = "deny"


class DestructivePolicy(StrEnum):
    """Whether ups that drop data may run."""

    ALLOW = "allow"
    DENY = "deny"


class OutOfOrderPolicy(StrEnum):
    """What to do with a migration older than the current version that is not applied."""

    REFUSE = "refuse"
    APPLY = "apply"


class ChangedDownPolicy(StrEnum):
    """Which down runs when the file's down differs from the stored one."""

    STORED = "stored"
    CHECKOUT = "checkout"


class DriftPolicy(StrEnum):
    """What a schema changed by hand does to a plan."""

    REPORT = "report"
    BLOCK = "block"


class OnFailure(StrEnum):
    """What the failure of one database means for the others of its environment."""

    STOP = "stop"
    CONTINUE = "continue"


@value
class EnvironmentReference:
    """A secret in an environment variable of the daemon: `{env: NAME}`."""

    name: str

    def __str__(self) -> str:
        return f"{{env: {self.name}}}"


@value
class FileReference:
    """A secret in a file of the daemon's machine: `{file: PATH}`."""

    path: str

    def __str__(self) -> str:
        return f"{{file: {self.path}}}"


@value
class GcpSecretReference:
    """A secret in Google Secret Manager: `{gcp_secret: projects/PROJECT/secrets/SECRET/versions/VERSION}`."""

    name: str

    def __str__(self) -> str:
        return f"{{gcp_secret: {self.name}}}"


@value
class CommandReference:
    """A secret that a program writes to its standard output: `{command: [PROGRAM, ARGUMENT, ...]}`. No shell reads it."""

    command: tuple[str, ...]

    def __str__(self) -> str:
        return f"{{command: {json.dumps(self.command, ensure_ascii=False)}}}"


@value
class Literal:
    """A value written in the manifest itself; never with a password."""

    value: str

    def __str__(self) -> str:
        return self.value


@value
class Embedded:
    """The PostgreSQL the daemon runs itself, for development: `dsn: embedded`."""

    def __str__(self) -> str:
        return "embedded"


SecretReference = EnvironmentReference | FileReference | GcpSecretReference | CommandReference
"""Where a secret is."""
Reference = SecretReference | Literal | Embedded


@value(kw_only=True)
class DatabaseTarget:
    """One database of an environment.

    Args:
        name: unique within the environment.
        dsn: where to connect: a libpq URI or key=value string, by reference.
        ca: PEM text or path of the certificate authority, or None for the driver's own choice.
        client_certificate: PEM text or path of the certificate to show to the server, or None for the driver's own choice.
        client_key: PEM text or path of its private key, or None for the driver's own choice.
        engine: which server is expected.
        lock: an advisory lock where the server has them and is reached directly, or a lease everywhere.
        role: `SET ROLE` to this before anything runs, or None.
        history_schema: where our tables live.
    """

    name: str
    dsn: Reference
    ca: Reference | None = None
    client_certificate: Reference | None = None
    client_key: Reference | None = None
    engine: Engine = Engine.AUTO
    lock: LockKind = LockKind.AUTO
    role: str | None = None
    history_schema: str = "public"


@value(kw_only=True)
class Policy:
    """What the reconciler may do to an environment's databases. See the README for each field."""

    down: DownPolicy = DownPolicy.ALLOW
    max_down_steps: int = 5
    approve_down_to: int | None = None
    destructive: DestructivePolicy = DestructivePolicy.ALLOW
    out_of_order: OutOfOrderPolicy = OutOfOrderPolicy.REFUSE
    changed_down: ChangedDownPolicy = ChangedDownPolicy.STORED
    on_drift: DriftPolicy = DriftPolicy.REPORT
    accept_checksums: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


@value(kw_only=True)
class Rollout:
    """How the databases of one environment follow each other."""

    max_parallel: int = 1
    on_failure: OnFailure = OnFailure.STOP


@value(kw_only=True)
class Timeouts:
    """All in seconds; 0 means no limit.

    Args:
        connect: to open one connection.
        acquire: a one-off command waits this long for the lock; the daemon waits without occupying a worker.
        lock_timeout: the server's `lock_timeout` for each statement.
        statement_timeout: the server's `statement_timeout` for each statement.
    """

    connect: float = 30.0
    acquire: float = 300.0
    lock_timeout: float = 2.0
    statement_timeout: float = 0.0


@value(kw_only=True)
class Manifest:
    """One environment as git declares it.

    Args:
        environment: its name.
        path: the manifest file, from the repository's root.
        target_version: every database is brought to it; 0 means nothing applied.
        migrations: folder of the migration files, from the repository's root.
        databases: in the order of the file, which is the order of a rollout.
        suspend: True = no secret is resolved and no connection made.
        hooks: commands to run around the steps of a plan.
    """

    environment: str
    path: str
    target_version: int
    migrations: str = "migrations"
    databases: tuple[DatabaseTarget, ...]
    suspend: bool = False
    policy: Policy = Policy()
    rollout: Rollout = Rollout()
    timeouts: Timeouts = Timeouts()
    hooks: Hooks = Hooks()

    @property
    def policy_digest(self) -> str:
        """SHA-256 hex over everything that may change whether or how a step runs: policy and timeouts."""
        content = json.dumps([asdict(self.policy), asdict(self.timeouts)], sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()

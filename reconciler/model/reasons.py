"""Every reason the program gives for a state, each with its condition, error class and metric label.

The names follow Flux's vocabulary where Flux has one. A reason is public: it appears in the status, the journal, the
logs and (through its metric label) in Prometheus, so it is extended and never renamed.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Condition(StrEnum):
    """The conditions of a database's status, in the manner of Kubernetes' kstatus."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    DRIFTED = "Drifted"
    SOURCE_READY = "SourceReady"
    SUSPENDED = "Suspended"


class ErrorClass(StrEnum):
    """What a failure asks of the reconciler."""

    NONE = "none"
    """Not a failure."""
    PERMANENT = "permanent"
    """Stalls until git, the policy or a person changes something."""
    TEMPORARY = "temporary"
    """Tried again after a growing delay, without limit."""
    AMBIGUOUS = "ambiguous"
    """Nobody knows whether it happened: settled by reading before anything runs again."""


class Reason(StrEnum):
    """Why a database, an environment or the source is in the state it is in."""

    # in order
    APPLIED = "Applied"
    UP_TO_DATE = "UpToDate"
    PROGRESSING = "Progressing"
    PENDING = "Pending"
    SUSPENDED = "Suspended"
    # source
    FETCH_FAILED = "FetchFailed"
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    BRANCH_NOT_FOUND = "BranchNotFound"
    REPOSITORY_EMPTY = "RepositoryEmpty"
    MANIFEST_NOT_FOUND = "ManifestNotFound"
    MANIFEST_INVALID = "ManifestInvalid"
    # plan
    MIGRATION_INVALID = "MigrationInvalid"
    MIGRATION_FILE_MISSING = "MigrationFileMissing"
    CHECKSUM_MISMATCH = "ChecksumMismatch"
    HISTORY_REWRITTEN = "HistoryRewritten"
    TARGET_UNKNOWN = "TargetUnknown"
    OUT_OF_ORDER = "OutOfOrder"
    IRREVERSIBLE = "Irreversible"
    DOWN_DENIED = "DownDenied"
    MAX_DOWN_STEPS_EXCEEDED = "MaxDownStepsExceeded"
    DESTRUCTIVE_CHANGE = "DestructiveChange"
    CLAIMED_BY_OTHER = "ClaimedByOther"
    DUPLICATE_DATABASE = "DuplicateDatabase"
    FOREIGN_HISTORY = "ForeignHistory"
    ROLLOUT_STOPPED = "RolloutStopped"
    VERSION_NOT_DECLARED = "VersionNotDeclared"
    REPAIR_REFUSED = "RepairRefused"
    ENGINE_MISMATCH = "EngineMismatch"
    HOOKS_NOT_ALLOWED = "HooksNotAllowed"
    SECRET_NOT_ALLOWED = "SecretNotAllowed"
    # run
    SECRET_UNAVAILABLE = "SecretUnavailable"
    CONNECTION_FAILED = "ConnectionFailed"
    TLS_FAILED = "TlsFailed"
    PERMISSION_DENIED = "PermissionDenied"
    READ_ONLY = "ReadOnly"
    LOCK_HELD = "LockHeld"
    LOCK_LOST = "LockLost"
    LOCK_TIMEOUT = "LockTimeout"
    HOOK_FAILED = "HookFailed"
    STATEMENT_FAILED = "StatementFailed"
    STATEMENT_TIMEOUT = "StatementTimeout"
    SERIALIZATION_FAILURE = "SerializationFailure"
    DEADLOCK = "Deadlock"
    RESOURCE_EXHAUSTED = "ResourceExhausted"
    OUTCOME_UNKNOWN = "OutcomeUnknown"
    DOWN_FAILED = "DownFailed"
    INTERRUPTED = "Interrupted"
    INTERNAL_ERROR = "InternalError"
    # drift
    NO_DRIFT_DETECTED = "NoDriftDetected"
    DRIFT_DETECTED = "DriftDetected"
    DATABASE_AHEAD = "DatabaseAhead"
    DATABASE_BEHIND = "DatabaseBehind"

    @property
    def condition(self) -> Condition:
        """The condition that carries this reason."""
        return _TRAITS[self].condition

    @property
    def error_class(self) -> ErrorClass:
        """What this reason asks of the reconciler."""
        return _TRAITS[self].error_class

    @property
    def metric_label(self) -> str:
        """The value of the `reason` label of `reconciler_migration_failures_total`; empty when it is no failure."""
        return _TRAITS[self].metric_label

    @property
    def is_refusal(self) -> bool:
        """True when nothing broke: by a rule, or because it is not its turn, nothing was begun."""
        return self in _REFUSALS


class _Traits(NamedTuple):
    condition: Condition
    error_class: ErrorClass
    metric_label: str


_READY = _Traits(Condition.READY, ErrorClass.NONE, "")
_RECONCILING = _Traits(Condition.RECONCILING, ErrorClass.NONE, "")
_DRIFT = _Traits(Condition.DRIFTED, ErrorClass.NONE, "")
_SOURCE = _Traits(Condition.SOURCE_READY, ErrorClass.TEMPORARY, "")


def _stalled(metric_label: str) -> _Traits:
    return _Traits(Condition.STALLED, ErrorClass.PERMANENT, metric_label)


def _retrying(metric_label: str) -> _Traits:
    return _Traits(Condition.RECONCILING, ErrorClass.TEMPORARY, metric_label)


_TRAITS: dict[Reason, _Traits] = {
    Reason.APPLIED: _READY,
    Reason.UP_TO_DATE: _READY,
    Reason.PROGRESSING: _RECONCILING,
    Reason.PENDING: _RECONCILING,
    Reason.SUSPENDED: _Traits(Condition.SUSPENDED, ErrorClass.NONE, ""),
    Reason.FETCH_FAILED: _SOURCE,
    Reason.AUTHENTICATION_FAILED: _SOURCE,
    Reason.BRANCH_NOT_FOUND: _SOURCE,
    Reason.REPOSITORY_EMPTY: _SOURCE,
    Reason.MANIFEST_NOT_FOUND: _stalled(""),
    Reason.MANIFEST_INVALID: _stalled(""),
    Reason.MIGRATION_INVALID: _stalled("verification"),
    Reason.MIGRATION_FILE_MISSING: _stalled("verification"),
    Reason.CHECKSUM_MISMATCH: _stalled("checksum_mismatch"),
    Reason.HISTORY_REWRITTEN: _stalled("checksum_mismatch"),
    Reason.TARGET_UNKNOWN: _stalled("verification"),
    Reason.OUT_OF_ORDER: _stalled("verification"),
    Reason.IRREVERSIBLE: _stalled("irreversible"),
    Reason.DOWN_DENIED: _stalled("verification"),
    Reason.MAX_DOWN_STEPS_EXCEEDED: _stalled("verification"),
    Reason.DESTRUCTIVE_CHANGE: _stalled("verification"),
    Reason.CLAIMED_BY_OTHER: _stalled("verification"),
    Reason.DUPLICATE_DATABASE: _stalled("verification"),
    Reason.FOREIGN_HISTORY: _stalled("verification"),
    Reason.ROLLOUT_STOPPED: _stalled(""),
    Reason.VERSION_NOT_DECLARED: _stalled(""),
    Reason.REPAIR_REFUSED: _stalled(""),
    Reason.ENGINE_MISMATCH: _stalled(""),
    Reason.HOOKS_NOT_ALLOWED: _stalled("verification"),
    Reason.SECRET_NOT_ALLOWED: _stalled("verification"),
    Reason.SECRET_UNAVAILABLE: _retrying("connection"),
    Reason.CONNECTION_FAILED: _retrying("connection"),
    # certificates are renewed while we wait
    Reason.TLS_FAILED: _retrying("connection"),
    Reason.PERMISSION_DENIED: _retrying("permission"),
    Reason.READ_ONLY: _retrying("connection"),
    Reason.LOCK_HELD: _retrying(""),
    Reason.LOCK_LOST: _retrying("connection"),
    Reason.LOCK_TIMEOUT: _stalled("lock_timeout"),
    # a disk that was full for a backup has room again: as other temporary failures, and nothing was begun
    Reason.HOOK_FAILED: _retrying("verification"),
    Reason.STATEMENT_FAILED: _stalled("sql_error"),
    Reason.STATEMENT_TIMEOUT: _stalled("statement_timeout"),
    Reason.SERIALIZATION_FAILURE: _retrying("retry_exhausted"),
    Reason.DEADLOCK: _retrying("retry_exhausted"),
    Reason.RESOURCE_EXHAUSTED: _retrying("retry_exhausted"),
    Reason.OUTCOME_UNKNOWN: _Traits(Condition.STALLED, ErrorClass.AMBIGUOUS, "internal"),
    Reason.DOWN_FAILED: _stalled("sql_error"),
    Reason.INTERRUPTED: _retrying("connection"),
    Reason.INTERNAL_ERROR: _retrying("internal"),
    Reason.NO_DRIFT_DETECTED: _DRIFT,
    Reason.DRIFT_DETECTED: _DRIFT,
    Reason.DATABASE_AHEAD: _DRIFT,
    Reason.DATABASE_BEHIND: _DRIFT,
}

_REFUSALS = frozenset(
    {
        # not its turn
        Reason.PENDING,
        Reason.SUSPENDED,
        Reason.LOCK_HELD,
        Reason.ROLLOUT_STOPPED,
        # against a rule
        Reason.MIGRATION_INVALID,
        Reason.MIGRATION_FILE_MISSING,
        Reason.CHECKSUM_MISMATCH,
        Reason.HISTORY_REWRITTEN,
        Reason.TARGET_UNKNOWN,
        Reason.OUT_OF_ORDER,
        Reason.IRREVERSIBLE,
        Reason.DOWN_DENIED,
        Reason.MAX_DOWN_STEPS_EXCEEDED,
        Reason.DESTRUCTIVE_CHANGE,
        Reason.CLAIMED_BY_OTHER,
        Reason.DUPLICATE_DATABASE,
        Reason.FOREIGN_HISTORY,
        Reason.VERSION_NOT_DECLARED,
        Reason.REPAIR_REFUSED,
        Reason.HOOKS_NOT_ALLOWED,
        Reason.SECRET_NOT_ALLOWED,
    }
)

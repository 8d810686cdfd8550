"""What a daemon is started with."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path

from reconciler.credentials import SecretRules
from reconciler.model.value import value
from reconciler.source import GitCredentials


@value(kw_only=True)
class DaemonOptions:
    """The options of `reconciler run`.

    Args:
        repository: URL or path; None for the repository that contains the working directory.
        branch: short name; None for the one checked out at start.
        working_tree: follow uncommitted files, for development.
        interval: seconds between two looks at a remote repository.
        resync: seconds between two passes over a database that nothing has happened to, 10 % more or less.
        listen: `host:port` of the HTTP server; port 0 takes a free one.
        workers: how many databases are worked on at a time.
        grace: seconds a running transaction has to end when the daemon is asked to stop.
        environments: only these; empty for all.
        max_connections: how many connections are kept open between passes.
        state_folder: where the mirror and the embedded server keep their data; None for `.reconciler/` in the repository.
        credentials: for the repository.
        secret_rules: which references a manifest may use.
        allow_hooks: run the commands of manifests: whoever set this trusts who can commit.
        show_queries: show the text of the queries that block a step, in log and status.
        verbosity: 0 for events, 1 for detail.
        log_json: log JSON lines; None = unless the log goes to a terminal.
    """

    repository: str | None = None
    branch: str | None = None
    working_tree: bool = False
    interval: float = 30.0
    resync: float = 60.0
    listen: str = "127.0.0.1:9840"
    workers: int = 8
    grace: float = 25.0
    environments: tuple[str, ...] = ()
    max_connections: int = 50
    state_folder: Path | None = None
    credentials: GitCredentials = field(default_factory=GitCredentials)
    secret_rules: SecretRules = SecretRules()
    allow_hooks: bool = False
    show_queries: bool = False
    verbosity: int = 0
    log_json: bool | None = None

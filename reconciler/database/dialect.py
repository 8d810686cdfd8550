"""The kinds of servers we speak to, and what each can do."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.model import COCKROACHDB, POSTGRESQL
from reconciler.model.value import value


@value(kw_only=True)
class Dialect:
    """One kind of server.

    Args:
        name: `postgresql` or `cockroachdb`: of the file of SQL, and what observations call the engine.
        transactional_ddl: a transaction can hold changes of the schema, and rolls them back. Where not, each is a job of its
            own, which goes on when its client is gone.
        progress_views: the server tells how far the statements of a process have come; where not, its jobs tell.
        advisory_locks: the server has locks that live as long as the session.
        settings: what a session of ours is given, by name.
        settings_since: more of them, from a version of the server on, as libpq counts it.
        own_scope: what our own statements begin with, so that nothing of other people's runs in them.
        opening: what a transaction of our own begins with, before the role is put on.
        resets_alone: what makes a session as good as new must be sent by itself, and roles are put on for the whole session.
    """

    name: str
    transactional_ddl: bool
    advisory_locks: bool
    progress_views: bool
    settings: Mapping[str, str]
    settings_since: Mapping[int, Mapping[str, str]]
    own_scope: tuple[str, ...]
    opening: tuple[str, ...]
    resets_alone: bool


_SETTINGS = {
    # the meaning of our own literals must not depend on what a role's defaults say
    "standard_conforming_strings": "on",
    # the limits are those of our own statements: each step sets its own
    "statement_timeout": "60s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "0",
}

POSTGRESQL_DIALECT = Dialect(
    name=POSTGRESQL,
    transactional_ddl=True,
    advisory_locks=True,
    progress_views=True,
    settings=_SETTINGS,
    settings_since={140000: {"idle_session_timeout": "0"}, 170000: {"transaction_timeout": "0"}},
    own_scope=(
        # operators and functions of other people's schemas must not run in our statements, and no row be hidden from us
        "SET LOCAL search_path = pg_catalog",
        "SET LOCAL row_security = off",
    ),
    opening=("BEGIN", "SET TRANSACTION READ WRITE", "SET LOCAL SESSION AUTHORIZATION DEFAULT"),
    resets_alone=False,
)

COCKROACHDB_DIALECT = Dialect(
    name=COCKROACHDB,
    transactional_ddl=False,
    advisory_locks=False,
    progress_views=False,
    settings={
        **_SETTINGS,
        "idle_in_session_timeout": "0",
        # what the same SQL means must not depend on what a role's or the cluster's defaults say
        "default_int_size": "8",
        "serial_normalization": "rowid",
    },
    settings_since={},
    own_scope=(),
    opening=("BEGIN",),
    resets_alone=True,
)

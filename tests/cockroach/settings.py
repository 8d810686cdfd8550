"""Session settings: CockroachDB's own, those it shares with PostgreSQL, and where the former live in PostgreSQL.

A setting that only CockroachDB has is kept in PostgreSQL as `simulated.NAME`, so that transactions, SET LOCAL and RESET treat
it as any other.
"""

from __future__ import annotations

import shlex

OWN = {
    "allow_unsafe_internals": "off",
    "autocommit_before_ddl": "on",
    "create_table_with_schema_locked": "on",
    "default_int_size": "8",
    "enable_durable_locking_for_serializable": "off",
    "enable_implicit_transaction_for_batch_statements": "on",
    "enable_shared_locking_for_serializable": "off",
    "experimental_enable_temp_tables": "off",
    "idle_in_session_timeout": "0",
    "inject_retry_errors_enabled": "off",
    "serial_normalization": "rowid",
    "sql_safe_updates": "off",
    "use_declarative_schema_changer": "on",
}
"""Settings that PostgreSQL does not have, and their defaults for drivers."""
SHARED = frozenset(
    {
        "application_name",
        "bytea_output",
        "check_function_bodies",
        "client_encoding",
        "client_min_messages",
        "datestyle",
        "default_tablespace",
        "default_text_search_config",
        "default_transaction_isolation",
        "default_transaction_read_only",
        "escape_string_warning",
        "extra_float_digits",
        "idle_in_transaction_session_timeout",
        "intervalstyle",
        "lock_timeout",
        "names",
        "role",
        "row_security",
        "schema",
        "search_path",
        "standard_conforming_strings",
        "statement_timeout",
        "synchronous_commit",
        "timezone",
        "transaction_isolation",
        "transaction_read_only",
        "transaction_timeout",
        "xmloption",
    }
)
"""Settings that both have. What stands in neither list is refused."""
READ_ONLY = frozenset(
    {"crdb_version", "max_identifier_length", "server_version", "server_version_num", "session_id"}
)
OFF = frozenset({"off", "false", "0", "no"})


def kept_as(name: str) -> str:
    """The name under which PostgreSQL keeps one of CockroachDB's own settings."""
    return f"simulated.{name}"


def known(name: str) -> bool:
    """Whether CockroachDB has a setting of that name."""
    return name in OWN or name in SHARED


def startup_options(options: str, defaults: dict[str, str]) -> tuple[str, str]:
    """The `options` of a client's first message, for PostgreSQL, and the first setting in it that CockroachDB lacks.

    Args:
        options: as libpq sends them: `-c name=value` and `--name=value`.
        defaults: CockroachDB's own settings and their values where `options` say nothing.
    """
    own = dict(defaults)
    theirs = {"default_transaction_isolation": "serializable"}
    words = iter(shlex.split(options))
    unknown = ""
    for word in words:
        pair = next(words, "") if word == "-c" else word.removeprefix("-c").removeprefix("--")
        name, _, text = pair.partition("=")
        name = name.lower().replace("-", "_")
        if name in OWN:
            own[name] = text
        elif name in SHARED:
            theirs[name] = text
        else:
            unknown = unknown or name
    merged = theirs | {kept_as(name): text for name, text in own.items()}
    escaped = {name: text.replace("\\", "\\\\").replace(" ", "\\ ") for name, text in merged.items()}
    return " ".join(f"-c {name}={text}" for name, text in escaped.items()), unknown


def shown(name: str, answers: dict[str, str]) -> str:
    """A query that does what `SHOW name` does.

    Args:
        name: of the setting.
        answers: values of what only CockroachDB knows.
    """
    column = '"' + name + '"'
    if name in answers:
        return f"SELECT '{answers[name]}' AS {column}"
    if name not in OWN:
        return f"SHOW {name}"
    value = f"current_setting('{kept_as(name)}')"
    if OWN[name] in ("on", "off"):
        value = f"CASE WHEN lower({value}) IN ('off', 'false', '0', 'no') THEN 'off' ELSE 'on' END"
    return f"SELECT {value} AS {column}"

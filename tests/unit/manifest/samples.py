"""Manifests that the reader and the schema must judge alike."""

from __future__ import annotations

SMALLEST = """\
target_version: 3
database: {dsn: {env: DSN}}
"""

COMPLETE = """\
environment: production
target_version: 42
migrations: db/migrations
databases:
  orders:
    dsn: {env: ORDERS_DSN}
    ca: {env: ORDERS_CA}
    engine: postgresql
    role: Migrator Role
    history_schema: public
  billing:
    dsn: {file: /run/secrets/billing}
    ca: null
    role: null
  local:
    dsn: embedded
  plain:
    dsn: postgresql://app@db.example:5432/plain?sslmode=verify-full
    ca: /etc/ssl/ca.pem
  managed:
    dsn: {gcp_secret: projects/acme-1/secrets/orders_dsn/versions/latest}
    ca: {gcp_secret: projects/example.com:acme/locations/europe-west3/secrets/ca/versions/7}
  told:
    dsn: {command: [vault, kv, get, -field=dsn, secret/orders]}
  pairs:
    dsn: host=db dbname=x application_name='a b'
suspend: true
policy:
  down: deny
  max_down_steps: 2
  approve_down_to: 40
  destructive: deny
  out_of_order: apply
  changed_down: checkout
  on_drift: block
  accept_checksums:
    7:
      - 0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef
rollout: {max_parallel: 2, on_failure: continue}
timeouts: {connect: 10s, acquire: 1h30m, lock_timeout: 500ms, statement_timeout: 0s}
hooks:
  before:
    - name: backup
      command: [/usr/local/bin/backup, "--jobs", "4"]
      timeout: 2h
  after:
    - [notify, done]
  on_failure:
    - command: [notify, failed]
      timeout: 0s
      name: null
"""

ACCEPTED = {
    "smallest": SMALLEST,
    "complete": COMPLETE,
    "nothing applied": "target_version: 0\ndatabase: {dsn: embedded}\n",
    "highest version": "target_version: 9223372036854775807\ndatabase: {dsn: embedded}\n",
    "nulls": "target_version: 1\ndatabase: {dsn: embedded, role: null, ca: ~}\npolicy: {approve_down_to: }\n",
    "quoted name": "target_version: 1\nenvironment: 'no'\ndatabase: {dsn: embedded}\n",
    "no hooks": "target_version: 1\ndatabase: {dsn: embedded}\nhooks: {before: [], after: []}\n",
    "a shell's script": "target_version: 1\ndatabase: {dsn: embedded}\nhooks: {before: [[sh, -c, 'a && b']]}\n",
    "no checksums": "target_version: 1\ndatabase: {dsn: embedded}\npolicy: {accept_checksums: {}}\n",
}

_GOOD = "target_version: 1\ndatabase: {dsn: embedded}\n"

REFUSED = {
    "no target": "database: {dsn: embedded}\n",
    "no database": "target_version: 1\n",
    "both forms": "target_version: 1\ndatabase: {dsn: embedded}\ndatabases: {a: {dsn: embedded}}\n",
    "no databases": "target_version: 1\ndatabases: {}\n",
    "null target": "target_version:\ndatabase: {dsn: embedded}\n",
    "negative target": "target_version: -1\ndatabase: {dsn: embedded}\n",
    "target beyond 63 bits": "target_version: 9223372036854775808\ndatabase: {dsn: embedded}\n",
    "quoted target": "target_version: '1'\ndatabase: {dsn: embedded}\n",
    "fraction": "target_version: 1.5\ndatabase: {dsn: embedded}\n",
    "boolean target": "target_version: true\ndatabase: {dsn: embedded}\n",
    "list target": "target_version: [1]\ndatabase: {dsn: embedded}\n",
    "not a mapping": "- target_version: 1\n",
    "unknown key": _GOOD + "taget: 1\n",
    "bare duration": _GOOD + "timeouts: {connect: 30}\n",
    "wrong duration": _GOOD + "timeouts: {connect: 30 seconds}\n",
    "empty duration": _GOOD + "timeouts: {connect: ''}\n",
    "null hooks": _GOOD + "hooks:\n",
    "hooks as a list": _GOOD + "hooks: [[pg_dump]]\n",
    "unknown moment": _GOOD + "hooks: {during: [[pg_dump]]}\n",
    "a hook as a text": _GOOD + "hooks: {before: [pg_dump --file x]}\n",
    "one command instead of a list of them": _GOOD + "hooks: {before: {command: [pg_dump]}}\n",
    "empty command": _GOOD + "hooks: {before: [[]]}\n",
    "no program": _GOOD + "hooks: {before: [['', x]]}\n",
    "relative program": _GOOD + "hooks: {before: [[./backup.sh]]}\n",
    "a folder as program": _GOOD + "hooks: {before: [[/usr/bin/]]}\n",
    "a number as argument": _GOOD + "hooks: {before: [[sleep, 5]]}\n",
    "hook without command": _GOOD + "hooks: {before: [{timeout: 5m}]}\n",
    "hook with a command as a text": _GOOD + "hooks: {before: [{command: pg_dump}]}\n",
    "hook with bad timeout": _GOOD + "hooks: {before: [{command: [a], timeout: 5}]}\n",
    "hook with bad name": _GOOD + "hooks: {before: [{command: [a], name: 'a b'}]}\n",
    "hook with unknown key": _GOOD + "hooks: {before: [{command: [a], env: {}}]}\n",
    "unknown timeout": _GOOD + "timeouts: {read: 30s}\n",
    "null policy": _GOOD + "policy:\n",
    "unknown choice": _GOOD + "policy: {down: perhaps}\n",
    "negative steps": _GOOD + "policy: {max_down_steps: -1}\n",
    "no parallel": _GOOD + "rollout: {max_parallel: 0}\n",
    "short checksum": _GOOD + "policy: {accept_checksums: {1: [abc]}}\n",
    "checksum without list": _GOOD + f"policy: {{accept_checksums: {{1: {'a' * 64}}}}}\n",
    "empty checksums": _GOOD + "policy: {accept_checksums: {1: []}}\n",
    "checksum of version 0": _GOOD + f"policy: {{accept_checksums: {{0: [{'a' * 64}]}}}}\n",
    "text suspend": _GOOD + "suspend: 'true'\n",
    "bad environment": _GOOD + "environment: a/b\n",
    "long environment": _GOOD + f"environment: {'a' * 64}\n",
    "bad database name": "target_version: 1\ndatabases: {a b: {dsn: embedded}}\n",
    "database without dsn": "target_version: 1\ndatabase: {role: x}\n",
    "null dsn": "target_version: 1\ndatabase: {dsn: }\n",
    "list dsn": "target_version: 1\ndatabase: {dsn: [a]}\n",
    "dsn with a password": "target_version: 1\ndatabase: {dsn: 'postgres://u:hunter2@h/d'}\n",
    "dsn with a password key": "target_version: 1\ndatabase: {dsn: host=h password=hunter2}\n",
    "dsn with a password in the query": "target_version: 1\ndatabase: {dsn: 'postgres://h/d?password=hunter2'}\n",
    "dsn of another product": "target_version: 1\ndatabase: {dsn: 'mysql://h/d'}\n",
    "dsn that is a word": "target_version: 1\ndatabase: {dsn: ORDERS_DSN}\n",
    "unknown source": "target_version: 1\ndatabase: {dsn: {vault: x}}\n",
    "two sources": "target_version: 1\ndatabase: {dsn: {env: A, file: b}}\n",
    "no source": "target_version: 1\ndatabase: {dsn: {}}\n",
    "secret without version": "target_version: 1\ndatabase: {dsn: {gcp_secret: projects/p/secrets/s}}\n",
    "secret by its short name": "target_version: 1\ndatabase: {dsn: {gcp_secret: s}}\n",
    "secret out of its folder": "target_version: 1\ndatabase: {dsn: {gcp_secret: projects/p/secrets/../versions/1}}\n",
    "secret with more behind it": "target_version: 1\ndatabase: {dsn: {gcp_secret: projects/p/secrets/s/versions/1/x}}\n",
    "secret's command as a text": "target_version: 1\ndatabase: {dsn: {command: vault read x}}\n",
    "secret's command empty": "target_version: 1\ndatabase: {dsn: {command: []}}\n",
    "secret's command relative": "target_version: 1\ndatabase: {dsn: {command: [./secret]}}\n",
    "bad variable": "target_version: 1\ndatabase: {dsn: {env: A-B}}\n",
    "empty file path": "target_version: 1\ndatabase: {dsn: {file: ''}}\n",
    "unknown engine": "target_version: 1\ndatabase: {dsn: embedded, engine: mysql}\n",
    "temporary history": "target_version: 1\ndatabase: {dsn: embedded, history_schema: pg_temp}\n",
    "long role": f"target_version: 1\ndatabase: {{dsn: embedded, role: {'r' * 64}}}\n",
    "empty role": "target_version: 1\ndatabase: {dsn: embedded, role: ''}\n",
    **{
        f"folder {folder}": _GOOD + f"migrations: '{folder}'\n"
        for folder in (
            "",
            "/a",
            "..",
            "a/..",
            "../a",
            "a/../b",
            ".",
            "./a",
            "a/./b",
            "a//b",
            "a/",
            "a\\b",
            "a/*",
            "a?",
            "a[b]",
            ":a",
            "-a",
        )
    },
}

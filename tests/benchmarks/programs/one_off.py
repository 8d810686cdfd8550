"""The floor for one-off commands: import what they need, run two git commands, connect, read the history.

Argument: a DSN. The working directory is the repository.
"""

import subprocess
import sys

import click
import psycopg
import yaml

revision = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, check=True).stdout
subprocess.run(["git", "ls-tree", "-r", revision.decode().strip()], capture_output=True, check=True)
yaml.safe_load("target_version: 1")
with psycopg.connect(sys.argv[1]) as connection:
    rows = connection.execute("SELECT version, name, checksum, status FROM schema_migrations").fetchall()
click.echo(f"{len(rows)} migrations")

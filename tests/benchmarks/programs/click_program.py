"""The floor for `--help`: a click program with the same verbs, and nothing behind them."""

import click


@click.group()
@click.version_option("0", message="program %(version)s")
def program() -> None:
    """Bring PostgreSQL databases to the schema version that git declares, up or down."""


for name, text in {
    "run": "Run the daemon: keep every database at the version git declares.",
    "status": "Show where every database stands.",
    "plan": "Show what it takes to reach the declared version; change nothing.",
    "up": "Apply migrations, to the declared version.",
    "down": "Take migrations back, to a lower version.",
    "create": "Write a new, empty migration file.",
    "validate": "Check manifests and migration files.",
    "history": "Show what was applied to a database, and every attempt.",
    "wait": "Wait until databases have reached a version.",
    "retry": "Ask for another attempt at what failed for good.",
}.items():
    program.command(name, help=text)(lambda: None)

program()

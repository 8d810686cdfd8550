"""Bring PostgreSQL and CockroachDB schemas to the version that git declares, up or down."""

__version__ = "0.1.0"

"""From references to secrets. Every secret is told to the redactor before anybody else gets to see it."""

from reconciler.credentials.resolving import Credentials
from reconciler.credentials.rules import SecretRules
from reconciler.credentials.variables import EnvironmentTarget, dsn_from_environment, max_connections

__all__ = ["Credentials", "EnvironmentTarget", "SecretRules", "dsn_from_environment", "max_connections"]

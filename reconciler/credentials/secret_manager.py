"""Google Secret Manager. The client library is an extra, and imported when the first secret is asked for."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reconciler.credentials.content import unavailable, unreachable
from reconciler.credentials.crc32c import crc32c
from reconciler.manifest import GcpSecretReference
from reconciler.model import ProblemError

if TYPE_CHECKING:
    from google.cloud.secretmanager_v1 import SecretManagerServiceAsyncClient

ENDPOINT_VARIABLE = "RECONCILER_GCP_ENDPOINT"
"""Another endpoint than Google's: HOST[:PORT], or http://HOST:PORT for an emulator, without encryption and credentials."""
_SHOWN = 300
_LIBRARY = "google.cloud.secretmanager_v1"
_DENIED_BY_ISSUER = (
    "invalid_grant",
    "invalid_client",
    "unauthorized_client",
    "access_denied",
    "account_not_found",
)
"""What is said of credentials that are worth nothing. gRPC makes of it, as of everything in that place, 'unavailable'."""


class SecretManager:
    """Asks Google Secret Manager, with the credentials of this machine ("application default credentials").

    Args:
        environ: the environment variables.
        patience: seconds that one attempt may take.
        retrying: seconds within which an attempt that failed at once is repeated.
    """

    def __init__(self, environ: Mapping[str, str], *, patience: float = 5.0, retrying: float = 3.0) -> None:
        self._patience = patience
        self._retrying = retrying
        self._endpoint = environ.get(ENDPOINT_VARIABLE, "").strip()
        # by endpoint; the library has types for the asking, and none for the closing
        self._clients: dict[str, Any] = {}
        self._opening = asyncio.Lock()

    async def access(self, reference: GcpSecretReference) -> bytes:
        """The payload of a version, its checksum verified.

        Raises:
            UnreachableError: the manager, or who vouches for us, cannot be reached.
            ProblemError: `SecretUnavailable`: there is no such version, it may not be read, or nobody can ask.
        """
        client = await self._client(reference)
        for _ in range(2):
            payload = (await self._ask(client, reference)).payload
            if "data_crc32c" not in payload or payload.data_crc32c == crc32c(payload.data):
                return bytes(payload.data)
        raise unreachable(
            f"the secret of {reference} was damaged on its way: its checksum is another",
            "look for a proxy in between that changes what passes",
        )

    async def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            await client.transport.close()
        self._clients.clear()

    async def _client(self, reference: GcpSecretReference) -> Any:
        # regional secrets are kept by servers of their own
        regional = re.match("projects/[^/]+/locations/([^/]+)/", reference.name)
        endpoint = self._endpoint or (f"secretmanager.{regional[1]}.rep.googleapis.com" if regional else "")
        async with self._opening:
            if endpoint not in self._clients:
                self._clients[endpoint] = await _open(endpoint, reference)
        return self._clients[endpoint]

    async def _ask(self, client: Any, reference: GcpSecretReference) -> Any:
        from google.api_core import exceptions, retry_async
        from google.auth.exceptions import GoogleAuthError

        try:
            return await client.access_secret_version(
                name=reference.name,
                timeout=self._patience,
                retry=retry_async.AsyncRetry(
                    predicate=lambda error: (
                        isinstance(error, exceptions.ServiceUnavailable) and _issuer_denied(error) is False
                    ),
                    initial=0.1,
                    maximum=1.0,
                    multiplier=2.0,
                    timeout=self._retrying,
                ),
            )
        except (exceptions.GoogleAPIError, GoogleAuthError) as error:
            # what was tried last says more than that it was tried for too long
            cause = error.cause if isinstance(error, exceptions.RetryError) else error
            raise _problem(cause, reference, self._patience) from None


async def _open(endpoint: str, reference: GcpSecretReference) -> SecretManagerServiceAsyncClient:
    # gRPC's core writes to standard error what it cannot return, beside the log and its rules
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        secretmanager = await asyncio.to_thread(_load)
    except ImportError:
        raise unavailable(
            f"{reference} cannot be read: the client of Google Secret Manager is not installed",
            "pip install 'reconciler[gcp]'",
        ) from None
    from google.api_core.client_options import ClientOptions

    client: SecretManagerServiceAsyncClient
    if endpoint.startswith("http://"):
        from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
            SecretManagerServiceGrpcAsyncIOTransport,
        )
        from grpc import aio

        channel = aio.insecure_channel(endpoint.removeprefix("http://").rstrip("/"))
        client = secretmanager.SecretManagerServiceAsyncClient(
            transport=SecretManagerServiceGrpcAsyncIOTransport(channel=channel)
        )
        return client
    client = secretmanager.SecretManagerServiceAsyncClient(
        credentials=await _our_credentials(reference),
        client_options=ClientOptions(api_endpoint=endpoint.removeprefix("https://")) if endpoint else None,
    )
    return client


def _load() -> Any:
    import logging

    from google.cloud import secretmanager_v1

    # at its most talkative it logs every answer, secrets and all
    for name in [_LIBRARY, *logging.root.manager.loggerDict]:
        if name == _LIBRARY or name.startswith(f"{_LIBRARY}."):
            logging.getLogger(name).setLevel(logging.WARNING)
    return secretmanager_v1


async def _our_credentials(reference: GcpSecretReference) -> Any:
    import google.auth
    from google.auth.exceptions import GoogleAuthError

    try:
        # may ask the machine it runs on, and wait for the answer
        found, _ = await asyncio.to_thread(
            google.auth.default, scopes=["https://www.googleapis.com/auth/cloud-platform"]
        )
    except GoogleAuthError as error:
        raise unavailable(
            f"{reference} cannot be read: there are no credentials of Google Cloud here: {_said(error)}",
            "run where a service account is attached, or name a file of credentials in GOOGLE_APPLICATION_CREDENTIALS",
        ) from None
    return found


def _problem(error: BaseException | None, reference: GcpSecretReference, patience: float) -> ProblemError:
    from google.api_core import exceptions

    secret = reference.name.rpartition("/versions/")[0]
    match error:
        case exceptions.NotFound():
            return unavailable(
                f"there is no {reference}: {_said(error)}",
                "correct its name in the manifest, or create the secret and a version of it",
            )
        case exceptions.PermissionDenied() | exceptions.Forbidden():
            return unavailable(
                f"{reference} may not be read: {_said(error)}",
                f"grant roles/secretmanager.secretAccessor on {secret} to the account that the reconciler runs as",
            )
        case exceptions.Unauthenticated() | exceptions.Unauthorized():
            return unavailable(
                f"{reference} may not be read, since nobody vouches for us: {_said(error)}",
                "renew the credentials",
            )
        case exceptions.FailedPrecondition():
            return unavailable(
                f"{reference} cannot be read: {_said(error)}",
                "enable the version, or name another: one that is disabled or destroyed is not given out",
            )
        case exceptions.ServiceUnavailable() if _issuer_denied(error):
            return unavailable(
                f"{reference} may not be read, since our credentials are not accepted: {_said(error)}",
                "renew the credentials",
            )
        case exceptions.DeadlineExceeded():
            return unreachable(
                f"Google Secret Manager did not answer within {patience:g} s when asked for {reference}",
                "check the network to it",
            )
        case (
            exceptions.ServiceUnavailable()
            | exceptions.TooManyRequests()
            | exceptions.InternalServerError()
            | exceptions.Aborted()
            | exceptions.Unknown()
        ):
            return unreachable(
                f"Google Secret Manager cannot be asked for {reference}: {_said(error)}",
                "check the network to it",
            )
    return unavailable(
        f"{reference} cannot be read: {_said(error)}", "correct it in the manifest, or mend what is said"
    )


def _issuer_denied(error: BaseException) -> bool:
    text = str(error)
    return "metadata from plugin failed" in text and any(sign in text for sign in _DENIED_BY_ISSUER)


def _said(error: BaseException | None) -> str:
    """What an error says, in one short line."""
    return " ".join(str(getattr(error, "message", None) or error or "no reason given").split())[:_SHOWN]

"""A server on this machine that speaks the API of Google Secret Manager, over gRPC, by the library's own messages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.cloud.secretmanager_v1.types import (
    AccessSecretVersionRequest,
    AccessSecretVersionResponse,
    SecretPayload,
)

from reconciler.credentials.crc32c import crc32c
from tests.servers import free_port

_SERVICE = "google.cloud.secretmanager.v1.SecretManagerService"


class SecretManagerServer:
    """Keeps versions of secrets, and gives them out by number or as `latest`.

    Args:
        port: of 127.0.0.1 where it listens.
    """

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.refusal: grpc.StatusCode | None = None
        """What it answers instead of a secret."""
        self.damaged = 0
        """So many answers have a checksum that is not their payload's; below 0 for all."""
        self.unchecked = False
        """Answers have no checksum."""
        self.answering = threading.Event()
        """While not set, nobody gets an answer."""
        self.answering.set()
        self.asked: list[str] = []
        """The names of the versions it was asked for, from the oldest on."""
        self._versions: dict[str, list[bytes | None]] = {}
        self._server: Any = None

    @property
    def variables(self) -> dict[str, str]:
        """The environment variable that sends the reconciler here."""
        return {"RECONCILER_GCP_ENDPOINT": f"http://127.0.0.1:{self.port}"}

    def put(self, secret: str, value: str | bytes) -> str:
        """Add a version to the secret `projects/P/secrets/S` and return the version's name."""
        versions = self._versions.setdefault(secret, [])
        versions.append(value.encode() if isinstance(value, str) else value)
        return f"{secret}/versions/{len(versions)}"

    def destroy(self, version: str) -> None:
        """Destroy a version."""
        secret, _, number = version.rpartition("/versions/")
        self._versions[secret][int(number) - 1] = None

    def start(self) -> None:
        """Listen, on the same port as before."""
        handler = grpc.unary_unary_rpc_method_handler(
            self._access,
            request_deserializer=AccessSecretVersionRequest.deserialize,
            response_serializer=AccessSecretVersionResponse.serialize,
        )
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(_SERVICE, {"AccessSecretVersion": handler})]
        )
        assert self._server.add_insecure_port(f"127.0.0.1:{self.port}") == self.port
        self._server.start()

    def stop(self) -> None:
        """Listen no more: connections are refused."""
        self._server.stop(0).wait()

    def _access(self, request: Any, context: grpc.ServicerContext) -> AccessSecretVersionResponse:
        self.asked.append(request.name)
        self.answering.wait(30)
        if self.refusal is not None:
            context.abort(self.refusal, f"refused: {request.name}")
        secret, _, wanted = request.name.rpartition("/versions/")
        versions = self._versions.get(secret, [])
        number = len(versions) if wanted == "latest" else int(wanted)
        if not 1 <= number <= len(versions):
            context.abort(grpc.StatusCode.NOT_FOUND, f"Secret Version [{request.name}] not found.")
        data = versions[number - 1]
        if data is None:
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION, f"Secret Version [{request.name}] is in DESTROYED state."
            )
        payload = SecretPayload(data=data)
        if not self.unchecked:
            payload.data_crc32c = crc32c(data or b"") + (1 if self.damaged else 0)
        self.damaged -= 1 if self.damaged > 0 else 0
        return AccessSecretVersionResponse(name=f"{secret}/versions/{number}", payload=payload)


@contextmanager
def secret_manager_server() -> Iterator[SecretManagerServer]:
    """A server that listens."""
    server = SecretManagerServer()
    server.start()
    try:
        yield server
    finally:
        server.answering.set()
        server.stop()

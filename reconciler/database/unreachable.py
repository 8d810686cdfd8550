"""What it means that no connection came about: which reason, which message, which remedy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from reconciler.database.diagnosis import certificate_fault
from reconciler.database.failures import remedy_of
from reconciler.database.parameters import Parameters, hosts
from reconciler.model import Problem, ProblemError, Reason
from reconciler.model.duration import format_duration
from reconciler.redaction import redact

_SAID_TWICE = re.compile(
    r'^connection (?:failed|is bad): |connection to server (?:at|on socket) "[^"]*"(?: \([^)]*\))?(?:, port \d+)? failed: |\(".*?"\)'
)
_ADVICE = re.compile(
    r"\s*(?:Is the server running |Either provide the file, |This may indicate that ).*$", re.DOTALL
)
_SEVERAL = "Multiple connection attempts failed. All failures were:\n"
_ATTEMPT = re.compile(r"^- host: (.*?), port: (.*?), hostaddr: (.*?): ", re.MULTILINE)
_UNVERIFIED = "certificate verify failed"
_DISTRUST = "the server's certificate cannot be trusted"
_TRY = "it is tried again by itself"
_GIVE_AUTHORITY = (
    "give the certificate of the authority that signed the server's as `ca` (PEM text or a path), or `sslrootcert=PATH` in "
    "the DSN"
)
_GIVE_CLIENT = (
    "give a certificate that the server's authority for clients has signed, as `client_certificate` and `client_key` (PEM "
    "text or paths), or `sslcert=PATH sslkey=PATH` in the DSN"
)


class _Attempt(NamedTuple):
    """One server that was tried, and what came of it."""

    host: str
    address: str
    port: str
    said: str


class _Meaning(NamedTuple):
    reason: Reason
    remedy: str


_MEANINGS: tuple[tuple[str, Reason, str], ...] = (
    # the server has no TLS, or not without
    (
        "server does not support SSL",
        Reason.TLS_FAILED,
        "turn TLS on in the server (`ssl = on`) and give its authority as `ca`, or, where the network is to be trusted, say "
        "`sslmode=disable` in the DSN",
    ),
    (
        r"no pg_hba\.conf entry .* no encryption",
        Reason.TLS_FAILED,
        "the server may take TLS only: leave `sslmode` out of the DSN, or say `sslmode=verify-full`; else let its pg_hba.conf "
        "take this host",
    ),
    # the server's certificate
    (
        "certificate has expired",
        Reason.TLS_FAILED,
        f"renew the certificate in the server and have it reload; {_TRY}",
    ),
    (
        "certificate is not yet valid",
        Reason.TLS_FAILED,
        f"set the clocks of this machine and the server right; {_TRY}",
    ),
    (_DISTRUST, Reason.TLS_FAILED, f"{_GIVE_AUTHORITY}; {_TRY}"),
    (
        r"server certificate for .* does not match host name|could not get server's host name from server certificate",
        Reason.TLS_FAILED,
        "connect by a name that the certificate is for (`host=NAME`, with `hostaddr=ADDRESS` where the name does not resolve), "
        "or have one issued for this name",
    ),
    (
        "host name must be specified for a verified SSL connection",
        Reason.TLS_FAILED,
        "say beside `hostaddr` which name the server's certificate is for: `host=NAME`",
    ),
    (
        r"root certificate file .* does not exist|could not read root certificate file",
        Reason.TLS_FAILED,
        _GIVE_AUTHORITY,
    ),
    (
        "weak sslmode",
        Reason.TLS_FAILED,
        "leave `sslmode` out of the DSN: `sslrootcert=system` goes with verify-full alone",
    ),
    # ours
    ("requires a valid client certificate", Reason.TLS_FAILED, _GIVE_CLIENT),
    (
        "alert (?:unknown ca|bad certificate|certificate unknown|unsupported certificate|decrypt error)",
        Reason.TLS_FAILED,
        f"the server does not trust our certificate: {_GIVE_CLIENT}",
    ),
    (
        "alert certificate (?:expired|revoked)",
        Reason.TLS_FAILED,
        "our certificate has expired or was revoked: give a new one as `client_certificate` and `client_key`",
    ),
    (
        "certificate authentication failed",
        Reason.TLS_FAILED,
        "the certificate is for another user: log in as the one in its common name, or map it in the server's pg_ident.conf",
    ),
    (
        "has group or world access",
        Reason.TLS_FAILED,
        "chmod 600 the private key, or give it as `client_key: {file: PATH}`: then its content is used, whatever its mode",
    ),
    (
        "certificate present, but not private key|could not load private key|could not (?:read|open) certificate file",
        Reason.TLS_FAILED,
        "give a certificate and the private key that belongs to it as `client_certificate` and `client_key` (PEM text or paths)",
    ),
    (
        "protocol version|no protocols available|unsupported protocol",
        Reason.TLS_FAILED,
        "let both sides speak a common version of TLS: `ssl_min_protocol_version` and `ssl_max_protocol_version` in the DSN and "
        "in the server",
    ),
    (
        "SSL error|SSL SYSCALL|SSL connection",
        Reason.TLS_FAILED,
        f"see what the server's log says of the same attempt; {_TRY}",
    ),
    # who we are
    (
        "password authentication failed|no password supplied",
        Reason.CONNECTION_FAILED,
        f"check the password of {{who}} in the DSN's source; {_TRY}",
    ),
    (
        "permission denied for database",
        Reason.PERMISSION_DENIED,
        "GRANT CONNECT ON the DATABASE to {who}",
    ),
    (
        'database ".*" does not exist',
        Reason.CONNECTION_FAILED,
        f"create the database, or correct its name in the DSN; {_TRY}",
    ),
    # where it is
    (
        "failed to resolve host|could not translate host name",
        Reason.CONNECTION_FAILED,
        f"correct the host name in the DSN, or mend the name service; {_TRY}",
    ),
    (
        "session is read-only|server is (?:not )?in hot standby mode",
        Reason.READ_ONLY,
        remedy_of(Reason.READ_ONLY),
    ),
)
"""Sign in the message, reason and remedy, the most telling first: of several servers, that is what is reported."""


async def connection_problem(
    error: Exception, parameters: Mapping[str, str], said: Parameters, timeout: float
) -> ProblemError:
    """The problem of a connection that did not come about.

    Args:
        error: what the driver raised, or TimeoutError when `timeout` was over.
        parameters: of the connection.
        said: those of them that somebody gave.
        timeout: seconds there were for all of it.
    """
    attempts = _attempts(error, parameters, timeout)
    attempts = [await _diagnosed(each, parameters) for each in attempts]
    found = min((_meaning(each.said) for each in attempts), key=lambda pair: pair[0])[1]
    who = parameters.get("user") or "the login name"
    return ProblemError(
        Problem(
            reason=found.reason,
            message=f"cannot connect to {_names(attempts)} as {who}: {_told(attempts, parameters, said)}",
            remedy=found.remedy.replace("{who}", who),
            sqlstate=getattr(error, "sqlstate", None) or "",
        )
    )


def _attempts(error: Exception, parameters: Mapping[str, str], timeout: float) -> list[_Attempt]:
    ports = parameters.get("port", "5432").split(",")
    if isinstance(error, TimeoutError):
        text = f"no answer within {format_duration(timeout)}"
    else:
        text = redact(str(error).strip()).replace(
            "connection timeout expired", f"no answer within {parameters['connect_timeout']}s"
        )
    _, several, each_of_them = text.partition(_SEVERAL)
    if several:
        _, *parts = _ATTEMPT.split(each_of_them)
        rows = zip(parts[::4], parts[1::4], parts[2::4], parts[3::4], strict=True)
        return [
            _Attempt(_bare(host), _bare(address), _bare(port), _clean(text))
            for host, port, address, text in rows
        ]
    tried = hosts(dict(parameters))
    if len(tried) == 1:
        return [_Attempt(*tried[0], ports[0], _clean(text))]
    # why none of them was even tried
    return [_Attempt(*each, ports[index % len(ports)], _clean(text)) for index, each in enumerate(tried)]


def _bare(shown: str) -> str:
    """A parameter as the driver shows it, without its quotes."""
    return "" if shown == "None" else shown[1:-1]


def _clean(text: str) -> str:
    return " ".join(_ADVICE.sub("", _SAID_TWICE.sub("", text)).split())


async def _diagnosed(attempt: _Attempt, parameters: Mapping[str, str]) -> _Attempt:
    """`attempt`, with what is wrong with the certificate when all that is known is that it could not be verified."""
    if _UNVERIFIED not in attempt.said:
        return attempt
    authority = parameters.get("sslrootcert") or ""
    host = attempt.address or attempt.host
    port = int(attempt.port) if attempt.port.isdigit() else 5432
    fault = await certificate_fault(host, port, authority) or _UNVERIFIED
    # that it has expired does not depend on whom we trust
    trusted = f"; trusted are the authorities in {authority}" if "issuer" in fault or "self" in fault else ""
    return attempt._replace(said=f"{_DISTRUST}: {fault}{trusted}")


def _meaning(said: str) -> tuple[int, _Meaning]:
    """What a message means, and before how many others it is to be told: 0 for the most telling."""
    for rank, (sign, reason, remedy) in enumerate(_MEANINGS):
        if re.search(sign, said):
            return rank, _Meaning(reason, remedy)
    return len(_MEANINGS), _Meaning(Reason.CONNECTION_FAILED, remedy_of(Reason.CONNECTION_FAILED))


def _name(attempt: _Attempt, attempts: list[_Attempt]) -> str:
    host = attempt.host or attempt.address or "the local socket"
    others = {each.port for each in attempts if each.host == attempt.host}
    return f"{host}:{attempt.port}" if len(others) > 1 else host


def _names(attempts: list[_Attempt]) -> str:
    return " or ".join(dict.fromkeys(_name(each, attempts) for each in attempts))


def _told(attempts: list[_Attempt], parameters: Mapping[str, str], said: Parameters) -> str:
    texts = list(dict.fromkeys(each.said for each in attempts))
    told = (
        texts[0]
        if len(texts) == 1
        else "; ".join(dict.fromkeys(f"{_name(each, attempts)}: {each.said}" for each in attempts))
    )
    if "server does not support SSL" in told and not said.get("sslmode"):
        told += f" (sslmode={parameters.get('sslmode')} is the default where an authority is given or a host is not local)"
    return told

"""What a secret may be, wherever it comes from, and what is said when it is not."""

from __future__ import annotations

from reconciler.model import Problem, ProblemError, Reason

LARGEST = 512 * 1024
"""Bytes of a secret that are still read: no secret manager keeps as many, and a file of all certificate authorities has fewer."""


class UnreachableError(ProblemError):
    """Who keeps the secret could not be asked: that says nothing of the secret, and one that was read before may serve on."""


def unavailable(message: str, remedy: str) -> ProblemError:
    """The error of a secret that cannot be had."""
    return ProblemError(Problem(reason=Reason.SECRET_UNAVAILABLE, message=message, remedy=remedy))


def unreachable(message: str, remedy: str) -> UnreachableError:
    """The error of a secret whose keeper could not be asked."""
    return UnreachableError(Problem(reason=Reason.SECRET_UNAVAILABLE, message=message, remedy=remedy))


def decoded(content: bytes, name: str, remedy: str) -> str:
    """The secret in `content`, without the line end that editors and `echo` add.

    Args:
        content: as it was read.
        name: what it was read from, for messages.
        remedy: what to do when it is of no use.

    Raises:
        ProblemError: it is no text, too large or empty.
    """
    if len(content) > LARGEST:
        raise unavailable(f"{name} is larger than {LARGEST:,} bytes", "put only the secret into it")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        # the error holds the whole content: it must not become a cause of ours
        offset = error.start
    else:
        return stripped(text, name, remedy)
    raise unavailable(f"{name} is not UTF-8 from byte {offset} on", "save it as UTF-8")


def stripped(text: str, name: str, remedy: str) -> str:
    """`text` without line ends behind it.

    Raises:
        ProblemError: nothing is left, or what no driver takes.
    """
    text = text.rstrip("\r\n")
    if not text.strip():
        raise unavailable(f"{name} is empty", remedy)
    if "\0" in text:
        raise unavailable(f"{name} holds a NUL byte", remedy)
    return text

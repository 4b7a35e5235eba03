"""What went wrong at the engine: the reason in one line, whether it may pass, and what mends it."""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple, TypeAlias

TRANSIENT_CODES = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED"}  # of gRPC
TRANSIENT_MESSAGES = (
    *("Retry timeout", "Fail connecting"),
    # of a server that starts or stops; some versions do not mark these as passing
    *("not ready", "not healthy", "no available", "node offline", "node not found"),
    *("DeadlineExceeded", "deadline exceeded"),  # of a busy one, within itself
    *("not fully loaded", "not loaded", "loading", "ErrServiceInternal", "no master"),
)
RATE_LIMIT_CODE = 8  # Milvus' own
FORBIDDEN_CODES = {"UNAUTHENTICATED", "PERMISSION_DENIED"}  # of gRPC
FORBIDDEN_WORDS = re.compile("auth|permission|credential|privilege", re.IGNORECASE)
REASON_CHARACTERS = 300
TESTED_VERSIONS = "2.3.5"  # of the server

Kind: TypeAlias = Literal["unreachable", "forbidden", "refused", "damaged"]
MENDS: dict[Kind, str] = {
    "damaged": "publish the library again, under another name",
    "unreachable": "check that the server runs, its address and the token (MILVUS_TOKEN)",
    "forbidden": "check the token (MILVUS_TOKEN), and what its user may do there",
    "refused": (
        "the server answers, and does not do this (simsearch is tested with Milvus "
        f"{TESTED_VERSIONS} and Milvus Lite)"
    ),
}


class Failure(NamedTuple):
    """Why a call has failed."""

    reason: str  # one line
    transient: bool  # another attempt may succeed: the network, a rate limit, a server that starts
    kind: Kind


def explain(error: Any) -> Failure:  # noqa: ANN401 (gRPC has no types)
    """Return why a call to the engine has failed, in the words of the server."""
    import grpc

    failed_call = isinstance(error, grpc.RpcError)
    code = error.code() if failed_call else getattr(error, "code", None)
    name = getattr(code, "name", "")
    no_answer = (
        isinstance(error, grpc.FutureTimeoutError)
        or name in TRANSIENT_CODES
        or any(words in str(error) for words in TRANSIENT_MESSAGES)
    )
    transient = no_answer or code == RATE_LIMIT_CODE or bool(getattr(error, "retriable", False))
    if failed_call:
        line = f"{name.lower()}, {error.details()}"
    else:  # its first line: an engine may repeat a whole expression below it
        line = str(getattr(error, "message", "") or error).partition("\n")[0][:REASON_CHARACTERS]
    if name in FORBIDDEN_CODES or FORBIDDEN_WORDS.search(line):
        return Failure(line, transient, "forbidden")
    return Failure(line, transient, "unreachable" if no_answer else "refused")


def without_secrets(text: str) -> str:
    """Leave user and password out of an address."""
    return re.sub(r"(\w+://)[^/@\s]*@", r"\1", text)

"""Start of the server: its socket, its token, and the address it prints."""

from __future__ import annotations

import gc
import ipaddress
import os
import secrets
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simsearch.errors import MissingExtraError, QueryError
from simsearch.images.allocator import limit_allocator

if TYPE_CHECKING:
    from collections.abc import Sequence

    import uvicorn
    from fastapi import FastAPI

SWITCH_SECONDS = 0.001  # a thread that computes gives way to the one that answers
SPARE_FILES = 256
BACKLOG = 2048  # connections that wait to be taken
HAS_FRONT = os.name != "nt"  # descriptors can be passed on
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


def serve(
    outputs: str | os.PathLike[str] | Sequence[str] = "outputs",
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    health_port: int | None = None,
    *,
    together: bool = False,
    **settings: Any,  # noqa: ANN401
) -> None:
    """Serve a library's web page and REST API, until interrupted.

    Parameters
    ----------
    outputs
        Folder of the library; or several, each as ``NAME=FOLDER``, to be served at ``/NAME/``.
    host
        Address to listen at. By default, this machine only; any other needs a token.
    port
        To listen at; 0 for any free one.
    token
        What clients have to send; generated and printed if needed and not given. One that is
        given is not printed, as what is printed may be kept in a log.
    health_port
        A port for `/api/health` alone, as where others must not reach the rest (Linux and macOS);
        by default, only `port` answers it.
    together
        Serve several libraries as one, as `Shards` searches them; they need no names.
    settings
        Any of `simsearch.web.settings.Settings`.

    Raises
    ------
    LibraryError
        If there is no library.
    QueryError
        If a port is taken, or a setting is invalid.
    MissingExtraError
        If the packages for it are not installed.
    """
    try:
        from simsearch.web.app import create_app
        from simsearch.web.protocol import uvicorn_config
        from simsearch.web.settings import Settings
    except ImportError as error:
        raise MissingExtraError(
            'serving needs more packages: pip install "simsearch[web]"'
        ) from error
    tune_process(settings.get("max_connections", Settings.max_connections))
    local = is_local(host)
    made = None if local or token is not None else secrets.token_urlsafe(24)
    token = token or made
    hosts = LOOPBACK_NAMES | {host} if local and token is None else None
    settings = {"warm_up": True, **settings, "token": token, "hosts": hosts}
    given = [outputs] if isinstance(outputs, (str, os.PathLike)) else list(outputs)
    if together:
        folders = [folder for each in given for folder in read_libraries([each]).values()]
        given, settings["others"] = folders[:1], folders[1:]
    named = read_libraries(given)
    app: FastAPI
    if named.keys() == {""}:
        app = create_app(Settings(named[""], **settings))
    else:
        app = _create_libraries_app(named, settings)
    listening = listen(host, port)
    message = _start_message(listening, host, token, made, app.state.settings.root_path)
    health = None if health_port is None else listen_for_health(host, health_port)
    if health is not None:
        message += f"\nIts health is told at port {health.getsockname()[1]}, too."
    print(message, flush=True)  # noqa: T201  # users open it
    app.openapi()  # here, and not while others wait
    freeze_objects()
    make_server(app, uvicorn_config(app), health).run(sockets=[listening])


def tune_process(connections: int) -> None:
    """Set up this process to serve: memory goes back, no thread holds the others, files suffice."""
    limit_allocator()
    sys.setswitchinterval(SWITCH_SECONDS)
    with suppress(ImportError, ValueError, OSError):  # not on Windows; or it is not allowed
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 2 * connections + SPARE_FILES  # each connection may read a file
        if soft != resource.RLIM_INFINITY and soft < wanted:
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def freeze_objects() -> None:
    """Let garbage collections pass over all objects that are there now.

    A full one would take a tenth of a second for them, in which no thread of this process runs.
    """
    gc.collect()
    gc.freeze()


def is_local(host: str) -> bool:
    """Tell whether an address is reachable from this machine only.

    Examples
    --------
    >>> [is_local(each) for each in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; port 0 takes any free one.

    Raises
    ------
    QueryError
        If the port is taken, or the address is not one of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host.strip("[]"), port))
        listening.listen(BACKLOG)  # clients may connect as soon as the address is printed
    except (OSError, OverflowError) as error:
        listening.close()
        raise QueryError(
            f"cannot listen at {host} port {port}: {getattr(error, 'strerror', None) or error}; "
            "choose another port, or 0 for any that is free"
        ) from error
    return listening


def listen_for_health(host: str, port: int) -> socket.socket:
    """Open a listening socket for `/api/health` alone; port 0 takes any free one.

    Raises
    ------
    QueryError
        If the port is taken, or this system cannot.
    """
    if not HAS_FRONT:
        raise QueryError("health_port needs Linux or macOS; ask /api/health at the server's port")
    return listen(host, port)


def make_server(
    app: FastAPI, config: uvicorn.Config, health: socket.socket | None
) -> uvicorn.Server:
    """Return what runs an app: behind a process that takes the connections, where possible."""
    if not HAS_FRONT:
        import uvicorn

        return uvicorn.Server(config)
    from simsearch.web.front import FrontedServer

    settings = app.state.settings
    return FrontedServer(config, app.state.health, settings.hosts, settings.root_path, health)


def read_libraries(given: Sequence[str | os.PathLike[str]]) -> dict[str, str]:
    """Read which libraries are served: {name: folder}, where a single one needs no name.

    Raises
    ------
    QueryError
        If one of several has no name, or there is none.

    Examples
    --------
    >>> read_libraries(["outputs"]), read_libraries(["shop=outputs", "art=outputs2"])
    ({'': 'outputs'}, {'shop': 'outputs', 'art': 'outputs2'})
    """
    found: dict[str, str] = {}
    for text in [os.fspath(each) for each in given]:
        name, mark, folder = text.partition("=")
        if (
            not mark or "/" in name or Path(text).expanduser().exists()
        ):  # as in an address, or a path
            name, folder = "", text
        if name in found or (not name and len(given) > 1):
            raise QueryError(
                f"{text!r} is one of {len(given)} libraries: give each a name of its own, as in "
                "NAME=outputs NAME2=outputs2"
            )
        found[name] = folder
    if not found:
        raise QueryError("there is nothing to serve: give the folder of a library")
    return found


def _create_libraries_app(named: dict[str, str], settings: dict[str, Any]) -> FastAPI:
    from simsearch.web.settings import Settings
    from simsearch.web.several import create_libraries_app

    for option in ("root", "metadata"):
        if settings.get(option):
            raise QueryError(
                f"{option}={settings[option]!r} belongs to one library, and {len(named)} are "
                "served: leave it out, or start one server for each library"
            )
    return create_libraries_app(
        {
            name: Settings(folder, name=name, libraries=list(named), **settings)
            for name, folder in named.items()
        }
    )


def _start_message(
    listening: socket.socket, host: str, token: str | None, made: str | None, root_path: str = ""
) -> str:
    """Tell the address, and how to log in: with the token if it was made here."""
    port = listening.getsockname()[1]
    name = _host_name(host)
    shown = f"?token={made}" if made else ""
    lines = [f"simsearch is at  http://{f'[{name}]' if ':' in name else name}:{port}/{shown}"]
    if root_path:
        lines.append(f"behind the proxy  at {root_path}/ of its address")
    if token and not made:
        lines.append("it asks for the token that the server was given")
    if token:
        lines.append(f"programs send    Authorization: Bearer {made or 'TOKEN'}")
    return "\n".join([*lines, "Ctrl-C stops it."])


def _host_name(host: str) -> str:
    """Return the name for others: this machine's own, if it listens at every address."""
    address = host.strip("[]")
    return socket.gethostname() if address in {"", "0.0.0.0", "::"} else address  # noqa: S104

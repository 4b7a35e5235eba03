"""Arguments of what others use a library through: serve, publish."""

from __future__ import annotations

import argparse
import os

from simsearch.cli import commands as run
from simsearch.cli.arguments.describe import (
    FOLDER,
    LIBRARY,
    Commands,
    add_root,
    add_table_flags,
    describe,
)


def _add_serve(commands: Commands) -> None:
    parser = describe(
        commands.add_parser,
        "serve",
        "Serve a web page and a REST API to search with.",
        run.serve,
        LIBRARY,
    )
    parser.add_argument(
        "others",
        metavar="NAME=OUTPUTS",
        nargs="*",
        help="further libraries; the first one then needs a name, too, and each is at /NAME/",
    )
    parser.add_argument(
        "--together",
        action="store_true",
        help="search all of them as one library; they need no names then",
    )
    parser.add_argument(
        "--root-path",
        metavar="PATH",
        help="path below which a proxy has the server, such as /photos",
    )
    parser.add_argument("--host", help="address to listen on; other machines need the token")
    parser.add_argument("--port", type=int, help="0 for any that is free")
    text = "a port for /api/health alone, besides; the other one answers it, too"
    parser.add_argument("--health-port", type=int, metavar="PORT", help=text)
    parser.add_argument(
        "--token",
        default=os.environ.get("SIMSEARCH_TOKEN") or argparse.SUPPRESS,
        help="token that clients have to send; safer given as SIMSEARCH_TOKEN, which no list "
        "of processes shows",
    )
    add_root(parser)
    add_table_flags(parser)
    parser.add_argument("--index", action="store_true", help="search through the stored index")
    parser.add_argument("--urls", action="store_true", help="accept public URLs as queries")
    parser.add_argument(
        "--trusted-proxy",
        action="append",
        dest="trusted_proxies",
        metavar="ADDRESS",
        help="proxy, or network of proxies, whose word on a client's address is taken",
    )


def _add_publish(commands: Commands) -> None:
    parser = describe(
        commands.add_parser,
        "publish",
        "Put a library on Milvus, or what has changed; or into LanceDB.",
        run.publish,
    )
    parser.add_argument("outputs", metavar="OUTPUTS", help="folder of the library")
    text = "Milvus Lite file, http(s)://host:port, or folder.lancedb"
    parser.add_argument("uri", metavar="URI", help=text)
    parser.add_argument("collection", metavar="COLLECTION", help="name for it there")
    add_table_flags(parser)
    add_root(parser)
    parser.add_argument(
        "--kind", choices=["hnsw", "hnsw_sq8", "ivf", "flat"], help="the engine's index"
    )
    parser.add_argument("--replace", action="store_true", help="replace what another backbone made")


def _add_mcp(commands: Commands) -> None:
    parser = describe(
        commands.add_parser,
        "mcp",
        "Serve search, recommend and duplicates to AI agents (MCP, on standard input and output).",
        run.mcp,
        FOLDER,
    )
    add_root(parser)
    parser.add_argument("--files", action="store_true", help="queries may be files of this machine")
    parser.add_argument("--urls", action="store_true", help="queries may be public addresses")


def _add_completion(commands: Commands) -> None:
    parser = describe(
        commands.add_parser, "completion", "Print a script that completes commands.", run.completion
    )
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="which shell it is for")


ADDERS = (_add_serve, _add_publish, _add_mcp, _add_completion)

"""Flags of `simsearch serve`."""

from __future__ import annotations

import argparse
import os


def add_serve_flags(parser: argparse.ArgumentParser, library: str) -> None:
    """Add the flags that are the server's own; `library` is the help of what it serves."""
    parser.add_argument(
        "outputs",
        metavar="OUTPUTS",
        nargs="+",
        help=f"{library}; or several as NAME=OUTPUTS, each served at /NAME/",
    )
    parser.add_argument(
        "--root-path",
        metavar="PATH",
        help="path below which a proxy has the server, such as /photos",
    )
    parser.add_argument("--host", help="address to listen on; other machines need the token")
    parser.add_argument("--port", type=int, help="0 for any that is free")
    parser.add_argument(
        "--token",
        default=os.environ.get("SIMSEARCH_TOKEN") or argparse.SUPPRESS,
        help="token that clients have to send; safer given as SIMSEARCH_TOKEN, which no list "
        "of processes shows",
    )
    parser.add_argument("--root", metavar="DATASET", help="where the images are, if they moved")
    parser.add_argument("--index", action="store_true", help="search through the stored index")
    parser.add_argument("--urls", action="store_true", help="accept public URLs as queries")
    parser.add_argument(
        "--trusted-proxy",
        action="append",
        dest="trusted_proxies",
        metavar="ADDRESS",
        help="proxy, or network of proxies, whose word on a client's address is taken",
    )

"""Settings of a server: its library, its token, its limits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from simsearch.errors import QueryError
from simsearch.web.root_path import read_root_path

MIN_TOKEN_CHARACTERS = 16  # shorter tokens can be guessed
COUNTS = (  # settings that are at least 1
    *("max_bytes", "max_pixels", "max_waiting", "workers", "max_batch"),
    *("decoding_bytes", "min_rate", "max_connections"),
)


@dataclass(frozen=True)
class Settings:
    """Which library is served, to which clients, within which limits.

    Attributes
    ----------
    outputs : str
        Folder of the library, or ``URI#COLLECTION`` for one that was published.
    root : str or None
        Where the images are, if they have moved.
    metadata : str or None
        A table to attach; see `ImageLibrary.attach`.
    decimal, dates, missing : str, mapping, or texts
        How the text of that table is read; as for `ImageLibrary.attach`.
    index : bool
        Search through the stored FAISS index where it belongs to the library.
    token : str or None
        Token that requests have to carry; None answers every client.
    hosts : frozenset of str, or None
        Host names that requests may use, None for any. Without a token they are checked, as
        another site could point its own name here (DNS rebinding).
    cache : str or None
        Folder for thumbnails; by default in the user's cache.
    urls : bool
        Whether a query may be a URL; private addresses are never fetched.
    max_bytes, max_pixels : int
        Limits of one upload, all its images together, and of each image.
    max_decoding : int
        Pixels of uploads that are searched with at the same time; further requests wait.
    decoding_bytes : int
        Memory that pictures may take together while they are decoded, those of the library
        included; one that needs more is decoded alone.
    max_matches : int
        The largest k.
    max_queries : int
        Images and rows of one request.
    max_waiting : int
        Requests that are answered or waiting; more get status 503.
    max_waiting_bytes : int
        The same for the bytes of their uploads together.
    workers : int
        Requests that are answered at once.
    max_batch : int or None
        Images per batch of the network; measured at the start if not given.
    seconds, min_rate : float, int
        How long an upload may fall behind this many bytes per second.
    work_seconds : float
        How long a request may be worked on, waiting included, before its answer begins.
    max_connections : int
        Open connections; for a further one, the least useful is closed.
    trusted_proxies : sequence of str
        Addresses or networks of proxies, whose `X-Forwarded-For` says from where a request comes;
        this machine's own count as such. One address gets no more than four fifths of each limit.
    root_path : str
        Path below which a proxy has the server, such as "/photos".
    warm_up : bool
        Make what the page shows first ready at the start, in the background; `serve` does.
    name : str
        Of the library, where a server has several.
    libraries : sequence of str
        Names of all libraries of the server, if it has several.
    others : sequence of str
        Further libraries, searched together with the first as one; see `Shards`.
    """

    outputs: str
    root: str | None = None
    metadata: str | None = None
    decimal: str | Mapping[str, str] | None = None
    dates: str | Mapping[str, str] | None = None
    missing: Collection[str] = ()
    index: bool = False
    token: str | None = None
    hosts: frozenset[str] | None = None
    cache: str | None = None
    urls: bool = False
    max_bytes: int = 32 * 2**20
    max_pixels: int = 64_000_000
    max_decoding: int = 64_000_000
    decoding_bytes: int = 512 * 2**20
    max_matches: int = 200
    max_queries: int = 32
    max_waiting: int = 128
    max_waiting_bytes: int = 256 * 2**20
    workers: int = 16
    max_batch: int | None = None
    seconds: float = 20.0
    min_rate: int = 4096
    work_seconds: float = 30.0
    max_connections: int = 512
    trusted_proxies: Sequence[str] = ()
    root_path: str = ""
    warm_up: bool = False
    name: str = ""
    libraries: Sequence[str] = ()
    others: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "root_path", read_root_path(self.root_path))
        if self.token is not None and len(self.token) < MIN_TOKEN_CHARACTERS:
            raise QueryError(
                f"a token of {len(self.token)} characters can be guessed; give at least "
                f"{MIN_TOKEN_CHARACTERS}, or none to have one made"
            )
        if self.token is not None and not all("!" <= letter <= "~" for letter in self.token):
            raise QueryError(
                "this token has a blank, or a character that a header cannot carry; use unaccented "
                "letters, digits and signs"
            )
        for name in COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise QueryError(f"{name}={value} must be at least 1")

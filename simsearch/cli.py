"""The command line: parse, call the library, turn a `SimsearchError` into one line.

No default of its own: what is not given on the command line is left to the library.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import simsearch as ss
from simsearch.cluster.milvus.remote_library import published_at
from simsearch.library.files import read_skipped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES = {
    None: """\
examples:
  simsearch sample dataset                      make a folder of sample images
  simsearch embed dataset outputs               embed it: minutes once, then only what changed
  simsearch search outputs photo.jpg -k 5       the five most alike images
  simsearch evaluate outputs                    how often they are of the same class
  simsearch train outputs                       learn from the labels, into outputs_head
  simsearch serve outputs                       the same in a browser
""",
    "embed": """\
examples:
  simsearch embed dataset outputs
  simsearch embed ~/Pictures outputs --backbone efficientnet_lite0
  simsearch embed dataset outputs --backbone resnet50 --weights resnet50.pth
  simsearch embed s3://bucket/photos outputs --engine ray      on a cluster
""",
    "search": """\
examples:
  simsearch search outputs photo.jpg -k 5
  simsearch search outputs photo.jpg --save figure.png
  simsearch search outputs https://example.org/cat.jpg --json
  simsearch search outputs 42 --threshold 0.8   row 42 of the library
  simsearch search outputs room.jpg --box 0.5 0 1 1            the right half of it
  simsearch search outputs a.jpg b.jpg --combine mean          what is like both
  simsearch search outputs a.jpg --where 'shoes/*' --unique --diversity 0.3
  simsearch search outputs a.jpg --metadata metadata.csv --where price=..50 tags=red
""",
    "recommend": """\
examples:
  simsearch recommend outputs --liked a.jpg b.jpg --disliked c.jpg
  simsearch recommend outputs --liked 42 --exclude seen/1.jpg -k 20 --unique
""",
    "duplicates": """\
examples:
  simsearch duplicates outputs
  simsearch duplicates outputs --threshold 0.9 --csv duplicates.csv --save duplicates.png
""",
    "index": """\
examples:
  simsearch index outputs
  simsearch index outputs --kind hnsw
  simsearch search outputs photo.jpg --index    search through it
""",
    "evaluate": """\
examples:
  simsearch evaluate outputs                    each image against all others
  simsearch evaluate outputs --queries 'seg_test/*' --gallery 'seg_train/*'
  simsearch evaluate outputs -k 1 10 100 --json
  simsearch evaluate outputs --save curve.png
  simsearch evaluate outputs --labels labels.csv               lines of path,label
  simsearch evaluate outputs --metadata metadata.csv --labels brand
""",
    "train": """\
examples:
  simsearch train outputs                       from images in one folder a class
  simsearch train outputs --on 'seg_train/*' --out outputs_head
  simsearch train outputs --labels labels.csv   lines of path,label
  simsearch train outputs --leave-out sea --keep 0.65
  simsearch train outputs --finetune --checkpoint outputs_head/unfinished
  simsearch search outputs_head photo.jpg       search with the head
""",
    "serve": """\
examples:
  simsearch serve outputs                       then open the address that it prints
  simsearch serve outputs --metadata metadata.csv --index
  simsearch serve images.db#shop                what was published on Milvus
  simsearch serve outputs --host 0.0.0.0        for others, who need the token it prints
  SIMSEARCH_TOKEN=... simsearch serve outputs --host 0.0.0.0
""",
    "publish": """\
examples:
  simsearch publish outputs images.db shop      into a Milvus Lite file
  simsearch publish outputs https://milvus.example.org:19530 shop --metadata metadata.csv
  simsearch search images.db#shop photo.jpg     search there; MILVUS_TOKEN is the token
""",
    "info": "example:\n  simsearch info outputs\n",
    "sample": "example:\n  simsearch sample dataset\n",
}


_EITHER = "folder of the library, or URI#COLLECTION"

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    int
        0, or 1 for an error that is said in one line, or 130 after Ctrl-C. A command line that
        cannot be parsed exits with 2.
    """
    options = vars(_parser().parse_args(argv))
    run: Callable[..., None] = options.pop("run")
    try:
        run(**options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ss.SimsearchError as error:
        sys.stderr.write(f"simsearch: {' '.join(str(error).split())}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nsimsearch: stopped; what was done is kept, run again to go on\n")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _described(argparse.ArgumentParser, None, str(ss.__doc__).partition("\n")[0])
    parser.add_argument("--version", action="version", version=f"simsearch {ss.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (
        _add_embed,
        _add_search,
        _add_recommend,
        _add_duplicates,
        _add_index,
        _add_evaluate,
        _add_train,
        _add_serve,
        _add_publish,
        _add_info,
        _add_sample,
    ):
        add(commands)
    return parser


def _add_embed(commands: _Commands) -> None:
    parser = _described(commands.add_parser, "embed", "Embed the images below a folder.", _embed)
    parser.add_argument("root", metavar="DATASET", help="folder of images, or its address")
    parser.add_argument("outputs", metavar="OUTPUTS", help="folder for the library")
    parser.add_argument("--backbone", help="auto, resnet50, efficientnet_lite0, timm:NAME, ...")
    parser.add_argument("--weights", metavar="FILE", help="local state dict for the backbone")
    parser.add_argument("--batch-size", type=int, metavar="N", help="images a forward pass")
    parser.add_argument("--workers", type=int, metavar="N", help="threads or processes")
    parser.add_argument("--engine", help="local, or ray for a cluster")
    parser.add_argument("--device", help="cpu, cuda or mps")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16", "float16"])
    parser.add_argument("--strict", action="store_true", help="stop at an unreadable image")


def _add_search(commands: _Commands) -> None:
    parser = _described(commands.add_parser, "search", "Find the most alike images.", _search)
    parser.add_argument("outputs", metavar="OUTPUTS", help=_EITHER)
    parser.add_argument("queries", metavar="QUERY", nargs="+", help="path, URL or row number")
    parser.add_argument(
        "--include-query",
        dest="exclude_query",
        action="store_false",
        help="let an image of the library find itself",
    )
    parser.add_argument("--combine", choices=["mean", "max"], help="take all queries for one")
    parser.add_argument(
        "--weights", type=float, nargs="+", metavar="W", help="of the queries, in a mean"
    )
    parser.add_argument(
        "--box",
        type=float,
        nargs=4,
        metavar=("LEFT", "TOP", "RIGHT", "BOTTOM"),
        help="search with this part, in pixels or fractions",
    )
    parser.add_argument("--regions", action="store_true", help="search with several parts")
    _add_wishes(parser)


def _add_recommend(commands: _Commands) -> None:
    parser = _described(
        commands.add_parser, "recommend", "Find what somebody may like.", _recommend
    )
    parser.add_argument("outputs", metavar="OUTPUTS", help=_EITHER)
    parser.add_argument("--liked", nargs="+", required=True, metavar="IMAGE")
    parser.add_argument("--disliked", nargs="+", metavar="IMAGE")
    parser.add_argument("--exclude", nargs="+", metavar="IMAGE", help="not to be recommended")
    parser.add_argument("--dislike", type=float, metavar="WEIGHT", help="of the disliked")
    _add_wishes(parser)


def _add_duplicates(commands: _Commands) -> None:
    parser = _described(
        commands.add_parser, "duplicates", "Find images that are nearly the same.", _duplicates
    )
    parser.add_argument("outputs", metavar="OUTPUTS", help="folder of the library")
    parser.add_argument("--threshold", type=float, metavar="COSINE", help="from which on")
    parser.add_argument("--csv", metavar="FILE", help="write group, path and cosine")
    parser.add_argument("--root", metavar="DATASET", help="where the images are, if they moved")
    parser.add_argument("--save", type=Path, metavar="FIGURE", help="draw the groups to a file")


def _add_index(commands: _Commands) -> None:
    parser = _described(
        commands.add_parser, "index", "Build a FAISS index for a very large library.", _index
    )
    parser.add_argument("outputs", metavar="OUTPUTS", help="folder of the library")
    parser.add_argument("--kind", help="auto, flat, sq, hnsw, ivf or ivfpq")


def _add_evaluate(commands: _Commands) -> None:
    parser = _described(
        commands.add_parser, "evaluate", "Measure how well images find their class.", _evaluate
    )
    parser.add_argument("outputs", metavar="OUTPUTS", help="folder of the library")
    for name in ("queries", "gallery"):
        parser.add_argument(f"--{name}", metavar="GLOB", help="such as 'seg_test/*'; * crosses /")
    parser.add_argument(
        "--labels", metavar="CSV|COLUMN", help="lines of path,label; or a column of the metadata"
    )
    parser.add_argument("--metadata", metavar="CSV", help="a table with a path column")
    parser.add_argument("-k", type=int, nargs="+", help="depths of precision and recall")
    parser.add_argument(
        "--save", type=Path, metavar="FIGURE", help="draw the precision-recall curves to a file"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_train(commands: _Commands) -> None:
    parser = _described(commands.add_parser, "train", "Train a head on labelled images.", _train)
    parser.add_argument("outputs", metavar="OUTPUTS", help="folder of the library")
    parser.add_argument("--out", metavar="FOLDER", help="where to save; else OUTPUTS_head")
    parser.add_argument("--labels", metavar="CSV", help="lines of path,label; else the folders")
    parser.add_argument("--on", metavar="GLOB", help="train on these alone, such as 'seg_train/*'")
    parser.add_argument("--leave-out", nargs="+", metavar="CLASS", help="to see unknown classes")
    parser.add_argument("--loss", help="triplet, contrastive, multi-similarity, arcface, supcon")
    parser.add_argument("--dim", type=int, help="width of the new embeddings")
    parser.add_argument("--keep", type=float, help="share of the backbone's own cosine")
    parser.add_argument("--epochs", type=int, help="passes over the images, at most")
    parser.add_argument("--batch-size", type=int, metavar="N", help="images that are compared")
    parser.add_argument("--finetune", action="store_true", help="the backbone's last stage, too")
    parser.add_argument("--stage", nargs="+", metavar="MODULE", help="open these instead of it")
    parser.add_argument(
        "--checkpoint", metavar="FOLDER", help="where a stopped fine-tuning goes on when run again"
    )
    parser.add_argument("--seed", type=int, help="of everything that is drawn at random")


def _add_serve(commands: _Commands) -> None:
    parser = _described(
        commands.add_parser, "serve", "Serve a web page and a REST API to search with.", _serve
    )
    parser.add_argument("outputs", metavar="OUTPUTS", help=_EITHER)
    parser.add_argument("--host", help="where to listen; others than this machine need the token")
    parser.add_argument("--port", type=int, help="0 for any that is free")
    parser.add_argument(
        "--token",
        default=os.environ.get("SIMSEARCH_TOKEN") or argparse.SUPPRESS,
        help="what a browser has to show; better given as SIMSEARCH_TOKEN, which no list of "
        "processes tells",
    )
    parser.add_argument("--root", metavar="DATASET", help="where the images are, if they moved")
    parser.add_argument("--metadata", metavar="CSV", help="a table with a path column")
    parser.add_argument("--index", action="store_true", help="search through the stored index")
    parser.add_argument("--urls", action="store_true", help="take public addresses for queries")


def _add_publish(commands: _Commands) -> None:
    parser = _described(
        commands.add_parser, "publish", "Put a library on Milvus, or what has changed.", _publish
    )
    parser.add_argument("outputs", metavar="OUTPUTS", help="folder of the library")
    parser.add_argument("uri", metavar="URI", help="Milvus Lite file, or http(s)://host:port")
    parser.add_argument("collection", metavar="COLLECTION", help="name for it there")
    parser.add_argument("--metadata", metavar="CSV", help="a table with a path column")
    parser.add_argument("--root", metavar="DATASET", help="where the images are, if they moved")
    parser.add_argument(
        "--kind", choices=["hnsw", "hnsw_sq8", "ivf", "flat"], help="the engine's index"
    )
    parser.add_argument("--replace", action="store_true", help="embeddings of another origin")


def _add_info(commands: _Commands) -> None:
    parser = _described(commands.add_parser, "info", "Say what a library holds.", _info)
    parser.add_argument("outputs", metavar="OUTPUTS", help="folder of the library")


def _add_sample(commands: _Commands) -> None:
    parser = _described(commands.add_parser, "sample", "Make the sample dataset.", _sample)
    parser.add_argument("folder", metavar="DATASET", help="folder to make")


def _add_wishes(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which matches are wished for, and what becomes of them."""
    parser.add_argument("-k", type=int, help="how many matches")
    parser.add_argument(
        "--threshold", type=_threshold, metavar="COSINE", help="leave out lower scores; or auto"
    )
    parser.add_argument(
        "--false-match-rate", type=float, metavar="SHARE", help="of random pairs, with auto"
    )
    parser.add_argument(
        "--where",
        nargs="+",
        metavar="CONDITION",
        help="a glob such as 'shoes/*', or COLUMN=VALUE, COLUMN=LOW..HIGH",
    )
    parser.add_argument("--metadata", metavar="CSV", help="a table with a path column")
    parser.add_argument("--diversity", type=float, metavar="0..1", help="against sameness")
    parser.add_argument(
        "--unique", type=float, nargs="?", const=True, metavar="COSINE", help="fold near-duplicates"
    )
    parser.add_argument("--index", action="store_true", help="search through the stored index")
    parser.add_argument("--root", metavar="DATASET", help="where the images are, if they moved")
    parser.add_argument("--save", type=Path, metavar="FIGURE", help="draw the matches to a file")
    parser.add_argument(
        "--explain", action="store_true", help="with --save, show what carries each likeness"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a query")


def _threshold(text: str) -> float | str:
    """Read a cosine; of anything else the library says whether it will do."""
    try:
        return float(text)
    except ValueError:
        return text


def _described(
    make: Callable[..., argparse.ArgumentParser],
    name: str | None,
    description: str,
    run: Callable[..., None] | None = None,
) -> argparse.ArgumentParser:
    """Make a parser with its help and examples, which leaves out what is not given."""
    parser = make(
        *([name] if name else []),
        description=description,
        epilog=EXAMPLES[name],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        **({"help": description} if name else {"prog": "simsearch"}),
    )
    if run:
        parser.set_defaults(run=run)
    return parser


def _embed(root: str, outputs: str, **options: Any) -> None:  # noqa: ANN401
    ss.embed_dataset(root, outputs, **options)


def _search(outputs: str, queries: list[str], **options: Any) -> None:  # noqa: ANN401
    asked: Any = _images(queries)
    if options.get("regions") and len(asked) == 1:
        (asked,) = asked
    _answer(lambda library, **wishes: ss.search(library, asked, **wishes), outputs, **options)


def _recommend(outputs: str, **options: Any) -> None:  # noqa: ANN401
    for side in ("liked", "disliked", "exclude"):
        if side in options:
            options[side] = _images(options[side])
    _answer(ss.recommend, outputs, **options)


def _library(outputs: str, root: str | None, metadata: str | None) -> ss.ImageLibrary:
    library = ss.ImageLibrary.load(outputs, root)
    return library.attach(metadata) if metadata else library


@contextmanager
def _gallery(
    outputs: str, root: str | None, metadata: str | None
) -> Iterator[ss.ImageLibrary | ss.RemoteLibrary]:
    """Open a folder, or what was published, as URI#COLLECTION."""
    place = published_at(outputs)
    if place is None:
        yield _library(outputs, root, metadata)
        return
    if root or metadata:
        raise ss.QueryError(
            f"--root and --metadata belong to `simsearch publish`: {outputs} has them already"
        )
    with ss.RemoteLibrary(*place) as library:
        yield library


def _images(names: Sequence[str]) -> list[str | int]:
    """Take a number for a row, unless there is a file of that name."""
    return [int(name) if name.isdecimal() and not Path(name).exists() else name for name in names]


def _wishes(options: dict[str, Any], outputs: str) -> dict[str, Any]:
    """Put options as the library takes them."""
    if "where" in options:
        options["where"] = _conditions(options["where"])
    if options.pop("index", False):
        options["index"] = ss.load_index(outputs)
    return options


def _conditions(texts: Sequence[str]) -> dict[str, object]:
    """Read globs, COLUMN=VALUE and COLUMN=LOW..HIGH; several of one column are alternatives."""
    found: dict[str, list[object]] = {}
    for text in texts:
        name, given, value = text.partition("=")
        low, ranged, high = value.partition("..")
        condition = (low or None, high or None) if ranged else value
        found.setdefault(name if given else "path", []).append(condition if given else text)
    return {name: each[0] if len(each) == 1 else each for name, each in found.items()}


def _answer(
    find: Callable[..., ss.Matches | list[ss.Matches]],
    outputs: str,
    *,
    root: str | None = None,
    metadata: str | None = None,
    save: Path | None = None,
    explain: bool = False,
    json: bool = False,
    **options: Any,  # noqa: ANN401
) -> None:
    """Find matches in a library, draw them, and print them."""
    with _gallery(outputs, root, metadata) as library:
        answers = find(library, **_wishes(options, outputs))
        if save:
            _save(ss.show_matches(answers, explain=explain)[0], save)
    for matches in answers if isinstance(answers, list) else [answers]:
        print(matches.to_json() if json else matches)


def _duplicates(
    outputs: str,
    root: str | None = None,
    csv: str | None = None,
    save: Path | None = None,
    **options: Any,  # noqa: ANN401
) -> None:
    found = ss.duplicates(_library(outputs, root, None), **options)
    if csv:
        found.save(csv)
    if save:
        _save(ss.show_duplicates(found)[0], save)
    print(found)


def _index(outputs: str, **options: Any) -> None:  # noqa: ANN401
    print(ss.build_index(ss.ImageLibrary.load(outputs), **options).report)


def _evaluate(
    outputs: str,
    labels: str | None = None,
    metadata: str | None = None,
    save: Path | None = None,
    json: bool = False,
    **options: Any,  # noqa: ANN401
) -> None:
    library = _library(outputs, None, metadata)
    if labels:
        options["labels"] = _read_labels(labels) if Path(labels).is_file() else labels
    evaluation = ss.evaluate(library, **options)
    if save:
        _save(ss.show_precision_recall(evaluation)[0], save)
    print(evaluation.to_json() if json else evaluation)


def _train(
    outputs: str,
    out: str | None = None,
    labels: str | None = None,
    **options: Any,  # noqa: ANN401
) -> None:
    library = ss.ImageLibrary.load(outputs)
    if labels:
        options["labels"] = _read_labels(labels)
    trained = ss.train_head(library, **options)
    folder = out or f"{Path(outputs).as_posix()}_head"
    trained.apply(library, folder)
    print(f"{trained}\nThe library with this head is in {folder}")


def _read_labels(file: str) -> dict[str, str]:
    """Read lines of path,label."""
    try:
        with Path(file).open(encoding="utf-8", newline="") as stream:
            return {path: label for path, label, *_ in csv.reader(stream)}
    except (OSError, ValueError) as error:
        raise ss.QueryError(f"{file} does not hold lines of path,label: {error}") from error


def _save(figure: Figure, file: Path) -> None:
    try:
        figure.savefig(file)
    except (OSError, ValueError) as error:  # no such folder, or no such format
        raise ss.QueryError(f"cannot save the figure to {file}: {error}") from error


def _serve(**options: Any) -> None:  # noqa: ANN401
    from simsearch.web.server import serve

    serve(**options)


def _publish(
    outputs: str,
    root: str | None = None,
    metadata: str | None = None,
    **options: Any,  # noqa: ANN401
) -> None:
    print(ss.publish(_library(outputs, root, metadata), **options))


def _info(outputs: str) -> None:
    print(ss.ImageLibrary.load(outputs).describe())
    if skipped := read_skipped(outputs):
        print(f"{len(skipped):>9,}  skipped, see {Path(outputs, 'skipped.csv').as_posix()}")


def _sample(folder: str) -> None:
    print(f"The sample dataset is in {ss.make_sample(folder)}")

"""The command line: parse, call the library, turn a `SimsearchError` into one line.

No default of its own: what is not given on the command line is left to the library.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import simsearch as ss
from simsearch.library import read_skipped

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
""",
    "embed": """\
examples:
  simsearch embed dataset outputs
  simsearch embed ~/Pictures outputs --backbone efficientnet_lite0
  simsearch embed dataset outputs --backbone resnet50 --weights resnet50.pth
""",
    "search": """\
examples:
  simsearch search outputs photo.jpg -k 5
  simsearch search outputs photo.jpg --save figure.png
  simsearch search outputs https://example.org/cat.jpg --json
  simsearch search outputs 42 --threshold 0.8   row 42 of the library
""",
    "evaluate": """\
examples:
  simsearch evaluate outputs                    each image against all others
  simsearch evaluate outputs --queries 'seg_test/*' --gallery 'seg_train/*'
  simsearch evaluate outputs -k 1 10 100 --json
  simsearch evaluate outputs --save curve.png
""",
    "train": """\
examples:
  simsearch train outputs                       from images in one folder a class
  simsearch train outputs --on 'seg_train/*' --out outputs_head
  simsearch train outputs --labels labels.csv   lines of path,label
  simsearch train outputs --leave-out sea --keep 0.65
  simsearch search outputs_head photo.jpg       search with the head
""",
    "info": "example:\n  simsearch info outputs\n",
    "sample": "example:\n  simsearch sample dataset\n",
}


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

    embed = _described(commands.add_parser, "embed", "Embed the images below a folder.", _embed)
    embed.add_argument("root", metavar="DATASET", help="folder of images")
    embed.add_argument("outputs", metavar="OUTPUTS", help="folder for the library")
    embed.add_argument("--backbone", help="auto, resnet50, efficientnet_lite0, timm:NAME, ...")
    embed.add_argument("--weights", metavar="FILE", help="local state dict for the backbone")
    embed.add_argument("--batch-size", type=int, metavar="N", help="images a forward pass")
    embed.add_argument("--workers", type=int, metavar="N", help="threads")
    embed.add_argument("--device", help="cpu, cuda or mps")
    embed.add_argument("--precision", choices=["auto", "float32", "bfloat16", "float16"])
    embed.add_argument("--strict", action="store_true", help="stop at an unreadable image")

    search = _described(commands.add_parser, "search", "Find the most alike images.", _search)
    search.add_argument("outputs", metavar="OUTPUTS", help="folder of the library")
    search.add_argument("queries", metavar="QUERY", nargs="+", help="path, URL or row number")
    search.add_argument("-k", type=int, help="how many matches")
    search.add_argument("--threshold", type=float, metavar="COSINE", help="leave out lower scores")
    search.add_argument(
        "--include-query",
        dest="exclude_query",
        action="store_false",
        help="let an image of the library find itself",
    )
    search.add_argument("--root", metavar="DATASET", help="where the images are, if they moved")
    search.add_argument("--save", type=Path, metavar="FIGURE", help="draw the matches to a file")
    search.add_argument("--json", action="store_true", help="print one JSON object a query")

    evaluate = _described(
        commands.add_parser, "evaluate", "Measure how well images find their class.", _evaluate
    )
    evaluate.add_argument("outputs", metavar="OUTPUTS", help="folder of the library")
    for name in ("queries", "gallery"):
        evaluate.add_argument(f"--{name}", metavar="GLOB", help="such as 'seg_test/*'; * crosses /")
    evaluate.add_argument("-k", type=int, nargs="+", help="depths of precision and recall")
    evaluate.add_argument(
        "--save", type=Path, metavar="FIGURE", help="draw the precision-recall curves to a file"
    )
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")

    train = _described(commands.add_parser, "train", "Train a head on labelled images.", _train)
    train.add_argument("outputs", metavar="OUTPUTS", help="folder of the library")
    train.add_argument("--out", metavar="FOLDER", help="where to save; else OUTPUTS_head")
    train.add_argument("--labels", metavar="CSV", help="lines of path,label; else the folders")
    train.add_argument("--on", metavar="GLOB", help="train on these alone, such as 'seg_train/*'")
    train.add_argument("--leave-out", nargs="+", metavar="CLASS", help="to see unknown classes")
    train.add_argument("--loss", help="triplet, contrastive, multi-similarity, arcface, supcon")
    train.add_argument("--dim", type=int, help="width of the new embeddings")
    train.add_argument("--keep", type=float, help="share of the backbone's own cosine")
    train.add_argument("--epochs", type=int, help="passes over the images, at most")
    train.add_argument("--seed", type=int, help="of everything that is drawn at random")

    info = _described(commands.add_parser, "info", "Say what a library holds.", _info)
    info.add_argument("outputs", metavar="OUTPUTS", help="folder of the library")

    sample = _described(commands.add_parser, "sample", "Make the sample dataset.", _sample)
    sample.add_argument("folder", metavar="DATASET", help="folder to make")
    return parser


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


def _search(
    outputs: str,
    queries: list[str],
    root: str | None = None,
    save: Path | None = None,
    json: bool = False,
    **options: Any,  # noqa: ANN401
) -> None:
    library = ss.ImageLibrary.load(outputs, root)
    rows = [int(q) if q.isdecimal() and not Path(q).exists() else q for q in queries]
    answers = ss.search(library, rows, **options)
    if save:
        _save(ss.show_matches(answers if len(answers) > 1 else answers[0])[0], save)
    for matches in answers:
        print(matches.to_json() if json else matches)


def _evaluate(
    outputs: str,
    save: Path | None = None,
    json: bool = False,
    **options: Any,  # noqa: ANN401
) -> None:
    evaluation = ss.evaluate(ss.ImageLibrary.load(outputs), **options)
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
    library.with_head(trained.head).save(folder)
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


def _info(outputs: str) -> None:
    print(ss.ImageLibrary.load(outputs).describe())
    if skipped := read_skipped(outputs):
        print(f"{len(skipped):>9,}  skipped, see {Path(outputs, 'skipped.csv').as_posix()}")


def _sample(folder: str) -> None:
    print(f"The sample dataset is in {ss.make_sample(folder)}")

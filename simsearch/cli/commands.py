"""What each command does: call the library, print and draw what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import simsearch as ss
from simsearch.cli.flags import read_options, read_thresholds, take_table_options
from simsearch.cli.frames import print_found
from simsearch.cli.locate import read_images
from simsearch.cli.output import say
from simsearch.library.refusals import if_yours

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from simsearch.library.types import Browsable

SHOWN = ("format", "paths", "null", "pictures")  # options of `print_matches`
FOUND = 3  # exit status of `check --fail-on`


def embed(root: str, outputs: str, *, quiet: bool = False, **options: Any) -> None:  # noqa: ANN401
    """Embed a dataset."""
    ss.embed_dataset(root, outputs, progress=not quiet, **options)


def watch(root: str, outputs: str, *, quiet: bool = False, **options: Any) -> None:  # noqa: ANN401
    """Embed a dataset, and again whenever it changes."""
    from simsearch.watch import follow_dataset

    follow_dataset(root, outputs, report=say, progress=not quiet, **options)


def mcp(outputs: str, **options: Any) -> None:  # noqa: ANN401
    """Serve a library to AI agents."""
    from simsearch.mcp import LibraryTools, make_server

    make_server(LibraryTools(outputs, **options)).run("stdio")


def search(
    outputs: str,
    queries: Sequence[str] = (),
    text: Sequence[str] = (),
    **options: Any,  # noqa: ANN401
) -> None:
    """Search for the matches of queries."""
    if not (queries or text):
        raise ss.QueryError("there is no query: give a picture, or words by --text")

    def find(library: Browsable, **given: Any) -> ss.Matches | list[ss.Matches]:  # noqa: ANN401
        images: Any = [*read_images(library, queries), *map(ss.Words, text)]
        if given.get("regions") and len(images) == 1:
            (images,) = images
        found: ss.Matches | list[ss.Matches] = ss.search(library, images, **given)
        return found

    _show(find, outputs, **options)


def recommend(outputs: str, **options: Any) -> None:  # noqa: ANN401
    """Recommend from likes and dislikes."""

    def find(library: Browsable, **given: Any) -> ss.Matches:  # noqa: ANN401
        sides = {"liked", "disliked", "exclude"} & given.keys()
        given |= {side: read_images(library, given[side]) for side in sides}
        for side, words in texts.items():
            given[side] = [*given.get(side, ()), *words]
        return ss.recommend(library, **given)

    texts = {
        side: list(map(ss.Words, options.pop(f"{side}_text", ()))) for side in ("liked", "disliked")
    }
    if not (options.get("liked") or texts["liked"]):
        raise ss.QueryError("nothing is liked: give --liked IMAGE, or words by --liked-text")

    _show(find, outputs, **options)


def _load(
    outputs: str,
    root: str | None = None,
    metadata: str | None = None,
    table: Mapping[str, Any] | None = None,
) -> ss.ImageLibrary:
    library = ss.ImageLibrary.load(outputs, root)
    return library.attach(metadata, **(table or {})) if metadata else library


def _load_with_table(outputs: str, root: str | None, options: dict[str, Any]) -> ss.ImageLibrary:
    """Load a library and attach its table, whose flags are taken out of the options."""
    table = take_table_options(options)
    return _load(outputs, root, options.pop("metadata", None), table)


@contextmanager
def _open(
    outputs: str, root: str | None, metadata: str | None, table: Mapping[str, Any]
) -> Iterator[ss.ImageLibrary | ss.RemoteLibrary]:
    """Open a folder, or what was published, as URI#COLLECTION."""
    from simsearch.cluster.milvus.address import is_lance, split_address

    place = split_address(outputs)
    if place is None:
        yield _load(outputs, root, metadata, table)
        return
    if is_lance(place[0]) and not metadata:
        yield ss.LanceLibrary(*place, root)
        return
    if root or metadata:
        raise ss.QueryError(
            f"--root and --metadata belong to `simsearch publish`: {outputs} has them already"
        )
    with ss.RemoteLibrary(*place) as library:
        yield library


def _show(
    find: Callable[..., ss.Matches | list[ss.Matches]],
    outputs: str,
    *,
    root: str | None = None,
    save: Path | None = None,
    explain: bool = False,
    open: bool = False,
    **options: Any,  # noqa: ANN401
) -> None:
    """Find matches in a library, draw them, and print them."""
    from simsearch.cli.results import print_matches
    from simsearch.cli.viewer import figure_file, open_file

    table = take_table_options(options)
    shown = {name: options.pop(name) for name in SHOWN if name in options}
    with _open(outputs, root, options.pop("metadata", None), table) as library:
        answers = find(library, **read_options(options, outputs))
        save = save or (figure_file() if open else None)
        if save:
            _save(ss.show_matches(answers, explain=explain)[0], save)
    print_matches(answers if isinstance(answers, list) else [answers], shown)
    if open and save:
        open_file(save)


def duplicates(
    outputs: str,
    reference: str | None = None,
    root: str | None = None,
    csv: str | None = None,
    save: Path | None = None,
    **options: Any,  # noqa: ANN401
) -> None:
    """List near-duplicates, and plan or do what is done about them."""
    from simsearch.cli.clean_up import act_on_duplicates, take_plan_options

    if act_on_duplicates(outputs, root, options):
        return
    form = options.pop("format", "text")
    plan = take_plan_options(options)
    if plan and form != "text":
        raise ss.QueryError(f"--format {form} prints groups alone: leave it out with --plan")
    other = _load(reference) if reference else None
    found = ss.duplicates(_load(outputs, root), other, **options)
    if csv:
        found.save(csv)
    if save:
        _save(ss.show_duplicates(found)[0], save)
    print_found(found, form, found.to_frame)
    if plan:
        plan(found)


def albums(
    outputs: str,
    grain: str | None = None,
    root: str | None = None,
    *,
    csv: str | None = None,
    save: Path | None = None,
    format: str = "text",
    **options: Any,  # noqa: ANN401
) -> None:
    """Group images that are alike, and print the albums of one grain or of all."""
    library = _load_with_table(outputs, root, options)
    if options.get("words") == ["classes"]:
        options["words"] = "classes"
    found = ss.albums(library, **_read_labels(options))
    shown = found.level(grain) if grain else found
    if csv:
        found.to_csv(csv, grain)
    if save:
        figure = ss.show_albums(found, grain) if grain else ss.show_albums(found)
        _save(figure[0], save)
    print_found(shown, format, lambda: found.to_frame(grain))


def _read_labels(options: dict[str, Any]) -> dict[str, Any]:
    """Replace a file of labels by what it holds."""
    labels = options.get("labels")
    if labels and Path(labels).is_file():
        from simsearch.library.delimited import read_pairs

        options["labels"] = read_pairs(labels, "path", "label")
    return options


def check(
    outputs: str,
    *,
    root: str | None = None,
    thresholds: Sequence[str] = (),
    fail_on: Sequence[str] = (),
    csv: str | None = None,
    figure: Path | None = None,
    format: str = "text",
    **options: Any,  # noqa: ANN401
) -> int:
    """Report on the health of a dataset; 3 if a kind of `fail_on` was found, else 0."""
    from simsearch.analysis.health_checks import CHECKS
    from simsearch.analysis.health_figure import save_health

    library = _load_with_table(outputs, root, options)
    limits = read_thresholds(thresholds)
    known = {"any", *CHECKS}
    if unknown := [kind for kind in fail_on if kind not in known]:
        raise ss.QueryError(f"--fail-on {unknown[0]}: give some of {', '.join(sorted(known))}")
    report = ss.check_dataset(library, thresholds=limits, **options)
    if csv:
        report.to_csv(csv)
    if figure:
        with _saving(figure):
            save_health(report, figure)
    print_found(report, format, report.to_frame)
    kinds = list(report) if "any" in fail_on else fail_on
    return FOUND if sum(len(report[kind]) for kind in kinds) else 0


def index(outputs: str, **options: Any) -> None:  # noqa: ANN401
    """Build an index, and print its report."""
    say(ss.build_index(ss.ImageLibrary.load(outputs), **options).report)


def evaluate(
    outputs: str,
    save: Path | None = None,
    format: str = "text",
    **options: Any,  # noqa: ANN401
) -> None:
    """Measure how well images find their class."""
    library = _load_with_table(outputs, None, options)
    evaluation = ss.evaluate(library, **_read_labels(options))
    if save:
        _save(ss.show_precision_recall(evaluation)[0], save)
    print_found(evaluation, format, evaluation.to_frame)


def train(
    outputs: str,
    out: str | None = None,
    labels: str | None = None,
    **options: Any,  # noqa: ANN401
) -> None:
    """Train a head, and save the library with it."""
    library = ss.ImageLibrary.load(outputs)
    if labels:
        from simsearch.library.delimited import read_pairs

        options["labels"] = read_pairs(labels, "path", "label")
    trained = ss.train_head(library, **options)
    folder = out or f"{Path(outputs).as_posix()}_head"
    trained.apply(library, folder)
    say(f"{trained}\nThe library with this head is in {folder}")


def _save(figure: Figure, file: Path) -> None:
    with _saving(file):
        figure.savefig(file)


@contextmanager
def _saving(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # no such folder, or no such format
        raise ss.QueryError(f"cannot save the figure to {file}: {error}") from error


def serve(outputs: str, others: Sequence[str] = (), **options: Any) -> None:  # noqa: ANN401
    """Serve the page and the API."""
    from simsearch.web.server import serve

    serve([outputs, *others], **{**options, **take_table_options(options)})


def publish(
    outputs: str,
    root: str | None = None,
    **options: Any,  # noqa: ANN401
) -> None:
    """Publish a library to Milvus, or as a table of LanceDB."""
    from simsearch.cluster.milvus.address import is_lance

    library = _load_with_table(outputs, root, options)
    uri, table = options["uri"], options["collection"]
    if not is_lance(uri):
        say(ss.publish(library, **options))
        return
    if {"kind", "replace"} & options.keys():
        raise ss.QueryError(f"--kind and --replace belong to Milvus, and {uri!r} is of LanceDB")
    published = ss.LanceLibrary.publish(library, uri, table)
    say(f"version {published.version}: {len(published):,} rows are in {published}")


def export(outputs: str, file: str, root: str | None = None, **options: Any) -> None:  # noqa: ANN401
    """Write a library as one Parquet file, or as a dataset of FiftyOne."""
    library = _load_with_table(outputs, root, options)
    ss.export_library(library, file, **options)
    say(f"{len(library):,} rows are in {file}")


def import_rows(
    file: str,
    outputs: str,
    csv: str | None = None,
    **options: Any,  # noqa: ANN401
) -> None:
    """Make a library of a Parquet file or an array, and write the rest of its table."""
    library = ss.import_library(file, outputs, **options)
    say(f"{len(library):,} rows are in {outputs}")
    table = library.metadata
    if table is None:
        return
    if csv is None:
        say(f"columns that --csv FILE writes, for --metadata: {', '.join(table.columns)}")
        return
    from simsearch.csv_file import saving, write_csv

    cells = table.astype(object).where(table.notna(), "").itertuples(index=False)
    rows = ([name, *line] for name, line in zip(library.names, cells, strict=True))
    with saving(csv) as place:
        write_csv(place, ["path", *table.columns], rows)


def verify(outputs: str) -> int:
    """Check every file of a library; 1 if one is damaged, else 0."""
    report = ss.verify_library(outputs)
    say(report)
    return 0 if report.ok else 1


def info(outputs: str) -> None:
    """Print what a library holds."""
    from simsearch.library.report import describe_kinds

    library = ss.ImageLibrary.load(outputs)
    say(library.describe())
    if not library.own:
        say(f"mark       none of yours: {if_yours(outputs)}")
    if library.report.skipped:
        kinds = describe_kinds(library.report.left_out)
        place = Path(outputs, "skipped.csv").as_posix()
        say(f"{library.report.skipped:>9,}  skipped, see {place} ({kinds})")


def trust(outputs: str) -> None:
    """Make a library count as one's own, and print what it may open from now on."""
    say(ss.trust_library(outputs))


def sample(folder: str) -> None:
    """Make the sample dataset."""
    say(f"The sample dataset is in {ss.make_sample(folder)}")


def completion(shell: str) -> None:
    """Print a script that completes commands."""
    from simsearch.cli.completion import completion_script
    from simsearch.cli.parser import build_parser

    say(completion_script(build_parser(), shell))

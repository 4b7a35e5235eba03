"""The options of a search stand once: signatures, documentation and flags follow from them."""

import argparse
import inspect
import typing
from dataclasses import dataclass, fields

import pytest

import simsearch as ss
from simsearch.cli.flags import add_option_flags
from simsearch.errors import QueryError
from simsearch.retrieval.keywords import RankingKeywords, SearchKeywords
from simsearch.retrieval.options import (
    RankingOptions,
    SearchOptions,
    accepts,
    option_docs,
)


def names(options):
    return {field.name for field in fields(options)}


@pytest.mark.parametrize(
    ("function", "options"), [(ss.search, SearchOptions), (ss.recommend, RankingOptions)]
)
def test_signatures_have_every_option_with_its_default(function, options):
    parameters = inspect.signature(function).parameters
    for field in fields(options):
        assert parameters[field.name].default == field.default


@pytest.mark.parametrize(
    ("function", "options"), [(ss.search, SearchOptions), (ss.recommend, RankingOptions)]
)
def test_docstrings_describe_every_option(function, options):
    for field in fields(options):
        assert f"\n    {field.name}" in function.__doc__
    assert "**options" not in function.__doc__


@pytest.mark.parametrize("options", [RankingOptions, SearchOptions])
def test_every_option_is_documented(options):
    assert option_docs(options).keys() == names(options)


def test_the_keywords_for_type_checkers_are_the_options():
    """Those that are positional, or that decide what is returned, stand in the overloads."""
    ranking = set(RankingKeywords.__annotations__)
    assert ranking | {"k", "threshold"} == names(RankingOptions)
    own = set(SearchKeywords.__annotations__) - ranking
    assert own | {"exclude_query", "combine", "regions"} == names(SearchOptions) - names(
        RankingOptions
    )
    for keywords, options in ((RankingKeywords, RankingOptions), (SearchKeywords, SearchOptions)):
        types = {field.name: field.type for field in fields(options)}
        for name, annotation in keywords.__annotations__.items():
            assert isinstance(annotation, typing.ForwardRef)
            assert annotation.__forward_arg__ == types[name]


def test_a_new_option_is_written_in_one_place():
    @dataclass(frozen=True, kw_only=True)
    class More(SearchOptions):
        """More options.

        Attributes
        ----------
        boost : float
            How much louder.
        shuffle : bool
            In any order.
        exclude_dark : bool
            Leave out dark pictures.
        """

        boost: "float" = 1.5
        shuffle: "bool" = False
        exclude_dark: "bool" = True

    @accepts(More)
    def find(query, **options):
        """Find.

        Parameters
        ----------
        query
            A query.
        **options
            The options.

        Returns
        -------
        None
        """
        return More(**options)

    assert inspect.signature(find).parameters["boost"].default == 1.5
    assert "    boost : float\n        How much louder.\n" in find.__doc__
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
    add_option_flags(parser, More)
    given = vars(parser.parse_args(["--boost", "2", "--shuffle", "--include-dark", "-k", "3"]))
    assert given == {"boost": 2.0, "shuffle": True, "exclude_dark": False, "k": 3}
    assert find("a.jpg", **given).boost == 2
    assert "how much louder" in parser.format_help()


def test_an_unknown_option_is_a_type_error():
    library = ss.ImageLibrary([[1, 0], [0, 1]], ["a.jpg", "b.jpg"])
    with pytest.raises(TypeError, match="no option 'divesity'; did you mean 'diversity'"):
        ss.search(library, 0, divesity=0.3)
    with pytest.raises(TypeError, match="box"):
        ss.recommend(library, [0], box=(0, 0, 1, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k=0"),
        ({"k": True}, "k=True"),
        ({"k": 2.5}, "k=2.5"),
        ({"threshold": 1.1}, "threshold=1.1"),
        ({"threshold": "high"}, "threshold='high'"),
        ({"diversity": -0.1}, "diversity=-0.1"),
        ({"unique": 2}, "unique=2"),
        ({"weights": [1]}, "weights go with"),
        ({"combine": "sum"}, "combine='sum'"),
    ],
)
def test_options_are_checked_when_they_are_made(options, message):
    with pytest.raises(QueryError, match=message):
        SearchOptions(**options)

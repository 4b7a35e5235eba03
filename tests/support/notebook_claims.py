"""What the notebooks say of their own output, each with what has to be true when they have run."""

# By notebook: words of a sentence, and an expression that is evaluated after the last cell.
CLAIMS = {
    "image_similarity.ipynb": {
        "see the most similar ones": (
            "matches.scores.tolist() == sorted(matches.scores, reverse=True)"
        ),
        "later runs embed only what is new or has changed": (
            "ss.embed_dataset(DATASET, OUTPUTS, progress=False).report.embedded == 0"
        ),
        "says where it lies among random pairs": "str(matches).count('top ') == TOP_K",
        "nothing is embedded twice": "library.report.embedded == 0",
        "`matches` also prints": "len(str(matches).splitlines()) == 1 + TOP_K",
        "How many images, in which folders": "f'{len(library):,} images' in library.describe()",
        "A list of queries is answered together, one row each": (
            "len(ss.search(library, queries, k=TOP_K)) == len(queries)"
        ),
        "has unit rows, so a dot product is a cosine": (
            "np.allclose(np.linalg.norm(np.load('outputs/embeddings.npy'), axis=1), 1)"
        ),
        "a picture mirrored, which finds the picture itself": (
            "ss.search(library, pixels[:, ::-1], k=TOP_K).paths[0] == library.paths[0]"
        ),
    },
    "recipes.ipynb": {
        "in the sample, all of these are cups of coffee": (
            "{library.labels[m.row] for m in ss.search(library, text=TEXT, k=TOP_K)} "
            "<= {'coffee', ''} and {*ss.search(library, text=TEXT, k=TOP_K).paths} <= "
            "{*ss.search(library, away, k=60, exclude_query=False).paths}"
        ),
        "no cup is among the matches": (
            "not {*ss.search(library, queries, k=TOP_K, combine='mean', weights=[1, -0.5]).paths} "
            "& {*ss.search(library, away, k=60, exclude_query=False).paths}"
        ),
        "a note says so, with the classes that are nearest": (
            "unknown.query.startswith('words \"inflation\" (no concept near: ')"
        ),
        "On the left stands that part, not the whole picture": (
            "ss.search(library, query_image, box=BOX).box == BOX"
        ),
        "Look how the first match changes from row to row": (
            "len({m.paths[0] for m in ss.search(library, query_image, regions=True)}) >= 3"
        ),
        "the whole, four corners and the centre, a row each": (
            "len(ss.search(library, query_image, regions=True)) == 6"
        ),
        "six sheets of four pictures each": "len(looks) == 6 and len(paths) == 24",
        "the upper left quarter of the first look, which comes first, framed there": (
            "(lambda m: m.path == 'looks/0.png' and m.box[0] + m.box[2] <= 600 "
            "and m.box[1] + m.box[3] <= 480)(ss.search(looks, paths[0], k=1, parts=True)[0])"
        ),
        "its score is higher than by whole pictures": (
            "ss.search(looks, paths[0], k=1, parts=True).scores[0] "
            "> ss.search(looks, paths[0], k=1).scores[0] + 0.1"
        ),
        "the query and its first match are liked, and its third is not": (
            "ss.search(library, query_image, k=3).paths[::2] == [first, third]"
        ),
        "none of these is found again": (
            "not {query_image, first, third} & {*ss.recommend(library, liked, disliked, "
            "k=50).paths}"
        ),
        "`unique` folds near-duplicates into one match": (
            "not any(len({m.row for m in matches} & {*g.rows}) > 1 for g in groups "
            "if g.lowest >= 0.9)"
        ),
        "leaves out what one random pair in a thousand would reach": (
            "(library.random_pair_scores >= library.threshold()).mean() <= 0.001"
        ),
        "Groups of images that are nearly the same, with the cosine to the first": (
            "len(groups) > 0 and all(g.scores[0] == 1 or g.scores[0] > 0.999 for g in groups)"
        ),
        "`save` writes them to a CSV file": "Path(OUTPUTS, 'duplicates.csv').stat().st_size > 0",
        "It says what it chose, how much it finds": "'recall@' in str(index.report)",
    },
    "training.ipynb": {
        "images of one folder should find each other": "before.overall['mAP'].value > 0.5",
        "The worst classes come first": (
            "(lambda names, text: [*map(text.rindex, sorted(names, key=lambda each: "
            "names[each]['mAP'].value))] == sorted(map(text.rindex, names)))"
            "(before.by_class, str(before))"
        ),
        "the report is on images that the training never saw": (
            "'images that training never saw' in str(trained)"
        ),
        "`with_head` derives a library that is searched like any other": (
            "len(ss.search(better, row, k=TOP_K)) == TOP_K"
        ),
        "The worst query of the plain library": (
            "library.paths[row].startswith(f'{DATASET}/seg_test/')"
        ),
        "training sees the gallery alone": "QUERIES.partition('/')[0] not in GALLERY",
        "can they be better?": "after.overall['mAP'].value > before.overall['mAP'].value",
    },
}
# First words of other cells, and why nothing of them is checked here.
NO_CLAIMS = {
    "# Ask for more": "lists what comes",
    "## Settings": "says what to edit",
    "## The map of the library": "what maps show is measured in tests/analysis/test_map.py",
    "## Why it matched": "what heat maps show is measured in tests/analysis/test_explain.py",
    "Which classes are taken for which": "says where to look",
    "The queries that went worst": "says where to look, in a library of one's own",
    "## Without labels": "is advice",
}

"""Long pictures embedded by windows along them and folded, as new libraries have them."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_backbone

import simsearch as ss
from simsearch.analysis.explain import contributions
from simsearch.analysis.explain_long import unfold
from simsearch.backbones.long_pictures import as_embedded, windows_along
from simsearch.library.files import LOG
from simsearch.library.long_pictures import count_long

SIZES = {"a.png": (500, 100), "b.png": (90, 300), "c.png": (200, 100), "d.png": (150, 120)}
NETWORK = "efficientnet_lite0"


@pytest.fixture(autouse=True)
def dataset(tmp_path, monkeypatch):
    """Pictures of noise, two of them long."""
    monkeypatch.chdir(tmp_path)
    Path("dataset").mkdir()
    for i, (name, size) in enumerate(SIZES.items()):
        noisy(i, size).save(f"dataset/{name}")


def noisy(seed, size):
    """A picture whose colour changes along it, with noise."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(40, 215, (9, 9, 3)).astype(np.uint8)
    smooth = Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)
    grain = rng.integers(-30, 30, (*size[::-1], 3))
    return Image.fromarray((np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8))


def embed(outputs="outputs", **options):
    return ss.embed_dataset("dataset", outputs, NETWORK, progress=False, **options)


def expected(file):
    """The mean of squares along it and all of it folded, each of unit norm, added up."""
    backbone, image = ss.load_backbone(NETWORK), ss.load_image(file)
    side = (backbone.transform.crop,) * 2
    boxes = map(tuple, windows_along(image.size).tolist())
    cut = [image.resize(side, Image.Resampling.BILINEAR, box) for box in boxes]
    mean = backbone.embed(np.stack([np.array(each) for each in cut])).astype(float).mean(axis=0)
    both = mean / np.linalg.norm(mean) + backbone.embed(folded(image, side[0])[None])[0]
    return both / np.linalg.norm(both)


def folded(image, side):
    """Two pieces, one below the other, or beside it."""
    assert max(image.size) / min(image.size) < 6.25  # of which three are made
    (width, height), half = image.size, side // 2
    if width > height:
        boxes, size = [(0, 0, width / 2, height), (width / 2, 0, width, height)], (side, half)
    else:
        boxes, size = [(0, 0, width, height / 2), (0, height / 2, width, height)], (half, side)
    pieces = [np.array(image.resize(size, Image.Resampling.BILINEAR, box)) for box in boxes]
    return np.concatenate(pieces, axis=0 if width > height else 1)


def test_windows_cover_a_picture_from_end_to_end():
    for size in [(201, 100), (100, 333), (1000, 100), (6400, 99)]:
        boxes, axis = windows_along(size), 0 if size[0] > size[1] else 1
        assert boxes[0, axis] == 0
        assert boxes[-1, axis + 2] == pytest.approx(max(size))
        assert (boxes[1:, axis] <= boxes[:-1, axis + 2]).all() or len(boxes) == 64
        np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], min(size))


def test_a_long_row_is_made_of_windows_and_a_fold_and_all_others_are_as_ever():
    plain, library = embed("plain", long="centre"), embed()
    for row in (0, 1):
        np.testing.assert_allclose(library.embeddings[row], expected(library.paths[row]), atol=1e-5)
        assert library.embeddings[row] @ plain.embeddings[row] < 0.999
    np.testing.assert_array_equal(library.embeddings[2:], plain.embeddings[2:])


def test_queries_are_embedded_as_the_rows_are():
    embed()
    library = ss.ImageLibrary.load("outputs")
    for backbone in (None, ss.load_backbone(NETWORK), NETWORK):
        asked = library if backbone is None else library.with_backbone(backbone)
        picture = ss.load_image("dataset/a.png")
        np.testing.assert_allclose(asked.encode([picture])[0], library.embeddings[0], atol=1e-5)
        assert ss.search(asked, picture, k=1, exclude_query=False)[0].score == pytest.approx(
            1, abs=1e-5
        )


def test_the_way_stays_with_a_library(caplog):
    plain = embed("plain", long="centre")
    embed()
    noisy(9, (400, 90)).save("dataset/e.png")
    for outputs, source in (("plain", plain), ("outputs", None)):
        library = embed(outputs)
        assert library.run["embedded"] == 1, outputs
        assert source is None or library.fingerprint == source.fingerprint
    np.testing.assert_allclose(library.embeddings[4], expected("dataset/e.png"), atol=1e-5)
    used = library.backbone  # of one library, given to the other
    assert ss.embed_dataset("dataset", "plain", used, progress=False).run["embedded"] == 0
    assert "Embedding every image again" not in caplog.text
    assert embed(long="centre").run["embedded"] == 5
    assert "Embedding every image again" in caplog.text
    assert embed().fingerprint == plain.fingerprint


@pytest.mark.parametrize("long", ["centre", None])
def test_a_stopped_run_goes_on_in_its_way(long, monkeypatch):
    """Also one that an earlier version began, which took the centre."""
    with monkeypatch.context() as patch:
        patch.setattr("simsearch.embedding.rows.EmbeddedRows.replace_library", stop)
        with pytest.raises(KeyboardInterrupt):
            embed(long=long)
    assert Path("outputs", LOG).exists()
    library = embed()
    assert library.run["seconds"] < 1  # nothing was embedded again
    assert library.source.fingerprint.endswith("-windows") == (long is None)
    own = ss.load_backbone(NETWORK).encode(["dataset/a.png"])[0]
    assert (library.embeddings[0] @ own > 0.99999) == (long == "centre")


def stop(*_, **__):
    raise KeyboardInterrupt


def test_a_network_with_a_transform_of_its_own_has_no_windows():
    own = tiny_backbone()
    library = ss.embed_dataset("dataset", "outputs", own, progress=False)
    assert library.fingerprint == own.fingerprint
    np.testing.assert_array_equal(library.embeddings, own.encode(library.paths.tolist()))


def test_libraries_that_differ_in_long_pictures_alone_say_how_to_meet():
    plain, library = embed("plain", long="centre"), embed()
    with pytest.raises(ss.QueryError, match=r'embed one .* with long="windows" or long="centre"'):
        ss.Shards([plain, library])
    with pytest.raises(ss.QueryError, match='long="centre"'):
        ss.duplicates(library, reference=plain)


def test_words_are_understood_by_the_classifier():
    library = embed()
    assert ss.search(library, text="a lighthouse", k=1)


def test_a_copy_in_another_process_embeds_long_pictures_alike():
    library = embed()
    sent = pickle.loads(pickle.dumps(library.backbone))
    np.testing.assert_allclose(sent.encode(["dataset/a.png"])[0], library.embeddings[0], atol=1e-6)


def test_nothing_is_said_of_what_was_seen():
    library = embed()
    assert count_long(library).number == 0
    assert library.report.centre_only == ""
    assert ss.search(library, noisy(5, (600, 100)), k=1).notes == ()
    assert "only the centre was seen" in ss.search(library, noisy(5, (190, 100)), k=1).notes[0]


@pytest.mark.parametrize("row", [0, 1])
def test_a_heat_map_covers_all_of_a_long_picture(row):
    library = embed()
    vector = library.embeddings[row]
    (share,) = contributions(library, [library.paths[row]], vector)
    assert share.sum() == pytest.approx(1, abs=1e-3)
    heat = ss.heat_map(library, row, vector)
    width, height = list(SIZES.values())[row]
    assert heat.shape == (height, width)
    ends = (heat[:, :20], heat[:, -20:]) if width > height else (heat[:20], heat[-20:])
    assert all(np.abs(end).max() > 0 for end in ends)
    assert heat.mean() == pytest.approx(1, abs=0.15)


def test_an_even_share_is_even_along_the_picture():
    for size, length in [((500, 100), 35), ((210, 100), 15), ((100, 6400), 448)]:
        spread = unfold(np.ones((7, 7), np.float32), size, length)
        np.testing.assert_allclose(spread, np.full((7, length), 7 / length), rtol=1e-5)


def test_unknown_ways_and_transforms_of_ones_own_are_refused():
    with pytest.raises(ss.BackboneError, match="long='whole': choose centre or windows"):
        embed(long="whole")
    with pytest.raises(ss.BackboneError, match='give long="centre"'):
        as_embedded(tiny_backbone(), "windows")
    assert as_embedded(tiny_backbone(), "centre").name == tiny_backbone().name


def test_a_backbone_goes_back_and_forth():
    plain = ss.load_backbone(NETWORK)
    both = as_embedded(as_embedded(plain, "windows"), "centre")
    assert as_embedded(plain, "windows").transform.windows
    assert as_embedded(plain, "windows") is as_embedded(plain, "windows")  # loaded once
    assert (both.fingerprint, both.transform) == (plain.fingerprint, plain.transform)
    assert as_embedded(plain, "windows").fingerprint == f"{plain.fingerprint}-windows"
    assert plain.fingerprint == ss.load_backbone(NETWORK).fingerprint

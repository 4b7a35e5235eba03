"""`Backbone.encode`: decode, prepare and embed, with typed errors."""

import io
import math

import numpy as np
import pytest
from networks import Tiny, own
from PIL import Image
from tiny import tiny_backbone
from torch import nn

from simsearch.embedding.batching import embed_batch
from simsearch.errors import ImageError
from simsearch.images.decode import load_image
from simsearch.web.batching import BatchedBackbone


class Counting(nn.Module):
    """Flattened pixels, and the sizes of the batches that came."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, batch):
        self.sizes.append(len(batch))
        return batch.flatten(1)


def png_bytes(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_rows_equal_embed_of_prepared_images(photos, tmp_path):
    photos[0].save(tmp_path / "0.png")
    sources = [tmp_path / "0.png", photos[1], np.asarray(photos[2]), png_bytes(photos[3])]
    backbone = own(Tiny())
    wanted = backbone.embed(np.stack([backbone.prepare(load_image(image)) for image in photos]))
    rows = backbone.encode(sources)
    assert (rows.shape, rows.dtype) == ((4, 4), np.float32)
    assert rows.flags.c_contiguous
    np.testing.assert_allclose(rows, wanted, atol=1e-6)


def test_batches_have_at_most_eight_images_on_a_processor():
    backbone = own(Counting())
    backbone._module.sizes.clear()
    assert backbone.encode([Image.new("RGB", (9, 9), "red")] * 19).shape == (19, 3 * 32 * 32)
    assert backbone._module.sizes == [8, 8, 3]


def test_no_images_give_no_rows():
    assert own(Tiny(5)).encode([]).shape == (0, 5)


def test_first_unreadable_image_is_named(tmp_path):
    good, bad = Image.new("RGB", (9, 9), "red"), tmp_path / "bad.png"
    bad.write_text("words")
    with pytest.raises(ImageError, match=r"bad\.png: not a supported image format"):
        own(Tiny()).encode([good, bad, tmp_path / "missing.png"])


def test_image_without_a_finite_embedding_has_the_reason_of_a_batch():
    backbone = own(nn.Flatten())  # a black image has no direction
    images = [Image.new("RGB", (9, 9), colour) for colour in ["red"] * 9 + ["black"] * 2]
    with pytest.raises(ImageError, match="no finite embedding in float32") as error:
        backbone.encode(images)
    (_, failure), _ = embed_batch(images, 0, backbone).failures
    assert error.value.reason == failure.reason == backbone.non_finite_reason
    assert "PIL image 9×9" in str(error.value)


def test_nan_weights_are_reported():
    module = Tiny()
    module.conv.weight.data[0, 0, 0, 0] = math.nan
    with pytest.raises(ImageError, match='try precision="float32"'):
        own(module).encode([Image.new("RGB", (9, 9))])


def test_batched_backbone_encodes_through_its_batches(photos):
    backbone, sizes = tiny_backbone(), []
    batched = BatchedBackbone(backbone, 8, sizes.append)
    try:
        rows = batched.encode(photos)
    finally:
        batched.close()
    np.testing.assert_allclose(rows, backbone.encode(photos), atol=1e-6)
    assert sizes == [4]

"""JPEGs whose scans are repeated."""

import io

from PIL import Image


def encode_jpeg(mode="RGB", **options):
    """Encode a JPEG of 64×64 pixels."""
    data = io.BytesIO()
    Image.linear_gradient("L").resize((64, 64)).convert(mode).save(data, "JPEG", **options)
    return data.getvalue()


def repeat_scans(count):
    """Make a progressive JPEG with its last scan repeated."""
    data = encode_jpeg(progressive=True)
    last = data.rfind(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + data[-2:]

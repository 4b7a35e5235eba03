"""Where the pixel signatures of a library's pictures are kept: `signatures.*` beside it."""

from __future__ import annotations

import numpy as np

from simsearch.images.signature import SIGNATURE, SIGNATURE_VERSION
from simsearch.library.stored_rows import KEY, RowStore

ROW = np.dtype([KEY, ("frames", np.uint32), ("signature", SIGNATURE)])
"""A picture's signature and its number of frames or pages, 0 where it was not read."""

STORE = RowStore("signatures", SIGNATURE_VERSION, ROW)

"""`train_head`: a head trained on labels, which brings images of one class together.

The backbone stays frozen, unless `finetune` trains its last stage. Its embeddings are in the
library already, so that no image is decoded, and a minute is enough for thousands of images.
"""

from __future__ import annotations

import inspect
import time
from typing import TYPE_CHECKING, Any

from simsearch.errors import TrainingError
from simsearch.retrieval.options import accepts
from simsearch.training.config import TrainConfig
from simsearch.training.finetune import fine_tune
from simsearch.training.head import fit_and_refit
from simsearch.training.losses import metric_learning
from simsearch.training.report import TrainedHead
from simsearch.training.split import load_training_data
from simsearch.training.trainer import Validator

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from simsearch.library.library import ImageLibrary
    from simsearch.library.types import Labels, Rows


@accepts(TrainConfig)
def train_head(
    library: ImageLibrary,
    labels: Labels = "folder",
    on: Rows = None,
    *,
    leave_out: Sequence[str] = (),
    finetune: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
    config: TrainConfig | None = None,
    **options: Any,  # noqa: ANN401
) -> TrainedHead:
    """Train a small head on the frozen embeddings of a labelled library.

    Images without a label, and classes of a single image, are left out. The same seed gives the
    same head on the same machine.

    With `finetune`, the backbone's last stage then learns as well, together with the head: from
    the images themselves, so that an epoch takes about as long as embedding them three times. That
    is for machines with a GPU, or for few images. It needs more images per class than a head does;
    the report compares it with a head alone. If it gains nothing on the validation images, the head
    alone is returned.

    Parameters
    ----------
    library
        From `embed_dataset`, `ImageLibrary.load` or `with_head`. To fine-tune, one without a head;
        its backbone's device is the one that is used.
    labels
        What `ImageLibrary.label_rows` takes.
    on
        What `ImageLibrary.select` takes: the images to train and validate on, such as
        "seg_train/*". Labelled images outside are then the test images of the report; without any,
        test images are set aside.
    leave_out
        Classes that are held out from the training, to see how the head serves unknown ones.
    finetune
        Train the backbone's last stage, too. Its batch norms keep their statistics; the images are
        augmented by random crops, flips and colour jitter; products are in half precision where
        that is fast.
    checkpoint
        With `finetune`: a folder for the state after each epoch. Run again with the same arguments,
        a training that was stopped in any way resumes after its last complete epoch.
    progress
        Show progress bars, with the validation mAP.
    config
        Options in one object; those given as keywords replace its own.
    **options
        The fields of `TrainConfig`.

    Returns
    -------
    TrainedHead

    Raises
    ------
    TrainingError
        If there are not two classes of two images to train on, if there is no such option or it is
        out of range, or if training diverges; with `finetune`, also if no image can be read, if the
        library has a head, or if the checkpoint is of another training.
    BackboneError
        If the backbone to be fine-tuned cannot be loaded.
    QueryError
        If `labels` or `on` do not fit the library.
    MissingExtraError
        If pytorch-metric-learning is not installed.
    """
    arguments = inspect.signature(train_head).parameters
    config = (config or TrainConfig()).with_options(options, arguments)
    if not finetune and (config.stage is not None or checkpoint is not None):
        raise TrainingError("stage= and checkpoint= go with finetune=True")
    metric_learning()
    data = load_training_data(library, labels, on, leave_out, config)
    if finetune:
        return fine_tune(data, config, checkpoint, progress=progress)
    start = time.perf_counter()
    validator = Validator(data, config.seed) if len(data.split.val) else None
    fitted = fit_and_refit(data, config, validator, progress=progress)
    return TrainedHead.evaluated(
        data,
        head=fitted.final.network.to_head(library.fingerprint),
        loss=config.loss,
        history=fitted.history,
        rows=fitted.rows,
        seconds=time.perf_counter() - start,
    )

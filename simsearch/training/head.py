"""Training of a head from labels: images of one class drawn together, those of others apart.

The backbone stays frozen, unless `finetune` opens its last stage. Its embeddings are in the library
already, so no image is decoded, and a minute does for thousands of images.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from simsearch.errors import TrainingError
from simsearch.library.library import ImageLibrary
from simsearch.retrieval.options import accepts, make_options
from simsearch.training.config import TrainConfig
from simsearch.training.losses import metric_learning
from simsearch.training.report import TrainedHead, compare
from simsearch.training.split import split_rows
from simsearch.training.stage import open_stage
from simsearch.training.trainer import fit_head, refit_head
from simsearch.training.tuning import FineTuning
from simsearch.training.validation import Validation

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from simsearch.library.types import Labels, Rows
    from simsearch.training.config import TrainKeywords


@accepts(TrainConfig)
def train_head(
    library: ImageLibrary,
    labels: Labels = "folder",
    on: Rows = None,
    *,
    leave_out: Sequence[str] = (),
    finetune: bool = False,
    stage: str | Sequence[str] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    config: TrainConfig | None = None,
    progress: bool = True,
    **options: Unpack[TrainKeywords],
) -> TrainedHead:
    """Train a small head on the frozen embeddings of a labelled library.

    Images without a label, and classes of a single image, are left out. The same seed gives the
    same head on the same machine.

    With `finetune`, the backbone's last stage then learns as well, together with the head: from
    the images themselves, so that an epoch takes about as long as embedding them three times. That
    is for machines with a GPU, or for few images. It needs more images per class than a head does;
    the report says what it adds to one. Where the validation images gain nothing by it, a head
    alone is what is returned.

    Parameters
    ----------
    library
        From `embed_dataset`, `ImageLibrary.load` or `with_head`. To fine-tune, one without a head;
        its backbone's device is the one that is used.
    labels
        What `ImageLibrary.label_rows` takes.
    on
        What `ImageLibrary.select` takes: the images to train and validate on, such as
        "seg_train/*". Labelled images outside are then what the report is about; without any,
        images are set aside for it.
    leave_out
        Classes that take no part in the training, to see what the head does to unknown ones.
    finetune
        Open the backbone's last stage. Its batch norms keep their statistics; the images are
        cropped, mirrored and varied in colour at random; in half precision where that is fast.
    stage
        Names of the modules to open, as the network's `named_modules` has them, such as "layer4".
        If not given, the last ones that together hold a quarter of the parameters.
    checkpoint
        A folder in which the fine-tuning is saved after each epoch. Run again with the same
        arguments, a training that was stopped in any way resumes after its last whole epoch.
    config
        A `TrainConfig`; options given beside it replace its fields.
    progress
        Show progress bars, with the validation mAP.
    **options
        The fields of `TrainConfig`: dim, loss, mining, margin, keep, hidden, dropout, epochs, ...

    Returns
    -------
    TrainedHead

    Raises
    ------
    TrainingError
        If there are not two classes of two images to train on, if a parameter is out of range, or
        if the loss is no longer a number; with `finetune`, also if no image can be read, if the
        library has a head, or if the checkpoint is of another training.
    BackboneError
        If the backbone to be fine-tuned cannot be loaded.
    QueryError
        If `labels` or `on` do not fit the library.
    MissingExtraError
        If pytorch-metric-learning is not installed.
    """
    config = make_options(TrainConfig, options, config)
    if not finetune and (stage is not None or checkpoint is not None):
        raise TrainingError("stage= and checkpoint= go with finetune=True")
    metric_learning()
    names = library.label_rows(labels)
    split = split_rows(names, library.select(on), leave_out, config)
    if finetune:
        tuning = FineTuning(library, names, split, config.for_tuning(), open_stage(library, stage))
        return tuning.run(checkpoint, progress=progress)
    start = time.perf_counter()
    validation = Validation(library, names, split, config.seed) if len(split.val) else None
    rows = split.train
    learner, history = fit_head(library, names, rows, config, validation, progress=progress)
    if validation and config.refit:
        learner, rows = refit_head(library, names, split, config, history, progress=progress)
    seconds = time.perf_counter() - start
    head = learner.network.head(library.fingerprint)
    report = compare(library, library.with_head(head), names, split)
    return TrainedHead(head, config.loss, history, rows, seconds, *report)

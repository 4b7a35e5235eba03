"""Known and unknown classes at once: heads that keep what they were not taught.

    python benchmarks/unknown.py [OUTPUTS]           # seg_test searched in seg_train
    python benchmarks/unknown.py [OUTPUTS] --choose  # the settings, from seg_train alone

Known: a head is trained on all six classes of the Intel scenes. Unknown: each third of the classes
is left out of a training in turn; its images are searched in all images, and the change of mAP is
against the backbone's own. Beside them: the other classes, searched with that same head. Mean over
seeds, with their lowest and highest; each takes another third of seg_test, and trains anew. With
--choose, a fifth of seg_train are the queries and the rest is the gallery and trained on; seg_test
is not used. The images without a label are those of seg_pred, of all six classes, which are neither
searched nor found.
OUTPUTS keeps the embeddings for the next run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from common import INTEL, verdict
from torch.nn import functional
from triplet import PAIRS

import simsearch as ss
from simsearch.backbones.heads import ProjectionHead
from simsearch.pca import principal_axes

STEPS, BATCH, HIDDEN, AXES, RATE = 200, 96, 256, 256, 1e-3  # of the residual head
THIRDS = 3
QUERY_SHARE = 0.2  # of seg_train, where settings are chosen
EPOCHS = 25  # of the package's head, without validation: the most that it takes by default

Mapping = Callable[[np.ndarray], np.ndarray]
"""Rows of the backbone in, (N, D); rows of the head out, of unit norm."""


class Data(NamedTuple):
    """Rows of the backbone: queries and gallery with their labels, and images without any."""

    queries: np.ndarray
    query_labels: np.ndarray
    gallery: np.ndarray
    gallery_labels: np.ndarray
    unlabelled: np.ndarray


Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, int], dict[str, Mapping]]
"""Rows (N, D), their classes (N,), images without a label, and a seed: heads by their settings."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("outputs", nargs="?")
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fits", nargs="*", default=list(FITS), choices=list(FITS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(given.outputs or folder)
        library = ss.embed_dataset(INTEL, outputs / "intel", "efficientnet_lite0")
        print(f"{'':<34}{'known mAP':>22}{'unknown, change':>26}{'beside them':>24}")
        for name in given.fits:
            compare(name, FITS[name], library, range(given.seeds), choose=given.choose)


def compare(
    name: str, fit: Fit, library: ss.ImageLibrary, seeds: Sequence[int], *, choose: bool
) -> None:
    """Print figures of each setting of one kind of head."""
    start, figures = time.process_time(), defaultdict(list)
    for seed in seeds:
        data = split(library, seed) if choose else test_data(library, seed)
        for setting, row in measure(fit, data, seed).items():
            figures[setting].append(row)
    for setting, rows in figures.items():
        known, unknown, beside = np.array(rows).T
        print(f"      {setting:<28}{spread(known)}  {spread(unknown, '+')}  {spread(beside)}")
        if setting == "gated, keep 0.3" and not choose:
            verdict("a gated head: known mAP", float(known.mean()), 0.925)
            verdict("a gated head: unknown, change of mAP", float(unknown.mean()), -0.01)
    trainings = (1 + len(PAIRS)) * len(seeds)
    each = (time.process_time() - start) / trainings
    print(f"      {name}: {each:.0f} s of the processor a training, measuring included", flush=True)


def measure(fit: Fit, data: Data, seed: int) -> dict[str, tuple[float, float, float]]:
    """Known mAP, change of unknown mAP, and mAP of the classes beside them, by setting."""
    heads = fit(data.gallery, data.gallery_labels, data.unlabelled, seed)
    known = {name: average_precisions(head, data).mean() for name, head in heads.items()}
    before = average_precisions(unit, data)
    changes, beside = defaultdict(list), defaultdict(list)
    for pair in PAIRS:
        taught = ~np.isin(data.gallery_labels, pair)
        asked = np.isin(data.query_labels, pair)
        heads = fit(data.gallery[taught], data.gallery_labels[taught], data.unlabelled, seed)
        for name, head in heads.items():
            after = average_precisions(head, data)
            changes[name].append((after - before)[asked].mean())
            beside[name].append(after[~asked].mean())
    return {name: (known[name], np.mean(changes[name]), np.mean(beside[name])) for name in known}


def spread(values: np.ndarray, sign: str = "") -> str:
    low, high = min(values), max(values)
    return f"{np.mean(values):{sign}.3f} ({low:{sign}.3f}, {high:{sign}.3f})"


def split(library: ss.ImageLibrary, seed: int) -> Data:
    """Share seg_train out, class by class."""
    rows, labels = np.asarray(library.embeddings), library.labels
    train, rng = library.select("seg_train/*"), np.random.default_rng(seed)
    asked = np.zeros(len(rows), bool)
    for name in sorted(set(labels[train])):
        own = np.flatnonzero(train & (labels == name))
        asked[rng.choice(own, round(QUERY_SHARE * len(own)), replace=False)] = True
    rest, aside = train & ~asked, library.select("seg_pred/*")
    return Data(rows[asked], labels[asked], rows[rest], labels[rest], rows[aside])


def test_data(library: ss.ImageLibrary, seed: int) -> Data:
    """Take another third of seg_test for each seed."""
    rows, labels = np.asarray(library.embeddings), library.labels
    test, train, aside = (
        library.select(f"{name}/*") for name in ("seg_test", "seg_train", "seg_pred")
    )
    queries = np.flatnonzero(test)[seed % THIRDS :: THIRDS]
    return Data(rows[queries], labels[queries], rows[train], labels[train], rows[aside])


def average_precisions(head: Mapping, data: Data) -> np.ndarray:
    """Return the average precision of each query in the gallery, over its whole ranking."""
    order = np.argsort(-head(data.queries) @ head(data.gallery).T, axis=1, kind="stable")
    relevant = data.gallery_labels[order] == data.query_labels[:, None]
    precision = np.cumsum(relevant, axis=1) / np.arange(1, relevant.shape[1] + 1)
    average: np.ndarray = (precision * relevant).sum(axis=1) / relevant.sum(axis=1)
    return average


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def centred(
    rows: np.ndarray, labels: np.ndarray, unlabelled: np.ndarray, seed: int
) -> dict[str, Mapping]:
    """Subtract the mean of the training rows, and learn nothing."""
    del labels, unlabelled, seed
    centre = rows.mean(axis=0)
    return {"centred": lambda given: unit(given - centre)}


def trained(
    rows: np.ndarray, labels: np.ndarray, unlabelled: np.ndarray, seed: int
) -> dict[str, Mapping]:
    """Train the package's head, and take it with and without its gate."""
    every = np.concatenate([rows, unlabelled])
    names = [*labels.tolist(), *[""] * len(unlabelled)]
    library = ss.ImageLibrary(every, [f"{i:05d}.jpg" for i in range(len(every))])
    aside = np.arange(len(every)) >= len(rows)
    options = {"validation": 0.0, "epochs": EPOCHS, "seed": seed, "progress": False}
    gated = ss.train_head(library, names, ~aside, unlabelled=aside, **options).head  # type: ignore[arg-type]
    plain = ProjectionHead(gated.layers, gated.source, gated.kept, gated.keep)
    heads: dict[str, Mapping] = {f"plain, keep {k}": plain.keeping(k) for k in (0.3, 0.6)}
    return heads | {f"gated, keep {k}": gated.keeping(k) for k in (0.2, 0.3)}


class Residual(torch.nn.Module):
    """`x + share · W2 · relu(W1 · x)` on the sphere, where W2 is 0 at the start."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(dim, HIDDEN), torch.nn.Linear(HIDDEN, dim)
        torch.nn.init.zeros_(self.second.weight)
        torch.nn.init.zeros_(self.second.bias)

    def forward(self, rows: torch.Tensor, share: float = 1.0) -> torch.Tensor:
        moved = self.second(torch.relu(self.first(self.scale * rows)))
        return functional.normalize(rows + share * moved)

    scale = 10.0  # of unit rows of many dimensions, so that the hidden layer sees their spread


def triplet_loss(rows: torch.Tensor, codes: torch.Tensor, margin: float) -> torch.Tensor:
    """Mean loss of the triplets that the margin is not kept in; satisfied ones give no gradient."""
    distances = (2 - 2 * rows @ rows.T).clamp(min=1e-6).sqrt()
    same = codes[:, None] == codes[None]
    positive = same & ~torch.eye(len(rows), dtype=torch.bool)
    loss = (distances[:, :, None] - distances[:, None, :] + margin).clamp(min=0)
    violated = (loss > 0) & positive[:, :, None] & ~same[:, None, :]
    return (loss * violated).sum() / violated.sum().clamp(min=1)


def residual(margin: float, penalty: float = 0.0) -> Fit:
    """Fit a residual head, and take shares of it (WiSE-FT), and averages by distance.

    Parameters
    ----------
    margin
        Of the triplets.
    penalty
        Weight of how far images without a label are moved (squared distance).
    """

    def fit(
        rows: np.ndarray, labels: np.ndarray, unlabelled: np.ndarray, seed: int
    ) -> dict[str, Mapping]:
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        centre, axes = rows.mean(axis=0), principal_axes(rows, AXES)[0].astype(np.float32)

        def start(given: np.ndarray) -> np.ndarray:
            return unit((given - centre) @ axes.T).astype(np.float32)

        _, codes = np.unique(labels, return_inverse=True)
        members = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
        known, others = (torch.from_numpy(start(x)) for x in (rows, unlabelled))
        module = Residual(AXES)
        optimizer = torch.optim.AdamW(module.parameters(), RATE, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS, pct_start=0.1)
        for _ in range(STEPS):
            chosen = np.concatenate([rng.choice(own, BATCH // len(members)) for own in members])
            loss = triplet_loss(module(known[chosen]), torch.from_numpy(codes[chosen]), margin)
            if penalty:
                some = others[rng.choice(len(others), BATCH)]
                loss = loss + penalty * (module(some) - some).square().sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        means = unit(np.stack([known[own].mean(dim=0).numpy() for own in members]))

        def mapping(share: float, gate: float) -> Mapping:
            def head(given: np.ndarray) -> np.ndarray:
                before = start(given)
                with torch.inference_mode():
                    moved = module(torch.from_numpy(before), share).numpy()
                if not gate:
                    return np.asarray(moved)
                nearest = (before @ means.T).max(axis=1, keepdims=True)
                return unit(before + (moved - before) / (1 + np.exp(-20 * (nearest - gate))))

            return head

        title = f"residual {margin}, {penalty}"
        shares: dict[str, Mapping] = {f"{title}, x{s}": mapping(s, 0) for s in (1.0, 0.5, 0.25)}
        return shares | {f"{title}, near {g}": mapping(1.0, g) for g in (0.3, 0.5)}

    return fit


FITS: dict[str, Fit] = {
    "centred": centred,
    "trained": trained,
    "residual": residual(0.1),
    "residual, penalty": residual(0.1, penalty=1.0),
    "residual, wide": residual(0.3, penalty=0.3),
}


if __name__ == "__main__":
    main()

"""Scores of rankings and of probabilities, against loops over items and pairs; as scikit-learn 1.9.1 has them."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

from pellucid.errors import UsageError
from pellucid.metrics import (
    APScoreBinary,
    APScoreMulti,
    BrierScore,
    BrierScoreMulti,
    HammingLoss,
    MatthewsCorrCoefMulti,
    RocAuc,
    RocAucMulti,
    error_rate,
)


def in_batches(metric, pred: np.ndarray, targ: np.ndarray) -> float:
    metric.reset()
    for part in (slice(0, 3), slice(3, None)):
        if len(targ[part]):
            metric.update(torch.from_numpy(pred[part]), torch.from_numpy(targ[part]))
    return float(metric.compute())


def area(scores, positive) -> float:
    pairs = [(p > q) + (p == q) / 2 for p in scores[positive] for q in scores[~positive]]
    return float(np.mean(pairs)) if pairs else np.nan


def precision_by_thresholds(scores, positive) -> float:
    """Σ (R_k − R_k−1) P_k from the highest threshold on."""
    found, before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        said = scores >= threshold
        recall = (said & positive).sum() / positive.sum() if positive.any() else np.nan
        found += (recall - before) * (said & positive).sum() / said.sum()
        before = recall
    return found


def mean(values, weights) -> float:
    known = [(value, weight) for value, weight in zip(values, weights, strict=True) if not np.isnan(value)]
    return sum(value * weight for value, weight in known) / sum(weight for _, weight in known) if known else np.nan


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 25), st.integers(1, 4))
def test_scores_of_labels(seed, n, n_labels):
    rng = np.random.default_rng(seed)
    pred, targ = rng.integers(-2, 3, (n, n_labels)).astype(float), rng.integers(0, 2, (n, n_labels))
    targ[:, 0] = rng.integers(2)  # a label that all images have, or none
    positive = targ == 1
    for make, score in ((APScoreMulti, precision_by_thresholds), (RocAucMulti, area)):
        each = [score(pred[:, i], positive[:, i]) for i in range(n_labels)]
        for average, expected in (
            ("macro", mean(each, [1] * n_labels)),
            ("weighted", mean(each, positive.sum(0))),
            ("micro", score(pred.ravel(), positive.ravel())),
        ):
            for sigmoid in (True, False):
                found = in_batches(make(sigmoid, average), pred, targ)
                assert found == pytest.approx(expected, nan_ok=True, abs=1e-12)
    squares = [(expit(p) - t) ** 2 for p, t in zip(pred.flat, targ.flat, strict=True)]
    assert in_batches(BrierScoreMulti(), pred, targ) == pytest.approx(np.mean(squares), rel=1e-12)
    said, there = (expit(pred) > 0.4).ravel(), positive.ravel()
    spread = said.std() * there.std()
    expected = ((said * there).mean() - said.mean() * there.mean()) / spread if spread > 1e-9 else 0
    assert in_batches(MatthewsCorrCoefMulti(0.4), pred, targ) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 25), st.integers(2, 4))
def test_scores_of_classes(seed, n, n_classes):
    rng = np.random.default_rng(seed)
    pred = np.log(rng.integers(1, 4, (n, n_classes)))
    targ = rng.integers(0, rng.integers(1, n_classes + 1), n)
    p, support = softmax(pred, 1), np.bincount(targ, minlength=n_classes)
    p_torch = torch.from_numpy(pred).softmax(1).numpy()  # whose last bits decide which values are equal
    rest = [area(p_torch[:, i], targ == i) for i in range(n_classes)]
    assert in_batches(RocAuc(), pred, targ) == pytest.approx(mean(rest, np.ones(n_classes)), nan_ok=True)
    if not np.isnan(rest).all():
        assert in_batches(RocAuc(average="weighted"), pred, targ) == pytest.approx(mean(rest, support))
    one_hot = np.eye(n_classes, dtype=bool)[targ]
    expected = area(p_torch.ravel(), one_hot.ravel())
    assert in_batches(RocAuc(average="micro"), pred, targ) == pytest.approx(expected)
    pairs, items = [], []
    for i, j in combinations(range(n_classes), 2):
        rows = (targ == i) | (targ == j)
        pairs.append((area(p_torch[rows, i], targ[rows] == i) + area(p_torch[rows, j], targ[rows] == j)) / 2)
        items.append(rows.sum())
    for average, weights in (("macro", np.ones(len(items))), ("weighted", items)):
        found = in_batches(RocAuc(average=average, multi_class="ovo"), pred, targ)
        assert found == pytest.approx(mean(pairs, weights), nan_ok=True)
    squares = [(p[i, c] - (targ[i] == c)) ** 2 for i, c in product(range(n), range(n_classes))]
    expected = sum(squares) / n / (2 if n_classes == 2 else 1)
    assert in_batches(BrierScore(), pred, targ) == pytest.approx(expected, rel=1e-12)
    wrong = float(error_rate(torch.from_numpy(pred), torch.from_numpy(targ)))
    assert in_batches(HammingLoss(), pred, targ) == pytest.approx(wrong)
    if n_classes == 2:
        expected = precision_by_thresholds(p_torch[:, 1], targ == 1)
        assert in_batches(APScoreBinary(), pred, targ) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: APScoreMulti(average="samples"), "use one of macro, micro, weighted"),
        (lambda: RocAucMulti(max_fpr=0.1), "max_fpr are not supported"),
        (lambda: APScoreBinary(pos_label=0), "of label 1"),
        (lambda: RocAuc(multi_class="raise"), "ovr .* or ovo"),
        (lambda: RocAuc(average="micro", multi_class="ovo"), "is for multi_class='ovr'"),
        (lambda: BrierScoreMulti(0.5), "HammingLossMulti"),
        (lambda: APScoreMulti()(torch.zeros(3, 2), torch.zeros(3)), r"both \(image, label\)"),
        (lambda: RocAuc()(torch.zeros(3, 2), torch.tensor([0, 1, 2])), "label 2 is not among the classes 0 to 1"),
        (lambda: RocAuc()(torch.zeros(3, 2), torch.zeros(4)), "one class number an item"),
    ],
)
def test_scores_that_do_not_exist(make, said):
    with pytest.raises(UsageError, match=said):
        make()

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pellucid.data.loader import DataLoaders
from pellucid.errors import UsageError
from pellucid.metrics import (
    AccumMetric,
    AvgMetric,
    BalancedAccuracy,
    CohenKappa,
    Evaluation,
    F1Score,
    FBeta,
    Jaccard,
    MatthewsCorrCoef,
    Precision,
    Recall,
    RocAucBinary,
    accuracy,
    accuracy_multi,
    column_names,
    error_rate,
    skm_to_fastai,
    top_k_accuracy,
)
from pellucid.nn.losses import (
    BCEWithLogitsLossFlat,
    CrossEntropyLossFlat,
    LabelSmoothingCrossEntropy,
    LabelSmoothingCrossEntropyFlat,
    MSELossFlat,
)
from pellucid.training.callbacks.progress import ProgressCallback
from pellucid.training.learner import Learner

CPU = torch.device("cpu")
N, K = 60, 4
RNG = torch.Generator().manual_seed(0)
PRED = torch.randn(N, K, generator=RNG, dtype=torch.float64)
TARG = torch.randint(0, K, (N,), generator=RNG)
TARG[::3] = PRED[::3].argmax(1)  # some are right
WEIGHT = torch.tensor([0.2, 1.0, 3.0, 7.0], dtype=torch.float64)
UNEVEN = [[N], [30, 30], [1] * N, [50, 10], [7, 1, 40, 12]]


def valid_loss(loss_func, pred, targ, sizes) -> float:
    evaluation = Evaluation([], CPU, loss_func)
    for p, t in zip(pred.split(sizes), targ.split(sizes), strict=True):
        evaluation.update(loss_func(p, t), p, (t,))
    return evaluation.values()[0]


# Kind C11: the loss of a set, by hand in float64, whatever the batches.

LOG_P = PRED - PRED.logsumexp(1, keepdim=True)
EACH = -LOG_P[range(N), TARG]
KEPT = TARG != 2
SMOOTHED = 0.8 * EACH * WEIGHT[TARG] + 0.2 / K * -(LOG_P * WEIGHT).sum(1)


@pytest.mark.parametrize("sizes", UNEVEN, ids=str)
@pytest.mark.parametrize(
    ("loss_func", "expected"),
    [
        (F.cross_entropy, EACH.mean()),
        (nn.CrossEntropyLoss(WEIGHT), (EACH * WEIGHT[TARG]).sum() / WEIGHT[TARG].sum()),
        (partial(F.cross_entropy, weight=WEIGHT), (EACH * WEIGHT[TARG]).sum() / WEIGHT[TARG].sum()),
        (CrossEntropyLossFlat(WEIGHT), (EACH * WEIGHT[TARG]).sum() / WEIGHT[TARG].sum()),
        (partial(F.cross_entropy, ignore_index=2), EACH[KEPT].mean()),
        (nn.CrossEntropyLoss(WEIGHT, ignore_index=2), (EACH * WEIGHT[TARG])[KEPT].sum() / WEIGHT[TARG][KEPT].sum()),
        (nn.CrossEntropyLoss(reduction="sum"), EACH.mean()),
        (partial(F.cross_entropy, reduction="sum", weight=WEIGHT), (EACH * WEIGHT[TARG]).mean()),
        (LabelSmoothingCrossEntropy(0.2, WEIGHT), SMOOTHED.sum() / WEIGHT[TARG].sum()),
        (LabelSmoothingCrossEntropyFlat(0.2, weight=WEIGHT), SMOOTHED.sum() / WEIGHT[TARG].sum()),
        (lambda pred, targ: F.cross_entropy(pred, targ), EACH.mean()),
    ],
)
def test_the_loss_of_a_set_does_not_depend_on_its_batches(loss_func, expected, sizes):
    assert valid_loss(loss_func, PRED, TARG, sizes) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("bs", [60, 23, 7, 1])
@pytest.mark.parametrize("ignored", [-100, 2])
def test_a_learner_measures_the_set(bs, ignored):
    x = torch.randn(N, 6, generator=torch.Generator().manual_seed(1))
    loss_func = nn.CrossEntropyLoss(WEIGHT.float(), ignore_index=ignored)
    batches = list(zip(x.split(bs), TARG.split(bs), strict=True))
    torch.manual_seed(0)
    learn = Learner(DataLoaders(batches[:1], batches, device="cpu"), nn.Linear(6, K), loss_func, metrics=accuracy)
    learn.remove_cb(ProgressCallback)
    learn.fit(1, 0.01)
    with torch.no_grad():
        log_p = learn.model(x).double().log_softmax(1)
    kept, weight = ignored != TARG, WEIGHT[TARG]
    expected = -(log_p[range(N), TARG] * weight)[kept].sum() / weight[kept].sum()
    share = (log_p.argmax(1) == TARG).double().mean()
    assert learn.validate() == pytest.approx([float(expected), float(share)], rel=1e-5)
    assert learn.recorder.values[0][1:] == pytest.approx(learn.validate(), rel=1e-12)


def test_log_likelihoods_and_probabilities_as_labels():
    nll = nn.NLLLoss(WEIGHT)
    expected = (EACH * WEIGHT[TARG]).sum() / WEIGHT[TARG].sum()
    soft = torch.randn(N, K, generator=RNG, dtype=torch.float64).softmax(1)
    for sizes in UNEVEN:
        assert valid_loss(nll, LOG_P, TARG, sizes) == pytest.approx(float(expected), rel=1e-12)
        by_hand = -(soft * LOG_P * WEIGHT).sum(1).mean()
        assert valid_loss(nn.CrossEntropyLoss(WEIGHT), PRED, soft, sizes) == pytest.approx(float(by_hand), rel=1e-12)


def test_a_batch_of_ignored_labels_counts_nothing():
    targ = torch.cat([torch.full((5,), -100), TARG[5:]])
    assert valid_loss(F.cross_entropy, PRED, targ, [5, 55]) == pytest.approx(float(EACH[5:].mean()), rel=1e-12)
    assert np.isnan(valid_loss(F.cross_entropy, PRED[:5], targ[:5], [5]))


@pytest.mark.parametrize("make", [BCEWithLogitsLossFlat, MSELossFlat])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_of_values_count_batches_by_items(make, reduction):
    pred, targ = PRED[:, :1], (TARG > 1).double()
    each = make(reduction="none")(pred, targ)
    for sizes in UNEVEN:
        assert valid_loss(make(reduction=reduction), pred, targ, sizes) == pytest.approx(float(each.mean()), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sums_are_kept_wider_than_the_values(dtype):
    values = torch.rand(300, generator=RNG).to(dtype)
    evaluation = Evaluation([lambda pred, targ: pred.max()], CPU)
    for value in values:
        evaluation.update(value, value.expand(233), (torch.zeros(233),))
    exact = values.double().mean().item()
    assert evaluation.values() == pytest.approx([exact, exact], rel=1e-13)  # 69,900 items: beyond half precision


@pytest.mark.parametrize("kind", [np.float16, np.float32, float, int, np.int8, bool, np.bool_])
def test_numbers_of_other_libraries_are_summed_exactly(kind):
    metric = AvgMetric(lambda pred, targ: kind(1))
    for _ in range(300):
        metric.update(torch.zeros(400), torch.zeros(400))
    assert metric.compute() == 1.0


# Kind C12: shapes are checked, never broadcast.

METRICS = [accuracy, error_rate, top_k_accuracy, F1Score(average="macro"), BalancedAccuracy(), CohenKappa()]
METRICS += [MatthewsCorrCoef(), skm_to_fastai(lambda targ, pred: (targ == pred).mean())]
UNSAFE = [(N, K), (N - 1,), (1, N - 1), (N, 2), (1,), (), (2, N // 2)]


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: getattr(m, "__name__", type(m).__name__))
def test_metrics_pair_predictions_with_labels(metric):
    value = float(metric(PRED, TARG))
    for same in (TARG[:, None], TARG[None], TARG[:, None, None]):
        assert float(metric(PRED, same)) == value
    for shape in UNSAFE:
        with pytest.raises(UsageError, match=r"predictions of shape \(60,\) with labels of shape"):
            metric(PRED, torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize("metric", METRICS[:-1], ids=lambda m: getattr(m, "__name__", type(m).__name__))
def test_metrics_of_classes_want_classes(metric):
    for pred in (PRED[:, :1], torch.tensor(1.0)):
        with pytest.raises(UsageError, match="only one"):
            metric(pred, TARG)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: getattr(m, "__name__", type(m).__name__))
@pytest.mark.parametrize("other", [lambda tensor: tensor.numpy(), lambda tensor: tensor.tolist()])
def test_metrics_take_tensors(metric, other):
    for pred, targ in ((other(PRED), other(TARG)), (other(PRED), TARG), (PRED, other(TARG))):
        with pytest.raises(UsageError, match=r"compares tensors, got a (ndarray|list)"):
            metric(pred, targ)


def test_values_by_hand():
    right = [int(p.argmax()) == int(t) for p, t in zip(PRED, TARG, strict=True)]
    assert accuracy(PRED, TARG).item() == pytest.approx(sum(right) / N)
    assert error_rate(PRED, TARG).item() == pytest.approx(1 - sum(right) / N)
    ranks = [sorted(range(K), key=lambda j, i=i: -PRED[i, j]).index(int(TARG[i])) for i in range(N)]
    for k in (1, 2, 3, 9):
        assert top_k_accuracy(PRED, TARG, k=k).item() == pytest.approx(sum(rank < k for rank in ranks) / N)
        assert top_k_accuracy(PRED.T, TARG, k=k, axis=0) == top_k_accuracy(PRED, TARG, k=k)
    maps, labels = PRED.reshape(3, 20, K).movedim(-1, 1), TARG.reshape(3, 20)
    assert accuracy(maps, labels, axis=1) == accuracy(PRED, TARG)
    answers = TARG[:, None] >= torch.arange(K)
    expected = ((PRED.sigmoid() > 0.3) == answers).double().mean()
    assert accuracy_multi(PRED, answers.long(), thresh=0.3).item() == pytest.approx(float(expected))
    assert accuracy_multi(PRED[:, :1], answers[:, 0], sigmoid=False).item() == pytest.approx(
        float(((PRED[:, 0] > 0.5) == answers[:, 0]).double().mean())
    )


# Scores from counts, by brute force with fractions of items; the same functions were compared with scikit-learn 1.9.1.


def scores(targ: list[int], pred: list[int], classes: list[int], beta: float = 1) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"precision": [], "recall": [], "f": [], "jaccard": [], "items": []}
    for c in classes:
        both = sum(t == p == c for t, p in zip(targ, pred, strict=True))
        n_targ, n_pred = targ.count(c), pred.count(c)
        precision, recall = both / n_pred if n_pred else 0, both / n_targ if n_targ else 0
        bottom = beta**2 * precision + recall
        found["precision"].append(precision)
        found["recall"].append(recall)
        found["f"].append((1 + beta**2) * precision * recall / bottom if bottom else 0)
        found["jaccard"].append(both / (n_targ + n_pred - both) if n_targ + n_pred else 0)
        found["items"].append(n_targ)
    return found


def in_batches(metric, pred, targ, cuts) -> float:
    metric.reset()
    for p, t in zip(np.split(pred, cuts), np.split(targ, cuts), strict=True):
        if len(t):
            metric.update(torch.from_numpy(p), torch.from_numpy(t))
    return metric.compute()


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(1, 40))
def test_scores_of_a_set_by_brute_force(seed, n_classes, n):
    rng = np.random.default_rng(seed)
    targ = rng.integers(0, rng.integers(1, n_classes + 1), n)  # some classes may not occur
    pred = rng.normal(size=(n, n_classes)) + 1.5 * np.eye(n_classes)[targ]
    guesses, cuts = pred.argmax(1).tolist(), sorted(rng.integers(0, n + 1, 3))
    classes = sorted({*targ.tolist(), *guesses})
    one = scores(targ.tolist(), guesses, classes, beta=1)
    two = scores(targ.tolist(), guesses, classes, beta=2)
    kinds = ((F1Score, one["f"]), (Precision, one["precision"]), (Recall, one["recall"]), (Jaccard, one["jaccard"]))
    for make, values in (*kinds, (partial(FBeta, 2), two["f"])):
        assert in_batches(make(average="macro"), pred, targ, cuts) == pytest.approx(np.mean(values))
        weighted = np.average(values, weights=one["items"])
        assert in_batches(make(average="weighted"), pred, targ, cuts) == pytest.approx(weighted)
        if n_classes == 2:
            wanted = values[classes.index(1)] if 1 in classes else 0
            assert in_batches(make(), pred, targ, cuts) == pytest.approx(wanted)
    right = np.mean(targ == guesses)
    assert in_batches(F1Score(average="micro"), pred, targ, cuts) == pytest.approx(right)
    recalls = [r for r, items in zip(one["recall"], one["items"], strict=True) if items]
    assert in_batches(BalancedAccuracy(), pred, targ, cuts) == pytest.approx(np.mean(recalls))
    assert in_batches(skm_to_fastai(lambda t, p: np.mean(t == p)), pred, targ, cuts) == pytest.approx(right)
    one_hot, guessed = np.eye(n_classes)[targ], np.eye(n_classes)[guesses]
    covariance = lambda a, b: ((a - a.mean(0)) * (b - b.mean(0))).sum()
    spread = (covariance(one_hot, one_hot) * covariance(guessed, guessed)) ** 0.5
    expected = covariance(one_hot, guessed) / spread if spread > 1e-9 else 0
    assert in_batches(MatthewsCorrCoef(), pred, targ, cuts) == pytest.approx(expected, abs=1e-9)
    chance = (one_hot.mean(0) * guessed.mean(0)).sum()
    kappa = (right - chance) / (1 - chance) if chance < 1 else np.nan
    assert in_batches(CohenKappa(), pred, targ, cuts) == pytest.approx(kappa, nan_ok=True)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 40))
def test_the_area_under_the_curve_counts_pairs(seed, n):
    rng = np.random.default_rng(seed)
    pred, targ = rng.integers(0, 4, (n, 2)).astype(float), rng.integers(0, 2, n)  # few values, so that some are equal
    share = pred[:, 1] - pred[:, 0]  # ranks items as the probability does, without rounding
    pairs = [(p > q) + (p == q) / 2 for p in share[targ == 1] for q in share[targ == 0]]
    expected = np.mean(pairs) if pairs else np.nan
    assert in_batches(RocAucBinary(), pred, targ, [n // 3, n // 2]) == pytest.approx(expected, nan_ok=True)


def test_f1_is_of_the_set_not_a_mean_over_batches():
    pred = torch.tensor([[0.0, 1], [0, 1], [0, 1], [1, 0], [1, 0], [1, 0]])
    targ = torch.tensor([1, 0, 1, 0, 0, 1])
    whole = [in_batches(F1Score(), pred.numpy(), targ.numpy(), cuts) for cuts in ([], [1], [2, 4], [1, 2, 3, 4, 5])]
    assert whole == pytest.approx([2 / 3] * 4)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: F1Score(average=None), "labels=.i."),
        (lambda: Recall(average="mean"), "does not exist: use one of binary"),
        (lambda: F1Score(sample_weight=[1]), "sample_weight is not supported"),
        (lambda: F1Score(labels=[1]), "pos_label alone"),
        (lambda: CohenKappa(weights="linear"), "alike"),
        (lambda: AccumMetric(accuracy, activation="relu"), "'relu' does not exist: use one of no, sigmoid"),
        (lambda: RocAucBinary(max_fpr=0.1), "max_fpr are not supported"),
        (lambda: RocAucBinary()(PRED, TARG), "of the classes 0 and 1, a label is"),
        (lambda: F1Score()(PRED, TARG), "average='macro'"),
        (lambda: F1Score(labels=[7], average="macro")(PRED, TARG), "not all among the classes 0 to 3"),
        (lambda: F1Score(average="macro")(PRED, TARG - 2), "labels are not among the classes 0 to 3"),
    ],
)
def test_scores_that_do_not_exist(make, said):
    with pytest.raises(UsageError, match=said):
        make()


def test_a_function_of_everything_at_once():
    spread = lambda pred, targ: ((pred - targ) ** 2).mean().sqrt()
    pred, targ = PRED[:, 0], TARG.double()
    expected = float(((pred - targ) ** 2).mean() ** 0.5)
    metric = AccumMetric(spread, name="rmse")
    for sizes in UNEVEN:
        metric.reset()
        for p, t in zip(pred.split(sizes), targ.split(sizes), strict=True):
            metric.update(p[:, None], t)
        assert float(metric.value) == pytest.approx(expected)
    assert metric.name == "rmse"
    yes = AccumMetric(lambda p, t: (p == t).double().mean(), activation="sigmoid", thresh=0.4)
    assert float(yes(pred, TARG > 1)) == pytest.approx(float(((pred.sigmoid() >= 0.4) == (TARG > 1)).double().mean()))
    last = AccumMetric(lambda p, t: p.mean(), activation="binarysoftmax", flatten=False)
    assert float(last(PRED, TARG)) == pytest.approx(float(LOG_P.exp()[:, -1].mean()))


def test_no_column_hides_another():
    named = partial(partial(top_k_accuracy, k=2), axis=1)
    own = AccumMetric(accuracy, name="time")
    metrics = [lambda p, t: 0, lambda p, t: 1, accuracy, AvgMetric(accuracy), named, F1Score(), own, nn.L1Loss()]
    assert column_names(metrics) == [
        *("<lambda>", "<lambda>_2", "accuracy", "accuracy_2", "top_k_accuracy", "f1_score", "time_2", "l1loss"),
    ]

"""The numbers of an evaluation, against scipy and against loops over images."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest

from pellucid.errors import DataError
from pellucid.evaluation.calibration import calibration, fitted_temperature
from pellucid.evaluation.evaluation import Evaluation
from pellucid.evaluation.scores import wilson


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 40), (40, 40), (7, 40), (8132, 10_000)])
def test_wilson_is_scipys(right, n):
    theirs = binomtest(right, n).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose(wilson(right, n), (theirs.low, theirs.high), atol=1e-12)


def test_bins_and_their_error_are_those_of_a_loop_over_images():
    rng = np.random.default_rng(1)
    probabilities, labels = rng.dirichlet(np.full(4, 0.4), 500), rng.integers(0, 4, 500)
    probabilities[0] = [1, 0, 0, 0]
    probabilities[1] = [0.6, 0.4, 0, 0]  # on the edge of two bins: it belongs to the lower one
    bins = [[] for _ in range(15)]
    for row, label in zip(probabilities, labels, strict=True):
        bins[next(i for i in range(15) if row.max() <= np.linspace(0, 1, 16)[i + 1])].append(
            (row.max(), row.argmax() == label)
        )
    found = calibration(probabilities, labels)
    assert found.counts.tolist() == list(map(len, bins))
    error = 0.0
    for i, images in enumerate(bins):
        if images:
            said, right = np.mean(images, 0)
            assert found.confidence[i] == pytest.approx(said) and found.accuracy[i] == pytest.approx(right)
            error += len(images) / 500 * abs(said - right)
        else:
            assert np.isnan(found.confidence[i]) and np.isnan(found.accuracy[i])
    assert found.error == pytest.approx(error)
    assert found.mean_confidence == pytest.approx(probabilities.max(1).mean())


@pytest.mark.parametrize("true_temperature", [0.4, 1.0, 6.0])
def test_the_temperature_is_the_one_scipy_finds(true_temperature):
    rng = np.random.default_rng(2)
    calibrated = rng.normal(0, 2, (2000, 5))
    labels = np.array([rng.choice(5, p=p) for p in softmax(calibrated, 1)])
    outputs = (true_temperature * calibrated).astype(np.float32)

    def loss(log_t: float) -> float:
        return -log_softmax(outputs.astype(np.float64) / np.exp(log_t), 1)[np.arange(2000), labels].mean()

    theirs = np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10}).x)
    ours = fitted_temperature(outputs, labels)
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert ours == pytest.approx(true_temperature, rel=0.1)
    log_probabilities = log_softmax(outputs, 1)  # what a model with log-softmax gives
    assert fitted_temperature(log_probabilities, labels) == pytest.approx(ours, rel=1e-5)


def test_there_is_no_temperature_without_mistakes_or_for_a_classifier_worse_than_guessing():
    outputs = np.eye(3)[[0, 1, 2, 0]] * 4
    assert fitted_temperature(outputs, np.array([0, 1, 2, 0])) is None
    assert fitted_temperature(outputs, np.array([1, 2, 0, 2])) is None
    assert fitted_temperature(np.full((4, 3), np.nan), np.array([0, 1, 2, 0])) is None


def made(n: int = 60, n_classes: int = 4, absent: int | None = None) -> Evaluation:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, n_classes, n)
    if absent is not None:
        labels[labels == absent] = (absent + 1) % n_classes
    probabilities = softmax(rng.normal(0, 1, (n, n_classes)) + 1.5 * np.eye(n_classes)[labels], 1)
    names = [f"class {i}" for i in range(n_classes)]
    return Evaluation("test", names, [f"test/{i}.png" for i in range(n)], labels, probabilities)


def test_scores_of_classes_are_those_of_counting():
    found = made(absent=2)
    guesses = found.probabilities.argmax(1)
    assert found.accuracy == np.mean(guesses == found.labels)
    assert found.interval == wilson(int((guesses == found.labels).sum()), 60)
    for i, score in enumerate(found.per_class):
        both = sum(g == i and t == i for g, t in zip(guesses, found.labels, strict=True))
        of_it, said = (found.labels == i).sum(), (guesses == i).sum()
        assert score.support == of_it
        assert score.precision == pytest.approx(both / said)
        if i == 2:
            assert np.isnan(score.recall) and score.f1 == 0
        else:
            assert score.recall == pytest.approx(both / of_it)
            p, r = both / said, both / of_it
            assert score.f1 == pytest.approx(2 * p * r / (p + r))
    for i in range(4):
        for j in range(4):
            assert found.confusion[i, j] == ((found.labels == i) & (guesses == j)).sum()
    pairs = found.most_confused
    assert sum(n for *_, n in pairs) == (guesses != found.labels).sum()
    assert [n for *_, n in pairs] == sorted((n for *_, n in pairs), reverse=True)


def test_mistakes_come_with_the_most_confident_first():
    found = made()
    wrong = [i for i in range(60) if found.probabilities[i].argmax() != found.labels[i]]
    wrong.sort(key=lambda i: -found.probabilities[i].max())
    assert [each.source for each in found.mistakes] == [f"test/{i}.png" for i in wrong]
    first = found.mistakes[0]
    assert first.probability == found.probabilities[wrong[0]].max()
    assert first.of_label == found.probabilities[wrong[0], found.labels[wrong[0]]]
    assert [each.source for each in found.predictions] == list(found.sources)


def test_printed_it_is_a_report():
    text = str(made(absent=2))
    low, high = made(absent=2).interval
    assert text.startswith(
        f"accuracy {made(absent=2).accuracy:.4f} on 60 images of test (95 % interval {low:.3f} to {high:.3f})"
    )
    row = next(line for line in text.splitlines() if line.startswith("class 2"))
    assert row.split()[3] == "–" and row.split()[-1] == "0"
    assert "taken for class" in text and "calibration error" in text


def test_of_many_classes_the_worst_are_listed():
    text = str(made(n=900, n_classes=41))
    assert "the 40 classes of 41 with the lowest F1" in text
    scores = [
        float(line.split()[-2]) for line in text.splitlines() if line.startswith("class ") and line.split()[1].isdigit()
    ]
    assert len(scores) == 40 and scores == sorted(scores)


def test_nothing_classified_is_no_evaluation():
    with pytest.raises(DataError, match="none of its 2 images could be classified"):
        Evaluation("test", ["a", "b"], [], np.zeros(0, int), np.zeros((0, 2)), failed={"a.png": "bad", "b.png": "bad"})

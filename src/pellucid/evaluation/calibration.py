"""Whether a classifier that says 0.9 is right in nine of ten cases, and the temperature that helps it to be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

N_BINS = 15  # as in Guo et al.
HOTTEST = 20.0
TOLERANCE = 1e-10


@dataclass(frozen=True)
class Calibration:
    """Answers in bins of equal width by the probability they were given (the reliability diagram).

    With one class an image, an answer is the predicted class; with several labels, each label of each image is one, and
    right where the image has it.

    Attributes:
        edges: Of the bins, on [0, 1]: float (bin + 1,).
        counts: Answers in each bin, int (bin,).
        confidence: Their mean probability, nan in an empty bin: float (bin,).
        accuracy: Share of right ones in each bin, likewise.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: how far accuracy and confidence are apart in a bin, on average over answers.

        Source: Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", 2015.
        """
        full = self.counts > 0
        gaps = np.abs(self.accuracy[full] - self.confidence[full])
        return float(gaps @ self.counts[full] / self.counts.sum())

    @property
    def mean_confidence(self) -> float:
        """Mean probability over all answers."""
        full = self.counts > 0
        return float(self.confidence[full] @ self.counts[full] / self.counts.sum())


def calibration(probabilities: np.ndarray, labels: np.ndarray, n_bins: int = N_BINS) -> Calibration:
    """The reliability diagram of probabilities (image, class) and labels (image,).

    Source: Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", 2017.
    """
    return binned(probabilities.max(1), probabilities.argmax(1) == labels, n_bins)


def binned(said: np.ndarray, right: np.ndarray, n_bins: int = N_BINS) -> Calibration:
    """The reliability diagram of answers: their probabilities (answer,), and whether they are right (answer,)."""
    edges = np.linspace(0, 1, n_bins + 1)
    bins = np.clip(np.searchsorted(edges, said, side="left") - 1, 0, n_bins - 1)  # (low, high], as in the paper
    counts = np.bincount(bins, minlength=n_bins)
    shares = np.where(counts, counts, np.nan)
    return Calibration(
        edges,
        counts,
        np.bincount(bins, said, n_bins) / shares,
        np.bincount(bins, right, n_bins) / shares,
    )


def fitted_temperature(outputs: np.ndarray, labels: np.ndarray) -> float | None:
    """The T that makes softmax(outputs / T) most likely: Newton's method on 1/T, in which the loss is convex.

    Args:
        outputs: Of the model, before softmax, or logarithms of probabilities: (image, class).
        labels: Whole numbers, (image,).

    Returns:
        None where there is no such T between 1/20 and 20: without a mistake to learn from it would be 0, of a
        classifier that is worse than guessing infinite.

    Source: Guo et al., 2017, section 4.2.
    """
    z = outputs.astype(np.float64)
    z -= z.max(1, keepdims=True)
    true = z[np.arange(len(z)), labels]
    low, high = 1 / HOTTEST, HOTTEST
    if not np.isfinite(z).all() or _slope(z, true, low)[0] >= 0 or _slope(z, true, high)[0] <= 0:
        return None
    sharpness = 1.0
    for _ in range(100):
        slope, curvature = _slope(z, true, sharpness)
        low, high = (sharpness, high) if slope < 0 else (low, sharpness)
        step = sharpness - slope / curvature if curvature > 0 else 0.0
        before, sharpness = sharpness, step if low < step < high else float(np.sqrt(low * high))
        if abs(sharpness - before) <= TOLERANCE * sharpness:
            break
    return float(1 / sharpness)


def fitted_sigmoid_temperature(outputs: np.ndarray, labels: np.ndarray) -> float | None:
    """The same for labels that an image may have several of: of sigmoid(outputs / T), one T for all labels.

    Args:
        outputs: Before the sigmoid, (image, label).
        labels: 0 or 1, (image, label).
    """
    z = outputs.reshape(-1, 1)
    return fitted_temperature(np.concatenate([np.zeros_like(z), z], 1), labels.reshape(-1).astype(int))


def _slope(z: np.ndarray, true: np.ndarray, sharpness: float) -> tuple[float, float]:
    """First and second derivative of the mean negative log-likelihood by 1/T."""
    p = np.exp(sharpness * z)
    p /= p.sum(1, keepdims=True)
    mean = (p * z).sum(1)
    return float((mean - true).mean()), float(((p * z**2).sum(1) - mean**2).mean())

"""Items of many passes are hashed and measured at once, with the results that one pass at a time would have."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from pellucid.doctor.evidence.inputs import Gathered, hashes
from pellucid.doctor.evidence.labels import Answer, Answers


def batches(n: int, *shape: int) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.rand(4, *shape, generator=g) for _ in range(n)]


def test_hashes_of_batches_of_several_shapes_stay_in_order():
    given = [*batches(20, 1, 8, 8), *batches(3, 1, 9, 9), *batches(18, 1, 8, 8), torch.ones(2, 3, dtype=torch.int64)]
    gathered, expected = Gathered(), []
    for x in given:
        expected.append(hashes(x).numpy().view(np.uint64))
        gathered.add(gathered.take(x, look=False))
        x.zero_()  # as a loop does that fills the same tensor again
    np.testing.assert_array_equal(gathered.inputs().hashes, np.concatenate(expected))


def test_near_twins_are_not_looked_for_among_images_seen_before():
    images, gathered = batches(32, 1, 8, 8), Gathered()
    for _ in range(3):
        for x in images:
            gathered.add(gathered.take(x, look=False))
    found = gathered.inputs()
    assert len(found.hashes) == 3 * 128 and len(np.unique(found.hashes)) == 128
    assert gathered.repeats and 128 <= len(found.nears) < 3 * 128
    assert len(np.unique(found.nears)) > 120


def test_losses_are_those_of_each_pass():
    answers, expected, classes = Answers(), [], []
    g = torch.Generator().manual_seed(0)
    for i in range(60):
        width = 3 if i % 25 else 5
        logits, labels = torch.randn(4, width, generator=g), torch.randint(3, (4,), generator=g)
        if i == 7:
            labels[2] = -100
        answer = Answer(labels=labels)
        if i != 30:
            answer.said(logits)
        losses = F.cross_entropy(logits, labels, reduction="none")
        expected += (
            [np.nan] * 4 if i == 30 else [np.nan if y < 0 else x for x, y in zip(losses.tolist(), labels, strict=True)]
        )
        classes += [-1] * 4 if i == 30 else logits.argmax(1).tolist()
        if i == 40:  # changed since: what the model said is not known any more
            logits.mul_(2)
            expected[-4:], classes[-4:] = [np.nan] * 4, [-1] * 4
        answers.add(answer)
        logits.zero_()  # after it was taken, whoever made it may do what they like
    found = answers.labels()
    np.testing.assert_allclose(found.losses, expected, rtol=1e-5)
    assert found.predicted.tolist() == classes and found.starts.tolist() == list(range(0, 240, 4))

"""The faults that the doctor knows: what each is, how grave, what helps, and which others it brings about.

A name stands for a root cause. What follows from it is evidence for it: `Fault.causes` is the graph by which the
verdict tells the two apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Fault:
    """A fault of training.

    Attributes:
        title: For a heading.
        severity: `error` (training cannot give what the user wants), `warning` (it costs much) or `note`.
        says: What it is, in a sentence.
        remedy: What usually helps, in a sentence.
        causes: Names of faults that it brings about directly, and whose signs are then signs of this one.
    """

    title: str
    severity: str
    says: str
    remedy: str
    causes: tuple[str, ...] = ()


UNDECIDED = "undecided"

_LITTLE_LEARNT = ("learning-rate-too-low", "underfitting", "labels-random")

NAMES: dict[str, Fault] = {
    "learning-rate-too-high": Fault(
        "Learning rate too high",
        "error",
        "The learning rate is too high: the steps overshoot, so the loss jumps, oscillates or gets stuck.",
        "Divide the learning rate by 10, or warm it up (1cycle). Batch normalisation lets a network train at higher "
        "rates.",
        (
            "dead-units",
            "saturated-units",
            "exploding-gradients",
            "vanishing-gradients",
            "loss-not-a-number",
            "underfitting",
        ),
    ),
    "learning-rate-too-low": Fault(
        "Learning rate too low",
        "error",
        "The learning rate is too low: the gradients are fine, but the weights hardly move.",
        "Multiply the learning rate by 10, and again for as long as that makes the loss fall faster.",
        ("underfitting",),
    ),
    "dead-units": Fault(
        "Dead units",
        "warning",
        "ReLUs output only zeros from the start, so no gradient reaches the layers before them.",
        "Start with zero biases and Kaiming weights, put batch normalisation before the ReLU, or use LeakyReLU.",
        ("vanishing-gradients", "learning-rate-too-low", "underfitting"),
    ),
    "saturated-units": Fault(
        "Saturated units",
        "warning",
        "Sigmoids or tanhs sit on their flat ends, where the gradient is almost zero.",
        "Start with smaller weights (Xavier), normalise the inputs of these functions, or use ReLU instead.",
        ("vanishing-gradients", "learning-rate-too-low", "underfitting"),
    ),
    "vanishing-gradients": Fault(
        "Vanishing gradients",
        "error",
        "Gradients shrink from layer to layer on their way back to the input, so the first layers do not learn.",
        "Use ReLU instead of sigmoid or tanh, add batch normalisation or residual connections, or use fewer layers.",
        ("learning-rate-too-low", "underfitting"),
    ),
    "exploding-gradients": Fault(
        "Exploding gradients",
        "error",
        "Gradients grow from layer to layer, or from time step to time step, on their way back to the input.",
        "Clip gradients (torch.nn.utils.clip_grad_norm_(model.parameters(), 1)), add a norm layer, or start with "
        "smaller weights.",
        ("loss-not-a-number", "dead-units", "saturated-units", "learning-rate-too-low", "underfitting"),
    ),
    "initial-scale-too-large": Fault(
        "Initial weights too large",
        "error",
        "The initial weights are too large: even before the first step, activations grow from layer to layer.",
        "Initialise with kaiming_normal_ (for ReLU) or xavier_uniform_ (for tanh and sigmoid), or keep PyTorch's "
        "default initialisation.",
        (
            "learning-rate-too-high",
            "learning-rate-too-low",
            "exploding-gradients",
            "saturated-units",
            "dead-units",
            "loss-not-a-number",
            "labels-noisy",  # outputs of any size give many labels next to no probability
            "underfitting",
        ),
    ),
    "initial-scale-too-small": Fault(
        "Initial weights too small",
        "error",
        "The initial weights are too small: even before the first step, activations shrink from layer to layer.",
        "Initialise with kaiming_normal_ (for ReLU) or xavier_uniform_ (for tanh and sigmoid), or keep PyTorch's "
        "default initialisation.",
        ("vanishing-gradients", "dead-units", *_LITTLE_LEARNT),
    ),
    "symmetric-initialisation": Fault(
        "Symmetric initial weights",
        "error",
        "All units of a layer start with the same weights and get the same gradients, so they stay identical.",
        "Initialise the weights at random: use kaiming_normal_, or keep PyTorch's default initialisation.",
        ("initial-scale-too-small", "dead-units", "vanishing-gradients", *_LITTLE_LEARNT),
    ),
    "gradients-not-zeroed": Fault(
        "Gradients not zeroed",
        "error",
        "Gradients of earlier batches are never cleared, so every step follows the sum of all of them.",
        "Call optimizer.zero_grad() once for every optimizer.step(), before backward.",
        ("learning-rate-too-high", "exploding-gradients", "loss-not-a-number", "underfitting"),
    ),
    "optimizer-not-stepped": Fault(
        "Optimizer not stepped",
        "error",
        "Gradients are computed but not used: optimizer.step() is never called, or far too rarely.",
        "Call optimizer.step() after loss.backward(), for every batch.",
        ("updates-lost", *_LITTLE_LEARNT),
    ),
    "parameters-not-optimised": Fault(
        "Parameters not optimised",
        "error",
        "Some weights get gradients but are in no optimizer, so they never change.",
        "Create the optimizer from model.parameters() after the model is complete. Freeze what should not change with "
        "requires_grad_(False).",
        ("gradients-not-zeroed", "batch-mixing", *_LITTLE_LEARNT),
    ),
    "updates-lost": Fault(
        "Updates lost",
        "error",
        "The optimizer makes its steps, but they do not reach the weights, or are undone.",
        "Keep the weights in float32 (use autocast for speed), give the optimizer the model's own parameters, and do "
        "not write into them after the step.",
        ("parameters-not-optimised", *_LITTLE_LEARNT),
    ),
    "weight-decay-too-high": Fault(
        "Weight decay too high",
        "error",
        "Weight decay pulls on the weights harder than the gradient does, so they shrink instead of learning.",
        "Use a weight decay of at most 0.001, or 0.01 with AdamW.",
        ("learning-rate-too-high", "vanishing-gradients", "dead-units", *_LITTLE_LEARNT),
    ),
    "broken-graph": Fault(
        "Broken graph",
        "error",
        "Part of the network is cut off from the loss: no gradient reaches it.",
        "Remove the detach(), .data, .item(), numpy() or no_grad() between this layer and the loss.",
        _LITTLE_LEARNT,
    ),
    "model-left-in-eval-mode": Fault(
        "Trained in evaluation mode",
        "warning",
        "The model is trained in evaluation mode: dropout is off, and batch norms do not adapt to the data.",
        "Call model.train() at the start of every epoch, since validation leaves the model in evaluation mode.",
        (
            "initial-scale-too-large",
            "initial-scale-too-small",
            "learning-rate-too-high",
            "exploding-gradients",
            "overfitting",
            "underfitting",
        ),
    ),
    "validated-in-train-mode": Fault(
        "Validated in training mode",
        "warning",
        "The model is validated in training mode: dropout is on, and batch norms learn from validation images.",
        "Call model.eval() before validating, and model.train() after it.",
    ),
    "schedule-misused": Fault(
        "Learning-rate schedule misused",
        "warning",
        "The learning rate does not follow the path that its schedule was made for.",
        "Step the schedule in the unit that its length is counted in: after every batch for OneCycleLR, after every "
        "epoch if it counts epochs.",
        ("learning-rate-too-low", "learning-rate-too-high", "underfitting"),
    ),
    "batchnorm-batch-too-small": Fault(
        "Batches too small for batch normalisation",
        "warning",
        "Batch normalisation computes its mean and variance from very few images, so they are mostly noise.",
        "Use larger batches (16 or more), or GroupNorm instead of batch normalisation.",
        ("overfitting", "labels-noisy", "learning-rate-too-high", "underfitting"),
    ),
    "batch-mixing": Fault(
        "Images of a batch affect each other",
        "error",
        "The output for one image depends on the other images in its batch.",
        "Find the operation that works along the batch axis: a wrong reshape or view, softmax(dim=0), or attention or "
        "an RNN without batch_first=True.",
        ("overfitting", *_LITTLE_LEARNT),
    ),
    "softmax-before-cross-entropy": Fault(
        "Softmax before cross-entropy",
        "warning",
        "The model outputs probabilities, and cross_entropy applies softmax to them once more.",
        "Remove the softmax: cross_entropy takes logits.",
        ("activation-on-output", "saturated-units", "vanishing-gradients", "labels-noisy", *_LITTLE_LEARNT),
    ),
    "activation-on-output": Fault(
        "Activation on the output",
        "error",
        "An activation function after the last layer keeps the output from reaching the values that the loss needs.",
        "Remove the activation after the last layer.",
        ("dead-units", "saturated-units", "vanishing-gradients", "labels-noisy", *_LITTLE_LEARNT),
    ),
    "wrong-loss": Fault(
        "Loss does not fit the task",
        "error",
        "The loss does not fit the targets: it is not smallest where the predictions are right.",
        "With one class per image use cross_entropy on logits; with several classes per image use "
        "binary_cross_entropy_with_logits.",
        (
            "learning-rate-too-high",
            "exploding-gradients",
            "saturated-units",
            "dead-units",
            "loss-not-a-number",
            "overfitting",
            *_LITTLE_LEARNT,
        ),
    ),
    "broadcast-in-loss": Fault(
        "Shapes broadcast in the loss",
        "error",
        "Predictions and targets differ in shape, so every prediction is compared with every target in the batch.",
        "Give both the same shape: prediction.squeeze(1) or target.unsqueeze(1).",
        _LITTLE_LEARNT,
    ),
    "output-does-not-match-classes": Fault(
        "Number of outputs does not match the classes",
        "error",
        "The model has more or fewer outputs than there are classes.",
        "Give the last layer one output per class, and number the classes from 0.",
        ("loss-not-a-number", "underfitting"),
    ),
    "inputs-not-normalised": Fault(
        "Inputs not normalised",
        "warning",
        "The inputs are far from a mean of 0 and a standard deviation of 1.",
        "Scale pixels to the range 0 to 1, then subtract the training set's mean and divide by its standard deviation.",
        (
            "learning-rate-too-high",
            "learning-rate-too-low",
            "initial-scale-too-large",
            "initial-scale-too-small",
            "exploding-gradients",
            "saturated-units",
            "dead-units",
            "vanishing-gradients",
            "loss-not-a-number",
            "underfitting",
        ),
    ),
    "train-valid-preprocessing-mismatch": Fault(
        "Training and validation images are prepared differently",
        "error",
        "Validation images are scaled or normalised differently from training images.",
        "Normalise both sets in the same way, with the training set's mean and standard deviation.",
        ("overfitting",),
    ),
    "data-not-shuffled": Fault(
        "Data not shuffled",
        "warning",
        "The training images come in a fixed or sorted order.",
        "Shuffle the training set in every epoch: DataLoader(..., shuffle=True).",
        ("learning-rate-too-high", "updates-lost", "overfitting", "class-imbalance", "labels-noisy", "underfitting"),
    ),
    "train-valid-leakage": Fault(
        "Training images in the validation set",
        "error",
        "Some validation images are also in the training set, so validation results look better than they are.",
        "Split once, before any augmentation or copying, and keep images that belong together in the same set.",
    ),
    "labels-random": Fault(
        "Labels are random",
        "error",
        "The labels do not depend on the images: a model can memorise them, but there is nothing to learn.",
        "Look at some images next to their labels. Check that shuffling and sorting keep images and labels together.",
        ("labels-noisy", "overfitting", "learning-rate-too-low", "underfitting"),
    ),
    "labels-noisy": Fault(
        "Some labels are wrong",
        "warning",
        "Some labels are wrong: the model is confident of another class.",
        "Look at the training images with the highest losses and correct their labels. Label smoothing limits the "
        "damage.",
        ("overfitting", "underfitting"),
    ),
    "class-imbalance": Fault(
        "Imbalanced classes",
        "warning",
        "Some classes are so rare that ignoring them costs the model little.",
        "Weight the loss by class (cross_entropy(weight=...)), or sample rare classes more often "
        "(WeightedRandomSampler).",
        ("overfitting", "underfitting"),
    ),
    "constant-input": Fault(
        "Inputs are all the same",
        "error",
        "The images that reach the model are all the same, or empty.",
        "Look at a batch right before the model: something between the file and the tensor erases the images.",
        ("inputs-not-normalised", "train-valid-leakage", "dead-units", "vanishing-gradients", *_LITTLE_LEARNT),
    ),
    "overfitting": Fault(
        "Overfitting",
        "warning",
        "The model memorises the training images: training improves while validation gets worse.",
        "Stop at the best epoch, augment the images, or use more images, weight decay, dropout or a smaller model.",
    ),
    "underfitting": Fault(
        "Underfitting",
        "warning",
        "The model is too small for the task, or was trained too briefly; nothing else looks wrong.",
        "Train longer if the loss is still falling; otherwise use more channels or layers.",
    ),
    "loss-not-a-number": Fault(
        "Loss is nan or infinite",
        "error",
        "The loss became nan or infinite, so nothing is learnt from then on.",
        "Look at where it first happened: a log or square root of 0, a division by 0, or values too large for half "
        "precision.",
    ),
    "memory-growing": Fault(
        "Memory keeps growing",
        "warning",
        "Memory grows with every step: something keeps old graphs or batches alive.",
        "Add up loss.item() or loss.detach() instead of loss, and do not collect batches in lists.",
        ("input-bound",),
    ),
    "input-bound": Fault(
        "Waiting for data",
        "warning",
        "The loop spends most of its time waiting for data.",
        "Load data in worker processes (DataLoader(num_workers=4)), or decode and resize the images once, before "
        "training.",
    ),
    UNDECIDED: Fault(
        "Undecided",
        "note",
        "Nothing is certain.",
        "Train a few hundred more steps under the doctor, or try a tenth of the learning rate and ten times as much.",
    ),
}


@cache
def consequences(name: str) -> frozenset[str]:
    """Everything that a fault can bring about, directly or through what it brings about."""
    direct = NAMES[name].causes
    return frozenset(direct).union(*(consequences(each) for each in direct))

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
        "The learning rate is too high: steps overshoot, so the loss jumps, swings or collapses.",
        "Divide the learning rate by ten, or warm it up (1cycle); batch normalisation makes a network bear higher "
        "ones.",
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
        "The learning rate is too low: gradients are fine, and the weights hardly move.",
        "Multiply the learning rate by ten, and again while the loss still falls faster.",
        ("underfitting",),
    ),
    "dead-units": Fault(
        "Dead units",
        "warning",
        "ReLUs output nothing but zeros from the start, so no gradient reaches what is before them.",
        "Start with biases of zero and Kaiming weights, put a batch normalisation before the ReLU, or use LeakyReLU.",
        ("vanishing-gradients", "learning-rate-too-low", "underfitting"),
    ),
    "saturated-units": Fault(
        "Saturated units",
        "warning",
        "Sigmoids or tanhs sit at their flat ends, where the gradient is nearly zero.",
        "Start with smaller weights (Xavier), normalise what goes into these functions, or use ReLU.",
        ("vanishing-gradients", "learning-rate-too-low", "underfitting"),
    ),
    "vanishing-gradients": Fault(
        "Vanishing gradients",
        "error",
        "Gradients shrink from layer to layer on their way to the input, so the first layers do not learn.",
        "Use ReLU instead of sigmoid or tanh, add batch normalisation or residual connections, or take fewer layers.",
        ("learning-rate-too-low", "underfitting"),
    ),
    "exploding-gradients": Fault(
        "Exploding gradients",
        "error",
        "Gradients grow from layer to layer, or from time step to time step, on their way to the input.",
        "Clip gradients (torch.nn.utils.clip_grad_norm_(model.parameters(), 1)), add a norm layer, or start with "
        "smaller weights.",
        ("loss-not-a-number", "dead-units", "saturated-units"),
    ),
    "initial-scale-too-large": Fault(
        "Initial weights too large",
        "error",
        "The initial weights are too large: activations grow from layer to layer before the first step.",
        "Initialise with kaiming_normal_ (ReLU) or xavier_uniform_ (tanh, sigmoid), or leave PyTorch's initial "
        "weights.",
        (
            "learning-rate-too-high",
            "learning-rate-too-low",
            "exploding-gradients",
            "saturated-units",
            "dead-units",
            "loss-not-a-number",
        ),
    ),
    "initial-scale-too-small": Fault(
        "Initial weights too small",
        "error",
        "The initial weights are too small: activations shrink from layer to layer before the first step.",
        "Initialise with kaiming_normal_ (ReLU) or xavier_uniform_ (tanh, sigmoid), or leave PyTorch's initial "
        "weights.",
        ("vanishing-gradients", "dead-units", *_LITTLE_LEARNT),
    ),
    "symmetric-initialisation": Fault(
        "Symmetric initial weights",
        "error",
        "All units of a layer start equal and get equal gradients, so they stay copies of one another.",
        "Draw the initial weights at random: kaiming_normal_, or PyTorch's own by not setting them.",
        ("initial-scale-too-small", "dead-units", "vanishing-gradients", *_LITTLE_LEARNT),
    ),
    "gradients-not-zeroed": Fault(
        "Gradients not zeroed",
        "error",
        "Gradients of earlier batches are never cleared, so each step follows the sum of all of them.",
        "Call optimizer.zero_grad() once for every optimizer.step(), before backward.",
        ("learning-rate-too-high", "exploding-gradients", "loss-not-a-number"),
    ),
    "optimizer-not-stepped": Fault(
        "Optimizer not stepped",
        "error",
        "Gradients are computed and thrown away: the optimizer does not step for them.",
        "Call optimizer.step() after loss.backward(), for every batch.",
        ("updates-lost", *_LITTLE_LEARNT),
    ),
    "parameters-not-optimised": Fault(
        "Parameters not optimised",
        "error",
        "Weights get gradients, and no optimizer holds them, so they never change.",
        "Make the optimizer from model.parameters() after the model is complete; freeze with requires_grad_(False) "
        "what is to stay.",
        ("gradients-not-zeroed", *_LITTLE_LEARNT),  # an optimizer clears what it holds
    ),
    "updates-lost": Fault(
        "Updates lost",
        "error",
        "The optimizer steps, and the weights do not move as it asks.",
        "Keep weights in float32 (autocast for speed), give the optimizer the model's own parameters, and write "
        "nothing "
        "into them after the step.",
        ("parameters-not-optimised", *_LITTLE_LEARNT),
    ),
    "weight-decay-too-high": Fault(
        "Weight decay too high",
        "error",
        "Weight decay pulls on the weights more than the gradient does, so they shrink instead of learning.",
        "Use a weight decay of 0.0001 to 0.01.",
        ("learning-rate-too-high", "vanishing-gradients", "dead-units", *_LITTLE_LEARNT),
    ),
    "broken-graph": Fault(
        "Broken graph",
        "error",
        "Part of the network is cut off from the loss: no gradient reaches it.",
        "Remove the detach(), .data, .item(), numpy() or no_grad() that is between this layer and the loss.",
        _LITTLE_LEARNT,
    ),
    "model-left-in-eval-mode": Fault(
        "Trained in evaluation mode",
        "warning",
        "The model is trained in evaluation mode: no dropout, and batch norms do not follow the data.",
        "Call model.train() at the start of every epoch, after each validation.",
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
        "The model is validated in training mode: dropout is on, and batch norms learn from the validation images.",
        "Call model.eval() before validating, and model.train() after it.",
    ),
    "schedule-misused": Fault(
        "Schedule misused",
        "warning",
        "The learning rate follows another path than its schedule was made for.",
        "Step the schedule as often as its length is counted: per batch for OneCycleLR, per epoch for lengths in "
        "epochs.",
        ("learning-rate-too-low", "learning-rate-too-high", "underfitting"),
    ),
    "batchnorm-batch-too-small": Fault(
        "Batches too small for batch normalisation",
        "warning",
        "Batch normalisation takes its mean and variance from very few images, so they are mostly noise.",
        "Use larger batches (16 or more), or GroupNorm instead of batch normalisation.",
        ("overfitting", "learning-rate-too-high", "underfitting"),
    ),
    "batch-mixing": Fault(
        "Images of a batch are mixed",
        "error",
        "The output for one image depends on the other images of its batch.",
        "Look for the operation that works along the batch axis: a reshape or view, softmax(dim=0), or attention or "
        "recurrence without batch_first=True.",
        ("overfitting", *_LITTLE_LEARNT),
    ),
    "softmax-before-cross-entropy": Fault(
        "Softmax before cross-entropy",
        "warning",
        "The model outputs probabilities, and cross-entropy applies softmax once more.",
        "Remove the softmax: cross_entropy takes logits.",
        ("activation-on-output", "saturated-units", "vanishing-gradients", "labels-noisy", *_LITTLE_LEARNT),
    ),
    "activation-on-output": Fault(
        "Activation on the output",
        "error",
        "An activation function after the last layer keeps the output from taking the values that the loss asks for.",
        "Remove the activation after the last layer.",
        ("dead-units", "saturated-units", "vanishing-gradients", "labels-noisy", *_LITTLE_LEARNT),
    ),
    "wrong-loss": Fault(
        "Loss does not fit the task",
        "error",
        "The loss does not fit the targets: its smallest value is not where the predictions are right.",
        "For one class per image use cross_entropy on logits; for several use binary_cross_entropy_with_logits.",
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
        "Prediction and target differ in shape, so each prediction is compared with every target of the batch.",
        "Give both the same shape: prediction.squeeze(1), or target.unsqueeze(1).",
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
        "Scale pixels to 0 to 1, subtract the mean of the training set and divide by its standard deviation.",
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
        "Validation images are scaled or normalised in another way than training images.",
        "Use one normalisation, with the training set's mean and deviation, for both sets.",
        ("overfitting",),
    ),
    "data-not-shuffled": Fault(
        "Data not shuffled",
        "warning",
        "Training images come in a fixed or sorted order.",
        "Shuffle the training set in each epoch: DataLoader(..., shuffle=True).",
        ("learning-rate-too-high", "updates-lost", "overfitting", "class-imbalance", "labels-noisy", "underfitting"),
    ),
    "train-valid-leakage": Fault(
        "Training images in the validation set",
        "error",
        "Images of the validation set are in the training set too, so validation looks better than it is.",
        "Split once, before any augmentation or copying, and by group where images belong together.",
    ),
    "labels-random": Fault(
        "Labels carry nothing",
        "error",
        "The labels do not depend on the images: nothing can be learnt from them but by heart.",
        "Look at some images with their labels; check that shuffling or sorting moved images and labels together.",
        ("labels-noisy", "overfitting", "learning-rate-too-low", "underfitting"),
    ),
    "labels-noisy": Fault(
        "Part of the labels is wrong",
        "warning",
        "A share of the labels is wrong: the model contradicts them with confidence.",
        "Look at the training images with the highest losses and correct their labels; label smoothing limits the "
        "harm.",
        ("overfitting", "underfitting"),
    ),
    "class-imbalance": Fault(
        "Classes out of balance",
        "warning",
        "Some classes are so rare that the model can ignore them at little cost.",
        "Weight the loss by class (cross_entropy(weight=...)) or sample rare classes more often "
        "(WeightedRandomSampler).",
        ("overfitting", "underfitting"),
    ),
    "constant-input": Fault(
        "Inputs are all the same",
        "error",
        "The images that reach the model are equal or empty.",
        "Look at a batch just before the model: something on the way from file to tensor erases the images.",
        ("inputs-not-normalised", "dead-units", "vanishing-gradients", *_LITTLE_LEARNT),
    ),
    "overfitting": Fault(
        "Overfitting",
        "warning",
        "The model learns the training images by heart: training improves while validation gets worse.",
        "Stop at the best epoch, augment the images, or use more images, weight decay, dropout or a smaller model.",
    ),
    "underfitting": Fault(
        "Underfitting",
        "warning",
        "The model is too small for the task, or was trained too briefly; nothing else is wrong.",
        "Train longer while the loss still falls; else use more channels or layers.",
    ),
    "loss-not-a-number": Fault(
        "Loss not a number",
        "error",
        "The loss became nan or infinite, and every weight with it.",
        "Look at the first operation that gave it: a log or square root of 0, a division by 0, or values too large for "
        "half precision.",
    ),
    "memory-growing": Fault(
        "Memory grows",
        "warning",
        "Memory grows with every step: something keeps old graphs or batches alive.",
        "Add up loss.item() or loss.detach() instead of loss, and keep no batches in lists.",
        ("input-bound",),
    ),
    "input-bound": Fault(
        "Waiting for data",
        "warning",
        "Most of the time the loop waits for data.",
        "Use workers (DataLoader(num_workers=4)), or decode and resize the images once, before training.",
    ),
    UNDECIDED: Fault(
        "Undecided",
        "note",
        "Nothing is sure.",
        "Train a few hundred steps more under the doctor, or try a tenth and ten times the learning rate.",
    ),
}


@cache
def consequences(name: str) -> frozenset[str]:
    """Everything that a fault can bring about, directly or through what it brings about."""
    direct = NAMES[name].causes
    return frozenset(direct).union(*(consequences(each) for each in direct))

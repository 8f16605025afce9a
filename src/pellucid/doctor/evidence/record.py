"""What the doctor knows of a run beside its `History`: plain numbers and arrays, without torch.

Everything is gathered from outside while a loop trains (`pellucid.doctor.evidence.gather`). Cheap facts are kept of
every step, expensive ones of sampled steps ("looks"): the first three, then ever fewer. An empty array, an empty list
or None says that something was not seen, never that it was zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


def _none(*shape: int, dtype: type = np.float64) -> np.ndarray:
    return np.zeros(shape or (0,), dtype)


@dataclass
class Loop:
    """How passes, backward and steps follow one another.

    Attributes:
        steps: Steps of the optimizer, or times that the weights were changed after `backward` without one: `by_hand`.
        backwards: Calls of `backward` on a loss of this model.
        passes: Passes of the model with gradients.
        backwards_per_step: Calls of `backward` between two steps, [step].
        left_before_backward: Norm of the gradients that a `backward` found, relative to their norm after it; 0 where
            they were zeroed or None, [look]. Of parameters of one optimizer, and of its backwards between two of its
            steps the smallest: where two losses train two optimizers, each is zeroed before its own backward only.
        left_steps: Steps of these looks, [look].
        discarded: Share of backwards whose gradients were zeroed before a step had used them.
        quiet_passes: Passes of the model without gradients, or never followed by `backward`.
        trained_in_eval: Share of passes followed by `backward` in which the model itself (not only layers of it) was
            in evaluation mode.
        epoch_starts: Steps at which a new pass over the training data began, where a loader was seen to begin one.
    """

    steps: int = 0
    backwards: int = 0
    passes: int = 0
    backwards_per_step: np.ndarray = field(default_factory=lambda: _none(dtype=np.int64))
    left_before_backward: np.ndarray = field(default_factory=_none)
    left_steps: np.ndarray = field(default_factory=lambda: _none(dtype=np.int64))
    discarded: float = np.nan
    quiet_passes: int = 0
    trained_in_eval: float = np.nan
    epoch_starts: list[int] = field(default_factory=list)
    by_hand: bool = False


@dataclass
class Inputs:
    """What the model was given in training, or in validation: the first floating-point tensor of its arguments.

    Attributes:
        shape: Of one item, without the batch axis.
        batch_sizes: Of each pass, [pass].
        mean, std, min, max: Over all values seen at looks.
        channel_mean, channel_std: Along axis 1 of batches with two or more axes, [channel].
        between: Standard deviation over the items of a batch, averaged over values and looks; 0 for equal images.
        constant: Share of items whose values are all equal.
        layout: Of images, the mean image in 8 × 8 blocks, over channels, [64]; roughness: the mean difference of
            neighbouring pixels, over the deviation; looked: how many items all these figures are of.
        hashes: Of items, in the order seen, [item] uint64; at most 200,000.
        nears: Of items: a signature that survives rescaling of values and small changes, [item] uint64, or empty.
        integers: Whether the inputs are indices (tokens), of which no range is judged.
        from_training_loader: Of validation: share of passes whose batch came from a loader that also gave batches to
            train on (people measure the training accuracy so); nan where no loader was seen.
    """

    shape: tuple[int, ...] = ()
    batch_sizes: np.ndarray = field(default_factory=lambda: _none(dtype=np.int64))
    mean: float = np.nan
    std: float = np.nan
    min: float = np.nan
    max: float = np.nan
    channel_mean: np.ndarray = field(default_factory=_none)
    channel_std: np.ndarray = field(default_factory=_none)
    between: float = np.nan
    constant: float = np.nan
    layout: np.ndarray = field(default_factory=_none)
    roughness: float = np.nan
    looked: int = 0
    hashes: np.ndarray = field(default_factory=lambda: _none(dtype=np.uint64))
    nears: np.ndarray = field(default_factory=lambda: _none(dtype=np.uint64))
    integers: bool = False
    from_training_loader: float = np.nan


@dataclass
class Op:
    """An operation that was applied on the way from the model's input to the loss, as seen at a look.

    Attributes:
        name: Of the function (`softmax`, `relu`, `cross_entropy`, `sub`, `detach`, …).
        module: Dotted name of the innermost module that it ran in; None outside of the model.
        kind: Class name of that module.
        where: `file.py:31`, the innermost line of code that belongs to neither torch nor pellucid.
        shape: Of the result.
        min, max, mean, std: Of the result, if it is a floating-point tensor.
        zero, low, high: Shares of the result that are exactly 0, below −0.97 and above 0.97.
        rows_sum_to_one: Share of rows (along the last axis) that are not negative and sum to 1.
        attached: Whether gradients flow through the result.
    """

    name: str
    module: str | None = None
    kind: str = ""
    where: str = ""
    shape: tuple[int, ...] = ()
    min: float = np.nan
    max: float = np.nan
    mean: float = np.nan
    std: float = np.nan
    zero: float = np.nan
    low: float = np.nan
    high: float = np.nan
    rows_sum_to_one: float = np.nan
    attached: bool = True


@dataclass
class LossCall:
    """What the loss was computed by and called with, at a look.

    Attributes:
        step: The look's.
        name: Function of torch.nn.functional (`cross_entropy`, `mse_loss`, …), or `''` where it was put together.
        where: As `Op.where`.
        input_shape, target_shape: Of its arguments; where it was put together, those of the two tensors that were
            subtracted or multiplied first.
        target_kind: `index`, `float`, `bool`; `''` without a target.
        target_whole: Whether all float targets are whole numbers; target_min, target_max: their range, target_std:
            their deviation.
        one_hot: Share of target rows with a single 1 and zeros.
        target_rows_sum_to_one: Share of rows of float targets (along the last axis) that sum to 1.
        input_min, input_max, rows_sum_to_one: Of what it was given as prediction.
        log_rows: Share of rows whose exponentials sum to one (log-softmax).
        value: The loss.
        options: `reduction`, `label_smoothing`, `weight` (given or not), `ignore_index`, as far as not the default.
    """

    step: int
    name: str = ""
    where: str = ""
    input_shape: tuple[int, ...] = ()
    target_shape: tuple[int, ...] = ()
    target_kind: str = ""
    target_whole: bool = False
    target_min: float = np.nan
    target_max: float = np.nan
    target_std: float = np.nan
    one_hot: float = np.nan
    target_rows_sum_to_one: float = np.nan
    input_min: float = np.nan
    input_max: float = np.nan
    rows_sum_to_one: float = np.nan
    log_rows: float = np.nan
    value: float = np.nan
    options: dict[str, object] = field(default_factory=dict)


@dataclass
class Labels:
    """Of classification, in training or in validation: labels that the loss, a comparison or a loader was seen with.

    Attributes:
        sequence: In the order seen, [item] int32; at most 200,000.
        starts: Where each batch begins in `sequence`, [batch].
        losses: Cross-entropy of each item's logits, where these were seen, [item]; else empty.
        predicted: Index of the largest output, [item]; else empty.
        width: Number of outputs; 0 where unknown.
        compared: How predictions were compared with the labels: `argmax`, `round`, `threshold`; `''` if they were not.
    """

    sequence: np.ndarray = field(default_factory=lambda: _none(dtype=np.int32))
    starts: np.ndarray = field(default_factory=lambda: _none(dtype=np.int64))
    losses: np.ndarray = field(default_factory=_none)
    predicted: np.ndarray = field(default_factory=lambda: _none(dtype=np.int32))
    width: int = 0
    compared: str = ""


@dataclass
class Unit:
    """An activation (module or function) in the model, in the order of execution, at the first looks and the last.

    Attributes:
        name: Dotted name of the module, or `relu in block1 (net.py:20)`.
        kind: `relu`, `tanh`, `sigmoid`, `gelu`, …
        steps: Of the looks.
        silent: Share of units (channels, features) whose outputs were all 0 over the look's batch, [look].
        always_silent: Share of units that were silent at all of the last looks.
        saturated: Share of values beyond the flat part (tanh beyond ±0.97, sigmoid < 0.03 or > 0.97), [look].
        std: Of the input of the activation, [look].
    """

    name: str
    kind: str
    steps: np.ndarray
    silent: np.ndarray
    always_silent: float
    saturated: np.ndarray
    std: np.ndarray


@dataclass
class Parameter:
    """A parameter of the model.

    Attributes:
        name, shape, layer: `layer` is the dotted name of its module; kind: that module's class name.
        requires_grad: At the last look.
        has_grad: Share of looks at which a gradient was there after `backward`.
        held: Index of the optimizer that holds it; −1 for none.
        group: Index of its group.
        gradient: Root mean square of the gradient, [look]; weight: of the values, [look].
        moved: Root mean square of what a step changed (of what changed until the next pass, where no optimizer holds
            it), [look]; asked: of what the optimizer's own state implies,
            [look]; deviation: of the difference between the two, [look]; nan where the optimizer's rule is not known.
        overwritten: Share of looks at which the values before a step were not those after the last one.
        kept: What was left before a step of the move that the last one made: the part of the change since then along
            that move, 1 if untouched, 0 if undone, [look] (norms and weights that are clipped keep nearly all of it).
        spread: Largest distance of one of its units (rows) from the first, relative to the largest norm of one, at the
            first look; 0 where all are equal.
        gradient_spread: The same of its gradient.
        decay_share: Share of the step that is weight decay, [look]; nan without decay.
        dtype: Such as `float32`.
    """

    name: str
    shape: tuple[int, ...]
    layer: str
    kind: str
    requires_grad: bool = True
    has_grad: float = np.nan
    held: int = -1
    group: int = -1
    gradient: np.ndarray = field(default_factory=_none)
    weight: np.ndarray = field(default_factory=_none)
    moved: np.ndarray = field(default_factory=_none)
    asked: np.ndarray = field(default_factory=_none)
    deviation: np.ndarray = field(default_factory=_none)
    overwritten: float = np.nan
    kept: np.ndarray = field(default_factory=_none)
    spread: float = np.nan
    gradient_spread: float = np.nan
    decay_share: np.ndarray = field(default_factory=_none)
    dtype: str = "float32"


@dataclass
class Optimizer:
    """An optimizer that holds parameters of the model.

    Attributes:
        kind: Class name; steps: how often it stepped.
        foreign: How many of its tensors are not the model's (a copy, an older layer); foreign_with_grad: of these,
            how many had a gradient at any of its steps.
        hypers: Name → values per step, [step] (of the first group), as far as numbers: `lr`, `momentum`,
            `weight_decay`.
    """

    kind: str
    steps: int = 0
    foreign: int = 0
    foreign_with_grad: int = 0
    hypers: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Scheduler:
    """A learning-rate schedule.

    Attributes:
        kind: Class name; planned: its length in steps of its own (`total_steps`, `T_max`, …), or 0 where it has none.
        settings: Numbers, and lists of them, that it was made with, by the names of its attributes (`T_max`, `gamma`,
            `milestones`, `step_size`, …).
        stepped_at: The optimizer's step count at each of its steps, [step of the schedule].
        rates: Learning rate after each of them.
        raised: Text of an error that it raised ("Tried to step 102 times …"), or `''`.
    """

    kind: str
    planned: int = 0
    settings: dict[str, object] = field(default_factory=dict)
    stepped_at: np.ndarray = field(default_factory=lambda: _none(dtype=np.int64))
    rates: np.ndarray = field(default_factory=_none)
    raised: str = ""


@dataclass
class Norm:
    """A layer with statistics of batches, or dropout.

    Attributes:
        name, kind: Of the module.
        trained_in_eval: Share of passes followed by `backward` in which it was in evaluation mode.
        validated_in_train: Share of passes without gradients, or never followed by `backward`, in training mode.
        per_channel: Values per channel and batch that its statistics are of (batch × positions), smallest seen.
        batch_size: Smallest seen in training.
        moved: Whether its buffers changed.
        disagreement: Distance of batch and running variance, over the running variance, averaged over channels, late in
            the run.
    """

    name: str
    kind: str
    trained_in_eval: float = np.nan
    validated_in_train: float = np.nan
    per_channel: int = 0
    batch_size: int = 0
    moved: bool = False
    disagreement: float = np.nan


@dataclass
class Resources:
    """Time and memory.

    Attributes:
        step_s: Seconds from the end of one step to the end of the next, [step].
        waited_s: Of these, between asking for data and the model's call, [step].
        loader_s: Of these, inside `next()` of a DataLoader, [step]; nan where none was seen.
        resident_mib: Resident memory of the process, [look]; live_tensors, live_mib: tensors alive, [look]; steps: of
            these looks, which are two from step 20 on, and later ones as long as counting takes little time.
        holders: What keeps growing, as far as it is known: `running_loss (train.py:40): tensor with 312 operations`.
    """

    step_s: np.ndarray = field(default_factory=_none)
    waited_s: np.ndarray = field(default_factory=_none)
    loader_s: np.ndarray = field(default_factory=_none)
    resident_mib: np.ndarray = field(default_factory=_none)
    live_tensors: np.ndarray = field(default_factory=lambda: _none(dtype=np.int64))
    live_mib: np.ndarray = field(default_factory=_none)
    steps: np.ndarray = field(default_factory=lambda: _none(dtype=np.int64))
    holders: list[str] = field(default_factory=list)


@dataclass
class Failure:
    """How the script ended, if not well, or the first value that is not a number.

    Attributes:
        kind: Name of the exception; `''` if none was raised.
        message, where: Its text, and the innermost line of the user's.
        first_nonfinite: Operation or layer that first output one from finite inputs; step: when.
        during: `forward`, `backward`, `step`, `input`, `loss`.
    """

    kind: str = ""
    message: str = ""
    where: str = ""
    first_nonfinite: str = ""
    step: int = -1
    during: str = ""


@dataclass
class Evidence:
    """All of it; `train` and `valid` are phases: passes followed by `backward`, and passes without gradients.

    Items and batches of `train` and `train_labels` stand in the same order, and so do those of `valid`, its labels and
    `valid_losses`; parameters in the order in which their layers were first called.

    Attributes:
        losses: The loss of each step, [step], and where known of each validation pass: `valid_losses`, [pass], at
            `valid_steps`.
        ops: What was applied at the first look, in order, inside the model and after it.
        models: How many root modules trained.
        looks: The steps that were looked at, [look].
        notes: What could not be gathered, and why.
        finished: Whether the training came to its end by itself (not stopped, not still running).
    """

    model: str = ""
    models: int = 1
    loop: Loop = field(default_factory=Loop)
    train: Inputs = field(default_factory=Inputs)
    valid: Inputs = field(default_factory=Inputs)
    train_labels: Labels = field(default_factory=Labels)
    valid_labels: Labels = field(default_factory=Labels)
    losses: np.ndarray = field(default_factory=_none)
    valid_losses: np.ndarray = field(default_factory=_none)
    valid_steps: np.ndarray = field(default_factory=lambda: _none(dtype=np.int64))
    calls: list[LossCall] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    parameters: list[Parameter] = field(default_factory=list)
    optimizers: list[Optimizer] = field(default_factory=list)
    schedulers: list[Scheduler] = field(default_factory=list)
    norms: list[Norm] = field(default_factory=list)
    resources: Resources = field(default_factory=Resources)
    failure: Failure | None = None
    finished: bool = True
    looks: np.ndarray = field(default_factory=lambda: _none(dtype=np.int64))
    notes: list[str] = field(default_factory=list)

"""Runs that are easily mistaken for sick: none may have an error or a warning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from synthetic import LOOKS, batch_norms, falling, operations, run
from test_sick import changed, every_call

from pellucid.doctor.evidence.record import Evidence, Labels, Norm, Op, Optimizer, Scheduler
from pellucid.doctor.rules import suspicions
from pellucid.doctor.rules.core import Case
from pellucid.doctor.rules.optimizers import decay
from pellucid.doctor.verdict import verdict
from pellucid.history.record import Record

CASES: list[Callable[[], Case]] = []


def healthy(function: Callable[[], Case]) -> Callable[[], Case]:
    CASES.append(function)
    return function


def without_labels(case: Case) -> Case:
    return changed(case, train_labels=Labels(), valid_labels=Labels())


@healthy
def an_ordinary_run() -> Case:
    return run()


@healthy
def nothing_seen_at_all() -> Case:
    return Case(Record(), Evidence())


@healthy
def the_history_alone() -> Case:
    return Case(run().history, Evidence())


@healthy
def one_epoch_only() -> Case:
    return run(epochs=1, loss=falling(2.3, 1.6), right=(0.1, 0.45), valid_right=(0.44,))


@healthy
def ten_steps() -> Case:
    return run(
        steps=10, epochs=1, loss=np.linspace(2.31, 2.28, 10), right=(0.1, 0.1), valid_right=(0.1,), step_size=5e-4
    )


@healthy
def accumulated_gradients() -> Case:
    case = run(loss=falling(2.3, 0.6) / 4)
    for call in case.evidence.calls:
        call.value *= 4
    return changed(case, loop__backwards=1200, loop__passes=1200, loop__backwards_per_step=np.full(300, 4))


@healthy
def a_frozen_body() -> Case:
    case = run(loss=falling(2.3, 1.0))
    for parameter in case.evidence.parameters[:3]:
        parameter.requires_grad, parameter.has_grad, parameter.held = False, 0.0, -1
    return case


@healthy
def a_body_in_no_grad() -> Case:
    case = run(loss=falling(2.3, 1.0))
    for parameter in case.evidence.parameters[:3]:
        parameter.has_grad, parameter.held = 0.0, -1
    return case


@healthy
def frozen_batch_norms() -> Case:
    norms = [*batch_norms(trained_in_eval=1.0), Norm("drop", "Dropout", 0.0, 0.0)]
    return changed(run(), norms=norms, loop__trained_in_eval=0.0)


@healthy
def dropout_and_mixup() -> Case:
    case = run(loss=falling(2.3, 1.75), right=(0.1, 0.4), valid_right=(0.5, 0.6, 0.66))
    changed(case, train_labels=Labels(), train__std=0.8, train__between=0.7, norms=[Norm("drop", "Dropout", 0.0, 0.0)])
    return every_call(case, target_kind="float", target_shape=(64, 10), target_rows_sum_to_one=1.0)


@healthy
def mixup_whose_labels_come_from_the_loader() -> Case:
    case = run(noise=0.35, loss=falling(2.3, 1.75), right=(0.1, 0.6), valid_right=(0.5, 0.6, 0.66))
    return every_call(case, target_kind="float", target_shape=(64, 10), target_rows_sum_to_one=1.0, one_hot=0.1)


@healthy
def mixup_by_two_losses() -> Case:
    case = run(noise=0.35, loss=falling(2.3, 1.75), right=(0.1, 0.6), valid_right=(0.5, 0.6, 0.66))
    case.evidence.calls = [
        each for call in case.evidence.calls for each in (call, replace(call, value=call.value + 0.3))
    ]
    return case


@healthy
def training_batches_looked_at_in_between() -> Case:
    norms = batch_norms(validated_in_train=0.9)
    return changed(run(), norms=norms, valid__from_training_loader=0.9)


@healthy
def label_smoothing() -> Case:
    case = run(loss=falling(2.3, 1.0))
    return every_call(case, options={"label_smoothing": 0.1})


@healthy
def warm_up() -> Case:
    rates = 0.05 * np.minimum(1, (np.arange(300) + 1) / 100)
    losses = np.concatenate([np.linspace(2.3, 2.15, 60), falling(2.15, 0.8, 240)])
    case = run(loss=losses, step_size=rates / 50)
    case.evidence.optimizers[0].hypers["lr"] = rates
    return changed(case, schedulers=[Scheduler("LambdaLR", 0, stepped_at=np.arange(1, 301), rates=rates)])


@healthy
def gelu() -> Case:
    case = run()
    for unit in case.evidence.units:
        unit.kind, unit.silent = "gelu", np.zeros(8)
    return case


@healthy
def leaky_relu_and_saturated_gates() -> Case:
    case = run()
    first, second, _ = case.evidence.units
    first.kind = "leaky_relu"
    second.kind, second.saturated = "sigmoid", np.linspace(0.01, 0.7, 8)
    return case


@healthy
def some_units_silent_in_a_wide_layer() -> Case:
    case = run()
    case.evidence.units[2].silent = np.linspace(0.05, 0.5, 8)
    case.evidence.units[2].always_silent = 0.45
    return case


@healthy
def tuned_at_a_small_rate() -> Case:
    return run(loss=falling(2.4, 0.35), step_size=1.5e-5, right=(0.2, 0.9), valid_right=(0.8, 0.86, 0.9))


@healthy
def validation_above_training() -> Case:
    return run(loss=falling(2.3, 1.2), right=(0.1, 0.55), valid_right=(0.5, 0.65, 0.72))


@healthy
def log_softmax_with_nll() -> Case:
    case = run()
    case.evidence.ops = operations(Op("log_softmax", "out", "LogSoftmax"))
    case.evidence.ops[-1] = Op("nll_loss")
    return every_call(case, name="nll_loss", log_rows=1.0, input_max=-0.01, input_min=-9.0)


@healthy
def log_softmax_with_cross_entropy() -> Case:
    case = run()
    case.evidence.ops = operations(Op("log_softmax", "out", "LogSoftmax"))
    return every_call(case, log_rows=1.0, input_max=-0.01, input_min=-9.0)


@healthy
def bce_on_one_hot() -> Case:
    case = run(loss=falling(0.69, 0.12, noise=0.01))
    return every_call(
        case,
        name="binary_cross_entropy_with_logits",
        target_kind="float",
        target_shape=(64, 10),
        target_whole=True,
        target_min=0.0,
        target_max=1.0,
        one_hot=1.0,
        target_rows_sum_to_one=1.0,
    )


@healthy
def squared_error_on_one_hot() -> Case:
    case = run(loss=falling(0.1, 0.04, noise=0.003))
    return every_call(
        case,
        name="mse_loss",
        target_kind="float",
        target_shape=(64, 10),
        target_whole=True,
        target_min=0.0,
        target_max=1.0,
        target_std=0.3,
        one_hot=1.0,
        target_rows_sum_to_one=1.0,
    )


@healthy
def a_generator_whose_critic_gets_better() -> Case:
    rising = np.linspace(0.67, 1.8, 300) + 0.4 * np.sin(np.arange(300) / 9)
    case = without_labels(run(loss=rising, step_size=3e-3))
    for call in case.evidence.calls:
        call.name, call.target_kind, call.input_shape, call.target_shape = "mean", "", (64, 1), ()
    return changed(case, models=2)


@healthy
def two_optimizers() -> Case:
    case = run()
    for parameter in case.evidence.parameters[2:]:
        parameter.held = 1
    case.evidence.optimizers.append(Optimizer("Adam", 300, hypers={"lr": np.full(300, 1e-3)}))
    return case


@healthy
def an_average_of_the_weights() -> Case:
    return changed(run(), models=2, loop__passes=600, loop__quiet_passes=300)


@healthy
def an_autoencoder() -> Case:
    case = without_labels(run(loss=falling(0.12, 0.02, noise=0.003)))
    case.evidence.ops = [*operations(Op("sigmoid", "decoder.out", "Sigmoid"))[:-1], Op("mse_loss")]
    changed(
        case,
        train__mean=0.3,
        train__std=0.35,
        valid__mean=0.3,
        valid__std=0.35,
        valid_losses=case.evidence.valid_losses / 50,
    )
    return every_call(
        case,
        name="mse_loss",
        input_shape=(64, 1, 28, 28),
        target_shape=(64, 1, 28, 28),
        target_kind="float",
        target_min=0.0,
        target_max=1.0,
        target_std=0.35,
        input_min=0.01,
        input_max=0.99,
    )


@healthy
def siamese_calls() -> Case:
    case = without_labels(run(loss=falling(0.5, 0.1, noise=0.02)))
    changed(case, loop__passes=600)
    return every_call(case, name="cosine_embedding_loss", input_shape=(64, 32), target_shape=(64,), value=np.nan)


@healthy
def a_high_rate_held_by_batch_norms() -> Case:
    losses = falling(2.3, 0.5, noise=0.1)
    losses[1:8] = [2.9, 5.5, 4.8, 3.9, 3.0, 2.6, 2.4]
    case = changed(run(loss=losses, step_size=0.08), norms=batch_norms())
    case.evidence.optimizers[0].hypers["lr"] = np.full(300, 1.0)
    return case


@healthy
def whole_numbers_as_targets() -> Case:
    """Ages, as a loader gives them: integers that are no classes."""
    case = run(loss=falling(800, 120, noise=10))
    ages = np.random.default_rng(0).normal(40, 15, len(case.evidence.train_labels.sequence)).clip(0, 95)
    labels = Labels(ages.astype(np.int32), case.evidence.train_labels.starts, width=1)
    changed(case, train_labels=labels, valid_labels=Labels())
    return every_call(
        case, name="mse_loss", input_shape=(64, 1), target_shape=(64, 1), target_kind="float", target_whole=True,
        target_min=1.0, target_max=95.0, target_std=15.0, one_hot=0.0,
    )  # fmt: skip


@healthy
def counts_as_targets() -> Case:
    """Counts from 0 to 9, all as frequent, and nobody compares them by argmax."""
    case = run(loss=falling(28, 2, noise=0.5))
    for labels in (case.evidence.train_labels, case.evidence.valid_labels):
        labels.width, labels.compared = 1, ""
        labels.losses, labels.predicted = np.zeros(0), np.zeros(0, np.int32)
    return every_call(
        case, name="mse_loss", input_shape=(64,), target_shape=(64,), target_kind="float", target_whole=True,
        target_min=0.0, target_max=9.0, target_std=2.9, one_hot=0.0,
    )  # fmt: skip


@healthy
def tokens() -> Case:
    case = run(loss=falling(9.2, 5.5), classes=10)
    labels = Labels(
        np.random.default_rng(0).integers(0, 4000, 19200).astype(np.int32), np.arange(0, 19200, 64), width=10000
    )
    changed(case, train__integers=True, train__mean=2100.0, train__std=1300.0, train__max=9999.0, train__shape=(32,))
    changed(case, train_labels=labels, valid_labels=Labels(), valid__integers=True)
    return every_call(case, input_shape=(2048, 10000), target_shape=(2048,))


@healthy
def sigmoid_under_bce() -> Case:
    case = run(classes=2, loss=falling(0.69, 0.2, noise=0.02), right=(0.5, 0.92), valid_right=(0.8, 0.9, 0.92))
    case.evidence.ops = [*operations(Op("sigmoid", "out", "Sigmoid"))[:-1], Op("binary_cross_entropy")]
    case.evidence.train_labels.compared, case.evidence.train_labels.width = "round", 1
    return every_call(
        case, name="binary_cross_entropy", input_shape=(64, 1), target_shape=(64, 1), target_kind="float",
        target_whole=True, target_min=0.0, target_max=1.0, input_min=0.01, input_max=0.98, one_hot=0.5,
    )  # fmt: skip


@healthy
def several_labels_per_image() -> Case:
    case = without_labels(run(loss=falling(0.69, 0.2, noise=0.01)))
    return every_call(
        case, name="binary_cross_entropy_with_logits", input_shape=(64, 20), target_shape=(64, 20), target_kind="float",
        target_whole=True, target_min=0.0, target_max=1.0, one_hot=0.1, target_rows_sum_to_one=0.1,
    )  # fmt: skip


@healthy
def few_validation_images() -> Case:
    case = run()
    valid = case.evidence.valid_labels
    changed(case, valid_losses=np.array([0.9, 0.8, 0.95]), valid_steps=np.array([100, 200, 300]))
    few = Labels(valid.sequence[:60], np.array([0, 20, 40]), valid.losses[:60], valid.predicted[:60], 10, "argmax")
    return changed(case, valid_labels=few)


@healthy
def a_stream_without_epochs() -> Case:
    return changed(run(epochs=1), loop__epoch_starts=[], valid_losses=np.zeros(0), valid_steps=np.zeros(0, int))


@healthy
def a_loss_of_every_tenth_step() -> Case:
    case = run()
    series = case.history.series | {
        "step": np.arange(10, 301, 10),
        "loss": case.evidence.losses[9::10].astype(np.float32),
    }
    return Case(replace(case.history, series=series), changed(case, losses=np.zeros(0)).evidence)


@healthy
def pixels_from_0_to_1() -> Case:
    means, stds = np.array([0.49, 0.48, 0.45]), np.array([0.25, 0.24, 0.26])
    case = run()
    for phase in ("train", "valid"):
        values = {
            "mean": 0.47,
            "std": 0.25,
            "min": 0.0,
            "max": 1.0,
            "channel_mean": means,
            "channel_std": stds,
            "between": 0.2,
        }
        changed(case, **{f"{phase}__{key}": value for key, value in values.items()})
    return case


@healthy
def bytes_that_the_model_scales() -> Case:
    case = run()
    case.evidence.ops.insert(0, Op("div", "", "Net", mean=0.47, std=0.25))
    return changed(case, train__mean=121.0, train__std=64.0, train__max=255.0, valid__mean=121.0, valid__std=64.0)


@healthy
def crops_with_black_borders() -> Case:
    return changed(
        run(),
        train__channel_mean=np.full(3, -0.24),
        train__channel_std=np.full(3, 1.1),
        train__mean=-0.24,
        train__std=1.1,
    )


@healthy
def training_accuracy_measured_as_well() -> Case:
    case = run()
    hashes = case.evidence.valid.hashes.copy()
    hashes[::][:1024] = case.evidence.train.hashes[:1024]
    return changed(case, valid__hashes=hashes)


@healthy
def the_whole_training_set_measured_by_another_loader() -> Case:
    case = run()
    seen = np.unique(case.evidence.train.hashes)
    seen = seen[: len(seen) // 64 * 64]
    hashes = np.concatenate([case.evidence.valid.hashes, seen])
    sizes = np.full(len(hashes) // 64, 64)
    return changed(case, valid__hashes=hashes, valid__batch_sizes=sizes, valid__from_training_loader=0.0)


@healthy
def random_crops_and_other_images_in_validation() -> Case:
    case = run(epochs=5)
    hashes = case.evidence.train.hashes
    crop = (np.random.default_rng(0).random(len(hashes)) * 100).astype(np.uint64)
    return changed(case, train__hashes=np.where(crop == 0, hashes, hashes ^ (crop << np.uint64(40))))


@healthy
def other_colours_because_of_other_classes() -> Case:
    """Only ships are validated: blue. The swapped channels of `test_sick` are of equal classes."""
    case = run(valid_right=(0.2, 0.3, 0.35))
    case.evidence.valid_labels.sequence[:] = 8
    return changed(
        case, train__channel_mean=np.array([-0.04, -0.04, -0.12]), train__std=0.5, valid__std=0.5,
        valid__channel_mean=np.array([-0.01, 0.05, 0.09]), train__channel_std=np.full(3, 0.5),
        valid__channel_std=np.full(3, 0.5),
    )  # fmt: skip


@healthy
def noise_on_training_images() -> Case:
    return changed(run(), train__roughness=0.9, valid__roughness=0.3)


@healthy
def overfitted_a_little_with_images_that_have_no_layout() -> Case:
    """The mean images of few images differ by chance."""
    rng = np.random.default_rng(0)
    case = run(right=(0.12, 0.85), valid_right=(0.55, 0.6, 0.62))
    return changed(
        case, train__layout=rng.normal(0, 0.05, 64), valid__layout=rng.normal(0, 0.05, 64), train__roughness=0.3,
        valid__roughness=0.35,
    )  # fmt: skip


@healthy
def strong_dropout_on_a_hard_task() -> Case:
    """Training labels are less likely than those of validation, all of them a little."""
    case = run(right=(0.2, 0.4), valid_right=(0.35, 0.45, 0.5), loss=falling(2.3, 1.5))
    rng = np.random.default_rng(0)
    for labels, shares in (
        (case.evidence.train_labels, [0.35, 0.45, 0.2]),
        (case.evidence.valid_labels, [0.24, 0.44, 0.32]),
    ):
        labels.losses = -np.log(rng.choice([0.05, 0.3, 0.8], len(labels.sequence), p=shares))
    return case


@healthy
def a_few_twins() -> Case:
    case = run()
    hashes = case.evidence.valid.hashes.copy()
    hashes[::100] = case.evidence.train.hashes[: len(hashes[::100])]
    return changed(case, valid__hashes=hashes)


@healthy
def a_skipped_step_of_half_precision() -> Case:
    case = run()
    case.evidence.losses[3] = np.inf
    return case


@healthy
def clipped_weights() -> Case:
    case = run()
    for parameter in case.evidence.parameters:
        parameter.overwritten, parameter.kept = 1.0, np.full(8, 0.96)
    return case


@healthy
def usual_weight_decay() -> Case:
    case = run()
    for parameter in case.evidence.parameters:
        parameter.decay_share = np.linspace(0.02, 0.3, 8)
    return case


def test_a_usual_decay_is_not_to_blame_where_nothing_else_moves_the_weights():
    """At too high a rate all units died, and 0.0005 of the weights times that rate is what is left of each step."""
    for strength, blamed in [(0.0005, False), (0.1, True)]:
        case = run()
        case.evidence.losses[:] = 2.303
        for parameter in case.evidence.parameters:
            parameter.decay_share = np.full(8, 0.9)
            parameter.weight = np.geomspace(1, 0.4, 8) * parameter.weight[0]
        case.evidence.optimizers[0].hypers["weight_decay"] = np.full(300, strength)
        assert ("weight-decay-too-high" in {each.name for each in decay(case)}) == blamed


@healthy
def batches_of_eight_with_batch_norm() -> Case:
    return changed(run(batch=8, steps=1200), norms=batch_norms(batch_size=8, disagreement=0.3))


@healthy
def one_cycle_by_batch() -> Case:
    rates = 0.2 * np.concatenate([np.linspace(0.04, 1, 75), 0.5 + 0.5 * np.cos(np.linspace(0, np.pi, 225))])
    case = run(step_size=rates / 60)
    case.evidence.optimizers[0].hypers["lr"] = rates
    return changed(case, schedulers=[Scheduler("OneCycleLR", 300, stepped_at=np.arange(1, 301), rates=rates)])


@healthy
def cosine_by_epoch() -> Case:
    rates = 0.025 * (1 + np.cos(np.pi * np.arange(1, 4) / 3))
    return changed(
        run(), schedulers=[Scheduler("CosineAnnealingLR", 3, stepped_at=np.array([100, 200, 300]), rates=rates)]
    )


@healthy
def exponential_by_epoch() -> Case:
    rates = 0.05 * 0.7 ** np.arange(1, 4)
    return changed(run(), schedulers=[Scheduler("ExponentialLR", 0, stepped_at=np.array([100, 200, 300]), rates=rates)])


@healthy
def a_plateau_that_never_came() -> Case:
    return changed(
        run(),
        schedulers=[Scheduler("ReduceLROnPlateau", 0, stepped_at=np.array([100, 200, 300]), rates=np.full(3, 0.05))],
    )


@healthy
def warm_up_then_cosine() -> Case:
    rates = 0.05 * np.concatenate([np.linspace(0.01, 1, 30), 0.5 + 0.5 * np.cos(np.linspace(0, np.pi, 270))])
    steps = np.arange(1, 301)
    parts = [Scheduler("LinearLR", 30, stepped_at=steps[:30], rates=rates[:30]), Scheduler("CosineAnnealingLR", 270)]
    return changed(run(), schedulers=[*parts, Scheduler("SequentialLR", 0, stepped_at=steps, rates=rates)])


@healthy
def a_small_net_that_waits_for_its_data() -> Case:
    return changed(run(), resources__step_s=np.full(300, 0.008), resources__waited_s=np.full(300, 0.006))


@healthy
def memory_that_levels_out() -> Case:
    live = np.array([100, 400, 700, 800, 802, 801, 803, 802, 804, 803])
    return changed(
        run(), resources__steps=np.arange(0, 300, 30), resources__live_tensors=live, resources__live_mib=live / 10.0
    )


@healthy
def small_tensors_that_come_with_the_run() -> Case:
    return changed(
        run(),
        resources__steps=np.arange(0, 300, 30),
        resources__live_tensors=np.arange(100, 1600, 150),
        resources__live_mib=np.full(10, 50.0),
    )


@healthy
def a_rare_class_that_is_recognised() -> Case:
    case = run()
    labels = case.evidence.train_labels
    kept = (labels.sequence != 3) | (np.arange(len(labels.sequence)) % 8 == 0)
    labels.sequence = np.where(kept, labels.sequence, 5).astype(np.int32)
    return case


@healthy
def residual_branches_that_start_at_zero() -> Case:
    case = run()
    parameter = case.evidence.parameters[1]
    parameter.weight, parameter.spread, parameter.gradient_spread = np.linspace(0, 0.05, 8), 0.0, 1.3
    return case


@healthy
def one_batch_again_and_again() -> Case:
    case = run(loss=falling(2.3, 0.001), right=(0.1, 1.0), valid_right=(0.1,))
    labels, train = case.evidence.train_labels, case.evidence.train
    labels.sequence, train.hashes = np.tile(labels.sequence[:64], 300), np.tile(train.hashes[:64], 300)
    return changed(case, valid_labels=Labels(), valid_losses=np.zeros(0), valid_steps=np.zeros(0, int))


@healthy
def a_run_that_was_stopped_early() -> Case:
    rates = np.linspace(4e-4, 4e-3, 60)
    case = run(steps=60, epochs=1, loss=falling(2.3, 1.9, 60), right=(0.1, 0.3), valid_right=(0.3,), step_size=rates)
    scheduler = Scheduler("OneCycleLR", 3000, stepped_at=np.arange(1, 61), rates=rates)
    return changed(case, schedulers=[scheduler], finished=False, looks=LOOKS[:4])


@pytest.mark.parametrize("make", CASES, ids=[make.__name__ for make in CASES])
def test_no_error_and_no_warning(make):
    case = make()
    found = suspicions(case)
    grave = [each for each in verdict(case, found) if each.severity != "note"]
    assert grave == [], [(each.name, round(each.prior, 2), each.says) for each in found if each.prior > 0.2]

"""The verdict: odds multiply, causes come before what they bring about, and trials are chosen by what they tell."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import flat, run, stuck

from pellucid.doctor.evidence.record import Evidence
from pellucid.doctor.names import NAMES, UNDECIDED, consequences
from pellucid.doctor.rules.core import Case, Suspicion
from pellucid.doctor.trials.core import Outcome
from pellucid.doctor.verdict import DECISIVE, REPORTED, confidence, verdict, which_trials
from pellucid.history.record import Record

FAULTS = sorted(set(NAMES) - {UNDECIDED})
NOTHING = Case(Record(), Evidence())
priors = st.floats(0.01, 0.99)
suspected = st.dictionaries(st.sampled_from(FAULTS), priors, max_size=8)
factors = st.dictionaries(st.sampled_from(FAULTS), st.floats(0.001, 1000), max_size=6)


def suspicions(found: dict[str, float]) -> list[Suspicion]:
    return [Suspicion(name, prior, f"signs of {name}") for name, prior in found.items()]


def test_bayes_by_hand():
    assert confidence("dead-units", 0.2, []) == pytest.approx(0.2)
    outcomes = [Outcome("lower-rate", "", odds={"dead-units": 8.0}), Outcome("clipped", "", odds={"dead-units": 0.5})]
    assert confidence("dead-units", 0.2, outcomes) == pytest.approx(0.5)  # odds 1 : 4, times 8, times a half
    assert confidence("dead-units", 0.2, [Outcome("lower-rate", "", odds={"overfitting": 99.0})]) == pytest.approx(0.2)


@given(priors, st.floats(0.001, 1000), st.floats(0.001, 1000))
def test_confidence_rises_with_the_odds(prior, a, b):
    one, other = (confidence("overfitting", prior, [Outcome("t", "", odds={"overfitting": odds})]) for odds in (a, b))
    assert (one <= other) == (a <= b) or math.isclose(one, other)
    assert 0 <= one <= 1


@given(suspected, factors)
def test_order_and_bounds(found, odds):
    findings = verdict(NOTHING, suspicions(found), [Outcome("t", "tried", odds=odds)])
    keys = [(each.name == UNDECIDED, each.severity == "note", -each.confidence) for each in findings]
    assert keys == sorted(keys)
    assert len({each.name for each in findings}) == len(findings)
    for each in findings:
        assert each.name == UNDECIDED or each.confidence >= REPORTED
        assert each.severity in ("error", "warning", "note") and each.remedy


@given(suspected)
def test_no_cause_stands_beside_what_it_explains(found):
    findings = {each.name: each for each in verdict(NOTHING, suspicions(found)) if each.name != UNDECIDED}
    for name, each in findings.items():
        for other in set(findings) & consequences(name):
            assert findings[other].confidence > each.confidence  # else it were explained
            assert each.confidence < DECISIVE
        assert set(each.explains) <= consequences(name)


@given(suspected)
def test_nothing_sure_is_lost(found):
    findings = verdict(NOTHING, suspicions(found))
    named = {each.name for each in findings} | {sign for each in findings for sign in each.explains}
    assert {name for name, prior in found.items() if prior > REPORTED + 1e-9} <= named


@given(st.sampled_from([name for name in FAULTS if NAMES[name].causes]), st.floats(0.8, 0.99), priors)
def test_a_sure_cause_comes_before_its_signs(name, sure, prior):
    sign = min(consequences(name))
    findings = verdict(NOTHING, suspicions({sign: prior, name: sure}))
    assert [each.name for each in findings] == [name]


@given(suspected, st.sampled_from(FAULTS), st.floats(0.5, 0.99), st.floats(1, 1000))
def test_a_trial_that_confirms_never_hurts(others, name, prior, odds):
    found = others | {name: prior}
    before = {each.name: each.confidence for each in verdict(NOTHING, suspicions(found))}
    outcome = Outcome("t", "tried", odds={name: odds})
    after = {each.name: each.confidence for each in verdict(NOTHING, suspicions(found), [outcome])}
    if name in before and name in after:
        assert after[name] >= before[name] - 1e-12
    assert (name in after) or name not in before


def test_nothing_causes_itself():
    for name, fault in NAMES.items():
        assert set(fault.causes) <= set(NAMES)
        assert name not in consequences(name)
    assert "dead-units" in consequences("inputs-not-normalised")  # by way of the learning rate


def test_a_fault_that_only_a_trial_saw():
    outcome = Outcome("image-mixing", "the output of one image follows 31 others", odds={"batch-mixing": 1e4})
    (finding,) = verdict(run(), [], [outcome])
    assert (
        finding.name == "batch-mixing"
        and finding.says == outcome.says
        and finding.trial
        and finding.trial["trial"] == "image-mixing"
    )
    assert verdict(run(), [], [Outcome("image-mixing", "", odds={"batch-mixing": 20.0})]) == []


def test_the_deciding_trial_and_what_was_ruled_out():
    found = suspicions({"softmax-before-cross-entropy": 0.9, "learning-rate-too-low": 0.4})
    outcomes = [
        Outcome(
            "without-softmax",
            "60 steps without the softmax: loss 0.31 instead of 1.58",
            {"loss": np.float32(0.31)},
            {"without": np.array([2.3, 0.31])},
            {"softmax-before-cross-entropy": 12.0},
        ),
        Outcome(
            "higher-rate",
            "the same at 10 times the rate",
            odds={"learning-rate-too-low": 0.05, "softmax-before-cross-entropy": 1.5},
            rules_out={"learning-rate-too-low": "the same at 10 times the rate"},
        ),
    ]
    (finding,) = verdict(run(), found, outcomes)
    assert finding.trial and finding.trial["says"] == outcomes[0].says and json.dumps(finding.trial)
    assert finding.ruled_out == ["learning rate too low (the same at 10 times the rate)"]
    assert list(finding.curves) == ["without"]


def test_undecided():
    assert verdict(run(), []) == []
    (finding,) = verdict(stuck(), [])
    assert finding.name == UNDECIDED and finding.severity == "warning" and "gets nowhere" in finding.says
    (finding,) = verdict(stuck(), suspicions({"labels-random": 0.4, "underfitting": 0.3}))
    assert "labels are random (0.40) or underfitting (0.30)" in finding.says
    (finding,) = verdict(run(), suspicions({"overfitting": 0.4}))
    assert finding.name == UNDECIDED and finding.severity == "note"
    found = verdict(stuck(), [Suspicion("input-bound", 0.9, "waits", severity="note")])
    assert [each.name for each in found] == ["input-bound", UNDECIDED]


def test_evidence_is_json():
    found = [Suspicion("overfitting", 0.9, "rises", {"a": np.float32(1.5), "b": float("nan"), "c": np.arange(2)})]
    (finding,) = verdict(run(), found)
    assert json.loads(json.dumps(finding.evidence, allow_nan=False)) == {"a": 1.5, "b": None, "c": [0, 1]}


def test_open_questions_are_tried_first():
    rival = [
        Suspicion("learning-rate-too-low", 0.4, "", trials=("higher-rate",)),
        Suspicion("vanishing-gradients", 0.45, "", trials=("gradient-flow", "higher-rate")),
        Suspicion("softmax-before-cross-entropy", 0.02, "", trials=("without-softmax",)),
    ]
    assert which_trials(rival, run()) == ["higher-rate", "gradient-flow", "without-softmax"]
    assert which_trials(rival, run(), tried=["higher-rate"])[0] == "gradient-flow"


def test_underfitting_is_what_is_left_when_nothing_else_is_wrong():
    (finding,) = verdict(run(), suspicions({"underfitting": 0.75, "exploding-gradients": 0.59}))
    assert (finding.name, finding.explains) == ("exploding-gradients", ["underfitting"])
    weak = suspicions({"underfitting": 0.75, "exploding-gradients": 0.4})
    assert [each.name for each in verdict(run(), weak)] == ["underfitting"]


def test_a_sure_cause_is_proved_before_its_signs_are_examined():
    found = [
        Suspicion("softmax-before-cross-entropy", 0.97, "", trials=("without-softmax",)),
        Suspicion("underfitting", 0.5, "", trials=("capacity",)),
    ]
    assert which_trials(found, run())[0] == "without-softmax"


def test_a_trial_may_show_that_a_note_is_grave():
    found = [Suspicion("underfitting", 0.55, "", severity="note")]
    outcome = Outcome("capacity", "", odds={"underfitting": 3.0}, severity={"underfitting": "warning"})
    assert [each.severity for each in verdict(NOTHING, found)] == ["note"]
    assert [each.severity for each in verdict(NOTHING, found, [outcome])] == ["warning"]


def test_a_trial_of_a_few_passes_does_not_wait_for_descents():
    found = [
        Suspicion("learning-rate-too-high", 0.5, "", trials=("lower-rate",)),
        Suspicion("batch-mixing", 0.03, "", trials=("image-mixing",)),
    ]
    assert which_trials(found, run()) == ["image-mixing", "lower-rate"]


def test_what_is_tried_when_the_loss_does_not_fall_and_nothing_is_suspected():
    assert which_trials([], run()) == []
    assert which_trials([], stuck(loss=flat(np.log(10))))[:2] == ["lower-rate", "higher-rate"]

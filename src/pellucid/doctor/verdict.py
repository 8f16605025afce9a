"""From suspicions and the outcomes of trials to findings: root causes, with their confidence.

The odds of each suspicion are multiplied by those that every trial gives for it. What is sure enough is a finding,
unless a more certain cause explains it: then it is one of the signs of that cause.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pellucid.doctor.names import NAMES, UNDECIDED, consequences
from pellucid.doctor.report import Finding
from pellucid.doctor.rules.core import Case, Suspicion
from pellucid.doctor.rules.descent import descent, fails
from pellucid.doctor.rules.wording import num

if TYPE_CHECKING:
    from pellucid.doctor.trials.core import Outcome

REPORTED = 0.5  # confidence from which on a fault is a finding
DECISIVE = 0.8  # from which on a cause explains its symptoms, however plain these are
POSSIBLE = 0.2  # from which on a suspicion is worth a word
SUSPECTED = 0.45  # from which on it is worth trials, where these are made only if something is suspected
UNSUSPECTED = 0.005  # prior of a fault that no rule speaks for and a trial does
CALIBRATION = ((0.0, 1.0), (0.0, 1.0))  # probability that the rules and trials give → share that was right

# what to try when the loss does not fall and no rule says why: the commonest reasons first
_WHEN_FAILING = (
    "lower-rate",
    "higher-rate",
    "one-batch",
    "gradient-flow",
    "shuffled-labels",
    "initial-scale",
    "normalised-input",
    "capacity",
)

_QUICK = ("image-mixing",)  # a few passes instead of a descent, and its answer is sure: it comes before all others


@dataclass(frozen=True)
class _Candidate:
    name: str
    suspicions: list[Suspicion]
    confidence: float
    trials: list[Outcome]


def verdict(case: Case, suspicions: Iterable[Suspicion], outcomes: Sequence[Outcome] = ()) -> list[Finding]:
    """Findings: errors and warnings before notes, each most certain first; `undecided` last."""
    candidates = _weighed(suspicions, outcomes)
    reported = [each for each in candidates if each.confidence >= REPORTED]
    explained = {each.name: [other.name for other in reported if _explains(other, each)] for each in candidates}
    roots = [each for each in reported if not explained[each.name]]
    findings = []
    for root in roots:
        signs = [each.name for each in candidates if each.confidence >= POSSIBLE and root.name in explained[each.name]]
        findings.append(_finding(root, signs))
    findings.sort(key=lambda each: (each.severity == "note", -each.confidence))
    grave = [each for each in findings if each.severity != "note"]
    open_ones = [each for each in candidates if POSSIBLE <= each.confidence < REPORTED and not explained[each.name]]
    if not grave and fails(case):
        findings.append(_undecided(case, "warning", open_ones))
    elif not findings and open_ones and open_ones[0].confidence > 0.35:
        findings.append(_undecided(case, "note", open_ones))
    if findings:
        findings[0].ruled_out.extend(_ruled_out(outcomes, {each.name for each in reported}))
    return findings


def _weighed(suspicions: Iterable[Suspicion], outcomes: Sequence[Outcome]) -> list[_Candidate]:
    """One candidate per name, most certain first."""
    by_name: dict[str, list[Suspicion]] = {}
    for each in sorted(suspicions, key=lambda each: -each.prior):
        by_name.setdefault(each.name, []).append(each)
    for outcome in outcomes:
        for name, factor in outcome.odds.items():
            if factor > 1:
                by_name.setdefault(name, [])
    found = []
    for name, those in by_name.items():
        prior = those[0].prior if those else UNSUSPECTED
        found.append(_Candidate(name, those, confidence(name, prior, outcomes), _deciding(name, outcomes)))
    return sorted(found, key=lambda each: -each.confidence)


def confidence(name: str, prior: float, outcomes: Sequence[Outcome]) -> float:
    """Calibrated probability of a fault after these trials."""
    prior = min(max(prior, 1e-6), 1 - 1e-6)
    logit = math.log(prior / (1 - prior)) + sum(
        math.log(min(max(outcome.odds.get(name, 1.0), 1e-9), 1e9)) for outcome in outcomes
    )
    return float(np.interp(1 / (1 + math.exp(-min(max(logit, -30.0), 30.0))), *CALIBRATION))


def _deciding(name: str, outcomes: Sequence[Outcome]) -> list[Outcome]:
    return sorted((each for each in outcomes if each.odds.get(name, 1.0) > 1), key=lambda each: -each.odds[name])


def _explains(cause: _Candidate, symptom: _Candidate) -> bool:
    """Whether the symptom follows from this cause, and the cause is the more certain of the two, or sure.

    Underfitting is what is left when nothing else is wrong: any cause of it that is a finding explains it.
    """
    if symptom.name not in consequences(cause.name):
        return False
    return symptom.name == "underfitting" or cause.confidence >= min(symptom.confidence, DECISIVE)


def _finding(root: _Candidate, signs: list[str]) -> Finding:
    fault = NAMES[root.name]
    decided = root.trials[0] if root.trials else None
    first = root.suspicions[0] if root.suspicions else None
    says = (
        "; ".join(dict.fromkeys(each.says for each in root.suspicions[:2]))
        if first
        else decided.says
        if decided
        else ""
    )
    evidence = {key: value for each in reversed(root.suspicions) for key, value in each.evidence.items()}
    return Finding(
        name=root.name,
        severity=next((each.severity[root.name] for each in root.trials if root.name in each.severity), None)
        or (first.severity if first else None)
        or fault.severity,
        confidence=root.confidence,
        layer=next((each.layer for each in root.suspicions if each.layer), None),
        step=next((each.step for each in root.suspicions if each.step is not None), None),
        says=says,
        evidence={key: plain(value) for key, value in evidence.items()},
        trial=_tried(decided) if decided else None,
        remedy=(first.remedy if first else None) or fault.remedy,
        where=next((each.where for each in root.suspicions if each.where), None),
        explains=signs,
        curves=decided.curves if decided else {},
    )


def _tried(trial: Outcome) -> dict[str, object]:
    numbers = {key: plain(value) for key, value in trial.numbers.items()}
    return {"trial": trial.trial, "says": trial.says, "seconds": round(trial.seconds, 2), **numbers}


def _undecided(case: Case, severity: str, possible: list[_Candidate]) -> Finding:
    how = descent(case)
    names = [f"{NAMES[each.name].title.lower()} ({each.confidence:.2f})" for each in possible[:3]]
    likely = f"most likely: {_joined(names)}"
    if severity == "warning":
        end = "became nan or infinite" if how.broken_at is not None else f"ended at {num(how.end)}"
        says = f"the training gets nowhere: the loss started at {num(how.start)} and {end}; "
        says += f"the cause is not certain, {likely}" if names else "nothing that was seen or tried explains it"
    else:
        says = f"something may be wrong, but nothing is certain; {likely}"
    return Finding(
        UNDECIDED,
        severity,
        max((each.confidence for each in possible), default=0.0),
        None,
        None,
        says,
        {"start": plain(how.start), "end": plain(how.end), "possible": {e.name: e.confidence for e in possible[:5]}},
        None,
        NAMES[UNDECIDED].remedy,
    )


def _ruled_out(outcomes: Sequence[Outcome], reported: set[str]) -> list[str]:
    """`learning rate too high (no better at 0.1× the rate)`, each name once."""
    reasons = {name: reason for outcome in outcomes for name, reason in outcome.rules_out.items()}
    return [f"{NAMES[name].title.lower()} ({reason})" for name, reason in reasons.items() if name not in reported]


def worth_trying(suspicions: Iterable[Suspicion], case: Case) -> bool:
    """Whether a fault that is more than a note is suspected and can be put to trial, or the training gets nowhere."""
    grave = (each for each in suspicions if (each.severity or NAMES[each.name].severity) != "note")
    return fails(case) or any(each.prior >= SUSPECTED and bool(each.trials) for each in grave)


def which_trials(suspicions: Iterable[Suspicion], case: Case, tried: Sequence[str] = ()) -> list[str]:
    """Names of trials, most informative first.

    A trial counts for each suspicion that names it, the more the more open that suspicion is, and a little where it is
    as good as sure: a verdict should rest on an experiment. What a sure cause explains need not be tried.
    """
    best: dict[str, Suspicion] = {}
    for each in suspicions:
        if each.name not in best or each.prior > best[each.name].prior:
            best[each.name] = each
    sure = [each.name for each in best.values() if each.prior >= DECISIVE]
    scores: dict[str, float] = {}
    for each in best.values():
        weight = each.prior * (1 - each.prior) + 0.25 * each.prior
        if any(each.name in consequences(name) for name in sure):
            weight *= 0.2
        for rank, name in enumerate(each.trials):
            scores[name] = scores.get(name, 0.0) + weight / (1 + rank)
    if fails(case):
        for rank, name in enumerate(_WHEN_FAILING):
            scores[name] = scores.get(name, 0.0) + 0.05 / (1 + rank)
    return [name for name in sorted(scores, key=lambda name: (name not in _QUICK, -scores[name])) if name not in tried]


def _joined(words: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def plain(value: object) -> object:
    """As JSON has it: Python's own numbers, None for nan and infinite ones."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""Experiments: a function over named variants and seeds, resumable, with a table and a picture.

    from pellucid.experiments import EXPERIMENTS, run
    run(EXPERIMENTS["order"], seeds=5)

`Experiment` takes any function `(seed, **options) -> {name: number}` of your own.
"""

from pellucid.experiments.definitions import EXPERIMENTS as EXPERIMENTS
from pellucid.experiments.definitions import experiment_named as experiment_named
from pellucid.experiments.grid import Experiment as Experiment
from pellucid.experiments.grid import run as run
from pellucid.experiments.results import Results as Results

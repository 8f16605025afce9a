"""A run: one training from source to folder on disk, and back to a model that predicts.

A run folder holds `model.safetensors` (weights), `run.json` (every setting, library versions, vocabulary, every step
from a file to what the model sees, results per epoch and which epoch is held) and `history.safetensors` (losses and
hyper-parameters per batch and, if statistics were asked for, what every layer did; see `pellucid.history.history`).
Nothing in it is pickled; it can be read without pellucid.
"""

from pellucid.runs.listing import Listed as Listed
from pellucid.runs.listing import list_runs as list_runs
from pellucid.runs.opening import load_run as load_run
from pellucid.runs.predictions import Prediction as Prediction
from pellucid.runs.predictions import Run as Run
from pellucid.runs.resuming import branch as branch
from pellucid.runs.resuming import resume as resume
from pellucid.runs.schema import VERSION as VERSION
from pellucid.runs.settings import Settings as Settings
from pellucid.runs.statistics import RECORD as RECORD
from pellucid.runs.statistics import STATS as STATS
from pellucid.runs.statistics import describe_run as describe_run
from pellucid.runs.statistics import load_history as load_history
from pellucid.runs.statistics import load_record as load_record
from pellucid.runs.training import SCHEDULES as SCHEDULES
from pellucid.runs.training import suggested_batch_size as suggested_batch_size
from pellucid.runs.training import torch_device as torch_device
from pellucid.runs.training import train as train
from pellucid.runs.writing import save_run as save_run

"""A learner's model into a run folder and back, for models of any origin; and what a folder may not do meanwhile."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from pellucid import cli
from pellucid.data.factories import ImageDataLoaders
from pellucid.data.images import PILImageBW, Resize
from pellucid.data.loader import DataLoaders
from pellucid.data.transforms import Normalize
from pellucid.errors import UsageError
from pellucid.nn.models import simple_cnn
from pellucid.runs import load_history, load_run
from pellucid.training.callbacks.progress import ProgressCallback
from pellucid.training.callbacks.statistics import ActivationStats
from pellucid.training.learner import Learner

NETS = '''
import torch
from torch import nn

class Net(nn.Module):
    """Depends on its arguments in its weights (width) and in what it computes (slope)."""

    def __init__(self, width=8, slope=0.0):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, 2, 1)
        self.head = nn.Linear(width, 2)
        self.slope = slope

    def forward(self, x):
        return self.head(nn.functional.leaky_relu(self.conv(x), self.slope).mean((2, 3)))

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.second = nn.Linear(64, 64)
        self.second.weight = self.first.weight
        self.head = nn.Linear(64, 2)

    def forward(self, x):
        return self.head(self.second(self.first(x.flatten(1))))

class Masked(nn.Module):
    """Looks at a value while it is made, and keeps an infinite buffer."""

    def __init__(self):
        super().__init__()
        scale = torch.linspace(0, 1, 4).max().item()
        self.register_buffer("mask", torch.full((2,), -torch.inf))
        self.head = nn.Linear(64, 2 * int(scale))

    def forward(self, x):
        return torch.maximum(self.head(x.flatten(1)), self.mask)

class Logarithms(Net):
    def forward(self, x):
        return super().forward(x).log_softmax(1)

class Wide(Net):
    def __init__(self, n_out):
        super().__init__()
        self.head = nn.Linear(8, n_out)

class Outer:
    Inner = Net

def make(**options):
    return Net(**options)

number = 5

def no_module():
    return 5
'''


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A user's own module, importable from here."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "nets_of_a_user.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.delitem(sys.modules, "nets_of_a_user", raising=False)
    import nets_of_a_user  # pyright: ignore[reportMissingImports]

    return nets_of_a_user


@pytest.fixture
def digits(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for n in range(24):
        file = tmp_path / "digits" / "ab"[n % 2] / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(file)
    return tmp_path / "digits"


def learner(digits: Path, model: nn.Module, **options) -> Learner:
    loaders = {"img_cls": PILImageBW, "batch_tfms": Normalize(), "bs": 8} | options.pop("loaders", {})
    dls = ImageDataLoaders.from_folder(digits, valid_pct=0.25, seed=0, **loaders)
    learn = Learner(dls, model, **{"loss_func": F.cross_entropy} | options)
    learn.remove_cb(ProgressCallback)
    learn.fit(1, 0.01)
    return learn


def assert_same(learn: Learner, run) -> None:
    files = learn.dls.valid.items
    expected = learn.get_preds()[0]
    answers = run.predict(files)
    found = torch.tensor([[answer.probabilities[str(name)] for name in run.vocab] for answer in answers])
    torch.testing.assert_close(found, expected)


WAYS = {
    "a class": lambda nets: (nets.Net(4, 0.3), nets.Net, {"width": 4, "slope": 0.3}),
    "a name": lambda nets: (nets.Net(4), "nets_of_a_user:Net", {"width": 4}),
    "a function": lambda nets: (nets.make(slope=0.2), nets.make, {"slope": 0.2}),
    "a class in a class": lambda nets: (nets.Net(4), "nets_of_a_user:Outer.Inner", {"width": 4}),
    "the model's own class": lambda nets: (nets.Net(), None, None),
    "a wrapper": lambda nets: (nn.DataParallel(nets.Net(4)), nets.Net, {"width": 4}),
    "tied weights": lambda nets: (nets.Tied(), nets.Tied, None),
    "a constructor that looks at values": lambda nets: (nets.Masked(), nets.Masked, None),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_a_model_of_ones_own_comes_back_when_it_is_allowed(nets, digits, tmp_path, way):
    model, arch, arguments = way(nets)
    learn = learner(digits, model)
    folder = learn.save_run(tmp_path / "run", arch, arguments)
    name = json.loads((folder / "run.json").read_text())["settings"]["arch"]
    with pytest.raises(UsageError, match=rf"made by {name}\(.*allow='{name}'"):
        load_run(folder)
    assert_same(learn, load_run(folder, allow=name))
    assert_same(learn, load_run(folder, allow=["something:else", name]))
    assert_same(learn, load_run(folder, way(nets)[0]))  # put into a model that the caller made


@pytest.mark.parametrize("arch", ["simple_cnn", simple_cnn])
def test_a_named_architecture_needs_no_permission(digits, tmp_path, arch):
    options = {"act_first": False, "width": 4}
    learn = learner(digits, simple_cnn(1, 2, 8, **options))
    assert_same(learn, load_run(learn.save_run(tmp_path / "run", arch, options)))


def test_the_same_weights_in_another_function_are_refused(nets, digits, tmp_path):
    learn = learner(digits, nets.Net(4, 0.3))
    with pytest.raises(UsageError, match="computes something else"):
        learn.save_run(tmp_path / "run", nets.Net, {"width": 4})
    with pytest.raises(UsageError, match="makes another model"):
        learn.save_run(tmp_path / "run", "simple_cnn", {"width": 4})
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_made_again_is_refused(nets, digits, tmp_path):
    def local():
        return nets.Net()

    learn = learner(digits, nets.Net())
    sequence = learner(digits, nn.Sequential(nn.Flatten(), nn.Linear(64, 2)))
    refused = [
        (learn, local, None, "cannot be imported"),
        (learn, lambda: nets.Net(), None, "cannot be imported"),
        (learn, nets.Net(), None, "cannot be imported"),
        (learn, "nets_of_a_user:Nothing", None, "cannot be imported"),
        (learn, "no_such_module:Net", None, "cannot be imported"),
        (learn, "nets_of_a_user:number", None, "no function or class"),
        (learn, "nets_of_a_user:no_module", None, "no torch module"),
        (learn, "resnet9000", None, "does not exist"),
        (learn, nets.Net, {"colour": 1}, "cannot be made"),
        (learn, nets.Net, {"width": torch.tensor(8)}, "fit into JSON"),
        (learn, nets.Net, {"slope": float("nan")}, "fit into JSON"),
        (learn, nets.Net, {"width": (8, 8)}, "fit into JSON"),  # would come back as a list
        (sequence, None, None, "makes another model"),
    ]
    for each, arch, arguments, message in refused:
        with pytest.raises(UsageError, match=message):
            each.save_run(tmp_path / "run", arch, arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("n_out", [1, 5])
def test_outputs_that_are_not_one_for_each_class_are_refused(nets, digits, tmp_path, n_out):
    learn = learner(digits, nets.Wide(n_out), loss_func=lambda pred, y: pred.square().mean(), metrics=[])
    with pytest.raises(UsageError, match=rf"gives \(2, {n_out}\) for 2 images, not \(2, 2\)"):
        learn.save_run(tmp_path / "run", nets.Wide, {"n_out": n_out})
    assert not (tmp_path / "run").exists()


def test_steps_that_a_folder_cannot_keep_are_refused(digits, tmp_path):
    for loaders in (
        {"batch_tfms": [Normalize(), lambda x: 1 - x]},
        {"item_tfms": lambda image: image.rotate(90)},
        {"item_tfms": [Resize(8), lambda image: image.rotate(90)]},
    ):
        learn = learner(digits, simple_cnn(1, 2, 8), loaders=loaders)
        with pytest.raises(UsageError, match="its predictions would be wrong"):
            learn.save_run(tmp_path / "run", "simple_cnn")


def test_batches_of_somebody_elses_loader(tmp_path):
    torch.manual_seed(0)
    data = TensorDataset(torch.rand(16, 1, 8, 8), torch.arange(16) % 3)
    learn = Learner(DataLoaders(DataLoader(data, 8), DataLoader(data, 8)), simple_cnn(1, 3, 8), F.cross_entropy)
    learn.remove_cb(ProgressCallback)
    learn.fit(1)
    run = load_run(learn.save_run(tmp_path / "run", "simple_cnn"))
    assert run.vocab == ["0", "1", "2"] and run.settings["n_train"] == 16
    torch.testing.assert_close(run.model(data.tensors[0]).softmax(1), learn.get_preds()[0])
    with pytest.raises(UsageError, match="batches of your own"):
        run.predict([np.zeros((8, 8), np.uint8)])


def test_the_loss_says_what_outputs_mean(nets, digits, tmp_path):
    learn = learner(digits, nets.Logarithms())
    learn.loss_func = nn.NLLLoss()
    run = load_run(learn.save_run(tmp_path / "a", nets.Logarithms), nets.Logarithms())
    outputs = learn.get_preds(act=lambda pred: pred)[0]
    found = [answer.probabilities["a"] for answer in run.predict(learn.dls.valid.items)]
    torch.testing.assert_close(torch.tensor(found), outputs[:, 0].exp())
    learn.loss_func = lambda pred, y: F.mse_loss(pred, F.one_hot(y, 2).float())
    run = load_run(learn.save_run(tmp_path / "b", nets.Logarithms), nets.Logarithms())
    with pytest.raises(UsageError, match="does not say how its outputs become probabilities"):
        run.predict(learn.dls.valid.items)


def test_a_used_folder_and_statistics(digits, tmp_path):
    learn = learner(digits, simple_cnn(1, 2, 8), cbs=ActivationStats(with_hist=True))
    folder = learn.save_run(tmp_path / "run", "simple_cnn")
    assert load_history(folder).train.count.shape == learn.activation_stats.history.train.count.shape
    with pytest.raises(UsageError, match="holds a run already"):
        learn.save_run(folder, "simple_cnn")


def changed(folder: Path, **settings) -> None:
    run = json.loads((folder / "run.json").read_text())
    run["settings"] |= settings
    (folder / "run.json").write_text(json.dumps(run))


def test_a_strangers_folder_runs_no_code(digits, tmp_path, monkeypatch):
    """Neither what it names, nor what it imports on the way, nor what lies in it."""
    folder = learner(digits, simple_cnn(1, 2, 8)).save_run(tmp_path / "run", "simple_cnn")
    mark = tmp_path / "executed"
    trap = f"from pathlib import Path\nPath({str(mark)!r}).touch()\ndef make(): pass\n"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "trap_on_the_path.py").write_text(trap)
    (folder / "trap_in_the_run.py").write_text(trap)
    (folder / "trap_package").mkdir()
    (folder / "trap_package" / "__init__.py").write_text(trap)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.syspath_prepend(folder)
    calls = [("os:system", {"command": f"touch {mark}"}), ("subprocess:run", {"args": ["touch", str(mark)]})]
    calls += [("trap_on_the_path:make", {}), ("pathlib:Path.touch", {"self": str(mark)}), (":", {}), ("a:b:c", {})]
    for arch, arguments in calls:
        changed(folder, arch=arch, arguments=arguments)
        for allow in ((), "trap_on_the_path", ["nets:Net"], "os:System"):
            with pytest.raises(UsageError, match="code outside pellucid"):
                load_run(folder, allow=allow)
    for arch in ("trap_in_the_run:make", "trap_package:make", "trap_package.part:make"):
        changed(folder, arch=arch, arguments={})
        with pytest.raises(UsageError, match="out of the run folder itself"):
            load_run(folder, allow=arch)
    assert not mark.exists() and "trap_on_the_path" not in sys.modules


def command(monkeypatch, *args: object) -> int:
    monkeypatch.setattr(sys, "argv", ["pellucid", *map(str, args)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_the_command_line_works_on_it(nets, digits, tmp_path, monkeypatch, capsys):
    learn = learner(digits, nets.Net(), cbs=ActivationStats(with_hist=True))
    folder = learn.save_run(tmp_path / "run", nets.Net)
    file, allow = digits / "a" / "0.png", ("--allow", "nets_of_a_user:Net")
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "predict", folder, file) == 2
    assert "--allow nets_of_a_user:Net" in capsys.readouterr().err
    assert command(monkeypatch, "predict", folder, file, *allow) == 0
    assert capsys.readouterr().out.startswith(f"{file}: ")
    assert command(monkeypatch, "summary", folder, *allow) == 0
    assert "Conv2d" in capsys.readouterr().out
    assert command(monkeypatch, "explain", folder, file, "--layer", "conv", *allow) == 0
    assert (tmp_path / "trace.html").stat().st_size > 10_000
    for picture in ("loss", "sheet"):
        assert command(monkeypatch, "show", folder, "--picture", picture, "--out", f"{picture}.png") == 0
        with Image.open(f"{picture}.png") as image:
            assert image.size[0] > 400


def test_the_working_folder_is_searched_last(digits, tmp_path, monkeypatch, capsys):
    """A json.py beside the photos must not be taken for the library's."""
    folder = learner(digits, simple_cnn(1, 2, 8)).save_run(tmp_path / "run", "simple_cnn")
    changed(folder, arch="colorsys:rgb_to_hls", arguments={})
    (tmp_path / "colorsys.py").write_text("raise SystemExit('taken from the working folder')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert command(monkeypatch, "summary", folder, "--allow", "colorsys:rgb_to_hls") == 2
    assert "cannot be made" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[3, 2, 4], "norm", 3])
def test_arguments_have_names(arguments):
    from pellucid.importing import json_arguments

    with pytest.raises(UsageError, match="arguments of an architecture are a dict, name → value"):
        json_arguments(arguments, "an architecture")


@pytest.mark.parametrize("allow", ["foo", ["nets"], ["nets:Net", ""]])
def test_what_is_allowed_is_named_by_module(allow, tmp_path):
    from pellucid.runs.opening import _check_allowed

    with pytest.raises(UsageError, match=r"allow .* takes module:name, such as nets:small, not"):
        _check_allowed(
            [("its model is made by", "simple_cnn", {})], tmp_path, [allow] if isinstance(allow, str) else allow
        )

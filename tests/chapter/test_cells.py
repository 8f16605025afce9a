"""The chapter's data, kernel and training cells, with one word swapped, and the numbers it prints.

The cells run in order in one namespace, as in a notebook.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

SETUP = """
from pellucid.vision.all import *
matplotlib.rc('image', cmap='Greys')
top_edge = tensor([[-1,-1,-1],
                   [ 0, 0, 0],
                   [ 1, 1, 1]]).float()
path = untar_data(URLs.MNIST_SAMPLE)
Path.BASE_PATH = path
im3 = Image.open(path/'train'/'3'/'12.png')
show_image(im3);
im3_t = tensor(im3)
df = pd.DataFrame(im3_t[:10,:20])
"""

KERNELS = """
def apply_kernel(row, col, kernel):
    return (im3_t[row-1:row+2,col-1:col+2] * kernel).sum()
rng = range(1,27)
top_edge3 = tensor([[apply_kernel(i,j,top_edge) for j in rng] for i in rng])
show_image(top_edge3);
left_edge = tensor([[-1,1,0],
                    [-1,1,0],
                    [-1,1,0]]).float()
left_edge3 = tensor([[apply_kernel(i,j,left_edge) for j in rng] for i in rng])
diag1_edge = tensor([[ 0,-1, 1],
                     [-1, 1, 0],
                     [ 1, 0, 0]]).float()
diag2_edge = tensor([[ 1,-1, 0],
                     [ 0, 1,-1],
                     [ 0, 0, 1]]).float()
edge_kernels = torch.stack([left_edge, top_edge, diag1_edge, diag2_edge])
mnist = DataBlock((ImageBlock(cls=PILImageBW), CategoryBlock),
                  get_items=get_image_files,
                  splitter=GrandparentSplitter(),
                  get_y=parent_label)
dls = mnist.dataloaders(path)
xb,yb = first(dls.valid)
xb,yb = to_cpu(xb),to_cpu(yb)
edge_kernels = edge_kernels.unsqueeze(1)
batch_features = F.conv2d(xb, edge_kernels)
show_image(batch_features[0,0]);
"""

FIRST_CNN = """
broken_cnn = sequential(
    nn.Conv2d(1,30, kernel_size=3, padding=1),
    nn.ReLU(),
    nn.Conv2d(30,1, kernel_size=3, padding=1)
)
def conv(ni, nf, ks=3, act=True):
    res = nn.Conv2d(ni, nf, stride=2, kernel_size=ks, padding=ks//2)
    if act: res = nn.Sequential(res, nn.ReLU())
    return res
simple_cnn = sequential(
    conv(1 ,4),            #14x14
    conv(4 ,8),            #7x7
    conv(8 ,16),           #4x4
    conv(16,32),           #2x2
    conv(32,2, act=False), #1x1
    Flatten(),
)
learn = Learner(dls, simple_cnn, loss_func=F.cross_entropy, metrics=accuracy)
"""

TEN_DIGITS = """
path = untar_data(URLs.MNIST)
Path.BASE_PATH = path
def get_dls(bs=64):
    return DataBlock(
        blocks=(ImageBlock(cls=PILImageBW), CategoryBlock),
        get_items=get_image_files,
        splitter=GrandparentSplitter('training','testing'),
        get_y=parent_label,
        batch_tfms=Normalize()
    ).dataloaders(path, bs=bs)
dls = get_dls(512)
dls.show_batch(max_n=9, figsize=(4,4))
def conv(ni, nf, ks=3, act=True):
    layers = [nn.Conv2d(ni, nf, stride=2, kernel_size=ks, padding=ks//2)]
    if act: layers.append(nn.ReLU())
    layers.append(nn.BatchNorm2d(nf))
    return nn.Sequential(*layers)
def simple_cnn():
    return sequential(
        conv(1 ,8, ks=5),        #14x14
        conv(8 ,16),             #7x7
        conv(16,32),             #4x4
        conv(32,64),             #2x2
        conv(64,10, act=False),  #1x1
        Flatten(),
    )
def fit(epochs=1, lr=0.06):
    learn = Learner(dls, simple_cnn(), loss_func=F.cross_entropy, metrics=accuracy)
    learn.fit_one_cycle(epochs, lr)
    return learn
learn = fit()
learn.recorder.plot_sched()
"""

COLOUR = """
im = image2tensor(Image.open(image_bear()))
_,axs = subplots(1,3)
for bear,ax,color in zip(im,axs,('Reds','Greens','Blues')):
    show_image(255-bear, ax=ax, cmap=color)
"""

SUMMARY_ROWS = """\
Conv2d              64 x 4 x 14 x 14    40          True      7,056
ReLU                64 x 4 x 14 x 14    0           False     0
Conv2d              64 x 8 x 7 x 7      296         True      14,112
ReLU                64 x 8 x 7 x 7      0           False     0
Conv2d              64 x 16 x 4 x 4     1,168       True      18,432
ReLU                64 x 16 x 4 x 4     0           False     0
Conv2d              64 x 32 x 2 x 2     4,640       True      18,432
ReLU                64 x 32 x 2 x 2     0           False     0
Conv2d              64 x 2 x 1 x 1      578         True      576
Flatten             64 x 2              0           False     0
"""


@pytest.fixture(scope="module")
def book(pellucid_home) -> dict[str, Any]:
    """The namespace after the cells up to the first network."""
    names: dict[str, Any] = {}
    for cells in (SETUP, KERNELS, FIRST_CNN, COLOUR):
        exec(cells, names)
    return names


def test_kernel_numbers(book):
    im3_t, top_edge = book["im3_t"], book["top_edge"]
    assert (im3_t[0:3, 0:3] * top_edge).sum() == 0
    assert (im3_t[4:7, 6:9] * top_edge).sum() == 762
    assert (im3_t[7:10, 17:20] * top_edge).sum() == -29
    assert book["apply_kernel"](5, 7, top_edge) == 762
    assert im3_t[5, :10].tolist() == [0, 0, 0, 12, 99, 91, 142, 155, 246, 182]
    assert im3_t.dtype == torch.uint8
    assert book["df"].shape == (10, 20)


def test_shapes(book):
    assert book["xb"].shape == (64, 1, 28, 28)
    assert book["edge_kernels"].shape == (4, 1, 3, 3)
    assert book["batch_features"].shape == (64, 4, 26, 26)
    assert book["broken_cnn"](book["xb"]).shape == (64, 1, 28, 28)
    assert book["im"].shape[0] == 3


def test_feature_map_equals_conv2d(book):
    image = book["im3_t"].float()[None, None]
    assert torch.equal(book["top_edge3"], torch.conv2d(image, book["top_edge"][None, None])[0, 0])
    assert torch.equal(book["left_edge3"], torch.conv2d(image, book["left_edge"][None, None])[0, 0])


def test_summary_of_the_first_network(book):
    text = str(book["learn"].summary())
    assert SUMMARY_ROWS in text
    assert text.startswith("Sequential (Input shape: ['64 x 1 x 28 x 28'])")
    assert "Total params: 6,722" in text


def test_threes_and_sevens_in_two_epochs(book):
    book["set_seed"](1)
    book["learn"].fit_one_cycle(2, 0.01)
    assert book["learn"].recorder.values[-1][2] > 0.98  # the chapter: 0.9902
    assert book["learn"].model[0][0].weight.shape == (4, 1, 3, 3)


def test_ten_digits_with_batchnorm(book, capsys):
    book["set_seed"](1)
    exec(TEN_DIGITS, book)
    assert str(book["path"].ls().sorted()) == "[Path('testing'), Path('training')]"
    assert sum(p.numel() for p in book["learn"].model.parameters()) == 30_542
    assert book["learn"].recorder.values[-1][2] > 0.98  # the chapter: 0.9864
    header, row = capsys.readouterr().out.splitlines()[-2:]
    assert header.split() == ["epoch", "train_loss", "valid_loss", "accuracy", "time"]
    assert row.split()[0] == "0"

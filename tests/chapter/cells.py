# The code cells of fastai's book, chapter "Convolutional Neural Networks", in order, with `fastai` replaced by
# `pellucid`; `test_cells.py` runs them in one kernel. Left out: the cell that installs and sets up the book's own
# package, and the import of it. Below a cell stands what the chapter prints for it:
#
#   #> text            printed, or the value of the last line; white space does not count
#   #> 0.97[0.96,0.98] the chapter's number and the band ours has to lie in: what a dozen seeds gave, with a margin;
#                      a time is any MM:SS
#   #> …               at the end of a line: more may follow on it; alone: more lines may follow
#   #| text            instead of the line above
#   #> <picture>       a picture
#
# A cell with nothing below it shows nothing. Whether the plain net at 0.06 collapses, as in the book, or trains depends
# on the seed. The book's `path.ls()` begins with (#2); fastcore 2 counts long lists only.

# %%
from pellucid.vision.all import *

matplotlib.rc('image', cmap='Greys')

# %%
top_edge = tensor([[-1,-1,-1],
                   [ 0, 0, 0],
                   [ 1, 1, 1]]).float()

# %%
path = untar_data(URLs.MNIST_SAMPLE)

# %%
Path.BASE_PATH = path

# %%
im3 = Image.open(path/'train'/'3'/'12.png')
show_image(im3);
#> <picture>

# %%
im3_t = tensor(im3)
im3_t[0:3,0:3] * top_edge
#> tensor([[-0., -0., -0.],
#>         [0., 0., 0.],
#>         [0., 0., 0.]])

# %%
(im3_t[0:3,0:3] * top_edge).sum()
#> tensor(0.)

# %%
df = pd.DataFrame(im3_t[:10,:20])
df.style.set_properties(**{'font-size':'6pt'}).background_gradient('Greys')
#>   0 1 2   3   4   5   6   7   8   9  10  11  12  13  14  15  16  17  18 19
#> 0 0 0 0   0   0   0   0   0   0   0   0   0   0   0   0   0   0   0   0  0
#> 1 0 0 0   0   0   0   0   0   0   0   0   0   0   0   0   0   0   0   0  0
#> 2 0 0 0   0   0   0   0   0   0   0   0   0   0   0   0   0   0   0   0  0
#> 3 0 0 0   0   0   0   0   0   0   0   0   0   0   0   0   0   0   0   0  0
#> 4 0 0 0   0   0   0   0   0   0   0   0   0   0   0   0   0   0   0   0  0
#> 5 0 0 0  12  99  91 142 155 246 182 155 155 155 155 131  52   0   0   0  0
#> 6 0 0 0 138 254 254 254 254 254 254 254 254 254 254 254 252 210 122  33  0
#> 7 0 0 0 220 254 254 254 235 189 189 189 189 150 189 205 254 254 254  75  0
#> 8 0 0 0  35  74  35  35  25   0   0   0   0   0   0  13 224 254 254 153  0
#> 9 0 0 0   0   0   0   0   0   0   0   0   0   0   0  90 254 254 247  53  0

# %%
(im3_t[4:7,6:9] * top_edge).sum()
#> tensor(762.)

# %%
(im3_t[7:10,17:20] * top_edge).sum()
#> tensor(-29.)

# %%
def apply_kernel(row, col, kernel):
    return (im3_t[row-1:row+2,col-1:col+2] * kernel).sum()

# %%
apply_kernel(5,7,top_edge)
#> tensor(762.)

# %%
[[(i,j) for j in range(1,5)] for i in range(1,5)]
#> [[(1, 1), (1, 2), (1, 3), (1, 4)],
#>  [(2, 1), (2, 2), (2, 3), (2, 4)],
#>  [(3, 1), (3, 2), (3, 3), (3, 4)],
#>  [(4, 1), (4, 2), (4, 3), (4, 4)]]

# %%
rng = range(1,27)
top_edge3 = tensor([[apply_kernel(i,j,top_edge) for j in rng] for i in rng])
show_image(top_edge3);
#> <picture>

# %%
left_edge = tensor([[-1,1,0],
                    [-1,1,0],
                    [-1,1,0]]).float()

left_edge3 = tensor([[apply_kernel(i,j,left_edge) for j in rng] for i in rng])
show_image(left_edge3);
#> <picture>

# %%
diag1_edge = tensor([[ 0,-1, 1],
                     [-1, 1, 0],
                     [ 1, 0, 0]]).float()
diag2_edge = tensor([[ 1,-1, 0],
                     [ 0, 1,-1],
                     [ 0, 0, 1]]).float()

edge_kernels = torch.stack([left_edge, top_edge, diag1_edge, diag2_edge])
edge_kernels.shape
#> torch.Size([4, 3, 3])

# %%
mnist = DataBlock((ImageBlock(cls=PILImageBW), CategoryBlock),
                  get_items=get_image_files,
                  splitter=GrandparentSplitter(),
                  get_y=parent_label)

dls = mnist.dataloaders(path)
xb,yb = first(dls.valid)
xb.shape
#> torch.Size([64, 1, 28, 28])

# %%
xb,yb = to_cpu(xb),to_cpu(yb)

# %%
edge_kernels.shape,edge_kernels.unsqueeze(1).shape
#> (torch.Size([4, 3, 3]), torch.Size([4, 1, 3, 3]))

# %%
edge_kernels = edge_kernels.unsqueeze(1)

# %%
batch_features = F.conv2d(xb, edge_kernels)
batch_features.shape
#> torch.Size([64, 4, 26, 26])

# %%
show_image(batch_features[0,0]);
#> <picture>

# %%
simple_net = nn.Sequential(
    nn.Linear(28*28,30),
    nn.ReLU(),
    nn.Linear(30,1)
)

# %%
simple_net
#> Sequential(
#>   (0): Linear(in_features=784, out_features=30, bias=True)
#>   (1): ReLU()
#>   (2): Linear(in_features=30, out_features=1, bias=True)
#> )

# %%
broken_cnn = sequential(
    nn.Conv2d(1,30, kernel_size=3, padding=1),
    nn.ReLU(),
    nn.Conv2d(30,1, kernel_size=3, padding=1)
)

# %%
broken_cnn(xb).shape
#> torch.Size([64, 1, 28, 28])

# %%
def conv(ni, nf, ks=3, act=True):
    res = nn.Conv2d(ni, nf, stride=2, kernel_size=ks, padding=ks//2)
    if act: res = nn.Sequential(res, nn.ReLU())
    return res

# %%
simple_cnn = sequential(
    conv(1 ,4),            #14x14
    conv(4 ,8),            #7x7
    conv(8 ,16),           #4x4
    conv(16,32),           #2x2
    conv(32,2, act=False), #1x1
    Flatten(),
)

# %%
simple_cnn(xb).shape
#> torch.Size([64, 2])

# %%
learn = Learner(dls, simple_cnn, loss_func=F.cross_entropy, metrics=accuracy)

# %%
learn.summary()
#> Sequential (Input shape: ['64 x 1 x 28 x 28'])
#> ============================================================================…
#> Layer (type)         Output Shape         Param #    Trainable …
#> ============================================================================…
#> Conv2d               64 x 4 x 14 x 14     40         True       …
#> ReLU                 64 x 4 x 14 x 14     0          False      …
#> Conv2d               64 x 8 x 7 x 7       296        True       …
#> ReLU                 64 x 8 x 7 x 7       0          False      …
#> Conv2d               64 x 16 x 4 x 4      1,168      True       …
#> ReLU                 64 x 16 x 4 x 4      0          False      …
#> Conv2d               64 x 32 x 2 x 2      4,640      True       …
#> ReLU                 64 x 32 x 2 x 2      0          False      …
#> Conv2d               64 x 2 x 1 x 1       578        True       …
#> Flatten              64 x 2               0          False      …
#> ============================================================================…
#> Total params: 6,722
#> Total trainable params: 6,722
#> Total non-trainable params: 0
#> …
#> Optimizer used: <function Adam …
#> Loss function: <function cross_entropy …
#> Callbacks:
#> …
#>   - Recorder
#>   - ProgressCallback

# %%
learn.fit_one_cycle(2, 0.01)
#> epoch  train_loss             valid_loss             accuracy                  time
#> 0      0.072684[0.05,0.09]    0.045110[0.025,0.1]    0.990186[0.965,0.994]     00:05
#> 1      0.022580[0.015,0.04]   0.030775[0.015,0.055]  0.990186[0.98,0.997]      00:05

# %%
m = learn.model[0]
m
#> Sequential(
#>   (0): Conv2d(1, 4, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))
#>   (1): ReLU()
#> )

# %%
m[0].weight.shape
#> torch.Size([4, 1, 3, 3])

# %%
m[0].bias.shape
#> torch.Size([4])

# %%
im = image2tensor(Image.open(image_bear()))
im.shape
#> torch.Size([3, 1000[600,600], 846[512,512]])

# %%
show_image(im);
#> <picture>

# %%
_,axs = subplots(1,3)
for bear,ax,color in zip(im,axs,('Reds','Greens','Blues')):
    show_image(255-bear, ax=ax, cmap=color)
#> <picture>

# %%
path = untar_data(URLs.MNIST)

# %%
Path.BASE_PATH = path

# %%
path.ls()
#> …[Path('testing'),Path('training')]
#| …[Path('training'),Path('testing')]

# %%
def get_dls(bs=64):
    return DataBlock(
        blocks=(ImageBlock(cls=PILImageBW), CategoryBlock),
        get_items=get_image_files,
        splitter=GrandparentSplitter('training','testing'),
        get_y=parent_label,
        batch_tfms=Normalize()
    ).dataloaders(path, bs=bs)

dls = get_dls()

# %%
dls.show_batch(max_n=9, figsize=(4,4))
#> <picture>

# %%
def conv(ni, nf, ks=3, act=True):
    res = nn.Conv2d(ni, nf, stride=2, kernel_size=ks, padding=ks//2)
    if act: res = nn.Sequential(res, nn.ReLU())
    return res

# %%
def simple_cnn():
    return sequential(
        conv(1 ,8, ks=5),        #14x14
        conv(8 ,16),             #7x7
        conv(16,32),             #4x4
        conv(32,64),             #2x2
        conv(64,10, act=False),  #1x1
        Flatten(),
    )

# %%
from pellucid.callback.hook import *

# %%
def fit(epochs=1):
    learn = Learner(dls, simple_cnn(), loss_func=F.cross_entropy,
                    metrics=accuracy, cbs=ActivationStats(with_hist=True))
    learn.fit(epochs, 0.06)
    return learn

# %%
learn = fit()
#> epoch  train_loss             valid_loss             accuracy                  time
#> 0      2.307071[2.29,2.37]    2.305865[2.295,2.33]   0.113500[0.0892,0.1135]   00:16
#| 0      2.307071[0.2,2.2]      2.305865[0.1,1.9]      0.113500[0.3,0.97]        00:16

# %%
learn.activation_stats.plot_layer_stats(0)
#> <picture>

# %%
learn.activation_stats.plot_layer_stats(-2)
#> <picture>

# %%
dls = get_dls(512)

# %%
learn = fit()
#> epoch  train_loss             valid_loss             accuracy                  time
#> 0      2.309385[2.29,2.37]    2.302744[2.295,2.33]   0.113500[0.0892,0.1135]   00:08
#| 0      2.309385[0.2,2.2]      2.302744[0.1,1.9]      0.113500[0.3,0.97]        00:08

# %%
learn.activation_stats.plot_layer_stats(-2)
#> <picture>

# %%
def fit(epochs=1, lr=0.06):
    learn = Learner(dls, simple_cnn(), loss_func=F.cross_entropy,
                    metrics=accuracy, cbs=ActivationStats(with_hist=True))
    learn.fit_one_cycle(epochs, lr)
    return learn

# %%
learn = fit()
#> epoch  train_loss             valid_loss             accuracy                  time
#> 0      0.210838[0.16,0.28]    0.084827[0.055,0.11]   0.974300[0.965,0.983]     00:08

# %%
learn.recorder.plot_sched()
#> <picture>

# %%
learn.activation_stats.plot_layer_stats(-2)
#> <picture>

# %%
learn.activation_stats.color_dim(-2)
#> <picture>

# %%
learn.activation_stats.color_dim(-2)
#> <picture>

# %%
def conv(ni, nf, ks=3, act=True):
    layers = [nn.Conv2d(ni, nf, stride=2, kernel_size=ks, padding=ks//2)]
    if act: layers.append(nn.ReLU())
    layers.append(nn.BatchNorm2d(nf))
    return nn.Sequential(*layers)

# %%
learn = fit()
#> epoch  train_loss             valid_loss             accuracy                  time
#> 0      0.130036[0.115,0.155]  0.055021[0.045,0.075]  0.986400[0.98,0.99]       00:10

# %%
learn.activation_stats.color_dim(-4)
#> <picture>

# %%
learn = fit(5, lr=0.1)
#> epoch  train_loss             valid_loss             accuracy                  time
#> 0      0.191731[0.16,0.22]    0.121738[0.06,0.6]     0.960900[0.85,0.985]      00:11
#> 1      0.083739[0.065,0.095]  0.055808[0.035,0.15]   0.981800[0.95,0.99]       00:10
#> 2      0.053161[0.04,0.065]   0.044485[0.025,0.085]  0.987100[0.97,0.993]      00:10
#> 3      0.034433[0.025,0.042]  0.030233[0.02,0.05]    0.990200[0.983,0.994]     00:10
#> 4      0.017646[0.012,0.021]  0.025407[0.018,0.033]  0.991200[0.988,0.996]     00:10

# %% beyond the chapter: what its text says about these values without printing them
im3_t.dtype, edge_kernels.dtype
#> (torch.uint8, torch.float32)

# %% beyond the chapter
[torch.equal(by_hand, F.conv2d(im3_t.float()[None,None], kernel[None,None])[0,0])
 for by_hand, kernel in ((top_edge3, top_edge), (left_edge3, left_edge))]
#> [True, True]

# %% beyond the chapter
sum(p.numel() for p in learn.model.parameters())
#> 30542

# %% beyond the chapter
len(learn.recorder.losses), type(learn.activation_stats).__name__
#> (585, 'ActivationStats')

"""Any module, any torch optimizer, any loader: pellucid brings the loop, you bring the rest."""

from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import TensorDataset

from pellucid.vision.all import *


class TwoEyes(nn.Module):
    """A network with two branches: one sees detail, one sees the whole."""

    def __init__(self):
        super().__init__()
        self.detail = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveMaxPool2d(1), Flatten())
        self.whole = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU())
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        return self.head(torch.cat([self.detail(x), self.whole(x)], dim=1))


def bright_half(n):
    """Images whose left (0) or right (1) half is brighter."""
    y = torch.randint(0, 2, (n,))
    x = torch.randn(n, 1, 8, 8)
    x[torch.arange(n), 0, :, :4] += (1 - y)[:, None, None]
    x[torch.arange(n), 0, :, 4:] += y[:, None, None]
    return TensorDataset(x, y)


set_seed(0)
dls = DataLoaders(TorchDataLoader(bright_half(2000), 50, shuffle=True), TorchDataLoader(bright_half(500), 50))
learn = Learner(dls, TwoEyes(), nn.CrossEntropyLoss(), opt_func=torch.optim.SGD, metrics=[accuracy, error_rate])
learn.fit_flat_cos(3, 0.1)

"""A callback of one's own: stop when the validation loss has not improved for a while, and keep the best weights."""

import copy

from pellucid.vision.all import *


class EarlyStopping(Callback):
    """End the fit after `patience` epochs without a lower validation loss; the best epoch's weights stay."""

    order = 80  # after the recorder, whose numbers it reads, and the progress table, which shows them

    def __init__(self, patience: int = 2):
        self.patience = patience

    def before_fit(self):
        self.best, self.waited = float("inf"), 0

    def after_epoch(self):
        valid_loss = self.learn.recorder.values[-1][1]
        if valid_loss < self.best:
            self.best, self.waited = valid_loss, 0
            self.weights = copy.deepcopy(self.learn.model.state_dict())
            return
        self.waited += 1
        if self.waited >= self.patience:
            raise CancelFitException

    def after_fit(self):
        self.learn.model.load_state_dict(self.weights)


set_seed(1)
dls = ImageDataLoaders.from_folder(untar_data(URLs.MNIST_SAMPLE), img_cls=PILImageBW, batch_tfms=Normalize())
model = sequential(ConvLayer(1, 4, stride=4), ConvLayer(4, 8, stride=4), nn.AdaptiveAvgPool2d(1), Flatten())
model.append(nn.Linear(8, 2))
learn = Learner(dls, model, F.cross_entropy, metrics=accuracy, cbs=EarlyStopping)
learn.fit(12, 0.05)
print(f"stopped after {len(learn.recorder.values)} epochs; best validation loss {learn.validate()[0]:.4f}")

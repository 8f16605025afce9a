"""Tell threes from sevens: the chapter's first network, its layer table, its pictures."""

from pellucid.vision.all import *

set_seed(1)
path = untar_data(URLs.MNIST_SAMPLE)
dls = ImageDataLoaders.from_folder(path, img_cls=PILImageBW, batch_tfms=Normalize())
model = sequential(
    ConvLayer(1, 4, stride=2, norm=None),
    ConvLayer(4, 8, stride=2, norm=None),
    ConvLayer(8, 16, stride=2, norm=None),
    ConvLayer(16, 32, stride=2, norm=None),
    ConvLayer(32, 2, stride=2, norm=None, act=None),
    Flatten(),
)
learn = Learner(dls, model, F.cross_entropy, metrics=accuracy)
print(learn.summary())
learn.fit_one_cycle(2, 0.01)

dls.show_batch(max_n=9).savefig("batch.png")
learn.show_results(max_n=9).savefig("results.png")
learn.recorder.plot_loss().savefig("loss.png")
learn.recorder.plot_sched().savefig("schedule.png")

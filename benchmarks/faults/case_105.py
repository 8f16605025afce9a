import os
import time
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

MASTER_CONFIG = {'d_model': 64, 'n_layers': 2, 'n_heads': 4, 'batch_size': 64, 'epochs': 400, 'log_interval': 50}
torch.manual_seed(int(os.environ.get('SEED', 0)))
arrays = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
dataset = {k: torch.from_numpy(arrays['x_' + k][:10000]).float() / 255 for k in ('train', 'valid')}
targets = {k: torch.from_numpy(arrays['y_' + k][:10000]) for k in ('train', 'valid')}


def get_batches(split, batch_size):
    ix = torch.randint(0, len(dataset[split]), (batch_size,))
    return dataset[split][ix], targets[split][ix]


class SimpleModel(nn.Module):
    def __init__(self, config=MASTER_CONFIG):
        super().__init__()
        self.config = config
        d = config['d_model']
        self.embedding = nn.Linear(28, d)
        self.position = nn.Parameter(torch.randn(28, d) * 0.02)
        self.blocks = nn.TransformerEncoder(nn.TransformerEncoderLayer(d, config['n_heads'], 2 * d, dropout=0.0, batch_first=True, norm_first=True), config['n_layers'], enable_nested_tensor=False)
        self.linear = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, 10))
        print("model params:", sum(m.numel() for m in self.parameters()))

    def forward(self, idx, targets=None):
        x = self.embedding(idx) + self.position
        a = self.linear(self.blocks(x).mean(1))
        logits = F.softmax(a, dim=-1)
        if targets is not None:
            loss = F.cross_entropy(logits, targets)
            return logits, loss
        return logits


@torch.no_grad()
def evaluate_loss(model, config=MASTER_CONFIG):
    model.eval()
    out = {}
    for split in ('train', 'valid'):
        logits, loss = model(dataset[split][:1000], targets[split][:1000])
        out[split] = round(loss.item(), 4)
        out['acc'] = round((logits.argmax(-1) == targets[split][:1000]).float().mean().item(), 4)
    model.train()
    return out


model = SimpleModel()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
start_time = time.time()
for epoch in range(1, MASTER_CONFIG['epochs'] + 1):
    optimizer.zero_grad()
    xs, ys = get_batches('train', MASTER_CONFIG['batch_size'])
    logits, loss = model(xs, targets=ys)
    loss.backward()
    optimizer.step()
    if epoch % MASTER_CONFIG['log_interval'] == 0:
        x = evaluate_loss(model)
        print(f"Epoch {epoch} | Time {time.time() - start_time:.3f} | val loss {x['valid']:.3f} | train {x['train']} | val acc {x['acc']}")
        start_time = time.time()

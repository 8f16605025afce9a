# %%
import os
import numpy as np
import torch
import torch.nn as nn

torch.manual_seed(int(os.environ.get('SEED', 0)))
d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')

# %% rows of the digit as channels, columns as time
X = torch.as_tensor(d['x_train'][:8000]).float().div(127.5).sub(1)
Y = torch.as_tensor(d['y_train'][:8000])
Xv = torch.as_tensor(d['x_valid'][:1000]).float().div(127.5).sub(1)
Yv = torch.as_tensor(d['y_valid'][:1000])

# %%
model = nn.Sequential(
    nn.Conv1d(28, 64, 5, padding=2), nn.GELU(),
    nn.Conv1d(64, 64, 5, stride=2, padding=2), nn.GELU(),
    nn.Conv1d(64, 128, 3, stride=2, padding=1), nn.GELU(),
    nn.AdaptiveAvgPool1d(1), nn.Flatten(),
    nn.Linear(128, 10))
opt = torch.optim.AdamW(model.parameters(), lr=3e-7, weight_decay=0.01)
loss_fn = nn.CrossEntropyLoss()

# %%
bs = 64
for ep in range(4):
    perm = torch.randperm(len(X))
    losses = []
    for s in range(0, len(X), bs):
        ix = perm[s:s + bs]
        loss = loss_fn(model(X[ix]), Y[ix])
        opt.zero_grad(); loss.backward(); opt.step()
        losses.append(loss.item())
    with torch.no_grad():
        acc = (model(Xv).argmax(1) == Yv).float().mean().item()
    print(ep, 'loss', round(np.mean(losses), 4), 'acc', round(acc, 4))

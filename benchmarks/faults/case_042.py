import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader

torch.manual_seed(int(os.environ.get('SEED', 0)))
images = torch.from_numpy(np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')['x_train'][:5000]).float().div(127.5).sub(1)
loader = DataLoader(images.flatten(1), batch_size=50, shuffle=True)
G = nn.Sequential(nn.Linear(32, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 784), nn.Tanh())
D = nn.Sequential(nn.Linear(784, 128), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(128, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
opt_g = torch.optim.Adam(G.parameters(), lr=4e-4, betas=(0.5, 0.999))
opt_d = torch.optim.Adam(D.parameters(), lr=2e-4, betas=(0.5, 0.999))
bce = nn.BCEWithLogitsLoss()
for epoch in range(6):
    dl, gl = [], []
    for real in loader:
        ones, zeros = torch.full((len(real), 1), 0.9), torch.zeros(len(real), 1)
        fake = G(torch.randn(len(real), 32))
        loss_d = bce(D(real), ones) + bce(D(fake.detach()), zeros)
        opt_d.zero_grad()
        loss_d.backward()
        opt_d.step()
        loss_g = bce(D(fake), torch.ones(len(real), 1))
        opt_g.zero_grad()
        loss_g.backward()
        opt_g.step()
        dl.append(loss_d.item())
        gl.append(loss_g.item())
    print(f'epoch {epoch} generator {np.mean(gl):.3f} discriminator {np.mean(dl):.3f}')

import os
import numpy as np
import torch
import torch.nn as nn

torch.manual_seed(int(os.environ.get("SEED", 0)))
BATCH = 2
d = np.load(os.environ["FAULTS_DATA"] + "/cifar.npz")
X = torch.from_numpy(d["x_train"]).permute(0, 3, 1, 2).float().div(255).sub(0.46).div(0.25)
Xv = torch.from_numpy(d["x_valid"]).permute(0, 3, 1, 2).float().div(255).sub(0.46).div(0.25)
Y, Yv = torch.from_numpy(d["y_train"]), torch.from_numpy(d["y_valid"])


class DepthwiseBlock(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.dw = nn.Conv2d(c_in, c_in, 5, stride, 2, groups=c_in, bias=False)
        self.pw = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(c_in), nn.BatchNorm2d(c_out)
        self.act = nn.Hardswish()

    def forward(self, x):
        return self.act(self.bn2(self.pw(self.act(self.bn1(self.dw(x))))))


net = nn.Sequential(
    nn.Conv2d(3, 16, 3, 4, 1), nn.BatchNorm2d(16), nn.Hardswish(),
    DepthwiseBlock(16, 32, 2), DepthwiseBlock(32, 64, 2), DepthwiseBlock(64, 128, 2),
    nn.Flatten(), nn.Linear(128, 10))
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
criterion = nn.CrossEntropyLoss()

order = torch.randperm(len(X))[:4000]
log = []
net.train()
for it in range(len(order) // BATCH):
    idx = order[it * BATCH:(it + 1) * BATCH]
    loss = criterion(net(X[idx]), Y[idx])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    log.append(loss.item())
    if it % 250 == 249:
        print("iter", it + 1, "loss", sum(log[-250:]) / 250)
net.eval()
with torch.no_grad():
    print("valid accuracy", (net(Xv).argmax(1) == Yv).float().mean().item())

import os
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))

data = np.load(os.path.join(os.environ['FAULTS_DATA'], 'mnist.npz'))
mean, std = 0.1307, 0.3081
train_x = (torch.tensor(data['x_train'][:10000], dtype=torch.float32) / 255 - mean) / std
test_x = (torch.tensor(data['x_valid'][:2000], dtype=torch.float32) / 255 - mean) / std
train_y = torch.tensor(data['y_train'][:10000])
test_y = torch.tensor(data['y_valid'][:2000])


class PatchTransformer(nn.Module):
    def __init__(self, patch=7, dim=64, depth=3, heads=4, classes=10):
        super().__init__()
        self.patch = patch
        self.embed = nn.Linear(patch * patch, dim)
        self.pos = nn.Parameter(torch.randn(1, 16, dim) * 0.02)
        layer = nn.TransformerEncoderLayer(dim, heads, dim * 2, dropout=0.0, activation='gelu', batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, x):
        p = x.unfold(1, self.patch, self.patch).unfold(2, self.patch, self.patch)
        p = p.reshape(len(x), 16, -1)
        z = self.encoder(self.embed(p) + self.pos)
        return self.head(self.norm(z.mean(1)))


model = PatchTransformer()
loader = DataLoader(TensorDataset(train_x, train_y), batch_size=100, shuffle=True)
opt = torch.optim.Adam(model.parameters(), lr=0.05)
criterion = nn.CrossEntropyLoss()

for epoch in range(3):
    model.train()
    running = 0.0
    for xb, yb in loader:
        opt.zero_grad()
        loss = criterion(model(xb), yb)
        loss.backward()
        opt.step()
        running += loss.item()
    model.eval()
    with torch.no_grad():
        acc = (model(test_x).argmax(1) == test_y).float().mean()
    print(f'epoch {epoch}: loss {running / len(loader):.4f} acc {acc:.4f}')

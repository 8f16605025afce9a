import os
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))

# predict the centre of mass of the ink from the rows of the digit
d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')


def table(split, n):
    img = d['x_' + split][:n].astype(np.float32) / 255
    grid = np.arange(28, dtype=np.float32)
    total = img.sum((1, 2))
    cx = (img.sum(1) * grid).sum(1) / total
    slant = ((img * (grid[:, None] - 13.5) * (grid[None] - cx[:, None, None])).sum((1, 2)) / total)
    y = (slant - slant.mean()) / slant.std()
    return TensorDataset(torch.from_numpy(img), torch.from_numpy(y.astype(np.float32)).unsqueeze(1))


class LSTMRegressor(nn.Module):
    def __init__(self, hidden=48):
        super().__init__()
        self.lstm = nn.LSTM(28, hidden, batch_first=True)
        self.fc1 = nn.Linear(hidden, 32)
        self.fc2 = nn.Linear(32, 1)

    def forward(self, x):
        out, _ = self.lstm(x)
        x = torch.relu(self.fc1(out[:, -1]))
        return torch.relu(self.fc2(x))


train, val = DataLoader(table('train', 6000), 64, shuffle=True), DataLoader(table('valid', 1000), 250)
model = LSTMRegressor()
optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
criterion = nn.MSELoss()
for epoch in range(5):
    model.train()
    tr = 0
    for x, y in train:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        tr += loss.item() / len(train)
    model.eval()
    with torch.no_grad():
        va = sum(criterion(model(x), y).item() for x, y in val) / len(val)
    print(f'epoch {epoch + 1} - loss: {tr:.4f} - val_loss: {va:.4f}')

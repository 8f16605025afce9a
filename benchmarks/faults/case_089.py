import argparse
import io
import os
import numpy as np
import torch
from torch import nn
from PIL import Image
from torch.utils.data import DataLoader, Dataset


class Archive(Dataset):
    """Pictures as they come from the camera: large, and compressed."""

    def __init__(self, n, size):
        d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
        step = len(d['x_train']) // n
        self.labels = d['y_train'][::step]
        self.files = []
        for array in d['x_train'][::step]:
            buffer = io.BytesIO()
            Image.fromarray(array).resize((size, size)).save(buffer, 'JPEG', quality=90)
            self.files.append(buffer.getvalue())

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        image = Image.open(io.BytesIO(self.files[i])).convert('L').resize((32, 32))
        return torch.from_numpy(np.array(image, dtype=np.float32)) / 127.5 - 1, int(self.labels[i])


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--seed', type=int, default=0)
    ap.add_argument('--size', type=int, default=512)
    a = ap.parse_args()
    torch.manual_seed(a.seed)
    loader = DataLoader(Archive(500, a.size), batch_size=25, shuffle=True)
    net = nn.Sequential(nn.Conv1d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv1d(64, 64, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10))
    opt = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    for epoch in range(3):
        losses = []
        for x, y in loader:
            loss = nn.functional.cross_entropy(net(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
        print(f'epoch {epoch} loss {np.mean(losses):.4f}')


if __name__ == '__main__':
    main()

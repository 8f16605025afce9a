import os
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Executor:
    def __init__(self):
        self.step = 0

    def train(self, model, optimizer, data_loader, criterion, log_interval=40):
        model.train()
        for batch_idx, (feats, target) in enumerate(data_loader):
            logits = model(feats)
            loss = criterion(logits, target)
            loss.backward()
            grad_norm = nn.utils.clip_grad_norm_(model.parameters(), 50)
            if torch.isfinite(grad_norm):
                optimizer.step()
            self.step += 1
            if batch_idx % log_interval == 0:
                print('TRAIN Batch {} loss {:.6f}'.format(batch_idx, loss.item()))

    def cv(self, model, data_loader, criterion):
        model.eval()
        seen, total, right = 0, 0.0, 0
        with torch.no_grad():
            for feats, target in data_loader:
                logits = model(feats)
                total += criterion(logits, target).item() * len(target)
                right += (logits.argmax(1) == target).sum().item()
                seen += len(target)
        return total / seen, right / seen


def main():
    torch.manual_seed(int(os.environ.get('SEED', 777)))
    d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
    flat = lambda a: (torch.from_numpy(a).float().flatten(1) / 255 - 0.13) / 0.31
    train = DataLoader(TensorDataset(flat(d['x_train'][:10000]), torch.from_numpy(d['y_train'][:10000])), batch_size=100, shuffle=True)
    cv = DataLoader(TensorDataset(flat(d['x_valid'][:2000]), torch.from_numpy(d['y_valid'][:2000])), batch_size=500)
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    criterion = nn.CrossEntropyLoss()
    executor = Executor()
    for epoch in range(5):
        executor.train(model, optimizer, train, criterion)
        loss, acc = executor.cv(model, cv, criterion)
        print('Epoch {} CV loss {:.4f} acc {:.4f}'.format(epoch, loss, acc))


main()

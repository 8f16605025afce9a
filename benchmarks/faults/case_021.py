import argparse
import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv1d(28, 32, 3, padding=1)
        self.conv2 = nn.Conv1d(32, 64, 3, padding=1)
        self.dropout = nn.Dropout(0.25)
        self.fc1 = nn.Linear(64 * 7, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x):
        x = F.max_pool1d(F.relu(self.conv1(x)), 2)
        x = F.max_pool1d(F.relu(self.conv2(x)), 2)
        x = self.dropout(x.flatten(1))
        x = F.relu(self.fc1(x))
        return self.fc2(x)


def train(args, model, x, y, optimizer, epoch):
    model.train()
    for batch_idx, idx in enumerate(torch.randperm(len(x)).split(args.batch_size)):
        optimizer.zero_grad()
        output = model(x[idx])
        loss = F.nll_loss(output, y[idx])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if batch_idx % args.log_interval == 0:
            print('Train Epoch: {} [{}]\tLoss: {:.6f}'.format(epoch, batch_idx, loss.item()))


def test(model, x, y):
    model.eval()
    with torch.no_grad():
        output = model(x)
    print('\nTest set: Average loss: {:.4f}, Accuracy: {:.4f}\n'.format(F.nll_loss(output, y).item(), (output.argmax(1) == y).float().mean().item()))


def main():
    parser = argparse.ArgumentParser(description='PyTorch MNIST Example')
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--epochs', type=int, default=3)
    parser.add_argument('--lr', type=float, default=0.01)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--log-interval', type=int, default=30)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
    norm = lambda a: (torch.from_numpy(a).float() / 255 - 0.1307) / 0.3081
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
    for epoch in range(1, args.epochs + 1):
        train(args, model, norm(d['x_train'][:8000]), torch.from_numpy(d['y_train'][:8000]), optimizer, epoch)
        test(model, norm(d['x_valid'][:2000]), torch.from_numpy(d['y_valid'][:2000]))


if __name__ == '__main__':
    main()

import argparse
import os

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

parser = argparse.ArgumentParser(description='digits')
parser.add_argument('--batch-size', type=int, default=128)
parser.add_argument('--epochs', type=int, default=3)
parser.add_argument('--lr', type=float, default=1.0)
parser.add_argument('--momentum', type=float, default=0.9)
parser.add_argument('--seed', type=int, default=0)
args = parser.parse_args()


class Net(nn.Module):
    def __init__(self):
        super(Net, self).__init__()
        self.conv1 = nn.Conv2d(1, 10, kernel_size=5)
        self.conv2 = nn.Conv2d(10, 20, kernel_size=5)
        self.fc1 = nn.Linear(320, 50)
        self.fc2 = nn.Linear(50, 10)

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        x = x.view(-1, 320)
        x = F.relu(self.fc1(x))
        x = self.fc2(x)
        return F.log_softmax(x, dim=1)


def load():
    d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
    def prep(x):
        return ((torch.from_numpy(x).float() / 255 - 0.1307) / 0.3081).unsqueeze(1)
    return prep(d['x_train'][:12000]), torch.from_numpy(d['y_train'][:12000]), prep(d['x_valid'][:2000]), torch.from_numpy(d['y_valid'][:2000])


def train(model, optimizer, x, y, epoch):
    model.train()
    order = torch.randperm(len(x))
    for i in range(0, len(x), args.batch_size):
        idx = order[i:i + args.batch_size]
        optimizer.zero_grad()
        output = model(x[idx])
        loss = F.nll_loss(output, y[idx])
        loss.backward()
        optimizer.step()
        if (i // args.batch_size) % 20 == 0:
            print('Train Epoch: {} [{}/{}]\tLoss: {:.6f}'.format(epoch, i, len(x), loss.item()))


def test(model, x, y):
    model.eval()
    with torch.no_grad():
        output = model(x)
        loss = F.nll_loss(output, y).item()
        acc = (output.argmax(1) == y).float().mean().item()
    print('Test set: Average loss: {:.4f}, Accuracy: {:.4f}'.format(loss, acc))


def main():
    torch.manual_seed(args.seed)
    x, y, xt, yt = load()
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=args.momentum)
    for epoch in range(1, args.epochs + 1):
        train(model, optimizer, x, y, epoch)
        test(model, xt, yt)


if __name__ == '__main__':
    main()

import argparse
import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset


class LSTMNet(nn.Module):
    def __init__(self, input_size=28, hidden_size=64, num_layers=1, num_classes=10):
        super(LSTMNet, self).__init__()
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.lstm = nn.LSTM(input_size, hidden_size, num_layers)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.fc(out.mean(dim=1))


parser = argparse.ArgumentParser()
parser.add_argument('--seed', type=int, default=0)
parser.add_argument('--epochs', type=int, default=5)
cli = parser.parse_args()
torch.manual_seed(cli.seed)
d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
make = lambda k, n: TensorDataset(torch.from_numpy(d['x_' + k][:n]).float() / 255, torch.from_numpy(d['y_' + k][:n]))
train_loader = DataLoader(make('train', 4000), batch_size=32, shuffle=True)
test_loader = DataLoader(make('valid', 1000), batch_size=32, shuffle=True)

model = LSTMNet()
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
for epoch in range(cli.epochs):
    model.train()
    for i, (images, labels) in enumerate(train_loader):
        outputs = model(images)
        loss = criterion(outputs, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (i + 1) % 60 == 0:
            print('Epoch [{}/{}], Step [{}/{}], Loss: {:.4f}'.format(epoch + 1, cli.epochs, i + 1, len(train_loader), loss.item()))
    model.eval()
    with torch.no_grad():
        correct = sum((model(images).argmax(1) == labels).sum().item() for images, labels in test_loader)
    print('Accuracy of the model on the 1000 test images: {:.4f}'.format(correct / 1000))

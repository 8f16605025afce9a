import os
import numpy as np
import torch
import torch.nn as nn
import torch.optim as optim

torch.manual_seed(int(os.environ.get('SEED', 0)))

d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
x_train = torch.tensor(d['x_train'][:12000].reshape(12000, 784), dtype=torch.float) / 255
y_train = torch.tensor(d['y_train'][:12000])
x_test = torch.tensor(d['x_valid'].reshape(-1, 784), dtype=torch.float) / 255
y_test = torch.tensor(d['y_valid'])

hidden = [256, 256, 128, 64]
layers, last = [], 784
for h in hidden:
    linear = nn.Linear(last, h)
    linear.weight.data.normal_(0, 0.002)
    linear.bias.data.zero_()
    layers += [linear, nn.ReLU()]
    last = h
model = nn.Sequential(*layers, nn.Linear(last, 10))

optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
loss_function = nn.CrossEntropyLoss()
for epoch in range(5):
    permutation = torch.randperm(12000)
    for i in range(0, 12000, 100):
        indices = permutation[i:i + 100]
        optimizer.zero_grad()
        loss = loss_function(model(x_train[indices]), y_train[indices])
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        out = model(x_test)
    print(f'epoch {epoch}: last batch {loss.item():.4f}, test loss {loss_function(out, y_test).item():.4f}, '
          f'test accuracy {(out.argmax(1) == y_test).float().mean().item():.4f}')

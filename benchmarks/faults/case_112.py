import argparse, os
import numpy as np
import torch
import torch.nn as nn

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--epochs", type=int, default=5)
args = parser.parse_args()
torch.manual_seed(args.seed)


class Reader(nn.Module):
    def __init__(self, hidden=64, num_classes=2):
        super().__init__()
        self.lstm = nn.LSTM(28, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, num_classes)

    def forward(self, x):
        _, (h, _) = self.lstm(x)
        return self.fc(h[-1])


d = np.load(os.path.join(os.environ["FAULTS_DATA"], "mnist.npz"))
x_train = torch.from_numpy(d["x_train"][:6000]).float() / 255
x_valid = torch.from_numpy(d["x_valid"][:1000]).float() / 255
y_train, y_valid = torch.from_numpy(d["y_train"][:6000]), torch.from_numpy(d["y_valid"][:1000])

model = Reader()
optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
model.fc = nn.Linear(model.fc.in_features, 10)
nn.init.normal_(model.fc.weight, std=0.02)
loss_fn = nn.CrossEntropyLoss()

for epoch in range(args.epochs):
    model.train()
    for idx in torch.randperm(len(x_train)).split(64):
        optimizer.zero_grad()
        loss = loss_fn(model(x_train[idx]), y_train[idx])
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        out = model(x_valid)
    print(f"epoch {epoch} train loss {loss.item():.4f} valid loss {loss_fn(out, y_valid):.4f} valid acc {(out.argmax(1) == y_valid).float().mean():.4f}")

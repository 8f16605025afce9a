import os
import numpy as np
import torch
from torch import optim


def build_model(input_dim, output_dim):
    model = torch.nn.Sequential()
    model.add_module("linear_1", torch.nn.Linear(input_dim, 512, bias=False))
    model.add_module("relu_1", torch.nn.ReLU())
    model.add_module("linear_2", torch.nn.Linear(512, output_dim, bias=False))
    model.add_module("softmax", torch.nn.Softmax(dim=1))
    return model


def train(model, loss, optimizer, x, y):
    optimizer.zero_grad()
    fx = model.forward(x)
    output = loss.forward(fx, y)
    output.backward()
    optimizer.step()
    return output.item()


def predict(model, x):
    return model.forward(x).data.numpy().argmax(axis=1)


def main():
    torch.manual_seed(int(os.environ.get("SEED", 42)))
    d = np.load(os.environ["FAULTS_DATA"] + "/mnist.npz")
    trX = torch.from_numpy(d["x_train"][:12000].reshape(-1, 784)).float() / 255
    teX = torch.from_numpy(d["x_valid"].reshape(-1, 784)).float() / 255
    trY, teY = torch.from_numpy(d["y_train"][:12000]), d["y_valid"]
    n_examples, n_features = trX.size()
    model = build_model(n_features, 10)
    loss = torch.nn.CrossEntropyLoss(reduction="mean")
    optimizer = optim.SGD(model.parameters(), lr=0.05)
    batch_size = 100
    for i in range(6):
        cost = 0.
        num_batches = n_examples // batch_size
        for k in range(num_batches):
            start, end = k * batch_size, (k + 1) * batch_size
            cost += train(model, loss, optimizer, trX[start:end], trY[start:end])
        predY = predict(model, teX)
        print("Epoch %d, cost = %f, acc = %.4f" % (i + 1, cost / num_batches, np.mean(predY == teY)))


if __name__ == "__main__":
    main()

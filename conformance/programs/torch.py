# /// script
# dependencies = ["torch", "numpy"]
# [tool.strongroom]
# memory = "1G"
# threads = 16
# [tool.conformance]
# optional = true
# ///
"""Train a small network on the CPU, keep it, load it again."""

import io

import torch

torch.manual_seed(1)
x = torch.randn(512, 10)
y = (x[:, :1] * x[:, 1:2] > 0).float()
model = torch.nn.Sequential(torch.nn.Linear(10, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
loss_of = torch.nn.BCEWithLogitsLoss()
for _ in range(200):
    optimizer.zero_grad()
    loss = loss_of(model(x), y)
    loss.backward()
    optimizer.step()
print("loss", loss.item() < 0.2)
out = io.BytesIO()
torch.save(model.state_dict(), out)
again = torch.nn.Sequential(torch.nn.Linear(10, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
again.load_state_dict(torch.load(io.BytesIO(out.getvalue()), weights_only=True))
print("alike", torch.equal(again(x), model(x)))
print("convolution", tuple(torch.nn.Conv2d(3, 8, 3)(torch.randn(1, 3, 32, 32)).shape))

"""Distil your own module on your own arrays: `python examples/your_own_model.py` (half a minute on two cores)."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import tutelage as tt

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype(np.float32)

# The teacher may see training rows alone: what it is later compared on has to be new to it too.
split = np.random.default_rng(0).choice(["train", "development", "test"], len(images), p=[0.5, 0.1, 0.4])
seen_images, seen_labels = torch.tensor(images[split == "train"]), torch.tensor(labels[split == "train"])

# Your teacher: any trained torch module. Here it is trained on the spot; yours is loaded with your own code.
torch.manual_seed(0)
teacher = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
optimizer = torch.optim.Adam(teacher.parameters(), lr=2e-3)
for _ in range(300):
    loss = nn.functional.cross_entropy(teacher(seen_images), seen_labels)
    optimizer.zero_grad(), loss.backward(), optimizer.step()

recipe = tt.Recipe(
    name="your-own-model",
    task="classification",
    data=tt.Data(source=tt.Arrays(images, labels, split=split), labelled=100),
    teacher=tt.ModuleTeacher(teacher),
    student=tt.ModuleStudent(lambda: nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))),
    losses=[tt.losses.KLDivergence(temperature=3.0), tt.losses.CrossEntropy(weight=0.2)],
    training=tt.Training(steps=800, batch_size=64, learning_rate=1e-2),
    budget=tt.Budget(size_mb=0.02),
    policy=[tt.Gate(metric="accuracy", margin=0.05), tt.Gate(metric="agreement", at_least=0.85)],
)
result = tt.distill(recipe, "runs/your-own-model")
print(result.verdict.verdict, *(gate.explanation for gate in result.verdict.gates), sep="\n")
print("open", result.report)

"""The data and teachers of these inputs, made in the current folder; each function makes those of its namesake."""

import csv
import json
import random
from pathlib import Path

import numpy as np
import torch
from input_nets import FlatCNN, Net
from safetensors.torch import save_file


def wine() -> None:
    """Standardised wines, a teacher trained on them, one whose classes stand in another order, and damaged tables."""
    from sklearn.datasets import load_wine
    from sklearn.preprocessing import StandardScaler

    wines = load_wine()
    order = torch.randperm(len(wines.target), generator=torch.Generator().manual_seed(0))
    split = ["train"] * len(order)
    for place, row in enumerate(order.tolist()):
        split[row] = "test" if place < 62 else "development" if place < 89 else "train"
    train = [row for row, name in enumerate(split) if name == "train"]
    inputs = StandardScaler().fit(wines.data[train]).transform(wines.data)
    head = [*(name.replace("/", "_") for name in wines.feature_names), "kind", "split"]
    kinds = [str(wines.target_names[y]) for y in wines.target]
    rows = [[*(f"{v:.4f}" for v in x), k, s] for x, k, s in zip(inputs, kinds, split, strict=True)]
    learning = [row for row in rows if row[-1] == "train"]

    def table(
        name: str, cells: list[list[str]], *, head: list[str] = head, mark: str = ",", code: str = "utf-8"
    ) -> None:
        with Path(name).open("w", newline="", encoding=code) as file:
            csv.writer(file, delimiter=mark).writerows([head, *cells])

    def named(names: list[object]) -> list[list[str]]:
        return [[*row[:-2], str(names[y]), row[-1]] for row, y in zip(rows, wines.target, strict=True)]

    table("wine.csv", rows)
    table("badsplit.csv", [[*row[:-1], row[-1].replace("development", "val")] for row in rows])
    table("bom.csv", rows, code="utf-8-sig")
    table("semi.csv", rows, mark=";")
    table("unicode.csv", named(["Rotwein (süß) 🍷", "白ワイン", "rosé"]), head=[*head[:-2], "Sorte Ⅱ", "split"])
    table("latin.csv", named(["süß", "herb", "rosé"]), code="latin-1")
    table("intlabel.csv", named([0, 1, 2]))
    table("int123.csv", named([1, 2, 3]))
    table("floatlabel.csv", [[*row[:-2], str(i * 0.1), row[-1]] for i, row in enumerate(rows)])
    table("nan.csv", [["" if i % 10 == 0 else row[0], *row[1:]] for i, row in enumerate(rows)])
    table("textcol.csv", [["n/a" if i == 7 else row[0], *row[1:]] for i, row in enumerate(rows)])
    table("inf.csv", [["inf" if i == 7 else row[0], *row[1:]] for i, row in enumerate(rows)])
    table("nolabel.csv", [[*row[:-2], "" if i % 3 == 0 else row[-2], row[-1]] for i, row in enumerate(rows)])
    table("same.csv", [[*rows[0][:-2], rows[0][-2], row[-1]] for row in rows])
    table("dup.csv", [*rows, *([*row[:-1], "test"] for row in learning)])
    table("dup20.csv", [*rows, *([*row[:-1], "test"] for row in learning[:20])])
    table("dupsame.csv", [*rows, *learning[:20]])
    table("nosplit_dup.csv", [row[:-1] for row in [*rows, *rows[:60]]], head=head[:-1])
    table("empty.csv", [])
    Path("zero.csv").write_bytes(b"")
    Path("zeros.csv").write_bytes(bytes(99))

    torch.manual_seed(0)
    net, x, y = Net(13, 128, 3), torch.tensor(inputs[train], dtype=torch.float32), torch.tensor(wines.target[train])
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(100):
        loss = torch.nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_file(net.state_dict(), "teacher.safetensors")
    turned = {name: v[[2, 0, 1]].contiguous() if name.startswith("head") else v for name, v in net.state_dict().items()}
    save_file(turned, "teacher_perm.safetensors")
    torch.save(net.state_dict(), "teacher.pt")


def labels() -> None:
    """Three tables whose labels are digits: -1 and 1, codes with zeros, grades with gaps."""
    g = torch.Generator().manual_seed(0)
    x, weight = torch.randn(251, 6, generator=g), torch.randn(6, 3, generator=g)
    y = (x @ weight).argmax(1)
    for name, names in {"signs": ["-1", "1", "1"], "codes": ["007", "010", "021"], "grades": ["3", "5", "8"]}.items():
        with Path(f"{name}.csv").open("w", newline="") as file:
            write = csv.writer(file).writerow
            write([*"abcdef", "y", "s"])
            for i in range(251):
                split = "train" if i < 161 else "development" if i < 191 else "test"
                write([*(f"{v:.5f}" for v in x[i].tolist()), names[y[i]], split])


def prices() -> None:
    """Whole prices near 250,000, linear in six numbers."""
    r = np.random.default_rng(0)
    x = r.normal(size=(400, 6))
    y = x @ np.array([30000.0, -20000, 5000, 0, 0, 1000]) + 250000
    with Path("x.csv").open("w") as file:
        file.write("a,b,c,d,e,f,price,s\n")
        for i in range(400):
            split = "train" if i < 250 else "development" if i < 300 else "test"
            file.write(",".join(f"{v:.4f}" for v in x[i]) + f",{int(y[i])},{split}\n")


def images() -> None:
    """Small pictures of three classes, and one JPEG whose header is right and whose end is missing."""
    from PIL import Image

    r = np.random.default_rng(0)
    for split, n in (("train", 8), ("development", 4), ("test", 4)):
        for k, name in enumerate("abc"):
            Path(f"imgs/{split}/{name}").mkdir(parents=True)
            for i in range(n):
                pixels = r.integers(0, 120, (20, 20, 3), dtype=np.uint8)
                pixels[..., k] += 100
                Image.fromarray(pixels).save(f"imgs/{split}/{name}/{i:03d}.png")
    file = Path("imgs/test/b/z.jpg")
    Image.fromarray(r.integers(0, 255, (200, 200, 3)).astype(np.uint8)).save(file, quality=95)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * 0.6)])


def tables() -> None:
    """One table as five programs write it."""
    r = random.Random(0)
    cells = [(r.gauss(0, 1), r.gauss(0, 1)) for _ in range(60)]

    def kind(a: float) -> str:
        return "x" if a > 0 else "z"

    lines = "".join(f"{a:.3f};{b:.3f};{kind(a)}\n".replace(".", ",") for a, b in cells)
    Path("semi.csv").write_text("a;b;y\n" + lines)
    lines = "".join(f"{a:.3f},{b:.3f},{'café' if a > 0 else 'thé'}\n" for a, b in cells)
    Path("latin.csv").write_bytes(("a,b,y\n" + lines).encode("latin-1"))
    marks = {3: "NA", 7: "?"}
    lines = "".join(f"{marks.get(i, f'{a:.3f}')},{b:.3f},{kind(a)}\n" for i, (a, b) in enumerate(cells))
    Path("dash.csv").write_text("a,b,y\n" + lines)
    lines = "".join(f"{a:.3f},{b:.3f},{i % 2},{kind(a)}\n" for i, (a, b) in enumerate(cells))
    Path("dup.csv").write_text("a,b,y,y\n" + lines)
    Path("array.json").write_text(json.dumps([{"a": a, "b": b, "y": kind(a)} for a, b in cells]))


def shapes() -> None:
    """Squares of four colours by class, and a teacher of them whose classes are not in alphabetical order."""
    from PIL import Image

    r, names = np.random.default_rng(0), ["circle", "square", "triangle", "cross"]
    pictures, labels = [], []
    for split, n in (("train", 30), ("development", 30), ("test", 20)):
        for k, name in enumerate(names):
            Path(f"shapes/{split}/{name}").mkdir(parents=True)
            for i in range(n):
                pixels = r.integers(0, 80, (18, 20, 3), dtype=np.uint8)
                pixels[(k // 2) * 9 : (k // 2) * 9 + 9, (k % 2) * 10 : (k % 2) * 10 + 10] += 150
                Image.fromarray(pixels).save(f"shapes/{split}/{name}/{i}.png")
                if split == "train":
                    pictures.append(np.asarray(Image.fromarray(pixels).resize((16, 16))))
                    labels.append(k)
    torch.manual_seed(0)
    x = (torch.tensor(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    teacher, y = FlatCNN(8, 4), torch.tensor(labels)
    optimizer = torch.optim.Adam(teacher.parameters(), 3e-3)
    for _ in range(25):
        loss = torch.nn.functional.cross_entropy(teacher(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_file(teacher.state_dict(), "teacher.safetensors")


def credit() -> None:
    """Numbers, categories and gaps; a class and two values in units far apart, one of them of size 25,000."""
    r, n = np.random.default_rng(0), 600
    age, income = r.integers(18, 80, n), r.lognormal(10, 0.5, n)
    town = r.choice(["Ulm", "Köln", "Paris", "Rome"], n, p=[0.5, 0.3, 0.15, 0.05])
    job = r.choice(["nurse", "cook", "pilot", "clerk", "judge"], n)
    tenure = r.exponential(5, n)
    z = 0.04 * (age - 45) + 0.8 * np.log(income / 22000) + (town == "Paris") * 0.9 - (job == "cook") * 1.1
    repaid = r.random(n) < 1 / (1 + np.exp(-2 * z))
    spend = income * (1 + 0.3 * (job == "judge")) * (1 - 0.2 * (town == "Rome")) + r.normal(0, 500, n)
    score = tenure * age / 10 + r.normal(0, 1, n)

    def gaps(column: list[object], share: float) -> list[object]:
        return ["" if r.random() < share else cell for cell in column]

    with Path("credit.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["age", "income", "tenure", "town", "job", "repaid", "spend", "score"])
        columns = [gaps(list(age), 0.05), gaps(list(income.round(2)), 0.1), gaps(list(tenure.round(3)), 0.02)]
        columns += [gaps(list(town), 0.05), gaps(list(job), 0.03), np.where(repaid, "yes", "no")]
        rows.writerows(zip(*columns, spend.round(2), score.round(3), strict=True))


def code() -> None:
    """Nothing: its recipe is all of it."""


def arrays() -> None:
    """Codes of which one has no embedding, and pictures for a network that answers each pixel."""
    r = np.random.default_rng(0)
    codes = r.integers(0, 4, (60, 5))
    codes[41, 2] = 4
    np.savez("codes.npz", x=codes)
    np.savez("maps.npz", x=r.random((60, 3, 8, 8)).astype(np.float32))

#!/usr/bin/env python3
"""Reference data of what is saved in PyTorch's own format, and the judge of what torchgo saves in it.

    OMP_NUM_THREADS=1 python tools/torchsave/torchsave.py make OUT

OUT/*.pt are files that torch.save has written; values.json and tensors.json say what is in
values.pt and tensors.pt; zip64.json has the bytes of
a file of more than 4 GiB around its zeros. OUT/training/ has data.pt (inputs, targets, and a model's first weights) and,
for each optimizer, <Optimizer>.pt: the checkpoint after 5 steps. losses.json has the losses of 5 more.

    TORCHGO_TORCHSAVE=DIR go test ./torch/serialization     # writes DIR/*.pt
    OMP_NUM_THREADS=1 python tools/torchsave/torchsave.py judge OUT DIR
    go run ./tools/pack OUT testdata/torchsave.tar.zst

judge loads what Go has written with weights_only, in each way that PyTorch has to find a record, goes on training from
checkpoints, and writes OUT/verdicts.json:

    {file: {"sha256", "same": whether the values are those of OUT's file of the name, "losses": of 5 more steps}}
"""
import collections
import hashlib
import io
import json
import math
import os
import sys
import tempfile
import zipfile
from pathlib import Path

import torch


def values():
    """Every kind of value that weights_only accepts, in every form that the pickler has for it."""
    shared = [1, 2]
    return {
        "none": None, "true": True, "false": False,
        "ints": [0, 255, 256, 65535, 65536, 2147483647, 2147483648, -1, -128, -129, -32768, -2147483648, -2147483649,
                 1 << 40, -(1 << 40), (1 << 63) - 1, -(1 << 63), 1 << 63, -(1 << 63) - 1, 1 << 71, -(1 << 71), 127 << 64, 255 << 64, -(255 << 64), 1 << 2030, -(1 << 2030)],
        "floats": [0.0, -0.0, 1.5, -1e300, 5e-324, math.inf, -math.inf, 0.1],
        "complex": complex(1.5, -2),
        "strings": ["", "a", "ä€😀", "none", "line\nbreak\0"],
        "bytes": [b"abc\x00\xff", b"abcd"],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "lists": [[], [1], [1, 2]],
        "dicts": [{}, {1: "one"}, {1: "one", (2, "two"): None}, collections.OrderedDict(), collections.OrderedDict(a=1), collections.OrderedDict(a=1, b=2)],
        "counter": collections.Counter(["first", "first", "second"]),
        "sets": [set(), {7}],
        "torch": [torch.Size([]), torch.Size([2, 3]), torch.float32, torch.bfloat16, torch.uint16, torch.device("cpu"), torch.device("cuda", 1)],
        "same": [shared, shared],
        7: [0, -1],
    }


DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64", "complex128",
          "uint16", "uint32", "uint64", "complex32", "float8_e5m2", "float8_e4m3fn", "float8_e5m2fnuz", "float8_e4m3fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2"]


def tensors():
    """Each dtype; views, shared storages, parameters, attributes."""
    out = {}
    for d in DTYPES:
        dtype = getattr(torch, d)
        n = 2 if dtype == torch.bool else 200
        out[d] = torch.tensor([(i * 37 + 11) % n for i in range(6 * dtype.itemsize)], dtype=torch.uint8).view(dtype).reshape(2, 3)
    base = torch.arange(24, dtype=torch.float32)
    out["base"] = base
    out["view"] = base.reshape(4, 6)[1:3, ::2]
    out["transposed"] = base[:6].reshape(2, 3).t()
    out["expanded"] = base[5:6].expand(3, 2)
    out["scalar"] = torch.tensor(3)
    out["empty"] = torch.empty(0)
    out["empty shape"] = torch.empty(2, 0, 3, dtype=torch.float16)
    out["parameter"] = torch.nn.Parameter(torch.arange(3, dtype=torch.float32))
    out["frozen"] = torch.nn.Parameter(base, requires_grad=False)
    out["requires_grad"] = torch.arange(2, dtype=torch.float64).requires_grad_()
    out["conj"] = torch.tensor([1 + 2j, 3 - 4j]).conj()
    out["neg"] = torch.tensor([1 + 2j, 3 - 4j]).conj().imag
    out["same"] = out["parameter"]
    p = torch.nn.Parameter(torch.arange(4, dtype=torch.float32))
    p.tag = "tagged"
    out["parameter with state"] = p
    t = torch.arange(4, dtype=torch.int32)
    t.tag = [1, 2]
    out["tensor with state"] = t
    out["uint16 view"] = out["uint16"][1]
    return out


def plain():
    """The tensors, as far as Go has what they are: no attributes, no lazy conjugates."""
    keep = {k: v for k, v in tensors().items() if not k.endswith("with state") and k not in ("conj", "neg")}
    return {k: v.detach().requires_grad_(v.requires_grad) if type(v) is torch.nn.Parameter else v for k, v in keep.items()}


def tensor_info(named):
    """What tensors are: their elements as a digest, and which of them share a storage."""
    out, storages = {}, {}
    for name, t in named.items():
        data = t.detach().resolve_conj().resolve_neg().contiguous().clone()
        out[name] = {"dtype": str(t.dtype).removeprefix("torch."), "shape": list(t.shape), "stride": list(t.stride()), "offset": t.storage_offset(),
                     "requires_grad": t.requires_grad, "storage": storages.setdefault(t.untyped_storage()._cdata, len(storages)),
                     "sha256": hashlib.sha256(bytes(data.untyped_storage())).hexdigest()}
    return out


def state_dict():
    """A module's state dict, with _metadata."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).state_dict()


def many():
    """More entries than one opcode adds, and more than one byte counts."""
    return (collections.OrderedDict((f"layer.{i}", [i, float(i)]) for i in range(1001)), collections.OrderedDict((i, None) for i in range(1000)),
            {i: None for i in range(1000)}, {i: None for i in range(1001)}, list(range(2001)), list(range(2000)))


def save(value, path):
    buffer = io.BytesIO()
    torch.save(value, buffer)  # into a buffer, so that the folder in the archive is called archive
    path.write_bytes(buffer.getvalue())


def described(v):
    """A value as JSON that tells its kinds apart."""
    if v is None or isinstance(v, (bool, str)):
        return v
    if isinstance(v, int):
        return {"int": str(v)}
    if isinstance(v, float):
        return {"float": v.hex()}
    if isinstance(v, complex):
        return {"complex": [v.real.hex(), v.imag.hex()]}
    if isinstance(v, bytes):
        return {"bytes": v.hex()}
    if isinstance(v, torch.Size):
        return {"size": list(v)}
    if isinstance(v, tuple):
        return {"tuple": [described(x) for x in v]}
    if isinstance(v, list):
        return {"list": [described(x) for x in v]}
    if isinstance(v, dict):
        return {type(v).__name__: [[described(k), described(x)] for k, x in v.items()]}
    if isinstance(v, set):
        return {"set": [described(x) for x in v]}
    if isinstance(v, torch.dtype):
        return {"dtype": str(v).removeprefix("torch.")}
    if isinstance(v, torch.device):
        return {"device": str(v)}
    raise TypeError(type(v))


def zip64():
    """What torch.save writes around the data of {"a": 8 floats, "b": 4 GiB + 64, "c": 3 ints, "d": none}."""
    value = {"a": torch.zeros(8), "b": torch.empty((1 << 30) + 16), "c": torch.zeros(3, dtype=torch.int64), "d": torch.empty(0)}
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "archive.pt")
        with torch.serialization.skip_data():  # leaves holes, and checksums of 0
            torch.save(value, path)
        records = zipfile.ZipFile(path).infolist()
        size = os.path.getsize(path)
        with open(path, "rb") as f:
            pieces, at = [], 0
            for r in records:
                f.seek(r.header_offset + 26)
                data = r.header_offset + 30 + sum(int.from_bytes(f.read(2), "little") for _ in range(2))
                if r.filename.startswith("archive/data/"):
                    f.seek(at)
                    pieces.append([at, f.read(data - at).hex()])
                    at = data + r.file_size
            f.seek(at)
            pieces.append([at, f.read(size - at).hex()])
        return {"pieces": pieces, "id": next(r.header_offset for r in records if r.filename.endswith("serialization_id"))}


# Optimizers that are resumed, with options that need every kind of entry.
OPTIMIZERS = {
    "SGD": dict(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "Adam": dict(lr=0.01, amsgrad=True, weight_decay=0.1),
    "AdamW": dict(lr=0.01, betas=(0.8, 0.95)),
    "Adagrad": dict(lr=0.1, lr_decay=0.01),
    "RMSprop": dict(lr=0.01, momentum=0.9, centered=True),
    "NAdam": dict(lr=0.01),
    "RAdam": dict(lr=0.01),
    "Adafactor": dict(lr=0.01),
    "LBFGS": dict(lr=0.5, max_iter=4, history_size=5),
    "Muon": dict(lr=0.01),
    "Adadelta": dict(lr=0.5),
    "Adamax": dict(lr=0.01),
    "ASGD": dict(lr=0.05),
    "Rprop": dict(lr=0.01),
}


def data():
    count = [0]

    def tensor(*shape):
        n = math.prod(shape)
        count[0] += n
        i = torch.arange(count[0], count[0] + n, dtype=torch.float64)
        return (torch.fmod(0.37 * i * i + 0.11 * i, 2) - 1).reshape(shape)

    weights = {"0.weight": tensor(4, 3), "0.bias": tensor(4), "2.weight": tensor(2, 4), "2.bias": tensor(2)}
    return {"x": tensor(8, 3), "y": tensor(8, 2), "model": weights}


class Training:
    """A model, its optimizer and a scheduler."""

    def __init__(self, name):
        self.data = data()
        bias = name != "Muon"  # which takes matrices alone
        self.model = torch.nn.Sequential(torch.nn.Linear(3, 4, bias), torch.nn.Tanh(), torch.nn.Linear(4, 2, bias)).double()
        self.model.load_state_dict(self.data["model"], strict=bias)
        first, rest = list(self.model[0].parameters()), list(self.model[2].parameters())
        cls, options = getattr(torch.optim, name), OPTIMIZERS[name]
        if name == "LBFGS":
            self.opt = cls(first + rest, **options)
        else:
            self.opt = cls([{"params": first}, {"params": rest, "lr": options["lr"] / 2}], **options)
        self.sched = torch.optim.lr_scheduler.StepLR(self.opt, step_size=3, gamma=0.5)

    def steps(self, n):
        losses = []

        def closure():
            self.opt.zero_grad()
            loss = torch.nn.functional.mse_loss(self.model(self.data["x"]), self.data["y"])
            loss.backward()
            return loss

        for _ in range(n):
            losses.append(self.opt.step(closure).item())
            self.sched.step()
        return losses

    def checkpoint(self):
        return {"model": self.model.state_dict(), "optimizer": self.opt.state_dict(), "scheduler": self.sched.state_dict(), "epoch": 5}

    def resume(self, checkpoint):
        assert checkpoint["epoch"] == 5
        self.model.load_state_dict(checkpoint["model"])
        self.opt.load_state_dict(checkpoint["optimizer"])
        self.sched.load_state_dict(checkpoint["scheduler"])


def same(a, b, ids):
    """Whether two values are the same: types, strides and what shares a storage included."""
    if isinstance(a, torch.Tensor):
        if type(a) is not type(b) or a.dtype != b.dtype or a.shape != b.shape or a.stride() != b.stride() or a.requires_grad != b.requires_grad:
            return False
        x, y = a.untyped_storage(), b.untyped_storage()
        bits = lambda t: (t.is_conj(), t.is_neg(), t.storage_offset(), getattr(t, "tag", None))
        return bytes(x) == bytes(y) and bits(a) == bits(b) and ids.setdefault(x._cdata, y._cdata) == y._cdata
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k], ids) for k in a) and same(getattr(a, "_metadata", None), getattr(b, "_metadata", None), ids)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y, ids) for x, y in zip(a, b))
    return a == b and str(a) == str(b)


def load(path):
    """What weights_only loads, in every way that PyTorch has to do it."""
    from torch.utils.serialization import config

    os.environ["TORCH_SERIALIZATION_DEBUG"] = "1"  # asserts that records are where they are computed to be
    loaded = torch.load(path, weights_only=True)
    for computed in (False, True):
        config.load.calculate_storage_offsets = computed
        assert same(loaded, torch.load(path, weights_only=True, mmap=True), {}), f"{path}: mmap gives other values"
    config.load.calculate_storage_offsets = False
    assert same(loaded, torch.load(io.BytesIO(path.read_bytes()), weights_only=True), {}), f"{path}: a buffer gives other values"
    return loaded


def judge(out, folder):
    verdicts = {}
    for path in sorted(folder.glob("*.pt")):
        name = path.stem
        verdict = verdicts[path.name] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        value = load(path)
        theirs = out / path.name
        if theirs.exists():
            verdict["same"] = same(torch.load(theirs, weights_only=True), value, {})
        kind, _, optimizer = name.partition("-")
        if optimizer:  # resaved-Adam, trained-Adam
            training = Training(optimizer)
            training.resume(value)
            verdict["losses"] = training.steps(5)
        print(path.name, verdict)
    (out / "verdicts.json").write_text(json.dumps(verdicts, indent=1) + "\n")


def make(out):
    (out / "training").mkdir(parents=True, exist_ok=True)
    save(data(), out / "training" / "data.pt")
    losses = {}
    for name in OPTIMIZERS:
        training = Training(name)
        first = training.steps(5)
        save(training.checkpoint(), out / "training" / f"{name}.pt")
        losses[name] = first + training.steps(5)
    (out / "training" / "losses.json").write_text(json.dumps(losses, indent=1) + "\n")
    save(values(), out / "values.pt")
    save(tensors(), out / "tensors.pt")
    save(plain(), out / "plain.pt")
    save(state_dict(), out / "statedict.pt")
    save(many(), out / "many.pt")
    dump = lambda v, name: (out / name).write_text(json.dumps(v, indent=1) + "\n")
    dump(described(values()), "values.json")
    dump(tensor_info(tensors()), "tensors.json")
    dump(zip64(), "zip64.json")


if __name__ == "__main__":
    torch.set_num_threads(1)
    command, *args = sys.argv[1:]
    {"make": make, "judge": judge}[command](*map(Path, args))

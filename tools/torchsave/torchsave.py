#!/usr/bin/env python3
"""Reference data of what is saved in PyTorch's own format, and the judge of what torchgo saves in it.

    OMP_NUM_THREADS=1 python tools/torchsave/torchsave.py make OUT

OUT/*.pt are files that torch.save has written; values.json says what is in values.pt; zip64.json has the bytes of
a file of more than 4 GiB around its zeros.
"""
import collections
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


def state_dict():
    """A module's state dict, with _metadata."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).state_dict()


def many():
    """More entries than one opcode adds, and more than one byte counts."""
    return collections.OrderedDict((f"layer.{i}", [i, float(i)]) for i in range(1001)), list(range(2001))


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


def make(out):
    out.mkdir(parents=True, exist_ok=True)
    save(values(), out / "values.pt")
    save(tensors(), out / "tensors.pt")
    save(state_dict(), out / "statedict.pt")
    save(many(), out / "many.pt")
    dump = lambda v, name: (out / name).write_text(json.dumps(v, indent=1) + "\n")
    dump(described(values()), "values.json")
    dump(zip64(), "zip64.json")


if __name__ == "__main__":
    torch.set_num_threads(1)
    command, *args = sys.argv[1:]
    {"make": make}[command](*map(Path, args))

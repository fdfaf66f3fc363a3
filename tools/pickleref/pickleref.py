#!/usr/bin/env python3
"""Reference data of what is read from PyTorch's own files: files that torch.save has written, and what torch.load makes of them.

    OMP_NUM_THREADS=1 python tools/pickleref/pickleref.py OUT

OUT/cases.json has a row for each OUT/<name>.pt: the object as data, its tensors by the names that torchgo gives them, the names of the
state dict in it, or what the error says.
"""
import argparse
import collections
import hashlib
import io
import json
import pickle
import random
import struct
import sys
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy
import torch

OUT = Path(sys.argv[1])
CASES = {}
CODES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint8": "U8", "bool": "BOOL", "complex64": "C64", "complex128": "C128", "uint16": "U16", "uint32": "U32", "uint64": "U64",
    "complex32": "C32", "float8_e5m2": "F8_E5M2", "float8_e4m3fn": "F8_E4M3", "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e8m0fnu": "F8_E8M0", "float4_e2m1fn_x2": "F4",
}
# Those that have a class of storages.
TYPED = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 complex128".split()


def digest(t):
    t = t.detach().resolve_conj().resolve_neg().contiguous()
    # Through the storage: not every dtype can be viewed as bytes in every shape.
    data = bytes(t.untyped_storage())[t.storage_offset() * t.itemsize:][:t.numel() * t.itemsize]
    return hashlib.sha256(data).hexdigest()[:32]


def described(v):
    """A value as JSON that tells its kinds apart."""
    if v is None or isinstance(v, (bool, str)):
        return v
    if type(v) is int:
        return {"int": str(v)}
    if type(v) is float:
        return {"float": v.hex()}
    if isinstance(v, complex):
        return {"complex": [v.real.hex(), v.imag.hex()]}
    if isinstance(v, (bytes, bytearray)):
        return {"bytes": v.hex()}
    if isinstance(v, torch.Size):
        return {"size": list(v)}
    if isinstance(v, tuple):
        return {"tuple": [described(x) for x in v]}
    if isinstance(v, list):
        return {"list": [described(x) for x in v]}
    if isinstance(v, dict):
        d = {type(v).__name__: [[described(k), described(x)] for k, x in v.items()]}
        if getattr(v, "_metadata", None) is not None:
            d["state"] = described({"_metadata": v._metadata})
        return d
    if isinstance(v, set):
        return {"set": [described(x) for x in sorted(v)]}
    if isinstance(v, torch.dtype):
        return {"dtype": str(v).removeprefix("torch.")}
    if isinstance(v, torch.device):
        return {"device": str(v)}
    if isinstance(v, torch.Tensor):
        d = {"tensor": [str(v.dtype).removeprefix("torch."), list(v.shape), list(v.stride()), v.storage_offset(), v.requires_grad, isinstance(v, torch.nn.Parameter), digest(v)]}
        if v.__dict__:
            d["state"] = described(dict(v.__dict__))
        return d
    if isinstance(v, argparse.Namespace):
        return {"opaque": "argparse.Namespace", "args": [], "state": described(vars(v))}
    raise TypeError(type(v))


def tensors(v, name=""):
    """The tensors of an object by their names."""
    if isinstance(v, torch.Tensor):
        shape = list(v.shape)
        if v.dtype == torch.float4_e2m1fn_x2:
            shape[-1] *= 2
        yield name, [CODES[str(v.dtype).removeprefix("torch.")], shape, digest(v)]
        return
    if isinstance(v, argparse.Namespace):
        v = vars(v)
    items = v.items() if isinstance(v, dict) else enumerate(v) if isinstance(v, (list, tuple)) else ()
    for k, x in items:
        yield from tensors(x, f"{name}.{k}" if name else str(k))


def write(name, data, weights_only=True, state_dict=None, safe=(), value=None):
    """Records a file and what torch.load gives for it. state_dict: the dict that StateDict finds, by the keys that lead to it. value:
    what was saved, where torch.load fails on torch.save's own file."""
    path = OUT / f"{name}.pt"
    path.write_bytes(data)
    with torch.serialization.safe_globals(list(safe)):
        v = torch.load(path, "cpu", weights_only=weights_only) if value is None else value
    case = {"root": described(v), "tensors": dict(tensors(v))}
    if state_dict is not None:
        for key in state_dict:
            v = v[key]
        names = [k for k, x in v.items() if isinstance(x, torch.Tensor)]
        if all(k.startswith("module.") for k in names):
            names = [k.removeprefix("module.") for k in names]
        case["state_dict"] = names
    CASES[name] = case


def saved(v, **kw):
    b = io.BytesIO()
    torch.save(v, b, **kw)
    return b.getvalue()


def refused(name, data, error, says, keep=None):
    """A file that is an error of a class. keep: what it is with unknown classes kept."""
    (OUT / f"{name}.pt").write_bytes(data)
    CASES[name] = {"error": error, "says": says}
    if keep is not None:
        CASES[name]["keep"] = keep


def filled(shape, dtype, seed=0):
    """A tensor whose bytes count."""
    n = dtype.itemsize
    for d in shape:
        n *= d
    m = 2 if dtype == torch.bool else 251
    return torch.tensor([(i * 37 + 11 + seed) % m for i in range(n)], dtype=torch.uint8).view(dtype).reshape(shape)


def dtypes(names=CODES):
    out = {}
    for i, name in enumerate(names):
        dtype = getattr(torch, name)
        out[name] = filled([2, 3], dtype, i)
        out[name + ".scalar"] = filled([1], dtype, i)[0] if name != "float4_e2m1fn_x2" else filled([1], dtype, i)
        out[name + ".empty"] = torch.empty(0, dtype=dtype)
    return out


def views():
    r = random.Random(7)
    out = {}
    bases = [torch.arange(5000, dtype=torch.float32), filled([3000], torch.int16), filled([2000], torch.uint8), filled([600], torch.complex128), filled([40, 50], torch.bfloat16)]
    base = bases[0]
    out["base"] = base
    out["row"] = base.reshape(50, 100)[7]
    out["column"] = base.reshape(50, 100)[:, 7]
    out["transposed"] = base.reshape(50, 100).t()
    out["permuted"] = base.reshape(10, 20, 25).permute(2, 0, 1)
    out["steps"] = base.reshape(50, 100)[3::7, 5::11]
    out["expanded"] = base[:20].reshape(1, 20, 1).expand(3, 20, 4)
    out["repeated"] = base[5:6].expand(100)
    out["overlapping"] = torch.as_strided(base, [30, 30], [1, 1], 17)
    out["last"] = base[4999]
    out["nothing at the end"] = base[5000:]
    out["nothing"] = base.reshape(50, 100)[:, 100:]
    # No zeros: what sign a negated zero gets depends on the kernel.
    c = torch.view_as_complex(torch.arange(1, 41, dtype=torch.float64).reshape(20, 2))
    out["conj"] = c.conj()[2:9:3]
    out["conj of neg"] = torch._neg_view(c).conj()
    out["neg"] = c.clone().conj().imag[1:]
    out["real"] = c.clone().real
    for i in range(60):
        b = r.choice(bases).flatten()
        dims = r.randrange(1, 5)
        shape = [r.choice([1, 2, 3, 5, 8]) for _ in range(dims)]
        stride = [r.choice([0, 1, 1, 2, 3, 7, 31]) for _ in range(dims)]
        if r.random() < 0.5:  # what slicing and permuting a contiguous tensor gives
            step = 1
            for k in r.sample(range(dims), dims):
                stride[k], step = step, step * (shape[k] + r.randrange(2))
        need = sum((n - 1) * s for n, s in zip(shape, stride)) + 1
        if need <= b.numel():
            out[f"random.{i}"] = torch.as_strided(b, shape, stride, r.randrange(b.numel() - need + 1))
    return out


def model():
    torch.manual_seed(0)
    m = torch.nn.Sequential(collections.OrderedDict(
        embed=torch.nn.Embedding(7, 4), norm=torch.nn.BatchNorm1d(4), head=torch.nn.Linear(4, 7, bias=False)))
    m.head.weight = m.embed.weight
    return m


class WithExtra(torch.nn.Linear):
    def get_extra_state(self):
        return {"scale": torch.tensor(2.5), "calls": 3}


def stepped(make):
    """The state of an optimizer and a scheduler after steps."""
    torch.manual_seed(1)
    m = torch.nn.Linear(3, 2)
    o = make(m.parameters())
    s = torch.optim.lr_scheduler.StepLR(o, 2, gamma=0.5)
    for _ in range(3):
        o.zero_grad()
        m(torch.ones(1, 3)).sum().backward()
        o.step()
        s.step()
    return o.state_dict(), s.state_dict()


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "SGD.plain": lambda p: torch.optim.SGD(p, lr=0.1),
    "Adam": lambda p: torch.optim.Adam(p, lr=1e-3, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.02),
    "AdamW.tensor": lambda p: torch.optim.AdamW(p, lr=torch.tensor(1e-3)),
    "Adagrad": lambda p: torch.optim.Adagrad(p),
    "RMSprop": lambda p: torch.optim.RMSprop(p, momentum=0.1, centered=True),
    "Adafactor": lambda p: torch.optim.Adafactor(p),
    "LBFGS": lambda p: torch.optim.LBFGS(p),
}


def optimizers():
    out = {}
    for name, make in OPTIMIZERS.items():
        if name == "LBFGS":
            out[name] = make(torch.nn.Linear(2, 2).parameters()).state_dict()
        else:
            out[name], out[name + ".scheduler"] = stepped(make)
    return out


def training():
    torch.manual_seed(2)
    optimizer, scheduler = stepped(OPTIMIZERS["AdamW"])
    return {
        "epoch": 3, "global_step": 1 << 40, "best": 0.125, "nan": float("nan"), "model": model().state_dict(), "optimizer": optimizer, "scheduler": scheduler,
        "rng": torch.arange(40, dtype=torch.uint8), "history": [(1, 0.5), (2, 0.25)], "seen": collections.Counter("abca"), "tags": {"a", "b"},
        "bytes": b"\x00\xff", "array": bytearray(b"\x01\x80"), "device": torch.device("cuda", 1), "dtype": torch.bfloat16, "shape": torch.Size([2, 3]),
        "complex": 1 - 2j, "big": -(1 << 90), "none": None, 5: {(1, "a"): True}, "\u5c64": {"\U0001f999": torch.ones(1)},
    }


def big_endian(data):
    """A zip file of tensors on storages of their own as a big-endian machine would write it: each in its own dtype's order."""
    v = torch.load(io.BytesIO(data), weights_only=True)
    src = zipfile.ZipFile(io.BytesIO(data))
    sizes = [t.itemsize // (2 if t.is_complex() else 1) for t in v.values()]
    b = io.BytesIO()
    with zipfile.ZipFile(b, "w", zipfile.ZIP_STORED) as dst:
        for name in src.namelist():
            record = src.read(name)
            if name.endswith("/byteorder"):
                record = b"big"
            if "/data/" in name:
                n = sizes[int(name.rsplit("/", 1)[1])]
                record = b"".join(record[i:i + n][::-1] for i in range(0, len(record), n))
            dst.writestr(name, record)
    return b.getvalue()


class Storage:
    """A storage in a pickle: written as its persistent id."""

    def __init__(self, *pid):
        self.pid = pid


class Pickler(pickle.Pickler):
    def persistent_id(self, v):
        return v.pid if isinstance(v, Storage) else None


def pickled(v, protocol=2):
    b = io.BytesIO()
    Pickler(b, protocol).dump(v)
    return b.getvalue()


class View:
    """A tensor in a pickle."""

    def __init__(self, storage, offset, size, stride):
        self.args = storage, offset, size, stride

    def __reduce__(self):
        return torch._utils._rebuild_tensor, self.args


def legacy_views():
    """A file of the time when storages could be parts of others."""
    whole = Storage("storage", torch.FloatStorage, "a", "cpu", 6, None)
    part = Storage("storage", torch.FloatStorage, "a", "cpu", 6, ("b", 2, 3))
    root = {"whole": View(whole, 0, (2, 3), (3, 1)), "part": View(part, 0, (3,), (1,)), "in part": View(part, 1, (2,), (1,)), "again": View(part, 0, (1, 3), (3, 1))}
    info = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    return b"".join(map(pickled, (0x1950a86a20f9469cfc6c, 1001, info, root, ["a"]))) + struct.pack("<q6f", 6, *range(6))


def tar():
    """A file of torch 0.1."""
    storages = pickled(2) + pickled((11, "cpu", torch.FloatStorage)) + struct.pack("<q6f", 6, *range(6))
    storages += pickled((12, "cuda:0", torch.LongStorage)) + struct.pack("<q2q", 2, 7, -8) + pickled([(13, 11, 2, 3)])
    tensor = lambda key, storage, kind, size, stride, offset: pickled((key, storage, kind)) + struct.pack("<ii", len(size), 0) + struct.pack(f"<{2 * len(size) + 1}q", *size, *stride, offset)
    tensors = pickled(4) + tensor(21, 11, torch.FloatTensor, (3, 2), (1, 3), 0) + tensor(22, 12, torch.LongTensor, (2,), (1,), 0)
    tensors += tensor(23, 13, torch.FloatTensor, (2,), (1,), 1) + tensor(24, 12, torch.LongTensor, (), (), 1)
    root = {"transposed": Storage(), "ints": Storage(), "part": Storage(), "nested": [Storage()], "epoch": 3}
    for v, pid in zip((root["transposed"], root["ints"], root["part"], root["nested"][0]), ("21", "22", "23", "24")):
        v.pid = pid
    b = io.BytesIO()
    with tarfile.open(fileobj=b, mode="w", format=tarfile.GNU_FORMAT) as t:
        for name, data in (("sys_info", pickled({})), ("storages", storages), ("tensors", tensors), ("pickle", pickled(root))):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            t.addfile(member, io.BytesIO(data))
    return b.getvalue()


class Wrapper(torch.Tensor):
    """A tensor subclass without storage."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return NotImplemented


class Config:
    def __init__(self):
        self.hidden, self.w = 3, torch.ones(2)


def script():
    b = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), b)
    return b.getvalue()


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    write("dtypes", saved(dtypes()), state_dict=[])
    write("views", saved(views()))
    write("training", saved(training()), state_dict=["model"])
    write("optimizers", saved(optimizers()))
    write("module", saved(model().state_dict()), state_dict=[])
    write("parallel", saved({"state_dict": {"module." + k: v for k, v in model().state_dict().items()}}), state_dict=["state_dict"])
    write("extra-state", saved(WithExtra(2, 2).state_dict()), state_dict=[])
    write("parameters", saved(dict(model().named_parameters(remove_duplicate=False))), state_dict=[])
    write("namespace", saved({"args": argparse.Namespace(lr=0.1, layers=[1, 2], w=torch.ones(2)), "model": {"w": torch.zeros(2)}}), state_dict=["model"], safe=[argparse.Namespace])
    write("lists", saved([torch.ones(1), (torch.zeros(2), [torch.ones(3)]), {"a": torch.ones(4)}]))
    for protocol in (3, 4, 5):
        # weights_only knows neither protocol 4 nor 5.
        write(f"protocol{protocol}", saved(training(), pickle_protocol=protocol), weights_only=False, state_dict=["model"])
    old = dict(_use_new_zipfile_serialization=False)
    write("legacy-dtypes", saved(dtypes(TYPED), **old), state_dict=[])
    rest = dtypes([d for d in CODES if d not in TYPED])
    write("legacy-untyped", saved(rest, **old), state_dict=[], value=rest)
    write("legacy-views", saved(views(), **old))
    write("legacy-training", saved(training(), **old), state_dict=["model"])
    write("legacy-protocol4", saved(training(), pickle_protocol=4, **old), weights_only=False, state_dict=["model"])
    write("legacy-storage-views", legacy_views(), weights_only=False)
    write("tar", tar(), weights_only=False)
    write("big-endian", big_endian(saved(dtypes(TYPED))), state_dict=[])
    torch.serialization.set_crc32_options(False)
    write("no-checksums", saved(model().state_dict()), state_dict=[])
    torch.serialization.set_crc32_options(True)
    from torch.utils.serialization import config
    config.save.storage_alignment = 4096
    write("aligned", saved({"a": torch.ones(3), "b": torch.ones(3)}), state_dict=[])
    config.save.storage_alignment = 64

    i, v = torch.tensor([[0, 2], [1, 0]]), torch.tensor([1., 2.])
    coo = torch.sparse_coo_tensor(i, v, (3, 2))
    refused("sparse-coo", saved({"w": coo}), "unsupported", "sparse_coo")
    refused("sparse-csr", saved({"w": coo.to_sparse_csr()}), "unsupported", "sparse_csr")
    refused("legacy-sparse", saved({"w": coo}, **old), "unsupported", "sparse_coo")
    refused("quantized", saved({"w": torch.quantize_per_tensor(v, 0.1, 3, torch.qint8)}), "unsupported", "quantized tensor, qint8 [2]")
    refused("quantized-channels", saved({"w": torch.quantize_per_channel(torch.ones(2, 2), v, torch.zeros(2), 0, torch.quint8)}), "unsupported", "quantized tensor, quint8 [2 2]")
    refused("meta", saved({"w": torch.empty(3, device="meta")}), "unsupported", "meta tensor")
    refused("nested", saved({"w": torch.nested.nested_tensor([v, v[:1]])}), "unsupported", "nested tensor")
    refused("torchscript", script(), "unsupported", "TorchScript")
    refused("wrapper", saved({"w": Wrapper(v)}), "forbidden_global", "__main__.Wrapper", {"error": "unsupported"})
    refused("bits", saved({"w": filled([2], torch.uint8).view(torch.bits8)}), "unsupported", "bits8")
    refused("object", saved({"config": Config()}), "forbidden_global", "__main__.Config",
            {"dict": [["config", {"opaque": "__main__.Config", "args": [], "state": described(vars(Config()))}]]})
    refused("whole-module", saved(torch.nn.Linear(2, 1)), "forbidden_global", "torch.nn.modules.linear.Linear")
    refused("pathlib", saved({"dir": Path("a/b")}), "forbidden_global", "pathlib", None)

    b = saved({"best": numpy.float64(0.25), "indices": numpy.arange(3, dtype=numpy.int32)})
    (OUT / "numpy.pt").write_bytes(b)
    dtype = lambda name, order: {"opaque": "numpy.dtype", "args": [name, False, True], "state": {"tuple": [{"int": "3"}, order, None, None, None, {"int": "-1"}, {"int": "-1"}, {"int": "0"}]}}
    CASES["numpy"] = {"tensors": {}, "root": {"dict": [
        ["best", {"opaque": "numpy._core.multiarray.scalar", "args": [dtype("f8", "<"), {"bytes": struct.pack("<d", 0.25).hex()}]}],
        ["indices", {"opaque": "numpy._core.multiarray._reconstruct", "args": [{"opaque": "numpy.ndarray"}, {"tuple": [{"int": "0"}]}, {"bytes": b"b".hex()}],
                     "state": {"tuple": [{"int": "1"}, {"tuple": [{"int": "3"}]}, dtype("i4", "<"), False, {"bytes": struct.pack("<3i", 0, 1, 2).hex()}]}}],
    ]}}
    (OUT / "cases.json").write_text(json.dumps(CASES, indent=0, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

"""Records what PyTorch's own OpInfo database says about dispatcher operators.

    pip install torch==2.15.0 numpy scipy safetensors expecttest hypothesis
    python tools/opinfo/opinfo.py OUT_DIR
    go run ./tools/pack OUT_DIR testdata/opinfo.tar.zst

Every entry of op_db is tried on its CPU sample inputs. A sample is kept when one call of one
dispatcher operator gives the result that the entry's Python function gives; the overload is found
by binding the sample to the schemas strictly (no implicit conversions) and is run to check it.
What is kept holds the operator's name, its arguments with all defaults written out, its results
and, for float64 samples of differentiable entries, the gradients of sum(result * weight).

OUT_DIR/opinfo.json        entries, samples, arguments; tensors as references
OUT_DIR/opinfo.safetensors one flat tensor for each dtype; complex numbers as pairs of floats

A reference is {"d": dtype, "s": shape, "o": offset of the first element, "st": strides unless
contiguous, "g": true where a gradient is recorded}. Its values are in row-major order.

Inputs are rounded to 16 significant bits: the archive is a third smaller, and the results are
computed from the rounded inputs. The output is the same bytes on each run on one machine; other
CPUs differ within the tolerances, which are those of torch.testing.assert_close or the entry's own.
"""

import argparse
import fnmatch
import inspect
import json
import math
import os
import random
import sys
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.testing._internal.common_device_type import toleranceOverride
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.opinfo.core import BinaryUfuncInfo, ReductionOpInfo, UnaryUfuncInfo

MAX_ELEMENTS = 8000  # of any one tensor
MAX_BYTES = 10000  # of all tensors of one sample ...
MAX_BYTES_ALONE = 200000  # ... of the only sample of an entry
POOL = 60  # samples of an entry that are looked at
KEEP = {torch.float32: 3, torch.float64: 3, torch.int64: 1, torch.bool: 1, torch.complex64: 1}

# Operators whose results are whatever was in memory: dtype and shape are recorded, values are not.
UNINITIALISED = {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"}

# Results that are unique up to a sign or a phase, by position.
AMBIGUOUS = {"svd": [0, 2], "linalg.svd": [0, 2], "linalg.eigh": [1], "linalg.eig": [1]}

# Entries left out though one call would do, with the reason.
EXCLUDED = {
    "hash_tensor": "a checksum of the bits of floating point results",
    "broadcast_shapes": "no tensor in or out",
    "torch.ops.aten._flash_attention_forward": "CUDA",
    "torch.ops.aten._efficient_attention_forward": "CUDA",
}

# Entries whose Python function is not the dispatcher's operator by name: the call that it makes.
CASTS = {
    "bfloat16": torch.bfloat16, "bool": torch.bool, "byte": torch.uint8, "char": torch.int8, "double": torch.float64,
    "float": torch.float32, "half": torch.float16, "int": torch.int32, "long": torch.int64, "short": torch.int16,
    "cdouble": torch.complex128, "cfloat": torch.complex64, "chalf": torch.complex32,
}  # fmt: skip
REFLECTED = {
    "__radd__": "add", "__rmul__": "mul", "__rand__": "bitwise_and", "__ror__": "bitwise_or", "__rxor__": "bitwise_xor",
    "__rsub__": "rsub",
}  # fmt: skip
OTHER_NAMES = {"T": "numpy_T", "H": "matrix_H", "zero_": "zero"}

REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}

# The kind of an entry: the first that has a matching pattern, else by the entry's class.
KINDS = {
    "fft": "fft.* stft istft",
    "linalg": "linalg.* cholesky* lu lu_* svd geqrf ormqr triangular_solve matrix_exp logdet pinverse trace cross renorm cdist dist",
    "matmul": "*matmul* *mm mm* *mv addr dot vdot inner outer kron tensordot einsum nn.functional.*linear nn.functional.linear_cross*",
    "attention": "*scaled_dot* *attention* *softmax*",
    "embedding": "nn.functional.embedding* nn.functional.one_hot",
    "convolution and pooling": "nn.functional.conv* *_pool* *_unpool* nn.functional.unfold nn.functional.fold",
    "normalisation": "*_norm_* *batch_norm *group_norm *layer_norm *rms_norm *instance_norm",
    "resampling": "nn.functional.interpolate *upsample* *grid_sample* nn.functional.pixel* nn.functional.channel* nn.functional.pad constant_pad_nd",
    "loss": "*_loss *cross_entropy* nn.functional.kl_div nn.functional.cosine* nn.functional.pairwise* nn.functional.pdist",
    "activation": "nn.functional.* native_dropout*",
    "special function": "special.* igamma* polygamma mvlgamma i0 lgamma digamma erf*",
    "creation": "*empty* *zeros* *ones* *full* fill zero_ arange linspace logspace eye scalar_tensor tri*_indices complex polar clone",
    "sorting and searching": "*sort topk kthvalue mode unique* searchsorted bucketize histogram* histc bincount *median isin argmax argmin *quantile",
    "scatter and gather": "*scatter* gather index_* *masked* put take take_along_dim where nonzero* argwhere repeat_interleave *segment*",
    "cumulative": "cum* logcumsumexp *trapezoid trapz diff gradient",
    "comparison": "eq ne lt le gt ge equal allclose isclose max min maximum minimum fmax fmin clamp*",
    "logical and bitwise": "logical* bitwise* gcd lcm __rand__ __ror__ __rxor__",
    "conversion": " ".join(CASTS) + " to item contiguous",
    "complex": "real imag conj* angle view_as_real view_as_complex sgn resolve*",
    "reduction": "norm var_mean std_mean aminmax logsumexp sum_to_size cov corrcoef",
    "binary pointwise": "add addcmul addcdiv lerp rsub logaddexp* __r*__",
    "unary pointwise": "frexp sigmoid",
}


def kind_of(entry):
    for kind, patterns in KINDS.items():
        if any(fnmatch.fnmatchcase(entry.name, p) for p in patterns.split()):
            return kind
    for cls, kind in ((ReductionOpInfo, "reduction"), (UnaryUfuncInfo, "unary pointwise"), (BinaryUfuncInfo, "binary pointwise")):
        if isinstance(entry, cls):
            return kind
    return "view and shape"


class Skip(Exception):
    """Why a sample or an entry is not recorded."""


# --- inputs ---------------------------------------------------------------------------------------


def round_bits(t, bits=16):
    """t with its significands rounded to bits."""
    if t.is_complex():
        return torch.complex(round_bits(t.real, bits), round_bits(t.imag, bits))
    if t.dtype not in (torch.float32, torch.float64):
        return t
    m, e = np.frexp(t.numpy().astype(np.float64))
    return torch.from_numpy(np.asarray(np.ldexp(np.round(np.ldexp(m, bits)), e - bits))).to(t.dtype)


def rebuild(values, stride):
    """A tensor with these values and strides; overlapping elements share memory."""
    if stride is None:
        return values.clone(memory_format=torch.contiguous_format)
    offs = torch.zeros(values.shape, dtype=torch.int64)
    for d, st in enumerate(stride):
        shape = [1] * values.dim()
        shape[d] = values.shape[d]
        offs += (torch.arange(values.shape[d]) * st).reshape(shape)
    flat = torch.zeros(int(offs.max()) + 1 if offs.numel() else 0, dtype=values.dtype)
    flat[offs.reshape(-1)] = values.reshape(-1)
    return flat.as_strided(values.shape, stride)


class Input:
    """A tensor argument: values, layout in memory, whether a gradient is wanted."""

    def __init__(self, t):
        if type(t) not in (torch.Tensor, torch.nn.Parameter) or t.layout != torch.strided or t.is_quantized or t.device.type != "cpu":
            raise Skip("a tensor that is not plain")
        if t.numel() > MAX_ELEMENTS:
            raise Skip("more elements than the limit")
        self.grad = t.requires_grad
        v = t.detach().resolve_conj().resolve_neg()
        self.stride = None if v.is_contiguous() else tuple(v.stride())
        self.values = round_bits(v.contiguous())

    def tensor(self, grad):
        t = rebuild(self.values, self.stride)
        return t.requires_grad_() if grad and self.grad else t


def tree_map(fn, x):
    if isinstance(x, torch.Tensor | Input):
        return fn(x)
    if isinstance(x, torch.Size):
        return tuple(x)
    if isinstance(x, list | tuple):
        return type(x)(tree_map(fn, y) for y in x) if type(x) in (list, tuple) else tuple(tree_map(fn, y) for y in x)
    if isinstance(x, dict):
        return {k: tree_map(fn, v) for k, v in x.items()}
    return x


def leaves(x):
    if isinstance(x, dict):
        x = list(x.values())
    if isinstance(x, list | tuple):
        return [z for y in x for z in leaves(y)]
    return [x]


def materialise(x, grad=False):
    return tree_map(lambda i: i.tensor(grad), x)


# --- finding the dispatcher call ------------------------------------------------------------------


class Recorder:
    """Notes the calls of torch's C functions that a Python function makes."""

    def __init__(self):
        self.calls = []

    def __enter__(self):
        self.saved, self.added = [], []
        for module in (torch, torch._C._nn, torch.nn.functional, torch.special, torch.linalg, torch.fft):
            for name, fn in list(vars(module).items()):
                if inspect.isbuiltin(fn) and getattr(torch.ops.aten, fn.__name__, None):
                    self.saved.append((module, name, fn))
                    setattr(module, name, self.wrap(fn.__name__, fn))
        for name in dir(torch._C._VariableFunctions):  # torch._VF finds them by __getattr__
            if not name.startswith("__") and getattr(torch.ops.aten, name, None):
                setattr(torch._VF, name, self.wrap(name, getattr(torch._C._VariableFunctions, name)))
                self.added.append(name)
        return self

    def wrap(self, name, fn):
        def call(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            return fn(*args, **kwargs)

        return call

    def __exit__(self, *exc):
        for module, name, fn in self.saved:
            setattr(module, name, fn)
        for name in self.added:
            delattr(torch._VF, name)


def convert(value, arg):
    """value as the schema's argument arg takes it, or Skip."""
    typ, real = str(arg.type), str(arg.real_type)
    if typ.startswith("Optional["):
        if value is None:
            return None
        typ, real = typ[9:-1], real[9:-1]
    is_int = isinstance(value, int) and not isinstance(value, bool)
    is_tensor = isinstance(value, Input | torch.Tensor)
    if typ == "Tensor" and is_tensor:
        return value
    if typ in ("List[Tensor]", "List[Optional[Tensor]]") and isinstance(value, list | tuple):
        if all(isinstance(v, Input | torch.Tensor) or (v is None and "Optional" in typ) for v in value):
            return list(value)
    if real == "ScalarType" and isinstance(value, torch.dtype):
        return value
    if real == "Layout" and isinstance(value, torch.layout):
        return value
    if real == "MemoryFormat" and isinstance(value, torch.memory_format):
        return value
    if real == "Device" and isinstance(value, str | torch.device):
        return torch.device(value)
    if real in ("ScalarType", "Layout", "MemoryFormat", "Device"):
        raise Skip("argument type")
    if typ == "int" and is_int:
        return value
    if typ == "int" and arg.name == "reduction" and value in REDUCTIONS:
        return REDUCTIONS[value]
    if typ == "float" and (is_int or isinstance(value, float)):
        return float(value)
    if typ == "bool" and isinstance(value, bool):
        return value
    if typ == "number" and isinstance(value, int | float | bool | complex):
        return value
    if typ == "str" and isinstance(value, str):
        return value
    if typ == "List[int]":
        if is_int and arg.N:
            return [value] * arg.N
        if isinstance(value, list | tuple) and all(isinstance(v, int) and not isinstance(v, bool) for v in value):
            return list(value)
    if typ == "List[float]":
        if isinstance(value, int | float) and not isinstance(value, bool) and arg.N:
            return [float(value)] * arg.N
        if isinstance(value, list | tuple) and all(isinstance(v, int | float) for v in value):
            return [float(v) for v in value]
    if typ == "List[bool]" and isinstance(value, list | tuple) and all(isinstance(v, bool) for v in value):
        return list(value)
    raise Skip("argument type")


FORMATS = [torch.contiguous_format, torch.preserve_format, torch.channels_last]


def bind(schema, args, kwargs):
    """The values of all arguments of schema, in order, or Skip."""
    params, kwargs = schema.arguments, dict(kwargs)
    positional = [p for p in params if not p.kwarg_only]
    for flag in ("inplace", "requires_grad", "as_tuple"):  # Python's own
        if kwargs.pop(flag, False):
            raise Skip("argument " + flag)
    if str(params[0].type) == "List[Tensor]" and args and all(isinstance(a, Input) for a in args):
        args = [args]  # torch.block_diag(a, b)
    # x.permute(0, 1): the tail of positional integers is one list
    if len(args) > len(positional) or (len(args) > 1 and len(positional) == 2 and len(args) == 2 and isinstance(args[1], int) and str(positional[1].type) == "List[int]" and not positional[1].N):
        if len(positional) < 1 or not all(isinstance(a, int) for a in args[len(positional) - 1 :]):
            raise Skip("too many arguments")
        args = [*args[: len(positional) - 1], tuple(args[len(positional) - 1 :])]
    out = []
    for i, p in enumerate(params):
        if not p.kwarg_only and i < len(args):
            if p.name in kwargs:
                raise Skip("argument given twice")
            out.append(convert(args[i], p))
        elif p.name in kwargs:
            out.append(convert(kwargs.pop(p.name), p))
        elif p.has_default_value():
            v = p.default_value
            if str(p.real_type) == "MemoryFormat" and v is not None:
                v = FORMATS[v]
            out.append(v)
        else:
            raise Skip("missing argument")
    if kwargs:
        raise Skip("unknown arguments " + ",".join(kwargs))
    return out


def run(overload, values):
    params = overload._schema.arguments
    pos = [v for p, v in zip(params, values, strict=True) if not p.kwarg_only]
    return overload(*pos, **{p.name: v for p, v in zip(params, values, strict=True) if p.kwarg_only})


def same(a, b, values=True):
    a, b = leaves(a), leaves(b)
    if len(a) != len(b):
        return False
    for x, y in zip(a, b, strict=True):
        if isinstance(x, torch.Tensor) != isinstance(y, torch.Tensor):
            return False
        if isinstance(x, torch.Tensor):
            if x.dtype != y.dtype or x.shape != y.shape or x.layout != torch.strided or y.layout != torch.strided:
                return False
            if not values:
                continue
            try:
                torch.testing.assert_close(x.detach(), y.detach(), equal_nan=True)
            except AssertionError:
                return False
        elif type(x) is not type(y) or not (x == y or (x != x and y != y)):
            return False
    return True


def names_of(entry):
    """Names that the entry's operator may have in the dispatcher, likeliest first."""
    names = [entry.name, entry.aten_name or "", getattr(entry.op, "__name__", ""), entry.name.replace(".", "_"), entry.name.rsplit(".", 1)[-1]]
    if entry.name in REFLECTED:
        names = [REFLECTED[entry.name]]
    if entry.name in OTHER_NAMES:
        names = [OTHER_NAMES[entry.name]]
    if entry.name.startswith("torch.ops.aten."):
        names = [entry.name.split(".")[3]]
    seen = []
    for n in names:
        n = n.removesuffix(".default").removesuffix(".Tensor")
        if n and n not in seen and "." not in n and not n.startswith("<"):
            seen.append(n)
    return seen


def overloads(name):
    packet = getattr(torch.ops.aten, name, None)
    if name.startswith("rand") or name == "is_grad_enabled" or packet is None or not hasattr(packet, "overloads"):
        return []
    found = []
    for o in packet.overloads():
        ov = getattr(packet, o)
        if ov._schema.is_mutable or o.endswith("out") or "Dimname" in str(ov._schema) or "Generator" in str(ov._schema):
            continue
        found.append(ov)
    return found


def find_call(entry, sample):
    """(overload, values) of the one dispatcher call that is the sample's computation."""
    args, kwargs = [sample[0], *sample[1]], sample[2]
    seed()
    live = materialise(sample)
    own = {id(t): i for t, i in zip(leaves(live), leaves(sample), strict=True) if isinstance(t, torch.Tensor)}
    with Recorder() as rec:
        expected = entry.op(live[0], *live[1], **live[2])
    if not leaves(expected) or not all(isinstance(x, torch.Tensor | bool | int | float | complex) for x in leaves(expected)):
        raise Skip("a result that is no tensor or number")
    candidates = [(n, args, kwargs) for n in names_of(entry)]
    if entry.name in CASTS:
        candidates = [("to", [args[0], CASTS[entry.name]], kwargs)]
    if "reduction" in kwargs and kwargs["reduction"] in REDUCTIONS:
        candidates += [(n + "_loss", args, kwargs) for n in names_of(entry)]
    if rec.calls:  # the last call of a C function does if it was given the sample's own tensors
        name, a, k = rec.calls[-1]
        if all(id(t) in own for t in leaves((list(a), k)) if isinstance(t, torch.Tensor)):
            candidates.append((name, *tree_map(lambda t: own[id(t)], (list(a), dict(k)))))
    check = entry.name not in UNINITIALISED
    why = "no overload takes these arguments"
    for name, a, k in candidates:
        for ov in overloads(name):
            try:
                values = bind(ov._schema, a, k)
                got = run(ov, materialise(values))
            except Skip as e:
                if "argument" not in str(e):
                    why = str(e)
                continue
            except Exception as e:  # noqa: BLE001  the overload refuses what it was given
                why = f"{ov}: {str(e).splitlines()[0][:100]}"
                continue
            first = leaves(got)[: len(leaves(expected))]  # Python may drop results, as embedding_bag does
            if got is None or not same(expected, first, check):
                why = f"{ov} gives something else"
                continue
            seed(1)
            if check and not same(got, run(ov, materialise(values))):
                raise Skip("random")
            return ov, values
    raise Skip(why)


# --- writing --------------------------------------------------------------------------------------


class Store:
    """The flat tensor of each dtype; equal arrays are stored once."""

    def __init__(self):
        self.parts, self.length, self.seen = {}, {}, {}

    def put(self, t, stride=None, grad=False):
        t = t.detach().resolve_conj().resolve_neg().contiguous()
        dtype = str(t.dtype).removeprefix("torch.")
        flat = (torch.view_as_real(t) if t.is_complex() else t).reshape(-1)
        raw = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
        key = (dtype, raw)
        if key not in self.seen:
            offset = self.length.get(dtype, 0)
            self.seen[key] = offset
            self.parts.setdefault(dtype, []).append(flat.clone())
            self.length[dtype] = offset + t.numel()
        ref = {"d": dtype, "s": list(t.shape), "o": self.seen[key]}
        if stride is not None:
            ref["st"] = list(stride)
        if grad:
            ref["g"] = True
        return ref

    def save(self, path):
        save_file({d: torch.cat(p) for d, p in sorted(self.parts.items())}, path)


def number(x):
    """x as JSON can hold it."""
    return x if math.isfinite(x) else ("nan" if x != x else "inf" if x > 0 else "-inf")


def encode(store, v):
    """An argument or a result as {kind: value}; None is null."""
    if v is None:
        return None
    if isinstance(v, Input):
        return {"t": store.put(v.values, v.stride, v.grad)}
    if isinstance(v, torch.Tensor):
        return {"t": store.put(v)}
    if isinstance(v, bool):
        return {"b": v}
    if isinstance(v, int):
        return {"i": v}
    if isinstance(v, float):
        return {"f": number(v)}
    if isinstance(v, complex):
        return {"c": [number(v.real), number(v.imag)]}
    if isinstance(v, str):
        return {"s": v}
    if isinstance(v, torch.dtype):
        return {"dtype": str(v).removeprefix("torch.")}
    if isinstance(v, torch.layout):
        return {"layout": str(v).removeprefix("torch.")}
    if isinstance(v, torch.memory_format):
        return {"format": str(v).removeprefix("torch.")}
    if isinstance(v, torch.device):
        return {"device": str(v)}
    if isinstance(v, list | tuple):
        if any(isinstance(x, Input | torch.Tensor) for x in v):
            return {"tl": [encode(store, x) for x in v]}
        if all(isinstance(x, bool) for x in v) and v:
            return {"bl": list(v)}
        if all(isinstance(x, int) for x in v):
            return {"il": list(v)}
        if all(isinstance(x, int | float) for x in v):
            return {"fl": [number(float(x)) for x in v]}
    raise Skip(f"a value of type {type(v).__name__}")


def encode_list(store, v, arg):
    """An argument; empty lists take their kind from the schema."""
    if isinstance(v, list | tuple) and not v:
        return {"tl" if "Tensor" in str(arg.type) else "fl" if "float" in str(arg.type) else "bl" if "bool" in str(arg.type) else "il": []}
    return encode(store, v)


def tolerance(entry, dtype):
    """OpInfo's own [rtol, atol] for a dtype in the tests that compare values on the CPU, or None."""
    rtol = atol = 0.0
    for d in entry.decorators:
        if getattr(d, "cls_name", None) not in (None, "TestCommon", "TestUnaryUfuncs", "TestBinaryUfuncs", "TestReductions"):
            continue
        if getattr(d, "device_type", None) not in (None, "cpu"):
            continue
        for o in getattr(d, "decorators", [d]):
            if isinstance(o, toleranceOverride) and dtype in o.d:
                rtol, atol = max(rtol, o.d[dtype].rtol), max(atol, o.d[dtype].atol)
    return [rtol, atol] if rtol or atol else None


def seed(n=0):
    torch.manual_seed(n)
    random.seed(n)
    np.random.seed(n)


def weights(t, gen):
    """Random multiples of 1/8 in [-2, 2] without 0, shaped like t."""

    def draw():
        w = torch.randint(1, 17, t.shape, generator=gen).double() / 8
        return w * (torch.randint(0, 2, t.shape, generator=gen) * 2 - 1)

    return torch.complex(draw(), draw()).to(t.dtype) if t.is_complex() else draw().to(t.dtype)


def gradients(store, overload, values, masked, gen):
    """{"w": weight of each result or null, "g": gradient of each input that asks for one, or null}"""
    live = materialise(values, grad=True)
    inputs = [t for t in leaves(live) if isinstance(t, torch.Tensor) and t.requires_grad]
    if not inputs:
        return None
    results = run(overload, live)
    outs, w, refs = [], [], []
    for i, t in enumerate(leaves(results)):
        ok = isinstance(t, torch.Tensor) and t.requires_grad and (t.is_floating_point() or t.is_complex()) and i not in masked
        refs.append(None)
        if ok:
            outs.append(t)
            w.append(weights(t, gen))
            refs[-1] = {"t": store.put(w[-1])}
    if not outs:
        return None
    grads = torch.autograd.grad(outs, inputs, grad_outputs=w, allow_unused=True)
    if all(g is None for g in grads):
        return None
    return {"w": refs, "g": [None if g is None else {"t": store.put(g)} for g in grads]}


def samples_of(entry, dtype, grad):
    seed(zlib.crc32(f"{entry.name}/{entry.variant_test_name}/{dtype}".encode()))
    pool, first = [], None
    for i, s in enumerate(entry.sample_inputs("cpu", dtype, requires_grad=grad)):
        if i >= POOL:
            break
        try:
            pool.append(tree_map(Input, (s.input, list(s.args), dict(s.kwargs))))
        except Skip as e:
            first = first or e
    if not pool and first:
        raise first
    return pool


def size(values):
    return sum(v.values.numel() * v.values.element_size() for v in leaves(values) if isinstance(v, Input))


def record(store, entry, dtype, grad, limit, max_bytes=MAX_BYTES):
    """Up to limit samples: the first, then those whose calls differ most from what is there."""
    kept, shapes, why = [], set(), None
    masked = AMBIGUOUS.get(entry.name, [])
    gen = torch.Generator().manual_seed(zlib.crc32(entry.name.encode()))
    pool = samples_of(entry, dtype, grad)
    step = max(1, len(pool) // (2 * limit))
    order = list(range(0, len(pool), step)) + [i for i in range(len(pool)) if i % step]
    for i in order:
        if len(kept) == limit:
            break
        try:
            overload, values = find_call(entry, pool[i])
            shape = (str(overload), *(str(v) if not isinstance(v, Input) else (v.values.shape, v.stride) for v in leaves(values)))
            if shape in shapes:
                continue
            results = run(overload, materialise(values))
            if entry.name in UNINITIALISED:
                results = torch.zeros_like(results)
            results = list(results) if isinstance(results, tuple) else [results]
            total = size(values) + sum(t.numel() * t.element_size() for t in leaves(results) if isinstance(t, torch.Tensor))
            if total > max_bytes or any(isinstance(t, torch.Tensor) and t.numel() > MAX_ELEMENTS for t in leaves(results)):
                raise Skip("more elements than the limit")
            sample = {"op": overload._schema.name + ("." + overload._schema.overload_name if overload._schema.overload_name else "")}
            if grad:
                g = gradients(store, overload, values, masked, gen)
                if g:
                    sample["grad"] = g
            sample["args"] = [encode_list(store, v, a) for v, a in zip(values, overload._schema.arguments, strict=True)]
            sample["out"] = [{"tl": [encode(store, x) for x in r]} if isinstance(r, list) else encode(store, r) for r in results]
            if entry.name in UNINITIALISED:
                sample["skip"] = list(range(len(leaves(results))))
            elif masked:
                sample["skip"] = masked
            tol = tolerance(entry, dtype)
            if tol:
                sample["tol"] = tol
        except Skip as e:
            why = why or e
            continue
        shapes.add(shape)
        kept.append(sample)
    if not kept and why:
        raise why
    return kept


def dtypes_of(entry):
    have = entry.supported_dtypes("cpu")
    plan = [(d, False, n) for d, n in KEEP.items() if d in have and d != torch.float64]
    if torch.float64 in have and entry.supports_autograd:
        plan.append((torch.float64, True, KEEP[torch.float64]))
    if torch.float32 not in have and plan:
        plan[0] = (plan[0][0], plan[0][1], 3)
    if not plan:
        plan = [(d, False, 3) for d in (torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.complex128) if d in have][:1]
    return plan


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", help="entries whose name contains this")
    args = parser.parse_args()
    if not torch.__version__.startswith("2.15.0"):
        sys.exit(f"opinfo: torch 2.15.0 is wanted, this is {torch.__version__}")
    if os.environ.get("PYTHONHASHSEED") != "0":  # some of OpInfo's samples come in the order of a set of strings
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    store, entries, skipped = Store(), [], {}
    for entry in op_db:
        name = entry.name + ("/" + entry.variant_test_name if entry.variant_test_name else "")
        if args.only and args.only not in name:
            continue
        samples, why = [], EXCLUDED.get(entry.name)
        if entry.name.startswith("masked."):
            why = "a Python function; only without a mask is it one operator"
        for dtype, grad, limit in [] if why else dtypes_of(entry):
            try:
                samples += record(store, entry, dtype, grad, limit)
            except Skip as e:
                why = why or str(e)
            except Exception as e:  # noqa: BLE001  OpInfo's own sample function failed here
                why = why or f"{type(e).__name__}: {str(e).splitlines()[0][:100] if str(e) else ''}"
        if not samples and why and "more elements" in why:
            dtype, grad, _ = dtypes_of(entry)[-1]  # float64 with its gradient where there is one
            try:
                samples = record(store, entry, dtype, grad, 1, MAX_BYTES_ALONE)
            except Skip as e:
                why = str(e)
        if samples:
            entries.append({"name": name, "kind": kind_of(entry), "samples": samples})
        else:
            skipped[name] = why or "no sample"
    args.out.mkdir(parents=True, exist_ok=True)
    store.save(args.out / "opinfo.safetensors")
    doc = {"torch": torch.__version__.split("+")[0], "entries": entries, "skipped": skipped}
    (args.out / "opinfo.json").write_text(json.dumps(doc, separators=(",", ":"), allow_nan=False) + "\n")
    kinds = Counter(e["kind"] for e in entries)
    n = sum(len(e["samples"]) for e in entries)
    g = sum("grad" in s for e in entries for s in e["samples"])
    print(f"{len(entries)} entries, {n} samples, {g} with gradients, {len(skipped)} entries skipped")
    for k, c in sorted(kinds.items()):
        print(f"  {k}: {c}")


if __name__ == "__main__":
    main()

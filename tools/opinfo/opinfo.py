"""Records what PyTorch's own OpInfo database says about dispatcher operators.

    pip install torch==2.15.0 numpy scipy safetensors expecttest hypothesis
    python tools/opinfo/opinfo.py OUT_DIR
    go run ./tools/pack OUT_DIR testdata/opinfo.tar.zst

Every entry of op_db is tried on its CPU sample inputs, up to three of each dtype. Its Python function
runs once under a TorchDispatchMode, which notes the calls that reach the dispatcher: mostly one, more
where the function is written in Python. That program is run again from the sample's inputs and is
kept if it gives the results and the gradients of the function itself; what is recorded are the
function's. Where the entry has a derivative, so are the gradients of sum(result * weight).

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
import itertools
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
from torch.utils._python_dispatch import TorchDispatchMode

MAX_NUMBERS = 600  # in all tensors of one sample, without its gradients ...
MAX_NUMBERS_ALONE = 25000  # ... of the only sample of an entry
POOL = 60  # samples of an entry that are looked at
SEED = 42  # that OpInfo's own wrappers set
SAMPLES = 3  # of an entry and dtype
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex64]
GRADIENTS = {torch.float32, torch.float64, torch.bfloat16, torch.complex64}

# Operators whose results are whatever was in memory: dtype and shape are recorded, values are not.
UNINITIALISED = {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"}

# Results that are unique up to a sign or a phase, by position.
AMBIGUOUS = {"svd": [0, 2], "linalg.svd": [0, 2], "linalg.eigh": [1], "linalg.eig": [1]}

# Entries without an operator of the dispatcher, and entries that the CPU can't run, with the reason.
NO_OPERATOR = {"broadcast_shapes": "no tensor in or out", "jiterator_*": "compiles a CUDA kernel from text"}
CUDA_ONLY = "torch.ops.aten._flash_attention_forward torch.ops.aten._efficient_attention_forward nn.functional.batch_norm/without_cudnn"

# Dtypes of an entry whose results differ between CPUs by more than the tolerance.
UNSTABLE = {
    "nn.functional.conv_transpose?d": [torch.bfloat16],  # oneDNN sums up in bfloat16 where there is no AVX512
}

# Dtypes of an entry whose gradients do: what cancels out leaves a rounding error, which oneDNN and the
# vector units make differently.
UNSTABLE_GRADIENTS = {"nn.functional.normalize": [torch.bfloat16], "nn.functional.conv3d": [torch.bfloat16]}

CASTS = "bfloat16 bool byte char double float half int long short cdouble cfloat chalf"

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
    "conversion": CASTS + " to item contiguous",
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
        if type(t) not in (torch.Tensor, torch.nn.Parameter) or t.is_quantized or t.device.type != "cpu":
            raise Skip("a tensor that is not plain")
        self.layout, self.grad = t.layout, t.requires_grad and t.layout == torch.strided
        v = t.detach() if t.layout == torch.strided else t.detach().to_dense()
        v = v.resolve_conj().resolve_neg()
        self.stride = None if v.is_contiguous() else tuple(v.stride())
        self.values = round_bits(v.contiguous())

    def tensor(self, grad):
        t = rebuild(self.values, self.stride)
        t.wanted = self.layout
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


# --- tracing ---------------------------------------------------------------------------------------

FORMATS = [torch.contiguous_format, torch.preserve_format, torch.channels_last]


# What libtorch's dispatcher lists.
OPERATORS = {line.split("(")[0] for line in (Path(__file__).parents[2] / "third_party/operators-2.15.0.txt").read_text().splitlines()}


def name_of(overload):
    schema = overload._schema
    return schema.name + ("." + schema.overload_name if schema.overload_name else "")


class Trace(TorchDispatchMode):
    """Notes the calls that reach the dispatcher. In inference mode those are what Python asked for:
    nothing is taken apart for autograd above."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out


def convert(value, arg):
    """value as the schema's argument arg takes it without conversion, or Skip."""
    typ, real = str(arg.type), str(arg.real_type)
    if typ.startswith("Optional["):
        if value is None:
            return None
        typ, real = typ[9:-1], real[9:-1]
    is_int = isinstance(value, int) and not isinstance(value, bool)
    kinds = {"ScalarType": torch.dtype, "Layout": torch.layout, "MemoryFormat": torch.memory_format, "Device": torch.device}
    if real in kinds:
        ok = isinstance(value, kinds[real])
    elif typ in ("List[Tensor]", "List[Optional[Tensor]]"):
        ok = isinstance(value, list | tuple) and all(isinstance(v, torch.Tensor) or (v is None and "Optional" in typ) for v in value)
    elif typ == "List[int]":
        ok = isinstance(value, list | tuple) and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
    elif typ in ("List[float]", "List[bool]"):
        ok = isinstance(value, list | tuple) and all(isinstance(v, float if "float" in typ else bool) for v in value)
    elif typ == "int":
        ok = is_int
    elif typ == "float" and is_int:
        value, ok = float(value), True
    else:
        ok = isinstance(value, {"Tensor": torch.Tensor, "float": float, "bool": bool, "number": int | float | bool | complex, "str": str}.get(typ, ()))
    if not ok:
        raise Skip(f"a value of type {type(value).__name__} as {arg.name}")
    return list(value) if isinstance(value, tuple) else value


def bind(schema, args, kwargs):
    """The values of all arguments of schema, in order, or Skip."""
    out, args, kwargs = [], list(args), dict(kwargs)
    for p in schema.arguments:
        if not p.kwarg_only and args:
            out.append(convert(args.pop(0), p))
        elif p.name in kwargs:
            out.append(convert(kwargs.pop(p.name), p))
        elif p.has_default_value():
            v = p.default_value
            out.append(FORMATS[v] if str(p.real_type) == "MemoryFormat" and v is not None else v)
        else:
            raise Skip("missing argument " + p.name)
    if args or kwargs:
        raise Skip("unknown arguments")
    return out


def fit(func, args, kwargs):
    """(overload, values). Python wraps a number as a tensor; here the overload on numbers is called,
    or it becomes a tensor without dimensions."""
    packet = func.overloadpacket
    for o in [func, *(getattr(packet, o) for o in packet.overloads())]:
        if o is not func and (o._schema.is_mutable != func._schema.is_mutable or len(o._schema.arguments) != len(func._schema.arguments)):
            continue
        try:
            return o, bind(o._schema, args, kwargs)
        except Skip:
            pass
    wide = {float: torch.float64, complex: torch.complex128, int: torch.int64, bool: torch.bool}
    args = [
        torch.scalar_tensor(a, dtype=wide[type(a)]) if str(p.type) == "Tensor" and type(a) in wide else a
        for a, p in zip(args, func._schema.arguments, strict=False)
    ]
    return func, bind(func._schema, args, kwargs)


class Ref:
    """A value of a program: one of its inputs, or a result of one of its calls."""

    def __init__(self, n):
        self.n = n

    def __repr__(self):
        return f"#{self.n}"


def refs(x):
    return {r.n for r in leaves(x) if isinstance(r, Ref)}


def swap(fn, x):
    """x with fn of each of its elements."""
    if isinstance(x, list | tuple):
        return [swap(fn, y) for y in x]
    return fn(x)


class Program:
    """The calls of a sample: values are numbered, first the inputs, then the results of call after call."""

    def __init__(self, entry, sample):
        seed()
        with torch.inference_mode():
            live = materialise(sample)
            ins = [t for t in leaves(live) if isinstance(t, torch.Tensor)]
            known = {id(t): i for i, t in enumerate(ins)}
            with Trace() as trace:
                result = apply(entry, live)
        self.n_inputs, self.calls, values = len(ins), [], list(ins)
        for func, args, kwargs, out in trace.calls:
            overload, bound = fit(func, args, kwargs)
            if name_of(overload) not in OPERATORS:
                raise Skip("an operator that Python registers")
            lifts = overload._schema.name.startswith("aten::lift")

            def known_tensor(t, lifts=lifts):
                if not isinstance(t, torch.Tensor):
                    return t
                if id(t) in known:
                    return Ref(known[id(t)])
                if not lifts and t.dim():
                    raise Skip("a tensor that no call made")
                return t.clone()

            found = leaves(out) if overload._schema.returns else []
            self.calls.append((overload, swap(known_tensor, bound), list(range(len(values), len(values) + len(found)))))
            known.update({id(t): len(values) + i for i, t in enumerate(found) if isinstance(t, torch.Tensor)})
            values += found
        self.out = []
        for x in leaves(result):
            if isinstance(x, torch.Tensor):
                if id(x) not in known:
                    raise Skip("a result that no call made")
                self.out.append(known[id(x)])
                continue
            at = [i for i in range(self.n_inputs, len(values)) if type(values[i]) is type(x) and (values[i] == x or x != x)]
            if not at:
                raise Skip("a result that no call made")
            self.out.append(at[-1])
        self.prune()
        if not self.calls:
            raise Skip("no call of the dispatcher")

    def prune(self):
        """Drops calls that the results don't need."""
        needed, kept = set(self.out), []
        for call in reversed(self.calls):
            overload, values, made = call
            if needed & set(made) or overload._schema.is_mutable or torch.Tag.nondeterministic_seeded in overload.tags:
                kept.append(call)
                needed |= refs(values)
        self.calls = kept[::-1]
        self.inputs = sorted(i for i in needed if i < self.n_inputs)

    def run(self, sample, grad=False, n=SEED):
        """(results, inputs)"""
        seed(n)
        ins = [t for t in leaves(materialise(sample, grad)) if isinstance(t, torch.Tensor)]
        values = dict(enumerate(ins))

        def fill(x):
            return values[x.n] if isinstance(x, Ref) else x.clone() if isinstance(x, torch.Tensor) else x

        for overload, args, made in self.calls:
            out = run(overload, swap(fill, args))
            values.update(zip(made, leaves(out) if made else [], strict=True))
        return [values[i] for i in self.out], [ins[i] for i in self.inputs]


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


def apply(entry, live):
    """The entry's function on a sample; what is sparse goes in and comes out dense."""

    def as_given(t):
        return t if t.wanted == torch.strided else t.to_sparse(layout=t.wanted)

    live = tree_map(as_given, live)
    out = entry.op(live[0], *live[1], **live[2])
    return tree_map(lambda t: t if t.layout == torch.strided else t.to_dense(), out)


# --- writing --------------------------------------------------------------------------------------


class Store:
    """The flat tensor of each dtype; equal arrays are stored once."""

    def __init__(self):
        self.parts, self.length, self.seen = {}, {}, {}

    def put(self, t, stride=None, grad=False):
        t = torch.zeros(t.shape, dtype=t.dtype) if torch._is_zerotensor(t) else t.detach().resolve_conj().resolve_neg().contiguous()
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
    if isinstance(v, Ref):
        return {"v": v.n}
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
        if any(isinstance(x, Ref | torch.Tensor) for x in v):
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


def seed(n=SEED):
    torch.manual_seed(n)
    random.seed(n)
    np.random.seed(n)


def weights(t, gen):
    """Random multiples of 1/8 in [-2, 2] without 0, shaped like t."""

    def draw():
        w = torch.randint(1, 17, t.shape, generator=gen).double() / 8
        return w * (torch.randint(0, 2, t.shape, generator=gen) * 2 - 1)

    return torch.complex(draw(), draw()).to(t.dtype) if t.is_complex() else draw().to(t.dtype)


def gradients(results, inputs, masked, gen):
    """(weight of each result or None, gradient of each input or None), or None where there is none"""
    asked = [t for t in inputs if t.requires_grad]
    outs, w = [], []
    for i, t in enumerate(results):
        ok = isinstance(t, torch.Tensor) and t.requires_grad and (t.is_floating_point() or t.is_complex()) and i not in masked
        w.append(weights(t, gen) if ok else None)
        if ok:
            outs.append(t)
    if not outs or not asked:
        return None
    grads = torch.autograd.grad(outs, asked, grad_outputs=[x for x in w if x is not None], allow_unused=True)
    return None if all(g is None for g in grads) else (w, list(grads))


def samples_of(entry, dtype, grad):
    """Samples of the entry, then the first ones again with other strides, for entries that have few."""
    seed(zlib.crc32(f"{entry.name}/{entry.variant_test_name}/{dtype}".encode()))
    pool, first = [], None
    given = list(itertools.islice(entry.sample_inputs("cpu", dtype, requires_grad=grad), POOL))
    plain = [s for s in given[:SAMPLES] if all(t.layout == torch.strided for t in leaves([s.input, s.args, s.kwargs]) if isinstance(t, torch.Tensor))]
    for s in itertools.chain(given, (s.noncontiguous() for s in plain)):
        try:
            pool.append(tree_map(Input, (s.input, list(s.args), dict(s.kwargs))))
        except Skip as e:
            first = first or e
    if not pool and first:
        raise first
    return pool


def numbers_in(tensors):
    return sum(t.numel() * (2 if t.is_complex() else 1) for t in tensors if isinstance(t, torch.Tensor))


def record_sample(store, entry, dtype, grad, sample, limit, seen):
    """The sample in JSON's form, or Skip. seen has the forms of those that are kept already."""
    masked = AMBIGUOUS.get(entry.name, [])
    check = entry.name not in UNINITIALISED
    inputs = numbers_in(x.values for x in leaves(sample) if isinstance(x, Input))
    if inputs > limit:
        raise Skip("more elements than the limit")
    live = materialise(sample, grad)
    seed()
    want = leaves(apply(entry, live))
    if inputs + numbers_in(want) > limit:
        raise Skip("more elements than the limit")
    program = Program(entry, sample)
    got, asked = program.run(sample, grad)
    if not same(want, got, check):
        raise Skip("the calls give something else")
    own = [t for t in leaves(live) if isinstance(t, torch.Tensor)]

    def draw():
        return torch.Generator().manual_seed(zlib.crc32(entry.name.encode()))

    expected = gradients(want, [own[i] for i in program.inputs], masked, draw()) if grad else None
    if expected and not same(expected[1], (gradients(got, asked, masked, draw()) or [[], []])[1]):
        raise Skip("the calls have another gradient")

    given = [x for x in leaves(sample) if isinstance(x, Input)]
    given = [given[i] for i in program.inputs]
    numbers = {i: n for n, i in enumerate(program.inputs)}
    for i in (i for call in program.calls for i in call[2]):
        numbers[i] = len(numbers)
    calls = [
        (name_of(o), o._schema.arguments, swap(lambda x: Ref(numbers[x.n]) if isinstance(x, Ref) else x, values))
        for o, values, _ in program.calls
    ]
    form = repr([(name, values) for name, _, values in calls] + [(x.values.shape, x.stride) for x in given])
    if form in seen:
        raise Skip("like another")
    seen.add(form)
    doc = {
        "in": [store.put(x.values, x.stride, x.grad and expected is not None) for x in given],
        "calls": [{"op": name, "args": [encode_list(store, v, a) for v, a in zip(values, arguments, strict=True)]} for name, arguments, values in calls],
        "r": [numbers[i] for i in program.out],
        "out": [encode(store, x if check else torch.zeros_like(x)) for x in want],
    }
    random_calls = any(torch.Tag.nondeterministic_seeded in o.tags for o, _, _ in program.calls)
    if check and (random_calls or not same(got, program.run(sample, grad, n=SEED + 1)[0])):
        doc["seed"] = SEED
    if expected:
        w, grads = expected
        doc["grad"] = {"w": [encode(store, x) for x in w], "g": [encode(store, x) for x in grads]}
    if not check or masked:
        doc["skip"] = masked if check else list(range(len(want)))
    if tol := tolerance(entry, dtype):
        doc["tol"] = tol
    return doc


def record(store, entry, dtype, grad, count, limit=MAX_NUMBERS):
    """Up to count samples: the first, then those whose calls differ most from what is there."""
    kept, seen, why = [], set(), None
    pool = samples_of(entry, dtype, grad)
    step = max(1, len(pool) // (2 * count))
    order = list(range(0, len(pool), step)) + [i for i in range(len(pool)) if i % step]
    for i in order:
        if len(kept) == count:
            break
        try:
            kept.append(record_sample(store, entry, dtype, grad, pool[i], limit, seen))
        except Skip as e:
            why = why or e
        except Exception as e:  # noqa: BLE001  OpInfo's function refuses the sample
            why = why or Skip(f"{type(e).__name__}: {str(e).splitlines()[0][:100] if str(e) else ''}")
    if not kept and why:
        raise why
    return kept


def dtypes_of(entry):
    have = entry.supported_dtypes("cpu")
    unstable = [d for pattern, ds in UNSTABLE.items() if fnmatch.fnmatchcase(entry.name, pattern) for d in ds]
    some = [d for d in DTYPES if d in have and d not in unstable]
    return some or [d for d in (torch.float16, torch.float8_e4m3fn, torch.complex128) if d in have][:1]


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
    store, entries, skipped, no_operator = Store(), [], {}, {}
    for entry in op_db:
        name = entry.name + ("/" + entry.variant_test_name if entry.variant_test_name else "")
        if args.only and args.only not in name:
            continue
        for pattern, why in NO_OPERATOR.items():
            if fnmatch.fnmatchcase(name, pattern):
                no_operator[name] = why
        if name in no_operator:
            continue
        samples, why = [], "there is a kernel for CUDA only" if name in CUDA_ONLY.split() else None
        for dtype in dtypes_of(entry):
            try:
                grad = dtype in GRADIENTS and dtype in entry.supported_backward_dtypes("cpu") and dtype not in UNSTABLE_GRADIENTS.get(name, [])
                samples += record(store, entry, dtype, grad, SAMPLES)
            except Skip as e:
                why = why or str(e)
            except Exception as e:  # noqa: BLE001  OpInfo's own sample function failed here
                why = why or f"{type(e).__name__}: {str(e).splitlines()[0][:100] if str(e) else ''}"
        if not samples and why and "more elements" in why:
            try:
                samples = record(store, entry, torch.float64, torch.float64 in entry.supported_backward_dtypes("cpu"), 1, MAX_NUMBERS_ALONE)
            except Skip as e:
                why = str(e)
        if samples:
            entries.append({"name": name, "kind": kind_of(entry), "samples": samples})
        else:
            skipped[name] = why or "no sample"
    args.out.mkdir(parents=True, exist_ok=True)
    store.save(args.out / "opinfo.safetensors")
    doc = {"torch": torch.__version__.split("+")[0], "entries": entries, "skipped": skipped, "no_operator": no_operator}
    (args.out / "opinfo.json").write_text(json.dumps(doc, separators=(",", ":"), allow_nan=False) + "\n")
    kinds = Counter(e["kind"] for e in entries)
    n = sum(len(e["samples"]) for e in entries)
    g = sum("grad" in s for e in entries for s in e["samples"])
    print(f"{len(entries)} entries, {n} samples, {g} with gradients, {len(skipped)} entries skipped, {len(no_operator)} without an operator")
    for k, c in sorted(kinds.items()):
        print(f"  {k}: {c}")


if __name__ == "__main__":
    main()

"""Records what PyTorch's own module database says about the layers of torch.nn.

    pip install torch==2.15.0 numpy expecttest hypothesis
    python tools/moduleinfo/moduleinfo.py OUT_DIR
    go run ./tools/pack OUT_DIR testdata/moduleinfo.tar.zst

Every entry of module_db is tried on its CPU inputs, in float32 and float64, in training mode and, where that makes a
difference, in evaluation mode; up to three samples of each, the first and those that differ most from it. EXTRA has
layers and options that module_db leaves out.

OUT_DIR/moduleinfo.json  entries and samples: constructor arguments by name, state dict, inputs, and what Python gave:
                         outputs, buffers afterwards, gradients of sum(output * weight) for inputs and parameters.
OUT_DIR/moduleinfo.bin   the values of all tensors, which are {"d": dtype, "s": shape, "o": offset in bytes}

Before each forward pass the seed is 1, so that random layers agree. Floating-point inputs and states are rounded to
16 significant bits, which makes the archive smaller; the results are computed from the rounded values.
"""

import inspect
import json
import os
import sys
import warnings
import zlib
from pathlib import Path
from types import SimpleNamespace as Namespace

import numpy as np
import torch
from torch import nn
from torch.testing._internal.common_modules import module_db

SAMPLES = 3
MAX_BYTES = 6000  # of all tensors of a sample, unless it is an entry's first

REMEMBERED = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)  # are arguments of other modules


class Skip(Exception):
    """Why a sample is not recorded."""


def remember(cls):
    init = cls.__init__

    def wrapped(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.recorded = (args, kwargs)

    wrapped.__signature__ = inspect.signature(init)
    cls.__init__ = wrapped


class Store:
    """The values of all tensors; equal ones are kept once."""

    def __init__(self):
        self.parts, self.length, self.seen = [], 0, {}

    def put(self, t, grad=False):
        t = t.detach().contiguous()
        raw = t.reshape(-1).view(torch.uint8).numpy().tobytes() if t.numel() else b""
        if raw not in self.seen:
            pad = -self.length % 8
            self.seen[raw] = self.length + pad
            self.parts += [b"\0" * pad, raw]
            self.length += pad + len(raw)
        ref = {"d": str(t.dtype).removeprefix("torch."), "s": list(t.shape), "o": self.seen[raw]}
        if grad:
            ref["g"] = True
        return ref


def rounded(t, bits=16):
    if t.dtype not in (torch.float32, torch.float64):
        return t.detach()
    m, e = np.frexp(t.detach().numpy().astype(np.float64))
    return torch.from_numpy(np.asarray(np.ldexp(np.round(np.ldexp(m, bits)), e - bits))).to(t.dtype)


def tree(fn, x):
    if isinstance(x, torch.Tensor):
        return fn(x)
    if isinstance(x, list | tuple):
        return type(x)(tree(fn, y) for y in x)
    if isinstance(x, dict):
        return {k: tree(fn, v) for k, v in x.items()}
    return x


def leaves(x):
    if isinstance(x, dict):
        x = list(x.values())
    if isinstance(x, list | tuple):
        return [z for y in x for z in leaves(y)]
    return [x]


def named(cls, args, kwargs):
    """Constructor arguments by name."""
    sig = inspect.signature(cls.__init__)
    bound = sig.bind(None, *args, **kwargs).arguments
    out = {}
    for name, value in list(bound.items())[1:]:
        if sig.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            out.update(value)
        elif sig.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
            if value:
                raise Skip("positional arguments without names")
        else:
            out[name] = value
    for name in ("device", "dtype"):
        out.pop(name, None)
    return out


def encode(store, v):
    if isinstance(v, torch.Tensor):
        return {"t": store.put(v, v.requires_grad)}
    if v is None or isinstance(v, bool | int | str):
        return v
    if isinstance(v, float):
        return {"f": v if v == v and abs(v) != float("inf") else str(v)}
    if isinstance(v, list | tuple):
        return [encode(store, x) for x in v]
    if isinstance(v, dict):
        return {k: encode(store, x) for k, x in v.items()}
    if isinstance(v, REMEMBERED):
        return {"module": type(v).__name__, "args": encode(store, named(type(v), *v.recorded))}
    if isinstance(v, nn.LayerNorm):
        return {"module": "LayerNorm", "args": {"normalized_shape": list(v.normalized_shape), "eps": {"f": v.eps}}}
    if callable(v):
        return {"fn": v.__name__}
    raise Skip(f"a value of type {type(v).__name__}")


def weights(t, gen):
    """Random multiples of 1/8 in [-2, 2] without 0, shaped like t."""
    w = torch.randint(1, 17, t.shape, generator=gen).double() / 8
    return (w * (torch.randint(0, 2, t.shape, generator=gen) * 2 - 1)).to(t.dtype)


def record(store, info, sample, dtype, training, max_bytes):
    ctor, forward = sample.constructor_input, sample.forward_input
    args = named(info.module_cls, ctor.args, ctor.kwargs)
    torch.manual_seed(zlib.crc32(repr((info.name, sorted(args))).encode()))
    m = info.module_cls(*ctor.args, **ctor.kwargs)
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in m.parameters()):
        m(forward.args[0].detach().float())  # makes the parameters
    m.to(dtype).train(training)
    with torch.no_grad():
        for t in list(m.parameters()) + list(m.buffers()):
            t.copy_(rounded(t))
    inputs = tree(lambda t: rounded(t).clone().requires_grad_(t.requires_grad), (forward.args, forward.kwargs))
    before = {n: t.detach().clone() for n, t in m.state_dict().items()}
    torch.manual_seed(1)
    out = leaves(m(*inputs[0], **inputs[1]))
    gen = torch.Generator().manual_seed(zlib.crc32(info.name.encode()))
    roots, grads_out, refs = [], [], []
    for t in out:
        ok = isinstance(t, torch.Tensor) and t.requires_grad and t.is_floating_point()
        refs.append(None)
        if ok:
            roots.append(t)
            grads_out.append(weights(t, gen))
            refs[-1] = grads_out[-1]
    wanted = [t for t in leaves(inputs) if isinstance(t, torch.Tensor) and t.requires_grad]
    params = dict(m.named_parameters())
    grads = torch.autograd.grad(roots, wanted + list(params.values()), grads_out, allow_unused=True) if roots else []
    tensors = [t for t in leaves([list(before.values()), inputs, out, refs, list(grads)]) if isinstance(t, torch.Tensor)]
    if sum(t.numel() * t.element_size() for t in tensors) > max_bytes:
        raise Skip("larger than the limit")
    return {
        "args": encode(store, args),
        "train": training,
        "dtype": str(dtype).removeprefix("torch."),
        "state": [[n, store.put(t)] for n, t in before.items()],
        "in": encode(store, list(inputs[0])),
        "kw": encode(store, inputs[1]),
        "out": [None if t is None else store.put(t) for t in out],
        "weights": [None if t is None else store.put(t) for t in refs],
        "after": [[n, store.put(t)] for n, t in m.state_dict().items() if n not in params],
        "grads": [None if g is None else store.put(g) for g in grads[: len(wanted)]],
        "pgrads": [[n, None if g is None else store.put(g)] for n, g in zip(params, grads[len(wanted) :], strict=False)],
    }


def shape_of(s):
    def kind(x):
        return tuple(x.shape) if isinstance(x, torch.Tensor) else x if isinstance(x, int | float | str | bool | None) else type(x).__name__

    c, f = s.constructor_input, s.forward_input
    return repr([kind(x) for x in leaves([c.args, sorted(c.kwargs.items(), key=lambda kv: kv[0]), f.args, f.kwargs])])


def samples(store, info, dtype, training):
    torch.manual_seed(zlib.crc32(info.name.encode()))
    np.random.seed(0)
    pool = info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=True, training=training)
    step = max(1, len(pool) // SAMPLES)
    order = list(range(0, len(pool), step)) + [i for i in range(len(pool)) if i % step]
    kept, shapes, why = [], set(), None
    for i in order:
        s = pool[i]
        if len(kept) == SAMPLES or s.forward_input is None or shape_of(s) in shapes:
            continue
        try:
            kept.append(record(store, info, s, dtype, training, MAX_BYTES if kept else 40 * MAX_BYTES))
            shapes.add(shape_of(s))
        except Skip as e:
            why = why or e
    if not kept:
        raise why or Skip("no samples")
    return kept


def r(*shape):
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


def ids(high, *shape):
    return torch.randint(high, shape)


def pooled(dims, *shape):
    pool = getattr(nn, f"MaxPool{dims}d")(2, 2, return_indices=True)
    return list(pool(r(*shape).detach()))


# Layers, and options of layers, that module_db leaves out: class, constructor arguments, what makes the inputs,
# whether evaluation mode differs.
EXTRA = [
    ("LazyLinear", {"out_features": 3}, lambda: [r(2, 4)], False),
    ("Identity", {}, lambda: [r(2, 3)], False),
    ("Flatten", {"start_dim": 1, "end_dim": 2}, lambda: [r(2, 3, 2, 2)], False),
    ("Unflatten", {"dim": 1, "unflattened_size": (2, 3)}, lambda: [r(2, 6)], False),
    ("Dropout", {"p": 0.3}, lambda: [r(5, 6)], True),
    ("Dropout1d", {"p": 0.3}, lambda: [r(2, 5, 4)], True),
    ("Dropout1d", {"p": 0.3}, lambda: [r(5, 4)], True),
    ("Dropout2d", {"p": 0.3}, lambda: [r(2, 5, 2, 2)], True),
    ("Dropout3d", {"p": 0.3}, lambda: [r(2, 5, 2, 1, 2)], True),
    ("Dropout3d", {"p": 0.3}, lambda: [r(5, 2, 1, 2)], True),
    ("AlphaDropout", {"p": 0.3}, lambda: [r(5, 6)], True),
    ("FeatureAlphaDropout", {"p": 0.3}, lambda: [r(5, 6, 2)], True),
    ("RReLU", {}, lambda: [r(5, 6)], True),
    ("RReLU", {"lower": 0.2, "upper": 0.9}, lambda: [r(5, 6)], True),
    ("Hardsigmoid", {}, lambda: [r(5, 6)], False),
    ("GELU", {"approximate": "tanh"}, lambda: [r(5, 6)], False),
    ("Hardtanh", {"min_val": -0.5, "max_val": 0.25}, lambda: [r(5, 6)], False),
    ("Conv1d", {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "stride": 2, "padding": 2, "dilation": 2, "groups": 2}, lambda: [r(2, 4, 9)], False),
    ("Conv1d", {"in_channels": 2, "out_channels": 3, "kernel_size": 4, "padding": "same", "padding_mode": "circular"}, lambda: [r(2, 2, 7)], False),
    ("Conv1d", {"in_channels": 2, "out_channels": 3, "kernel_size": 4, "padding": "valid", "bias": False}, lambda: [r(2, 7)], False),
    ("Conv2d", {"in_channels": 2, "out_channels": 3, "kernel_size": (3, 2), "stride": (2, 1), "padding": (2, 1), "padding_mode": "reflect"}, lambda: [r(2, 2, 5, 4)], False),
    ("Conv2d", {"in_channels": 2, "out_channels": 2, "kernel_size": 3, "padding": 1, "groups": 2, "padding_mode": "replicate"}, lambda: [r(2, 4, 3)], False),
    ("Conv3d", {"in_channels": 2, "out_channels": 2, "kernel_size": 2, "dilation": (1, 2, 1), "padding": "same"}, lambda: [r(1, 2, 3, 4, 2)], False),
    ("ConvTranspose1d", {"in_channels": 4, "out_channels": 2, "kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, "groups": 2}, lambda: [r(2, 4, 4)], False),
    ("ConvTranspose2d", {"in_channels": 2, "out_channels": 2, "kernel_size": (2, 3), "dilation": 2, "bias": False}, lambda: [r(1, 2, 3, 2)], False),
    ("ConvTranspose3d", {"in_channels": 2, "out_channels": 1, "kernel_size": 2, "stride": 2}, lambda: [r(1, 2, 2, 2, 1)], False),
    ("ConvTranspose2d", {"in_channels": 1, "out_channels": 1, "kernel_size": 3, "stride": 3}, lambda: [r(1, 1, 2, 2), (7, 8)], False),
    ("BatchNorm2d", {"num_features": 2, "momentum": None}, lambda: [r(2, 2, 2, 3)], True),
    ("InstanceNorm1d", {"num_features": 2, "affine": True, "track_running_stats": True, "momentum": 0.5}, lambda: [r(2, 3)], True),
    ("Embedding", {"num_embeddings": 6, "embedding_dim": 3, "padding_idx": -2, "max_norm": 1.0, "norm_type": 1.0, "scale_grad_by_freq": True}, lambda: [ids(6, 2, 4)], False),
    ("EmbeddingBag", {"num_embeddings": 6, "embedding_dim": 3}, lambda: [ids(6, 2, 4)], False),
    ("EmbeddingBag", {"num_embeddings": 6, "embedding_dim": 3, "mode": "max", "padding_idx": 1}, lambda: [ids(6, 7), torch.tensor([0, 2, 2, 5])], False),
    ("EmbeddingBag", {"num_embeddings": 6, "embedding_dim": 3, "mode": "sum", "include_last_offset": True, "max_norm": 1.0}, lambda: [ids(6, 7), torch.tensor([0, 3, 7]), torch.rand(7, dtype=torch.float64)], False),
    ("EmbeddingBag", {"num_embeddings": 6, "embedding_dim": 3, "mode": "sum"}, lambda: [ids(6, 2, 4), None, r(2, 4)], False),
    ("MaxPool1d", {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2, "ceil_mode": True}, lambda: [r(2, 1, 8)], False),
    ("MaxUnpool1d", {"kernel_size": 2}, lambda: pooled(1, 2, 1, 6), False),
    ("MaxUnpool2d", {"kernel_size": 2, "stride": 2}, lambda: pooled(2, 1, 2, 4, 6), False),
    ("MaxUnpool2d", {"kernel_size": 2, "stride": 2}, lambda: [*pooled(2, 1, 2, 5, 4), (5, 4)], False),
    ("MaxUnpool3d", {"kernel_size": 2}, lambda: pooled(3, 1, 1, 4, 2, 2), False),
    ("AvgPool1d", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False}, lambda: [r(2, 1, 8)], False),
    ("LPPool1d", {"norm_type": float("inf"), "kernel_size": 2}, lambda: [r(2, 1, 8)], False),
    ("LPPool2d", {"norm_type": -float("inf"), "kernel_size": 2, "stride": 1}, lambda: [r(1, 1, 3, 3)], False),
    ("AdaptiveMaxPool2d", {"output_size": (2, None), "return_indices": True}, lambda: [r(1, 1, 4, 3)], False),
    ("FractionalMaxPool2d", {"kernel_size": 2, "output_ratio": 0.5}, lambda: [r(1, 2, 6, 6)], False),
    ("PixelShuffle", {"upscale_factor": 2}, lambda: [r(1, 4, 2, 3)], False),
    ("PixelUnshuffle", {"downscale_factor": 2}, lambda: [r(1, 1, 4, 6)], False),
    ("ChannelShuffle", {"groups": 2}, lambda: [r(1, 4, 2, 2)], False),
    ("Unfold", {"kernel_size": (2, 3), "dilation": 1, "padding": 1, "stride": (1, 2)}, lambda: [r(1, 2, 4, 4)], False),
    ("Fold", {"output_size": (4, 5), "kernel_size": (2, 2), "stride": 1}, lambda: [r(1, 8, 12)], False),
    *[
        ("Upsample", {"mode": mode, **size}, lambda n=n: [r(1, 2, *[4, 3, 2][:n])], False)
        for mode, n in [("nearest", 1), ("nearest", 2), ("nearest", 3), ("linear", 1), ("bilinear", 2), ("trilinear", 3), ("bicubic", 2), ("area", 1), ("area", 2), ("nearest-exact", 2)]
        for size in [{"scale_factor": 1.7}, {"size": (5, 2, 4)[:n]}]
    ],
    ("Upsample", {"mode": "bilinear", "align_corners": True, "scale_factor": (2.0, 1.5)}, lambda: [r(1, 2, 3, 3)], False),
    ("Upsample", {"mode": "bicubic", "scale_factor": (1.7, 1.5), "recompute_scale_factor": True}, lambda: [r(1, 2, 3, 3)], False),
    ("UpsamplingNearest2d", {"scale_factor": 2.0}, lambda: [r(1, 2, 3, 3)], False),
    ("UpsamplingBilinear2d", {"size": (5, 4)}, lambda: [r(1, 2, 3, 3)], False),
    ("CosineSimilarity", {"dim": 0, "eps": 0.1}, lambda: [r(4, 3), r(4, 3)], False),
    ("PairwiseDistance", {"p": 1.5, "keepdim": True}, lambda: [r(4, 3), r(4, 3)], False),
    ("TripletMarginLoss", {"margin": 0.5, "p": 1.0, "swap": True, "reduction": "sum"}, lambda: [r(4, 3), r(4, 3), r(4, 3)], False),
    ("TripletMarginWithDistanceLoss", {"margin": 2.0, "swap": True}, lambda: [r(4, 3), r(4, 3), r(4, 3)], False),
    ("SmoothL1Loss", {"beta": 0.3}, lambda: [r(4, 3), r(4, 3)], False),
    ("SmoothL1Loss", {"beta": 0.0, "reduction": "none"}, lambda: [r(4, 3), r(4, 3)], False),
    ("HuberLoss", {"delta": 0.3, "reduction": "none"}, lambda: [r(4, 3), r(4, 3)], False),
    ("KLDivLoss", {"reduction": "batchmean", "log_target": True}, lambda: [r(4, 3), r(4, 3)], False),
    ("BCEWithLogitsLoss", {"pos_weight": torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)}, lambda: [r(4, 3), torch.rand(4, 3).double()], False),
    ("CrossEntropyLoss", {"weight": torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64), "label_smoothing": 0.1, "ignore_index": 1}, lambda: [r(4, 3, 2), ids(3, 4, 2)], False),
    ("CrossEntropyLoss", {"label_smoothing": 0.2, "reduction": "sum"}, lambda: [r(4, 3), torch.rand(4, 3).double()], False),
    ("GaussianNLLLoss", {"full": True, "eps": 0.5}, lambda: [r(4, 3), r(4, 3), torch.rand(4, dtype=torch.float64).requires_grad_()], False),
    ("MultiMarginLoss", {"p": 2, "margin": 0.5, "weight": torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)}, lambda: [r(4, 3), ids(3, 4)], False),
    ("MultiLabelSoftMarginLoss", {"weight": torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)}, lambda: [r(4, 3), ids(2, 4, 3).double()], False),
    ("CTCLoss", {"blank": 1, "reduction": "sum", "zero_infinity": True}, lambda: [r(6, 2, 4), torch.tensor([[2, 3], [0, 0]]), (6, 1), (2, 2)], False),
    ("MultiheadAttention", {"embed_dim": 4, "num_heads": 2, "kdim": 3, "vdim": 5}, lambda: [r(3, 2, 4), r(5, 2, 3), r(5, 2, 5)], False),
    ("TransformerDecoder", {"decoder_layer": lambda: nn.TransformerDecoderLayer(4, 2, 6, 0.0), "num_layers": 2, "norm": lambda: nn.LayerNorm(4)}, lambda: [r(3, 2, 4), r(5, 2, 4)], True),
    ("LSTM", {"input_size": 2, "hidden_size": 4, "num_layers": 3, "dropout": 0.3, "bidirectional": True, "proj_size": 3}, lambda: [r(3, 2, 2)], True),
    ("RNNCell", {"input_size": 2, "hidden_size": 3}, lambda: [r(2)], False),
]  # fmt: skip


def extras(store):
    entries = []
    for i, (name, ctor, inputs, differ) in enumerate(EXTRA):
        info = Namespace(name=f"nn.{name}", module_cls=getattr(nn, name))
        entry = {"name": info.name, "samples": []}
        for training in (True, False) if differ else (True,):
            torch.manual_seed(i)
            made = {k: v() if callable(v) else v for k, v in ctor.items()}
            sample = Namespace(constructor_input=Namespace(args=(), kwargs=made), forward_input=Namespace(args=tuple(inputs()), kwargs={}))
            entry["samples"].append(record(store, info, sample, torch.float64, training, 40 * MAX_BYTES))
        entries.append(entry)
    return entries


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    if not torch.__version__.startswith("2.15.0"):
        sys.exit(f"moduleinfo: torch 2.15.0 is wanted, this is {torch.__version__}")
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for cls in REMEMBERED:
        remember(cls)
    store, entries, skipped = Store(), [], {}
    for info in module_db:
        try:
            entry = []
            for dtype in (torch.float32, torch.float64):
                for training in (True, False) if info.train_and_eval_differ else (True,):
                    entry += samples(store, info, dtype, training)
            entries.append({"name": info.name, "samples": entry})
        except Skip as e:
            skipped[info.name] = str(e)
    extra = extras(store)
    (out / "moduleinfo.bin").write_bytes(b"".join(store.parts))
    ref = {"torch": torch.__version__, "entries": entries, "extra": extra, "skipped": skipped}
    (out / "moduleinfo.json").write_text(json.dumps(ref, sort_keys=True, separators=(",", ":")))
    print(f"{len(entries)} entries, {sum(len(e['samples']) for e in entries)} samples, {store.length} bytes; skipped: {skipped}")


if __name__ == "__main__":
    main()

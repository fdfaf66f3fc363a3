"""Records what PyTorch's autocast does on the CPU.

    pip install torch==2.15.0 numpy
    python tools/autocastref/autocastref.py OUT_DIR
    go run ./tools/pack OUT_DIR testdata/autocast.tar.zst

Each case runs under torch.autocast("cpu", dtype) for bfloat16 and float16; its results, with their dtypes,
and the gradients of sum(result * weight) are recorded. Inputs and weights are multiples of 1/4 in [-1, 1],
so that products and their sums are exact in every dtype and with every instruction set; what is not
exact (exp, sqrt, …) is computed in float32 or differs within PyTorch's tolerances.

OUT_DIR/autocast.json      {"cases": [{"name", "dtype", "in": [tensor], "out": [tensor],
                           "weights": [tensor or null], "grads": [tensor or null]}]}
A tensor is {"d": dtype, "s": shape, "v": values in row-major order}.
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

torch.set_num_threads(1)


def mlp(x, w1, b1, w2, b2, y):
    h = F.linear(x, w1, b1).relu()
    logits = F.linear(h, w2, b2)
    return [logits, F.cross_entropy(logits, y)]


def nested(x, w):
    """Inside, float32 again; then the outer dtype."""
    a = x.mm(w)
    with torch.autocast("cpu", enabled=False):
        b = x.mm(w)
    return [a, b, x.mm(w)]


def other(x, w):
    """Inside, the other dtype."""
    was = torch.get_autocast_dtype("cpu")
    swap = torch.float16 if was == torch.bfloat16 else torch.bfloat16
    a = x.mm(w)
    with torch.autocast("cpu", dtype=swap):
        b = x.mm(w)
    return [a, b]


# name: function, shapes of its float32 inputs; "i" before a shape makes class indices, "p" probabilities.
CASES = {
    # In the lower precision.
    "linear": (F.linear, [(3, 4), (5, 4), (5,)]),
    "matmul": (torch.matmul, [(2, 3, 4), (4, 5)]),
    "mm": (torch.mm, [(3, 4), (4, 5)]),
    "bmm": (torch.bmm, [(2, 3, 4), (2, 4, 5)]),
    "addmm": (torch.addmm, [(3, 5), (3, 4), (4, 5)]),
    "baddbmm": (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)]),
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b, padding=1), [(2, 3, 6), (4, 3, 3), (4,)]),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, stride=2), [(1, 2, 5, 5), (3, 2, 3, 3), (3,)]),
    "conv_transpose2d": (lambda x, w: F.conv_transpose2d(x, w), [(1, 2, 3, 3), (2, 3, 2, 2)]),
    "attention": (F.scaled_dot_product_attention, [(1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4)]),
    # In float32, or in the input's dtype.
    "softmax": (lambda x: x.softmax(-1), [(3, 4)]),
    "log_softmax": (lambda x: x.log_softmax(-1), [(3, 4)]),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (4,), w, b), [(3, 4), (4,), (4,)]),
    "exp": (torch.exp, [(3, 4)]),
    "sum": (lambda x: x.sum(-1), [(3, 4)]),
    "gelu": (F.gelu, [(3, 4)]),
    "mse_loss": (F.mse_loss, [(3, 4), (3, 4)]),
    "binary_cross_entropy": (F.binary_cross_entropy, ["p", (3, 4), "p", (3, 4)]),
    "cross_entropy": (F.cross_entropy, [(3, 4), "i", (3,)]),
    # After an operator in the lower precision.
    "softmax_of_mm": (lambda x, w: x.mm(w).softmax(-1), [(3, 4), (4, 5)]),
    "exp_of_mm": (lambda x, w: x.mm(w).exp(), [(3, 4), (4, 5)]),
    "mse_loss_of_mm": (lambda x, w, y: F.mse_loss(x.mm(w), y), [(3, 4), (4, 5), (3, 5)]),
    "add_to_mm": (lambda x, w, y: x.mm(w) + y, [(3, 4), (4, 5), (3, 5)]),
    "gelu_of_mm": (lambda x, w: F.gelu(x.mm(w)), [(3, 4), (4, 5)]),
    # The widest of several.
    "cat": (lambda x, w, y: torch.cat([x.mm(w), y]), [(3, 4), (4, 5), (2, 5)]),
    "stack": (lambda x, w, y: torch.stack([y, x.mm(w)]), [(3, 4), (4, 5), (3, 5)]),
    # Several, and modes in modes.
    "mlp": (mlp, [(6, 4), (8, 4), (8,), (3, 8), (3,), "i", (6,)]),
    "twice": (lambda x, w: [x.mm(w), x.mm(w).mm(w)], [(3, 4), (4, 4)]),
    "nested": (nested, [(3, 4), (4, 5)]),
    "other": (other, [(3, 4), (4, 5)]),
}


def tensor(t):
    if t is None:
        return None
    values = t.detach().double().flatten().tolist()
    return {"d": str(t.dtype).removeprefix("torch."), "s": list(t.shape), "v": values}


def quarters(shape, g):
    return torch.randint(-4, 5, shape, generator=g) / 4


def inputs(spec, g):
    kind = None
    for s in spec:
        if isinstance(s, str):
            kind = s
        elif kind == "i":
            yield torch.randint(0, 3, s, generator=g)
            kind = None
        elif kind == "p":
            yield torch.randint(1, 8, s, generator=g) / 8
            kind = None
        else:
            yield quarters(s, g)


def case(name, dtype, g):
    fn, spec = CASES[name]
    args = list(inputs(spec, g))
    leaves = [a.requires_grad_() for a in args if a.is_floating_point()]
    with torch.autocast("cpu", dtype=dtype):
        out = fn(*args)
    out = out if isinstance(out, list) else [out]
    weights = [quarters(o.shape, g) for o in out]
    loss = sum((o.float() * w).sum() for o, w in zip(out, weights))
    grads = dict(zip(leaves, torch.autograd.grad(loss, leaves, allow_unused=True)))
    return {
        "name": name,
        "dtype": str(dtype).removeprefix("torch."),
        "in": [tensor(a) for a in args],
        "out": [tensor(o) for o in out],
        "weights": [tensor(w) for w in weights],
        "grads": [tensor(grads.get(a)) for a in args],
    }


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    g = torch.Generator().manual_seed(7)
    cases = [case(name, dtype, g) for name in CASES for dtype in (torch.bfloat16, torch.float16)]
    text = json.dumps({"torch": torch.__version__, "cases": cases})
    (out / "autocast.json").write_text(text + "\n")
    print(f"{len(cases)} cases")


if __name__ == "__main__":
    main()

"""Records what Python says about wrong calls of operators: type and first line of the exception.

    python tools/errorsref/errorsref.py DIR && go run ./tools/pack DIR testdata/errors.tar.zst

torch 2.15.0. The calls go to the dispatcher as torchgo's do (torch.ops.aten.X.overload). A tensor argument is
{"tensor": shape, "dtype": name} (ones), a list of them {"tensors": [shape, ...]}; {"float": x} keeps 1.0 apart from 1.
"""

import json
import os
import sys

import torch


def t(*shape, dtype="float32"):
    return {"tensor": list(shape), "dtype": dtype}


def ts(*shapes):
    return {"tensors": [list(s) for s in shapes]}


def f(x):
    return {"float": x}


CALLS = [
    ("mm.default", [t(2, 3), t(4, 5)]),
    ("mm.default", [t(2), t(3, 4)]),
    ("mm.default", [t(2, 3), t(3, 4, dtype="int64")]),
    ("matmul.default", [t(2, 3), t(4, 5)]),
    ("matmul.default", [t(), t(2)]),
    ("bmm.default", [t(2, 2, 3), t(1, 3, 4)]),
    ("bmm.default", [t(2, 3), t(3, 4)]),
    ("addmm.default", [t(5), t(2, 3), t(3, 4)]),
    ("linear.default", [t(2, 3), t(3, 4), None]),
    ("dot.default", [t(3), t(4)]),
    ("mv.default", [t(2, 3), t(2)]),
    ("einsum.default", ["ij,jk->ik", ts((2, 3))]),
    ("einsum.default", ["i", ts((2, 3))]),
    ("add.Tensor", [t(2, 3), t(2)]),
    ("add.Tensor", [t(2, dtype="int64"), t(2, dtype="int64"), f(1.5)]),
    ("sub.Tensor", [t(2, dtype="bool"), t(2, dtype="bool")]),
    ("mul.Tensor", [t(2, 3), t(4)]),
    ("div.Tensor_mode", [t(2), t(2), "round"]),
    ("add_.Tensor", [t(2, dtype="int64"), t(2)]),
    ("add_.Tensor", [t(2), t(3, 2)]),
    ("lt.Tensor", [t(2, dtype="complex64"), t(2)]),
    ("clamp.default", [t(2)]),
    ("where.self", [t(2, dtype="bool"), t(3), t(2)]),
    ("pow.Tensor_Scalar", [t(2, dtype="int64"), -1]),
    ("cat.default", [ts((2, 2), (3, 3)), 0]),
    ("cat.default", [ts((2,)), 5]),
    ("cat.default", [ts()]),
    ("stack.default", [ts((2,), (3,))]),
    ("split.Tensor", [t(4), -1]),
    ("split.Tensor", [t(4), 2, 3]),
    ("chunk.default", [t(4), 0]),
    ("unbind.int", [t(2, 2), 2]),
    ("view.default", [t(2, 3), [5]]),
    ("view.default", [t(2, 3), [-1, -1]]),
    ("reshape.default", [t(2, 3), [4, -1]]),
    ("expand.default", [t(2, 3), [3, 3]]),
    ("permute.default", [t(2, 3), [0, 0]]),
    ("transpose.int", [t(2, 3), 0, 2]),
    ("select.int", [t(2, 3), 0, 2]),
    ("slice.Tensor", [t(4), 0, 1, 3, 0]),
    ("unsqueeze.default", [t(2), 3]),
    ("unfold.default", [t(4), 0, 5, 1]),
    ("as_strided.default", [t(4), [5], [1], 0]),
    ("repeat.default", [t(2, 2), [2]]),
    ("gather.default", [t(2, 2), 0, t(1, 2)]),
    ("gather.default", [t(1, 2), 0, t(1, 2, dtype="int64")]),
    ("index_select.default", [t(1, 2), 0, t(1, dtype="int64")]),
    ("index_select.default", [t(2, 2), 0, t(1)]),
    ("masked_fill.Scalar", [t(2), t(2), 0]),
    ("embedding.default", [t(1, 2), t(2, dtype="int64")]),
    ("embedding.default", [t(3), t(2, dtype="int64")]),
    ("one_hot.default", [t(2), 2]),
    ("sum.dim_IntList", [t(2, 3), [2]]),
    ("sum.dim_IntList", [t(2, 3), [0, 0]]),
    ("mean.default", [t(2, dtype="int64")]),
    ("cumsum.default", [t(3), 1]),
    ("argmax.default", [t(0)]),
    ("topk.default", [t(3), 4]),
    ("softmax.int", [t(2, 3), 2]),
    ("gelu.default", [t(3, dtype="int64")]),
    ("dropout.default", [t(3), f(1.5), True]),
    ("layer_norm.default", [t(2, 3), [2]]),
    ("group_norm.default", [t(2, 4), 3]),
    ("batch_norm.default", [t(2, 3), None, None, None, None, False, f(0.1), f(1e-5), False]),
    ("conv2d.default", [t(1, 3, 4, 4), t(3, 2, 3, 3)]),
    ("conv2d.default", [t(1, 2, 4, 4), t(3, 2, 3, 3), None, [0, 0]]),
    ("max_pool2d.default", [t(1, 4, 4), [2, 2], [], [3, 3]]),
    ("scaled_dot_product_attention.default", [t(1, 2, 3, 4), t(1, 2, 3, 5), t(1, 2, 3, 4)]),
    ("nll_loss.default", [t(2, 3), t(3, dtype="int64")]),
    ("cross_entropy_loss.default", [t(2, 1), t(2, dtype="int64")]),
    ("cross_entropy_loss.default", [t(2, 3), t(2, dtype="int64"), t(2)]),
    ("linalg_inv.default", [t(2, 2)]),
    ("linalg_inv.default", [t(2, 3)]),
    ("linalg_solve.default", [t(2, 2), t(2)]),
    ("linalg_cholesky.default", [t(2, 2)]),
    ("fft_fft.default", [t(4), 0]),
    ("normal_.default", [t(2), f(0.0), f(-1.0)]),
    ("multinomial.default", [t(3), 4]),
    ("empty.memory_format", [[-1]]),
    ("empty.memory_format", [[1 << 50]]),
    ("arange.default", [-1]),
    ("arange.default", [1 << 50]),
    ("full.default", [[1 << 40, 1 << 40], 1]),
]


def build(a):
    if not isinstance(a, dict):
        return a
    if "float" in a:
        return float(a["float"])
    if "tensors" in a:
        return [torch.ones(s) for s in a["tensors"]]
    return torch.ones(a["tensor"], dtype=getattr(torch, a["dtype"]))


def main():
    out = []
    for name, args in CALLS:
        op, overload = name.split(".")
        fn = getattr(getattr(torch.ops.aten, op), overload)
        schema = fn._schema
        named = list(zip(schema.arguments, map(build, args)))
        try:
            fn(*[v for a, v in named if not a.kwarg_only], **{a.name: v for a, v in named if a.kwarg_only})
        except Exception as e:  # noqa: BLE001
            rest = [None if a.default_value is None else a.default_value for a in schema.arguments[len(args) :]]
            assert all(r is None or isinstance(r, (bool, int, float, str, list)) for r in rest), (name, rest)
            full = args + [f(r) if isinstance(r, float) else r for r in rest]
            out.append(
                {
                    "op": "aten::" + op + ("" if overload == "default" else "." + overload),
                    "args": full,
                    "type": type(e).__name__,
                    "message": str(e).strip().split("\n")[0],
                }
            )
        else:
            sys.exit(f"{name} {args}: no error")
    os.makedirs(sys.argv[1], exist_ok=True)
    with open(os.path.join(sys.argv[1], "errors.json"), "w") as file:
        json.dump({"torch": torch.__version__, "calls": out}, file, indent=0)
    print(len(out), "errors")


main()

"""Records how Python prints tensors.

    pip install torch==2.15.0 numpy
    python tools/printref/printref.py OUT_DIR
    go run ./tools/pack OUT_DIR testdata/print.tar.zst

OUT_DIR/print.json is a list of cases: name, dtype, shape, data (base64 of the elements in row-major
order), stride unless contiguous, device, requires_grad, apply (the operators of one tensor applied to
it, for grad_fn and for lazily conjugated and negated views) and text, which is str(tensor).
"""

import base64
import json
import sys
import warnings
from pathlib import Path

import torch

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
FLOAT8 = [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu]
INTS = [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64]
COMPLEX = [torch.complex64, torch.complex128]
INF, NAN = float("inf"), float("nan")

cases = []


def case(name, t, apply=(), requires_grad=False, device="cpu"):
    """One case; t is what Go rebuilds, apply and the rest come on top."""
    c = {"name": name, "dtype": str(t.dtype).removeprefix("torch."), "shape": list(t.shape)}
    if device == "cpu":
        flat = t.detach().contiguous().reshape(-1)
        c["data"] = base64.b64encode(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"").decode()
        if not t.is_contiguous():
            c["stride"] = list(t.stride())
        live = t.detach().clone(memory_format=torch.preserve_format)
        live = live if live.stride() == t.stride() else t.detach()
    else:
        c["device"] = device
        live = t.to(device)
    if requires_grad:
        c["requires_grad"] = True
        live.requires_grad_()
    if apply:
        c["apply"] = [f"aten::{a}" for a in apply]
        for a in apply:
            live = getattr(torch.ops.aten, a)(live)
    c["text"] = str(live)
    cases.append(c)


def values():
    """Scalars and short vectors that each rule of the format decides."""
    for name, v in {
        "zero": 0.0, "negative zero": -0.0, "one": 1.0, "pi": 3.14159265, "negative": -2.5, "large integer": 1e8, "beyond 1e8": 1.00000001e8,
        "huge": 1.5e30, "tiny": 1e-5, "just not tiny": 1e-4, "inf": INF, "-inf": -INF, "nan": NAN, "rounds up": 0.99999, "half even": 0.12345,
    }.items():  # fmt: skip
        case(f"scalar {name}", torch.tensor(v))
        case(f"vector of {name}", torch.tensor([v, 1.0, -1.0]))
    for name, v in {
        "integers": [1.0, 2.0, 3.0], "integers and fraction": [1.0, 2.5, -3.0], "integers and nan": [1.0, NAN, INF, -INF], "fractions and nan": [1.5, NAN, -INF],
        "only nan": [NAN, NAN], "only zeros": [0.0, 0.0, -0.0], "zeros and inf": [0.0, INF], "ratio 1000": [0.001, 1.0], "ratio over 1000": [0.0009, 1.0],
        "ratio of integers": [1.0, 2000.0], "ratio with zero and nan": [0.0, NAN, 1e-3, 5e3], "large integers": [1e8, 2e8], "over 1e8": [1.0e8, 3.0e8],
        "small": [1e-4, 2e-4], "smaller": [9e-5, 2e-4], "widths": [1.0, 10.0, 100.0, -100.0], "exponents": [1e-30, 1e30, -1e10], "denormal": [1e-45, 1e-40],
        "negative fractions": [-0.5, 0.25], "carry": [9.99999, 99.99999],
    }.items():  # fmt: skip
        case(f"values {name}", torch.tensor(v, dtype=torch.float32))
    case("exponents of three digits", torch.tensor([1e-300, 1e300, -1e100], dtype=torch.float64))
    case("beyond int64", torch.tensor([2**64 - 1, 2**63, 5], dtype=torch.uint64))
    case("extreme ints", torch.tensor([-(2**63), 2**63 - 1, 0]))


def dtypes(gen):
    for d in FLOATS:
        case(f"{d} matrix", (torch.randn(3, 4, generator=gen) * 10).to(d))
        case(f"{d} scalar", torch.tensor(1.25).to(d))
        case(f"{d} special", torch.tensor([0.1, INF, -INF, NAN, -0.0, 65504.0]).to(d))
        case(f"{d} empty", torch.empty(0, dtype=d))
    for d in FLOAT8:
        case(f"{d} matrix", torch.tensor([[0.5, 1.0, 2.0], [4.0, 8.0, 16.0]]).to(d))
        case(f"{d} scalar", torch.tensor(2.0).to(d))
    for d in INTS:
        low = 0 if str(d).startswith("torch.u") else -100
        case(f"{d} matrix", torch.randint(low, 100, (2, 5), generator=gen).to(d))
        case(f"{d} scalar", torch.tensor(7).to(d))
        case(f"{d} empty", torch.empty(0, 3, dtype=d))
    case("bool vector", torch.tensor([True, False, True]))
    case("bool true", torch.tensor([True, True]))
    case("bool scalar", torch.tensor(False))
    case("bool long", torch.arange(40) % 3 == 0)
    case("bool empty", torch.empty(0, dtype=torch.bool))
    for d in COMPLEX:
        case(f"{d} matrix", torch.randn(2, 3, generator=gen, dtype=d))
        case(f"{d} scalar", torch.tensor(1.5 - 2.5j, dtype=d))
        case(f"{d} integers", torch.tensor([1 + 2j, -3 - 4j, 0j, complex(0.0, -0.0)], dtype=d))
        case(f"{d} scales", torch.tensor([1e-6 + 1e6j, 1e6 - 1j], dtype=d))
        case(f"{d} special", torch.tensor([complex(NAN, INF), complex(-INF, NAN), 1.5 + 0.5j], dtype=d))
        case(f"{d} long", torch.randn(30, generator=gen, dtype=d))
        case(f"{d} summarised", torch.randn(1001, generator=gen, dtype=d))
        case(f"{d} empty", torch.empty(2, 0, dtype=d))
    case("complex32", torch.randn(3, generator=gen, dtype=torch.complex64).to(torch.complex32))


def shapes(gen):
    for s in [(1,), (0,), (0, 0), (3, 0, 2), (1, 1), (1, 1, 1, 1), (2, 3), (2, 1, 3), (2, 2, 2, 2), (1, 2, 1, 2, 1), (3, 1), (1, 20), (2, 30), (7, 7), (10, 100), (1000,), (2, 5, 100)]:
        case(f"shape {s}", torch.randn(s, generator=gen))
        case(f"integers of shape {s}", torch.randint(-1000, 1000, s, generator=gen))
    for s in [(1001,), (2, 501), (501, 2), (7, 150), (6, 200), (11, 11, 11), (5, 5, 50), (2, 3, 4, 50), (7, 7, 7, 7), (1, 1, 1, 2000), (2000, 1)]:
        case(f"summarised {s}", torch.randn(s, generator=gen))
        case(f"summarised integers {s}", torch.arange(torch.Size(s).numel()).reshape(s) - 500)
    case("summarised, wide middle", torch.cat([torch.ones(500), torch.tensor([1e20]), torch.ones(600)]))
    case("summarised bfloat16", torch.randn(40, 40, generator=gen).bfloat16())
    case("summarised bool", torch.zeros(30, 40, dtype=torch.bool))
    case("summarised uint8", torch.zeros(1200, dtype=torch.uint8))
    for d in FLOAT8 + INTS:
        case(f"summarised {d}", (torch.arange(1100) % 100 + 1).to(d))
    case("summarised complex32", torch.randn(1100, generator=gen, dtype=torch.complex64).to(torch.complex32))
    for n in range(5, 24):  # where a line is full
        case(f"line of {n}", torch.arange(n, dtype=torch.float32) / 4)
    for w in range(1, 19):
        case(f"width {w}", torch.full((30,), 10 ** (w - 1)))


def random_scales(gen):
    for i in range(60):
        dims = int(torch.randint(0, 4, (), generator=gen))
        shape = [int(torch.randint(1, 9, (), generator=gen)) for _ in range(dims)]
        t = torch.randn(shape, generator=gen, dtype=torch.float64) * 10.0 ** int(torch.randint(-6, 9, (), generator=gen))
        if i % 3 == 0:
            t = t * 10.0 ** torch.randint(-3, 3, shape, generator=gen)
        if i % 4 == 0:
            t = t.round()
        case(f"random {i}", t.to(FLOATS[i % 4]))


def layouts(gen):
    m = torch.randn(4, 6, generator=gen)
    case("transposed", m.t())
    case("strided", m[::2, ::3])
    case("expanded", torch.tensor([[1.5], [2.5]]).expand(2, 3))
    case("channels last", torch.randn(2, 3, 2, 2, generator=gen).contiguous(memory_format=torch.channels_last))
    case("summarised transposed", torch.arange(1200).reshape(30, 40).t())
    c = torch.randn(2, 2, generator=gen, dtype=torch.complex64)
    case("conj", c, ["conj"])
    case("neg view", m, ["_neg_view"])
    case("imag of conj", c, ["conj", "imag"])
    long = torch.randn(1001, generator=gen, dtype=torch.complex64)
    case("summarised conj", long, ["conj"])
    case("summarised imag of conj", long, ["conj", "imag"])


def autograd(gen):
    m, v = torch.randn(2, 3, generator=gen), torch.randn(1001, generator=gen)
    case("leaf", m, requires_grad=True)
    case("leaf scalar", torch.tensor(1.0), requires_grad=True)
    case("leaf float64", m.double(), requires_grad=True)
    case("leaf empty", torch.empty(0, 2), requires_grad=True)
    case("leaf summarised", v, requires_grad=True)
    case("leaf complex", torch.randn(2, generator=gen, dtype=torch.complex64), requires_grad=True)
    for op in ["sum", "exp", "neg", "relu", "t", "sigmoid", "clone", "square"]:
        case(f"grad_fn of {op}", m, [op], requires_grad=True)
    case("grad_fn of two", m, ["exp", "sum"], requires_grad=True)
    case("grad_fn summarised", v, ["exp"], requires_grad=True)
    case("detached", m, ["exp", "detach"], requires_grad=True)
    for n in range(6, 13):  # where a suffix goes to a line of its own
        row = torch.randn(n, generator=gen, dtype=torch.float64)
        case(f"suffix after {n}", row)
        case(f"suffixes after {n}", row, ["exp"], requires_grad=True)
        case(f"suffixes after rows of {n}", row.repeat(2, 1).half(), requires_grad=True)


def meta():
    for s in [(), (0,), (3,), (2, 3), (1000, 1000)]:
        for d in [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64]:
            case(f"meta {d} {s}", torch.zeros(s, dtype=d) if torch.Size(s).numel() < 100 else torch.zeros((), dtype=d).expand(s), device="meta")
    case("meta leaf", torch.zeros(3), device="meta", requires_grad=True)
    case("meta with grad_fn", torch.zeros(100, 20, 30, 40, 50, dtype=torch.float16, device="meta"), ["exp"], device="meta", requires_grad=True)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if not torch.__version__.startswith("2.15.0"):
        sys.exit(f"printref: torch 2.15.0 is wanted, this is {torch.__version__}")
    warnings.filterwarnings("ignore")
    gen = torch.Generator().manual_seed(0)
    values()
    dtypes(gen)
    shapes(gen)
    random_scales(gen)
    layouts(gen)
    autograd(gen)
    meta()
    names = [c["name"] for c in cases]
    assert len(set(names)) == len(names), "a name is there twice"
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    text = ",\n".join(json.dumps(c, ensure_ascii=True) for c in cases)
    (out / "print.json").write_text("[\n" + text + "\n]\n")
    print(len(cases), "cases")


if __name__ == "__main__":
    main()

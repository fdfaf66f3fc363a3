#!/usr/bin/env python3
"""Records what PyTorch's optimizers do on the inputs of its own optimizer database.

    OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=avx2 python tools/optiminfo/optiminfo.py OUT

walks torch.testing._internal.common_optimizers.optim_db: each optimizer, each of its inputs, in float64,
float32 and (where it is supported) complex128, as for-loop, foreach and fused, and with sparse gradients
where they are supported. 50 steps on a few small parameters; recorded are the parameters after steps 1, 10
and 50, and the state after step 50. The error inputs are recorded with their messages.

OUT/optiminfo.json has the cases, OUT/F64.bin and F32.bin the numbers of all tensors, one after the other in
the order in which the JSON mentions them.
"""
import json
import sys
from pathlib import Path

import torch
from torch.testing._internal.common_optimizers import optim_db

STEPS, RECORDED = 50, (1, 10, 50)
SHAPES = {"": [(2, 3), (4,), ()], "Muon": [(2, 3), (4, 2)], "sparse": [(6, 2), (4, 1)]}
BINS = {torch.float64: "F64", torch.float32: "F32"}

out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
data = {"F64": bytearray(), "F32": bytearray()}


def put(t):
    """Adds a tensor's numbers; complex ones as pairs. Returns [bin, offset in elements, shape]."""
    t = t.detach()
    if t.is_complex():
        t = torch.view_as_real(t)
    name = BINS[t.dtype]
    offset = len(data[name]) // t.element_size()
    data[name] += t.contiguous().numpy().tobytes()
    return [name, offset, list(t.shape)]


def problem(shapes, dtype, seed=7):
    """Parameters, and the constants of the loss: targets and weights, real (complex parameters as pairs)."""
    g = torch.Generator().manual_seed(seed)
    real = torch.float64 if dtype == torch.complex128 else dtype
    shapes = [s + (2,) if dtype.is_complex else s for s in shapes]
    rand = lambda s: torch.rand(s, generator=g, dtype=torch.float64)
    params = [(rand(s) * 2 - 1).to(real) for s in shapes]
    targets = [(rand(s) * 2 - 1).to(real) for s in shapes]
    weights = [(rand(s) + 0.5).to(real) for s in shapes]
    params = [torch.view_as_complex(p.contiguous()) if dtype.is_complex else p for p in params]
    return [p.clone().requires_grad_() for p in params], targets, weights


def loss_of(params, targets, weights, sign):
    """sign · Σ w r² + r⁴/10, r = p − target: with maximize the sign is −1."""
    total = 0
    for p, a, w in zip(params, targets, weights):
        r = (torch.view_as_real(p) if p.is_complex() else p) - a
        square = r * r
        total = total + (w * square).sum() + (square * square).sum() * 0.1
    return total * sign


def sparse_grads(params, targets, weights, sign, step):
    """Rows step, step + 2 and step again, modulo the number of rows: values 2 w r, uncoalesced."""
    for p, a, w in zip(params, targets, weights):
        rows = torch.tensor([step, step + 2, step]) % p.shape[0]
        r = (p.detach() - a)[rows]
        p.grad = torch.sparse_coo_tensor(rows[None], 2 * sign * w[rows] * r, p.shape)


def number(v, dtype):
    """An option as JSON, and as Python takes it: tensors have the precision of the parameters."""
    if isinstance(v, torch.Tensor) and v.numel() == 1:
        v = v.to(torch.float32 if dtype == torch.float32 else torch.float64)
        return v.item(), v
    if isinstance(v, (tuple, list)):
        both = [number(x, dtype) for x in v]
        return [b[0] for b in both], tuple(b[1] for b in both)
    return str(v) if isinstance(v, torch.Tensor) else v, v


def value(v):
    if isinstance(v, torch.Tensor):
        return {"tensor": put(v)}
    if isinstance(v, (list, tuple)):
        return [value(x) for x in v]
    return v


def record(info, desc, kwargs, dtype, impl, sparse=False):
    name = info.optim_cls.__name__
    params, targets, weights = problem(SHAPES["sparse" if sparse else "Muon" if name == "Muon" else ""], dtype)
    plain, given = {}, {}
    for key, v in kwargs.items():
        plain[key], given[key] = number(v, dtype)
    sign = -1 if kwargs.get("maximize") else 1
    flags = {"foreach": False, "fused": False} if impl == "forloop" else {impl: True}
    known = info.optim_cls.__init__.__code__.co_varnames
    flags = {k: v for k, v in flags.items() if k in known}
    opt = info.optim_cls(params, **given, **flags)
    case = dict(optimizer=name, desc=desc, kwargs=plain, impl=impl, dtype=str(dtype)[6:], sparse=sparse, sign=sign,
                start=[put(p) for p in params], targets=[put(t) for t in targets], weights=[put(w) for w in weights], steps=[])

    def closure():
        opt.zero_grad()
        loss = loss_of(params, targets, weights, sign)
        loss.backward()
        return loss

    for step in range(1, STEPS + 1):
        if sparse:
            sparse_grads(params, targets, weights, sign, step)
            opt.step()
        else:
            opt.step(closure)
        if step in RECORDED:
            case["steps"].append([put(p) for p in params])
    case["state"] = [{k: value(v) for k, v in opt.state[p].items()} for p in params]
    case["groups"] = [{k: number(v, dtype)[0] for k, v in g.items() if k != "params"} for g in opt.param_groups]
    return case


cases, skipped, errors = [], [], []
for info in optim_db:
    name = info.optim_cls.__name__
    for dtype in (torch.float64, torch.float32, torch.complex128):
        if dtype.is_complex and (not info.supports_complex or name == "Muon"):
            continue
        inputs = info.optim_inputs_func(device=torch.device("cpu"), dtype=dtype)
        for x in inputs:
            impls = ["forloop"]
            if "foreach" in info.supported_impls:
                impls.append("foreach")
            if "fused" in info.supported_impls and "cpu" in info.supports_fused_on and not dtype.is_complex:
                impls.append("fused")
            if info.only_supports_sparse_grads:
                impls = ["sparse"]
            elif info.supports_sparse and not dtype.is_complex and "weight_decay" not in x.kwargs:
                impls.append("sparse")
            for impl in impls:
                sparse = impl == "sparse"
                try:
                    cases.append(record(info, x.desc, dict(x.kwargs), dtype, "forloop" if sparse else impl, sparse))
                except (RuntimeError, ValueError) as e:
                    skipped.append([name, x.desc, str(dtype)[6:], impl, str(e).splitlines()[0]])
    for x in info.optim_error_inputs_func(torch.device("cpu"), torch.float32) if info.optim_error_inputs_func else []:
        params = x.optimizer_error_input.params
        kwargs = x.optimizer_error_input.kwargs
        row = dict(optimizer=name, desc=x.optimizer_error_input.desc, kwargs={k: number(v, torch.float32)[0] for k, v in kwargs.items()})
        try:
            info.optim_cls([torch.zeros(2, 2, requires_grad=True)] if params is None else params, **kwargs)
        except Exception as e:  # noqa: BLE001: that is what is recorded
            row["message"] = str(e)
        if params is not None or not all(isinstance(v, (int, float, str, bool, list)) for v in row["kwargs"].values()):
            row["params"] = True
        errors.append(row)

text = json.dumps(dict(torch=torch.__version__.split("+")[0], cases=cases, skipped=skipped, errors=errors), separators=(",", ":"))
(out / "optiminfo.json").write_text(text)
for name, content in data.items():
    (out / f"{name}.bin").write_bytes(content)
print(len(cases), "cases;", len(skipped), "that PyTorch refuses;", len(errors), "error inputs;",
      len(text), "bytes of JSON", {n: len(c) for n, c in data.items()})

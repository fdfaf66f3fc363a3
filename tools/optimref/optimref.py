#!/usr/bin/env python3
"""Reference data of torch/optim: state files, schedules, gradient scaling, clipping, averaging.

    OMP_NUM_THREADS=1 python tools/optimref/optimref.py OUT
    go run ./tools/pack OUT testdata/optim.tar.zst

OUT/<Optimizer>.safetensors is the state of an optimizer after 3 steps, as save of docs/optim.md writes it;
states.json has the parameters then and after two more steps. Everything else is in reference.json.

    python tools/optimref/optimref.py --check FOLDER

reads the files that the Go test TestStateFiles has written (with OPTIM_STATE_OUT=FOLDER) into Python's
optimizers, and compares with its own state.
"""
import json
import math
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.optim import lr_scheduler as S


def save(state_dict, path):
    """Writes an optimizer's state dict (docs/optim.md)."""
    tensors = {}

    def split(v, name):
        if isinstance(v, torch.Tensor):
            tensors[name] = v.detach().contiguous().clone()
            return None
        if isinstance(v, (list, tuple)):
            return [split(x, f"{name}.{i}") for i, x in enumerate(v)]
        return v

    rest = {
        "state": {i: {k: split(v, f"state.{i}.{k}") for k, v in s.items()} for i, s in state_dict["state"].items()},
        "param_groups": state_dict["param_groups"],
    }
    save_file(tensors, path, metadata={"format": "pt", "optimizer": json.dumps(rest)})


def load(path):
    """Reads what save, or Go, has written (docs/optim.md)."""
    with safe_open(path, "pt") as f:
        state_dict = json.loads(f.metadata()["optimizer"])
        state = state_dict["state"] = {int(i): s for i, s in state_dict["state"].items()}
        for name in f.keys():
            _, i, key, *index = name.split(".")
            if index:
                state[int(i)][key][int(index[0])] = f.get_tensor(name)
            else:
                state[int(i)][key] = f.get_tensor(name)
    return state_dict


# Optimizers whose state files are compared, with options that need every kind of entry.
OPTIMIZERS = {
    "SGD": dict(lr=0.1, momentum=0.9, nesterov=True),
    "Adam": dict(lr=0.01, amsgrad=True, weight_decay=0.1),
    "AdamW": dict(lr=0.01),
    "Adagrad": dict(lr=0.1, lr_decay=0.01),
    "RMSprop": dict(lr=0.01, momentum=0.9, centered=True),
    "NAdam": dict(lr=0.01),
    "RAdam": dict(lr=0.01),
    "Adafactor": dict(lr=0.01),
    "LBFGS": dict(lr=0.5, max_iter=4, history_size=5),
    "Muon": dict(lr=0.01),
    "Adadelta": dict(),
    "Adamax": dict(lr=0.01),
    "ASGD": dict(lr=0.01),
    "Rprop": dict(lr=0.01),
}


def make(name):
    """Two groups of float64 parameters (LBFGS has one), matrices for Muon, with a rate of its own each."""
    count, value = [0], lambda i: math.fmod(0.37 * i * i + 0.11 * i, 2) - 1

    def param(*shape):
        n = math.prod(shape)
        count[0] += n
        return torch.tensor([value(count[0] + i) for i in range(n)], dtype=torch.float64).reshape(shape).requires_grad_()

    params = [param(3, 2), param(2, 2) if name == "Muon" else param(4)]
    cls, options = getattr(torch.optim, name), OPTIMIZERS[name]
    if name == "LBFGS":
        return cls(params, **options), params
    opt = cls([{"params": params[:1]}, {"params": params[1:], "lr": 0.02}], **options)
    return opt, params


def run(opt, params, steps):
    def closure():
        opt.zero_grad()
        loss = sum(((p - 0.25) ** 2).sum() + (p**4).sum() * 0.1 for p in params)
        loss.backward()
        return loss

    for _ in range(steps):
        opt.step(closure)


def listed(params):
    return [p.detach().flatten().tolist() for p in params]


def same(a, b, where):
    """Asserts that two state dicts agree; tuples are lists in a file, tensors of one number may be numbers."""
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        a, b = torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b, dtype=torch.float64)
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14, msg=lambda m: f"{where}: {m}")
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), f"{where}: {sorted(a)} is not {sorted(b)}"
        for k in a:
            same(a[k], b[k], f"{where}.{k}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), f"{where}: {len(a)} items, not {len(b)}"
        for i, (x, y) in enumerate(zip(a, b)):
            same(x, y, f"{where}.{i}")
    elif isinstance(a, float) or isinstance(b, float):
        assert math.isclose(a, b, rel_tol=1e-12), f"{where}: {a} is not {b}"
    else:
        assert a == b, f"{where}: {a} is not {b}"


def resumed(name, state_dict, values):
    """The optimizer with a loaded state, and its parameters, which have these values."""
    opt, params = make(name)
    with torch.no_grad():
        for p, v in zip(params, values):
            p.copy_(v)
    opt.load_state_dict(state_dict)
    return opt, params


def check(folder):
    for name in OPTIMIZERS:
        opt, params = make(name)
        run(opt, params, 3)
        other, _ = make(name)
        other.load_state_dict(load(folder / f"{name}.safetensors"))
        same(other.state_dict(), opt.state_dict(), name)
        # And goes on like Python's own state does once it is loaded.
        mine, theirs = resumed(name, load(folder / f"{name}.safetensors"), params), resumed(name, opt.state_dict(), params)
        for o, ps in (mine, theirs):
            run(o, ps, 2)
        same(listed(mine[1]), listed(theirs[1]), name + " continued")
        print(name, "ok")


def group_values(opt):
    keys = ("lr", "momentum", "betas")
    return [[g[k] if not isinstance(g[k], tuple) else g[k][0] for k in keys if k in g] for g in opt.param_groups]


def schedules():
    def two(cls=torch.optim.SGD, **kw):
        a, b = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
        return cls([{"params": [a]}, {"params": [b], "lr": 0.5}], **{"lr": 0.1, **kw})

    sgd = lambda: two(momentum=0.9)
    adam = lambda: two(torch.optim.Adam)
    metric = [1, 0.9, 0.9, 0.91, 0.92, 0.8, 0.8, 0.8, 0.8, 0.81, 0.82, 0.83, 0.84, 0.85, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7]
    cases = {
        "LambdaLR": (sgd, lambda o: S.LambdaLR(o, lambda e: 0.95**e), 20),
        "LambdaLR two": (sgd, lambda o: S.LambdaLR(o, [lambda e: 1 / (e + 1), lambda e: e / 7]), 20),
        "MultiplicativeLR": (sgd, lambda o: S.MultiplicativeLR(o, lambda e: 0.9 + 0.01 * (e % 3)), 20),
        "StepLR": (sgd, lambda o: S.StepLR(o, 3, gamma=0.3), 20),
        "MultiStepLR": (sgd, lambda o: S.MultiStepLR(o, [2, 5, 5, 9], gamma=0.2), 20),
        "ConstantLR": (sgd, lambda o: S.ConstantLR(o, factor=0.3, total_iters=4), 20),
        "LinearLR": (sgd, lambda o: S.LinearLR(o, start_factor=0.2, end_factor=0.8, total_iters=7), 20),
        "LinearLR default": (sgd, lambda o: S.LinearLR(o), 20),
        "ExponentialLR": (sgd, lambda o: S.ExponentialLR(o, 0.83), 20),
        "PolynomialLR": (sgd, lambda o: S.PolynomialLR(o, total_iters=12, power=2.0), 20),
        "PolynomialLR 0.7": (sgd, lambda o: S.PolynomialLR(o, total_iters=9, power=0.7), 20),
        "CosineAnnealingLR": (sgd, lambda o: S.CosineAnnealingLR(o, 8, eta_min=0.01), 40),
        "CosineAnnealingLR odd": (adam, lambda o: S.CosineAnnealingLR(o, 7), 40),
        "CosineAnnealingWarmRestarts": (sgd, lambda o: S.CosineAnnealingWarmRestarts(o, 4, eta_min=0.003), 40),
        "CosineAnnealingWarmRestarts mult": (sgd, lambda o: S.CosineAnnealingWarmRestarts(o, 3, T_mult=2, eta_min=0.003), 40),
        "OneCycleLR": (sgd, lambda o: S.OneCycleLR(o, 0.7, total_steps=30), 30),
        "OneCycleLR linear": (sgd, lambda o: S.OneCycleLR(o, [0.7, 0.2], total_steps=31, anneal_strategy="linear", pct_start=0.4), 31),
        "OneCycleLR three": (adam, lambda o: S.OneCycleLR(o, 0.7, total_steps=40, three_phase=True, div_factor=10.0), 40),
        "OneCycleLR still": (sgd, lambda o: S.OneCycleLR(o, 0.7, total_steps=20, cycle_momentum=False), 20),
        "CyclicLR": (sgd, lambda o: S.CyclicLR(o, 0.01, 0.4, step_size_up=5), 40),
        "CyclicLR triangular2": (adam, lambda o: S.CyclicLR(o, 0.01, [0.4, 0.2], step_size_up=4, step_size_down=7, mode="triangular2"), 50),
        "CyclicLR exp_range": (sgd, lambda o: S.CyclicLR(o, 0.01, 0.4, step_size_up=5, mode="exp_range", gamma=0.97, cycle_momentum=False), 40),
        "ReduceLROnPlateau": (sgd, lambda o: S.ReduceLROnPlateau(o, factor=0.4, patience=2, cooldown=1, min_lr=[0.001, 0.02]), 24),
        "ReduceLROnPlateau max": (sgd, lambda o: S.ReduceLROnPlateau(o, mode="max", threshold_mode="abs", threshold=0.05, patience=3), 24),
        "ChainedScheduler": (sgd, lambda o: S.ChainedScheduler([S.ConstantLR(o, factor=0.5, total_iters=6), S.ExponentialLR(o, 0.9)]), 20),
        "ChainedScheduler cosine": (sgd, lambda o: S.ChainedScheduler([S.CosineAnnealingLR(o, 9), S.StepLR(o, 4, gamma=0.5)]), 30),
        "SequentialLR": (sgd, lambda o: S.SequentialLR(o, [S.ConstantLR(o, factor=0.1, total_iters=5), S.ExponentialLR(o, 0.9), S.StepLR(o, 2, gamma=0.5)], [5, 11]), 20),
        "SequentialLR warmup": (sgd, lambda o: S.SequentialLR(o, [S.LinearLR(o, start_factor=0.1, total_iters=4), S.CosineAnnealingLR(o, 15)], [4]), 25),
        "SequentialLR restarts": (sgd, lambda o: S.SequentialLR(o, [S.LinearLR(o, total_iters=3), S.CosineAnnealingWarmRestarts(o, 5)], [3]), 25),
    }
    out = {}
    for name, (opt, new, n) in cases.items():
        o = opt()
        s = new(o)
        values, states = [group_values(o)], []
        for i in range(n - (1 if "OneCycle" in name else 0)):
            o.step()
            s.step(metric[i]) if isinstance(s, S.ReduceLROnPlateau) else s.step()
            values.append(group_values(o))
            if i == 6:
                state = s.state_dict()
                states.append(json.loads(json.dumps(state, default=lambda _: None)))
        out[name] = dict(values=values, state=states[0], metric=metric)
    # step(epoch): the closed forms.
    closed = {}
    for name in ("StepLR", "MultiStepLR", "ConstantLR", "LinearLR", "ExponentialLR", "PolynomialLR", "CosineAnnealingLR", "LambdaLR"):
        o = sgd()
        s = cases[name][1](o)
        rows = []
        for epoch in (4, 0, 11, 7):
            s.step(epoch)
            rows.append([epoch, group_values(o)])
        closed[name] = rows
    o = sgd()
    s = cases["CosineAnnealingWarmRestarts mult"][1](o)
    rows = []
    for epoch in (0.25, 2.5, 3, 8.75, 10, 22.5, 1):
        s.step(epoch)
        rows.append([epoch, group_values(o)])
    closed["CosineAnnealingWarmRestarts mult"] = rows
    from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

    for name, fn in {"linear with warmup": get_linear_schedule_with_warmup, "cosine with warmup": get_cosine_schedule_with_warmup}.items():
        o = sgd()
        s = fn(o, 4, 17)
        values = [group_values(o)]
        for _ in range(20):
            o.step()
            s.step()
            values.append(group_values(o))
        out[name] = dict(values=values, state=None)
    return dict(schedules=out, closed=closed)


def scaler():
    """Losses whose gradient is g; inf and nan among them."""
    p = torch.tensor([1.0, 2.0], requires_grad=True)
    opt = torch.optim.SGD([p], lr=0.1)
    s = torch.amp.GradScaler("cpu", init_scale=8.0, growth_factor=4.0, backoff_factor=0.25, growth_interval=3)
    rows = []
    for i, g in enumerate([1.0, 0.5, 2.0, math.inf, 1.0, math.nan, 1.0, 1.0, 1.0, 1.0]):
        opt.zero_grad()
        s.scale((p * torch.tensor([g, 1.0])).sum()).backward()
        if i % 2:
            s.unscale_(opt)
        s.step(opt)
        s.update()
        rows.append(dict(g=str(g), p=p.tolist(), state=s.state_dict()))
    return rows


def clip():
    rows = []
    for norm in (2.0, 1.0, 3.5, math.inf, 0.0):
        for limit in (0.5, 100.0):
            ps = [torch.zeros(3, 2, dtype=torch.float64), torch.zeros(4), torch.zeros(())]
            for i, p in enumerate(ps):
                p.grad = torch.tensor([math.fmod(0.7 * k * k + i, 3) - 1 for k in range(p.numel())], dtype=p.dtype).reshape(p.shape)
            before = [p.grad.flatten().tolist() for p in ps]
            total = torch.nn.utils.clip_grad_norm_(ps, limit, norm_type=norm)
            rows.append(dict(norm=str(norm), limit=limit, before=before, total=total.item(), after=[p.grad.flatten().tolist() for p in ps]))
    return rows


def averaged():
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

    def new():
        m = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).double()
        with torch.no_grad():
            for k, t in enumerate([*m.parameters(), m[1].running_mean, m[1].running_var]):
                t.copy_(torch.linspace(0.1 * k, 1, t.numel(), dtype=torch.float64).reshape(t.shape))
        return m

    batches = [torch.linspace(-1, 1 + i, 8, dtype=torch.float64).reshape(4, 2) ** 2 for i in range(3)]
    out = {}
    for name, kw in {"swa": {}, "ema": dict(multi_avg_fn=get_ema_multi_avg_fn(0.9)), "buffers": dict(multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)}.items():
        m = new()
        a = AveragedModel(m, **kw)
        rows = []
        for i in range(4):
            with torch.no_grad():
                for k, t in enumerate([*m.parameters(), m[1].running_mean, m[1].running_var]):
                    t.mul_(0.9).add_(0.1 * (i + k))
            a.update_parameters(m)
            rows.append({k: v.flatten().tolist() for k, v in a.state_dict().items()})
        if name == "swa":
            update_bn(batches, a)
            rows.append({k: v.flatten().tolist() for k, v in a.state_dict().items()})
        out[name] = rows
    return out


if __name__ == "__main__":
    if sys.argv[1] == "--check":
        check(Path(sys.argv[2]))
        sys.exit()
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    states = {}
    for name in OPTIMIZERS:
        opt, params = make(name)
        start = listed(params)
        run(opt, params, 3)
        save(opt.state_dict(), out / f"{name}.safetensors")
        middle = listed(params)
        run(opt, params, 2)
        states[name] = dict(options=OPTIMIZERS[name], start=start, middle=middle, end=listed(params), shapes=[list(p.shape) for p in params])
    (out / "states.json").write_text(json.dumps(states))
    (out / "reference.json").write_text(json.dumps(dict(**schedules(), scaler=scaler(), clip=clip(), averaged=averaged())))

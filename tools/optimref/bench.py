"""Times a step of PyTorch's optimizers on the 52 small parameters of BenchmarkStep: OMP_NUM_THREADS=1 bench.py"""
import time

import torch


def small_model():
    params = []
    for i in range(52):
        p = torch.zeros(*((32,) if i % 2 else (32, 32))).requires_grad_()
        p.grad = torch.ones_like(p)
        params.append(p)
    return params


for name, make in {
    "AdamW": lambda ps, **kw: torch.optim.AdamW(ps, **kw),
    "SGD": lambda ps, **kw: torch.optim.SGD(ps, momentum=0.9, **kw),
}.items():
    for how, kw in {"default": {}, "foreach": {"foreach": True}, "fused": {"fused": True}}.items():
        opt = make(small_model(), **kw)
        for _ in range(100):
            opt.step()
        best = float("inf")
        for _ in range(10):
            start = time.perf_counter()
            for _ in range(100):
                opt.step()
            best = min(best, (time.perf_counter() - start) / 100)
        print(f"{name}/{how}: {best * 1e6:.0f} µs")
opt = make(small_model())
start = time.perf_counter()
for _ in range(1000):
    opt.zero_grad()
print(f"zero_grad: {(time.perf_counter() - start) * 1e3:.1f} µs")

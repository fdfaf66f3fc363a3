"""The Python side of the operator benchmarks: ops.go, in Python.

Requirements: torch 2.15.0
"""

import torch

import worker


def ramp(*shape):
    n = 1
    for s in shape:
        n *= s
    return torch.tensor([(i * 7) % 13 / 13 - 0.4 for i in range(n)], dtype=torch.float32).reshape(shape)


def operators():
    x, y = ramp(2, 2), ramp(2, 2)
    a, b = ramp(64, 64), ramp(64, 64)
    h, gamma, beta = ramp(16, 64), ramp(64), ramp(64)
    row = torch.tensor([3, 1, 2])
    return {
        "add": lambda: x + y,
        "mm": lambda: torch.mm(a, b),
        "layer_norm": lambda: torch.layer_norm(h, (64,), gamma, beta),
        "cat": lambda: torch.cat((x, y)),
        "view": lambda: h.view(64, 16),
        "select": lambda: h[3],
        "index": lambda: h[row],
    }


def repeat(op):
    def work(n, at):
        for _ in range(n):
            z = op()
        return z.sum().item()

    return work


def no_grads(n, at):
    for _ in range(n):
        with torch.no_grad():
            pass
    return 0


HOOKED = 20


def backwards(hooks):
    x = ramp(2, 2).requires_grad_()
    seen = 0

    def hook(grad):
        nonlocal seen
        seen += 1

    def work(n, at):
        nonlocal seen
        seen = 0
        for _ in range(n):
            x.grad = None
            y = x
            for _ in range(HOOKED):
                y = y * 1.01
                if hooks:
                    y.register_hook(hook)
            y.sum().backward()
        if hooks and seen != n * HOOKED:
            return -1
        return x.grad.sum().item()

    return work


def chain(x, w, v, b):
    h = (x @ w + b).relu()
    q = (h @ v) * x
    p = q.reshape(4, 16).softmax(-1).view(8, 8)
    c = torch.cat([p, h], 1)
    l = c[:, :8]
    m = l.transpose(0, 1) @ x - l
    d = m / m.sum(1, keepdim=True).exp()
    e = d.tanh().unsqueeze(0).permute(1, 0, 2)
    f = e.contiguous().view(64) * 0.5 + 1
    g = f.sigmoid().maximum(f).reshape(8, 8)
    return g[0].neg().abs().mean()


def chains(n, at, x=ramp(8, 8), w=ramp(8, 8), v=ramp(8, 8), b=ramp(8)):
    for _ in range(n):
        z = chain(x, w, v, b)
    return z.item()


if __name__ == "__main__":
    torch.set_num_threads(1)
    works = {"chain": chains, "scope": no_grads, "backward": backwards(False), "hooks": backwards(True)}
    worker.serve(works | {name: repeat(op) for name, op in operators().items()})

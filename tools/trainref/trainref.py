"""Records the losses of 100 training steps of four models, in float64 and in float32.

    pip install torch==2.15.0 numpy
    python tools/trainref/trainref.py OUT_DIR
    go run ./tools/pack OUT_DIR testdata/training.tar.zst

Weights and data are drawn on both sides (bench/models/draw.py), so OUT_DIR/training.json holds the
losses alone: a list of runs with model, dtype, env and losses. The environment is that of the run; the
one of float32 caps the instruction set, because wider vectors sum in another order.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STEPS = 100
ENV = {
    "float64": {"OMP_NUM_THREADS": "1"},
    "float32": {
        "OMP_NUM_THREADS": "1",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
}


def cases():
    """What bench/models/cases.go has, in Python: model, data of a step, optimizer."""
    import torch
    from models import draw, gpt, lstm, mlp, resnet

    adamw = lambda ps: torch.optim.AdamW(ps, lr=3e-3)
    return {
        "mlp": (lambda: mlp.MLP(64, 128, 10), lambda step: draw.labelled(step, 10, 32, 64), adamw),
        "resnet18": (
            lambda: resnet.ResNet18(10),
            lambda step: draw.labelled(step, 10, 2, 3, 32, 32),
            lambda ps: torch.optim.SGD(ps, lr=0.001, momentum=0.9, weight_decay=5e-4),
        ),
        "lstm": (lambda: lstm.LSTM(64, 64), lambda step: draw.sequences(step, 64, 8, 24), adamw),
        "gpt": (lambda: gpt.GPT(64, 32, 64, 4, 4), lambda step: draw.sequences(step, 64, 8, 32), adamw),
    }


def run(name, dtype, steps=STEPS):
    """The loss before each step."""
    import torch
    from models import draw

    build, data, optimizer = cases()[name]
    torch.set_default_dtype(getattr(torch, dtype))
    model = build()
    draw.fill(model)
    opt = optimizer(model.parameters())
    losses = []
    for step in range(steps):
        x, y = data(step)
        opt.zero_grad()
        out = model(x.to(torch.get_default_dtype()) if x.is_floating_point() else x)
        loss = torch.nn.functional.cross_entropy(out.reshape(-1, out.shape[-1]), y.reshape(-1))
        loss.backward()
        opt.step()
        losses.append(loss.item())
    return losses


def main(out):
    runs = []
    for name in ["mlp", "lstm", "gpt", "resnet18"]:
        for dtype, env in ENV.items():
            argv = [sys.executable, __file__, "--one", name, dtype]
            text = subprocess.run(argv, env=os.environ | env, check=True, stdout=subprocess.PIPE).stdout
            runs.append({"model": name, "dtype": dtype, "env": env, "losses": json.loads(text)})
            print(name, dtype, runs[-1]["losses"][0], runs[-1]["losses"][-1], file=sys.stderr)
    Path(out).mkdir(parents=True, exist_ok=True)
    Path(out, "training.json").write_text(json.dumps(runs))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "bench"))
    if sys.argv[1] == "--one":
        print(json.dumps(run(*sys.argv[2:4])))
    else:
        main(sys.argv[1])

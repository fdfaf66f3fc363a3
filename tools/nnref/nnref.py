"""Records what Python's torch.nn makes: initial values, names, printed text, messages.

    pip install torch==2.15.0 numpy
    python tools/nnref/nnref.py OUT_DIR
    go run ./tools/pack OUT_DIR testdata/nnref.tar.zst

OUT_DIR/nnref.json has
  init     expression on a tensor t -> its values after torch.manual_seed(7)
  modules  expression that makes a module -> its text, its parameters, its state dict after torch.manual_seed(7),
           and the next number that the generator gives: as many have been drawn as Python draws
  parametrized, packed  what weight and spectral norm, and networks over packed sequences, compute
  errors   name -> the message of load_state_dict

Values are little-endian bytes in base64. The Go tests have a table from the same expressions to Go.
"""

import base64
import json
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import init

INIT = [
    ("init.uniform_(t)", [3, 7]),
    ("init.uniform_(t, -2, 3)", [40]),
    ("init.normal_(t)", [5, 5]),
    ("init.normal_(t, 1, 0.5)", [3]),
    ("init.constant_(t, 0.3)", [4]),
    ("init.ones_(t)", [2, 2]),
    ("init.zeros_(t)", [2, 2]),
    ("init.eye_(t)", [3, 5]),
    ("init.dirac_(t)", [4, 3, 3]),
    ("init.dirac_(t, 2)", [6, 2, 3, 4]),
    ("init.dirac_(t, 3)", [3, 2, 2, 3, 3]),
    ("init.xavier_uniform_(t)", [4, 6]),
    ("init.xavier_uniform_(t, gain=2)", [4, 6, 3]),
    ("init.xavier_normal_(t)", [4, 6]),
    ("init.xavier_normal_(t, gain=init.calculate_gain('relu'))", [4, 6, 2, 2]),
    ("init.kaiming_uniform_(t)", [4, 6]),
    ("init.kaiming_uniform_(t, a=0.2, mode='fan_out')", [4, 6, 3]),
    ("init.kaiming_uniform_(t, nonlinearity='tanh')", [4, 6]),
    ("init.kaiming_normal_(t)", [4, 6]),
    ("init.kaiming_normal_(t, mode='fan_out', nonlinearity='relu')", [4, 6, 3, 3]),
    ("init.trunc_normal_(t)", [60]),
    ("init.trunc_normal_(t, std=0.02)", [60]),
    ("init.trunc_normal_(t, mean=1, std=2, a=-1, b=1.5)", [300]),
    ("init.trunc_normal_(t, a=1, b=2)", [300]),
    ("init.trunc_normal_(t, a=2.5, b=4)", [300]),
    ("init.orthogonal_(t)", [4, 6]),
    ("init.orthogonal_(t, gain=3)", [6, 2, 2]),
    ("init.orthogonal_(t, gain=0.5)", [5, 5]),
    ("init.sparse_(t, 0.3)", [7, 3]),
    ("init.sparse_(t, 0.5, std=2)", [4, 6]),
]

MODULES = """
nn.Linear(5, 3)
nn.Linear(5, 3, bias=False)
nn.Linear(100, 20)
nn.LinearCrossEntropyLoss(4, 3, out_features=(2,), bias=True, label_smoothing=0.1)
nn.LazyLinear(3)
nn.LazyConv2d(4, 3, bias=False)
nn.Bilinear(2, 3, 4)
nn.Bilinear(2, 3, 4, bias=False)
nn.Identity()
nn.Flatten()
nn.Flatten(2, 3)
nn.Unflatten(1, (2, 3))
nn.Conv1d(4, 6, 3)
nn.Conv1d(4, 6, 3, padding='same', dilation=2)
nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
nn.Conv2d(4, 6, (1, 3), padding=(0, 1), groups=2, padding_mode='reflect')
nn.Conv3d(2, 3, 2)
nn.ConvTranspose1d(4, 6, 3)
nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
nn.ConvTranspose3d(2, 3, 2, dilation=2)
nn.BatchNorm1d(4)
nn.BatchNorm2d(4, momentum=None)
nn.BatchNorm3d(4, affine=False)
nn.BatchNorm2d(4, track_running_stats=False, bias=False)
nn.InstanceNorm1d(4)
nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
nn.InstanceNorm3d(4)
nn.GroupNorm(2, 6)
nn.LayerNorm(6)
nn.LayerNorm([2, 3], eps=1e-6, bias=False)
nn.LayerNorm(6, elementwise_affine=False)
nn.RMSNorm(6)
nn.RMSNorm([2, 3], eps=1e-6)
nn.LocalResponseNorm(5)
nn.Embedding(7, 3)
nn.Embedding(7, 3, padding_idx=-2, max_norm=1.0)
nn.EmbeddingBag(7, 3)
nn.EmbeddingBag(7, 3, mode='sum', padding_idx=2)
nn.RNN(3, 4)
nn.RNN(3, 4, num_layers=2, nonlinearity='relu', bias=False)
nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True, dropout=0.2)
nn.LSTM(3, 4, proj_size=2, num_layers=2)
nn.GRU(3, 4, num_layers=2, bidirectional=True)
nn.RNNCell(3, 4)
nn.RNNCell(3, 4, bias=False, nonlinearity='relu')
nn.LSTMCell(3, 4)
nn.GRUCell(3, 4)
nn.PReLU()
nn.PReLU(3)
nn.Dropout(0.5)
nn.Dropout1d(0.1)
nn.Dropout2d(0.1)
nn.Dropout3d(0.1)
nn.AlphaDropout(0.1)
nn.FeatureAlphaDropout(0.1)
nn.MaxPool1d(3)
nn.MaxPool2d((3, 2), stride=2, padding=1, ceil_mode=True)
nn.AvgPool1d(3)
nn.AvgPool2d(3, stride=2)
nn.AvgPool3d((3, 2, 2))
nn.LPPool2d(2.0, 3)
nn.AdaptiveAvgPool2d((3, None))
nn.AdaptiveMaxPool1d(4)
nn.FractionalMaxPool2d(2, output_size=3)
nn.MaxUnpool2d(2)
nn.ConstantPad1d(2, 3.5)
nn.ZeroPad2d((1, 2, 3, 4))
nn.ReflectionPad1d(2)
nn.ReplicationPad3d(1)
nn.CircularPad2d((1, 2, 3, 4))
nn.Upsample(scale_factor=2.0)
nn.Upsample(size=(4, 5), mode='bilinear')
nn.PixelShuffle(2)
nn.PixelUnshuffle(2)
nn.ChannelShuffle(2)
nn.Unfold(3)
nn.Fold((4, 5), 2)
nn.ReLU()
nn.ReLU6()
nn.Sigmoid()
nn.Tanh()
nn.Tanhshrink()
nn.SiLU()
nn.Mish()
nn.Hardswish()
nn.Hardsigmoid()
nn.LogSigmoid()
nn.Softsign()
nn.SELU()
nn.GELU()
nn.GELU(approximate='tanh')
nn.ELU()
nn.CELU(2.0)
nn.LeakyReLU(0.2)
nn.Hardshrink()
nn.Softshrink(0.25)
nn.Hardtanh(-2.0, 2.0)
nn.Softplus(2.0, 10.0)
nn.Threshold(0.1, 20.0)
nn.RReLU()
nn.GLU()
nn.Softmax(1)
nn.Softmin(-1)
nn.LogSoftmax(0)
nn.Softmax2d()
nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), nn.Linear(2, 1))
nn.MultiheadAttention(4, 2)
nn.MultiheadAttention(4, 2, bias=False, add_bias_kv=True, batch_first=True)
nn.MultiheadAttention(4, 2, kdim=3, vdim=5)
nn.TransformerEncoderLayer(4, 2, 8)
nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, bias=False), 2, nn.LayerNorm(4))
nn.TransformerDecoderLayer(4, 2, 8, layer_norm_eps=1e-6)
nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2, 8), 2)
nn.Transformer(4, 2, 2, 1, 8, dropout=0.2)
nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2), nn.Tanh()])
nn.ModuleDict({'b': nn.Linear(2, 1), 'a': nn.ReLU()})
""".strip().splitlines()


wn, sn, old_wn = nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm, nn.utils.weight_norm

# Layers whose weight is computed from other tensors, with the shape of their input; None is indices.
PARAMETRIZED = [
    ("wn(nn.Linear(4, 3))", [2, 4]),
    ("wn(nn.Linear(4, 3), dim=None)", [2, 4]),
    ("wn(nn.Conv1d(4, 6, 3), dim=1)", [2, 4, 5]),
    ("wn(nn.ConvTranspose2d(2, 3, 2))", [1, 2, 3, 3]),
    ("wn(nn.Embedding(5, 3), dim=1)", None),
    ("old_wn(nn.Conv2d(2, 3, 2))", [1, 2, 3, 3]),
    ("old_wn(nn.Linear(4, 3), dim=1)", [2, 4]),
    ("sn(nn.Linear(4, 3))", [2, 4]),
    ("sn(nn.Conv2d(2, 3, 2), n_power_iterations=2)", [1, 2, 3, 3]),
    ("sn(nn.ConvTranspose1d(4, 2, 3), eps=1e-6)", [2, 4, 5]),
    ("sn(nn.Embedding(5, 3))", None),
]


def parametrized(expression, shape):
    """Two forward passes in training mode, the gradients of the second, one in evaluation mode, the plain weight."""
    torch.manual_seed(7)
    m = eval(expression)
    start = [[n, tensor(t)] for n, t in m.state_dict().items()]
    x = torch.tensor([[0, 3, 1]]) if shape is None else torch.rand(shape)
    out = [m(x)]
    out.append(m(x))
    out[1].square().sum().backward()
    grads = [[n, tensor(p.grad)] for n, p in m.named_parameters()]
    m.eval()
    out.append(m(x))
    after = [[n, tensor(t)] for n, t in m.state_dict().items()]
    return {"start": start, "in": tensor(x), "out": [tensor(t) for t in out], "grads": grads, "after": after, "weight": tensor(m.weight)}


PACKED = ["nn.LSTM(2, 3, 2, bidirectional=True)", "nn.LSTM(2, 3, proj_size=2, batch_first=True)", "nn.GRU(2, 3, 2)", "nn.RNN(2, 3)"]


def packed(expression):
    torch.manual_seed(7)
    m = eval(expression)
    x = torch.rand(4, 5, 2) if m.batch_first else torch.rand(5, 4, 2)
    rnn = nn.utils.rnn
    p = rnn.pack_padded_sequence(x, [3, 5, 1, 4], batch_first=m.batch_first, enforce_sorted=False)
    h = [torch.rand(m.num_layers * (2 if m.bidirectional else 1), 4, m.proj_size or m.hidden_size)]
    if isinstance(m, nn.LSTM):
        h.append(torch.rand(h[0].shape[0], 4, m.hidden_size))
    y, hn = m(p, tuple(h) if len(h) > 1 else h[0])
    padded, lengths = rnn.pad_packed_sequence(y, batch_first=m.batch_first, padding_value=-1.0, total_length=6)
    return {
        "in": tensor(x),
        "h": [tensor(t) for t in h],
        "data": tensor(p.data),
        "batch_sizes": p.batch_sizes.tolist(),
        "sorted": p.sorted_indices.tolist(),
        "out": tensor(padded),
        "lengths": lengths.tolist(),
        "hn": [tensor(t) for t in (hn if isinstance(hn, tuple) else [hn])],
    }


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.register_buffer("count", torch.zeros(()))
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.BatchNorm1d(2)])
        self.head = nn.Sequential(nn.Linear(2, 3), nn.ReLU())


def change(delete=(), add=(), **shapes):
    state = Net().state_dict()
    for name in delete:
        del state[name]
    for name in add:
        state[name] = torch.zeros(1)
    for name, shape in shapes.items():
        state[name.replace("__", ".")] = torch.zeros(shape)
    return dict(state)


# What is wrong with the state dict of a Net, and whether it is loaded strictly.
ERRORS = {
    "missing": (change(delete=["layers.0.weight", "scale", "head.0.bias", "count"]), True),
    "unexpected": (change(add=["z", "layers.5.weight", "head.0.extra", "layers.0.a.b", "head.nope", "zz.weight"]), True),
    "mismatch": (change(layers__0__weight=(3, 2), scale=()), True),
    "all": (change(delete=["head.0.weight"], add=["layers.1.more", "odd"], head__0__bias=(1, 3, 1)), True),
    "all, not strict": (change(delete=["head.0.weight"], add=["layers.1.more", "odd"], head__0__bias=(1, 3, 1)), False),
    "missing, not strict": (change(delete=["head.0.weight"], add=["odd"]), False),
    "no batch counter": (change(delete=["layers.1.num_batches_tracked"]), True),
    "a scalar of one dimension": (change(count=(1,)), True),
}


def error(state, strict):
    shapes = [[n, list(t.shape)] for n, t in state.items()]
    try:
        keys = Net().load_state_dict(state, strict=strict)
        return {"strict": strict, "state": shapes, "error": None, "missing": keys.missing_keys, "unexpected": keys.unexpected_keys}
    except RuntimeError as e:
        return {"strict": strict, "state": shapes, "error": str(e)}


def data(t):
    return base64.b64encode(t.detach().contiguous().numpy().tobytes()).decode()


def tensor(t):
    return {"dtype": str(t.dtype).removeprefix("torch."), "shape": list(t.shape), "data": data(t)}


def lazy(t):
    return isinstance(t, nn.parameter.UninitializedTensorMixin)


def module(expression):
    torch.manual_seed(7)
    m = eval(expression)
    return {
        "repr": repr(m),
        "parameters": [n for n, p in m.named_parameters() if not lazy(p)],
        "modules": [n for n, c in m.named_modules() if n == "" or not isinstance(c, nn.ModuleList)],
        "state": [[n, tensor(t)] for n, t in m.state_dict().items() if not lazy(t)],
        "next": data(torch.rand(1)),
    }


def filled(expression, shape):
    torch.manual_seed(7)
    t = torch.empty(shape)
    eval(expression, globals(), {"t": t})
    return {**tensor(t), "next": data(torch.rand(1))}


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    if not torch.__version__.startswith("2.15.0"):
        sys.exit(f"nnref: torch 2.15.0 is wanted, this is {torch.__version__}")
    torch.set_num_threads(1)
    ref = {
        "torch": torch.__version__,
        "init": {e: filled(e, s) for e, s in INIT},
        "modules": {e: module(e) for e in MODULES},
        "parametrized": {e: parametrized(e, s) for e, s in PARAMETRIZED},
        "packed": {e: packed(e) for e in PACKED},
        "errors": {name: error(*case) for name, case in ERRORS.items()},
    }
    (out / "nnref.json").write_text(json.dumps(ref, indent=1, sort_keys=True))


if __name__ == "__main__":
    main()

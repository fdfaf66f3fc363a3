#!/usr/bin/env python3
"""What Python's peft makes of the repository's tiny BERT and Llama checkpoints.

usage: peftref.py OUT FOLDER...
FOLDER: unpacked groups of testdata (models-bert, models-llama), each case a folder with inputs.json
needs: Python 3.11, torch 2.15.0, transformers 5.23.0, peft 0.21.2

OUT/adapters/<case>/adapter_config.json, adapter_model.safetensors   as peft saved them, base_model_name_or_path
                                        being the name of the base's case
OUT/adapters/<case>/expected.safetensors   logits; disabled (logits without adapters); merged_logits; merged.<name>: the first
                                        two rows and the last of the weights that merging changed
OUT/bin/            one of them with adapter_model.bin
OUT/adapters.json   a row a case: base, the modules hit with rank, alpha, scaling; trainable parameters; the
                    parameters peft would start with (shape, and the interval or constant they are drawn from)
OUT/several.json, several.safetensors   two adapters on one model: logits with each, both, none; merged
OUT/training.json, training/<case>.safetensors   20 steps of AdamW from an adapter of OUT/adapters in float64:
                    the data, the losses, the state of the adapter at the end
OUT/layers.json, layers.safetensors     single layers: input, weight, adapter, output, merged weight
OUT/targets.json    which modules random configs hit, or peft's complaint
OUT/expressions.json   what Python's re makes of regular expressions
OUT/configs/<n>.json, configs.json      config files as peft writes them, and what it says of odd ones
"""
import json, os, random, shutil, sys, warnings
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if os.environ.get("PYTHONHASHSEED") != "0":  # peft writes sets
    os.environ["PYTHONHASHSEED"] = "0"
    os.execv(sys.executable, [sys.executable] + sys.argv)
import torch
import transformers as tf
import peft
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

tf.logging.set_verbosity_error()
tf.utils.logging.disable_progress_bar()
torch.set_num_threads(1)
OUT, FOLDERS = sys.argv[1], sys.argv[2:]


def folder(base):
    return next(p for f in FOLDERS if os.path.exists(p := os.path.join(f, base)))


def document(base):
    with open(os.path.join(folder(base), "inputs.json")) as f:
        return json.load(f)


def tensor(spec):
    return torch.tensor(spec["data"], dtype=getattr(torch, spec["dtype"])).reshape(spec["shape"])


def load(base, dtype=torch.float32):
    """The base model under its relative name, so that no path of this machine gets into a file."""
    d = document(base)
    model = getattr(tf, d["class"]).from_pretrained(folder(base), attn_implementation="eager", dtype=dtype).eval()
    model.config._name_or_path = model.name_or_path = base
    for c in model.modules():
        if getattr(c, "config", None) is not None:
            c.config._name_or_path = base
    return model, {k: tensor(v) for k, v in d["inputs"].items()}


@torch.no_grad()
def logits(model, inputs):
    return model(**inputs).logits.contiguous().clone()


def perturb(model, seed):
    """Gives every trainable parameter a value of its own: peft starts with adapters that do nothing."""
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        noise = torch.randn(p.shape, generator=g, dtype=torch.float32).to(p.dtype)
        with torch.no_grad():
            if ".lora_A." in name or ".lora_B." in name or ".lora_embedding_" in name:
                p.copy_(0.3 * noise)
            elif "magnitude" in name:
                p.mul_(1 + 0.2 * noise)
            elif "ia3_l" in name:
                p.copy_(1 + 0.3 * noise)
            else:
                p.add_(0.1 * noise)


def layers_of(model, adapter="default"):
    """What was hit: module -> kind, rank, alpha, scaling; of IA3 whether it scales the input."""
    hit = {}
    for name, m in model.named_modules():
        name = name.removeprefix("base_model.model.")
        if isinstance(m, peft.tuners.lora.LoraLayer) and adapter in m.r:
            hit[name] = {"r": m.r[adapter], "alpha": m.lora_alpha[adapter], "scaling": m.scaling[adapter]}
        elif isinstance(m, peft.tuners.ia3.IA3Layer) and adapter in m.ia3_l:
            hit[name] = {"feedforward": m.is_feedforward}
        elif isinstance(m, peft.utils.ModulesToSaveWrapper) and adapter in m.modules_to_save:
            hit[name] = {"saved": True}
    return hit


def starts(model):
    """Each trainable parameter as peft makes it: its shape, and its value if that is constant."""
    out = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            lo, hi = p.min().item(), p.max().item()
            out[name] = {"shape": list(p.shape), "constant": lo if lo == hi else None}
    return out


LLAMA_LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = {
    "bert-lora": ("bert-seqcls", lambda: LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, lora_dropout=0.1)),
    "bert-lora-all-linear": ("bert-seqcls", lambda: LoraConfig(task_type="SEQ_CLS", r=2, lora_alpha=4, target_modules="all-linear")),
    "bert-lora-bias-all": ("bert-seqcls", lambda: LoraConfig(task_type="SEQ_CLS", r=3, lora_alpha=5, bias="all", target_modules=["query", "dense"])),
    "bert-lora-bias-only": ("bert-tokcls", lambda: LoraConfig(task_type="TOKEN_CLS", r=3, lora_alpha=5, bias="lora_only", target_modules=["query", "output.dense"])),
    "bert-lora-embedding": ("bert-mlm", lambda: LoraConfig(r=4, lora_alpha=8, target_modules=["word_embeddings", "position_embeddings", "value"])),
    "bert-lora-mlm": ("bert-mlm", lambda: LoraConfig(r=4, lora_alpha=8, target_modules=["query", "decoder"])),
    "bert-dora": ("bert-seqcls", lambda: LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, use_dora=True, target_modules=["query", "value", "intermediate.dense"])),
    "bert-ia3": ("bert-seqcls", lambda: IA3Config(task_type="SEQ_CLS")),
    "llama-lora": ("llama", lambda: LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8)),
    "llama-lora-rslora": ("llama", lambda: LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, use_rslora=True, target_modules=LLAMA_LINEARS)),
    "llama-lora-patterns": ("llama", lambda: LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=r".*\.(q_proj|up_proj|down_proj)",
        rank_pattern={"down_proj": 2, r"^model\.layers\.1\.self_attn\.q_proj": 6}, alpha_pattern={"layers.0.mlp.up_proj": 3, "q_proj": 12})),
    "llama-lora-rslora-patterns": ("llama", lambda: LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=8, use_rslora=True, target_modules=["v_proj", "gate_proj"], rank_pattern={"gate_proj": 9})),
    "llama-lora-all-linear": ("llama", lambda: LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=16, target_modules="all-linear")),
    "llama-lora-layers": ("llama", lambda: LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=["q_proj", "o_proj"], layers_to_transform=[1], layers_pattern="layers")),
    "llama-lora-exclude": ("llama", lambda: LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=LLAMA_LINEARS, exclude_modules=r"model\.layers\.0\..*|.*k_proj")),
    "llama-lora-saved": ("llama", lambda: LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=["q_proj"], modules_to_save=["lm_head", "layers.1.input_layernorm", "embed_tokens"])),
    "llama-lora-embedding": ("llama", lambda: LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=["embed_tokens", "q_proj"])),
    "llama-lora-head": ("llama", lambda: LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=["lm_head", "v_proj"])),
    "llama-lora-gaussian": ("llama", lambda: LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, init_lora_weights="gaussian")),
    "llama-lora-tied": ("llama-tied-rope-llama3", lambda: LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"])),
    "llama-lora-seqcls": ("llama-seqcls", lambda: LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules="all-linear")),
    "llama-lora-bias": ("bert-tokcls", lambda: LoraConfig(task_type="TOKEN_CLS", r=4, lora_alpha=8, lora_bias=True, target_modules=["key", "value"])),
    "llama-dora": ("llama", lambda: LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, use_dora=True, target_modules=LLAMA_LINEARS)),
    "llama-dora-embedding": ("llama", lambda: LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, use_dora=True, use_rslora=True, target_modules=["embed_tokens", "v_proj"])),
    "llama-ia3": ("llama", lambda: IA3Config(task_type="CAUSAL_LM")),
    "llama-ia3-all": ("llama", lambda: IA3Config(
        task_type="CAUSAL_LM", target_modules=r".*(self_attn|mlp)\..*_proj", feedforward_modules=r".*\.(up|down)_proj", modules_to_save=["lm_head"])),
}
CASES["bert-lora-bias"] = CASES.pop("llama-lora-bias")


def some_rows(t):
    """The first two rows and the last of a matrix: merged weights have no digests, since their sums round differently elsewhere."""
    return torch.cat([t[:2], t[-1:]]).clone() if t.dim() == 2 and len(t) > 3 else t.contiguous().clone()


def save_adapter(model, path):
    model.save_pretrained(path)
    readme = os.path.join(path, "README.md")
    if os.path.exists(readme):
        os.remove(readme)


def adapters():
    rows = []
    for seed, (name, (base, config)) in enumerate(sorted(CASES.items())):
        torch.manual_seed(seed)
        model, inputs = load(base)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        model = get_peft_model(model, config()).eval()
        row = {
            "case": name, "base": base, "class": document(base)["class"], "hit": layers_of(model), "starts": starts(model),
            "trainable": [n.removeprefix("base_model.model.") for n, p in model.named_parameters() if p.requires_grad],
        }
        perturb(model, seed)
        path = os.path.join(OUT, "adapters", name)
        save_adapter(model, path)
        expected = {"logits": logits(model, inputs)}
        with model.disable_adapter():
            expected["disabled"] = logits(model, inputs)
        try:
            merged = model.merge_and_unload(safe_merge=True)
            after = merged.state_dict()
            assert after.keys() == before.keys(), name
            expected |= {"merged." + k: some_rows(v) for k, v in after.items() if not torch.equal(v, before[k])}
            expected["merged_logits"] = logits(merged, inputs)
        except Exception as e:
            row["merge_error"] = f"{type(e).__name__}: {e}"
        save_file(expected, os.path.join(path, "expected.safetensors"))
        # what peft itself computes from the files, on a model that never saw the parameters
        again = peft.PeftModel.from_pretrained(load(base)[0], path).eval()
        assert torch.equal(logits(again, inputs), expected["logits"]), name
        rows.append(row)
        print(name, len(row["hit"]), float((expected["logits"] - expected["disabled"]).abs().max()))
    write("adapters.json", rows)
    model = peft.PeftModel.from_pretrained(load("llama")[0], os.path.join(OUT, "adapters", "llama-lora"))
    model.save_pretrained(os.path.join(OUT, "bin"), safe_serialization=False)
    os.remove(os.path.join(OUT, "bin", "README.md"))


SEVERAL = [
    ("llama", "llama-lora", "llama-lora-rslora"),
    ("llama", "llama-lora-patterns", "llama-dora"),
    ("llama", "llama-lora-saved", "llama-lora-patterns"),
    ("llama", "llama-lora-saved", "llama-lora-head"),
    ("bert-mlm", "bert-lora-embedding", "bert-lora-mlm"),
    ("llama", "llama-ia3", "llama-ia3-all"),
]


def several():
    """Two adapters on one model, active alone and together."""
    rows, tensors = [], {}
    for base, first, second in SEVERAL:
        row, key = {"base": base, "first": first, "second": second}, f"{first}+{second}"

        def fresh():
            model, inputs = load(base)
            model = peft.PeftModel.from_pretrained(model, os.path.join(OUT, "adapters", first), adapter_name="first")
            model.load_adapter(os.path.join(OUT, "adapters", second), adapter_name="second")
            return model.eval(), inputs

        rows.append(row)
        try:
            model, inputs = fresh()
        except Exception as e:
            row["load"] = f"{type(e).__name__}: {e}".replace("\n", " ")[:300]
            continue
        for what, active in (("first", ["first"]), ("second", ["second"]), ("both", ["first", "second"]), ("swapped", ["second", "first"])):
            try:
                model.base_model.set_adapter(active)
                tensors[f"{key}.{what}"] = logits(model, inputs)
            except Exception as e:
                row[what] = f"{type(e).__name__}: {e}"
        try:
            before = {k: v.clone() for k, v in load(base)[0].state_dict().items()}
            model, _ = fresh()
            merged = model.merge_and_unload(safe_merge=True, adapter_names=["first", "second"])
            for k, v in merged.state_dict().items():
                if not torch.equal(v, before[k]):
                    tensors[f"{key}.merged.{k}"] = some_rows(v)
        except Exception as e:
            row["merged"] = f"{type(e).__name__}: {e}"
        print(key, row)
    write("several.json", rows)
    save_file(tensors, os.path.join(OUT, "several.safetensors"))


TRAINED = ["bert-lora", "bert-dora", "bert-ia3", "llama-lora", "llama-dora", "llama-ia3"]
STEPS = 20


def batches(base, r):
    """Random batches: right-padded, labels of the kind the model's head takes."""
    out = []
    for _ in range(STEPS):
        ids = [[r.randrange(3, 96) for _ in range(10)] for _ in range(4)]
        lengths = [r.randrange(5, 11) for _ in ids]
        mask = [[int(i < n) for i in range(10)] for n in lengths]
        ids = [[t if m else 0 for t, m in zip(a, b)] for a, b in zip(ids, mask)]
        labels = [r.randrange(3) for _ in ids] if base.startswith("bert") else [[t if m else -100 for t, m in zip(a, b)] for a, b in zip(ids, mask)]
        out.append({"input_ids": ids, "attention_mask": mask, "labels": labels})
    return out


def training():
    rows = []
    os.makedirs(os.path.join(OUT, "training"), exist_ok=True)
    for case in TRAINED:
        base = CASES[case][0]
        model, _ = load(base, torch.float64)
        for m in model.modules():
            if isinstance(m, torch.nn.Dropout):
                m.p = 0.0
        for key in ("hidden_dropout_prob", "attention_probs_dropout_prob", "attention_dropout"):
            if hasattr(model.config, key):
                setattr(model.config, key, 0.0)
        # lora_dropout is a field of the config that was saved; here it must be 0
        config = peft.PeftConfig.from_pretrained(os.path.join(OUT, "adapters", case))
        config.inference_mode = False
        if hasattr(config, "lora_dropout"):
            config.lora_dropout = 0.0
        model = peft.PeftModel.from_pretrained(model, os.path.join(OUT, "adapters", case), config=config, is_trainable=True)
        model.train()
        params = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        assert all(p.dtype == torch.float64 for _, p in params)
        opt = torch.optim.AdamW([p for _, p in params], lr=0.01, weight_decay=0.01)
        data, losses, norms = batches(base, random.Random(case)), [], []
        for batch in data:
            opt.zero_grad()
            loss = model(**{k: torch.tensor(v) for k, v in batch.items()}).loss
            loss.backward()
            norms.append(torch.sqrt(sum((p.grad ** 2).sum() for _, p in params)).item())
            opt.step()
            losses.append(loss.item())
        state = peft.get_peft_model_state_dict(model)
        save_file({k: v.contiguous() for k, v in state.items()}, os.path.join(OUT, "training", case + ".safetensors"))
        rows.append({"case": case, "base": base, "lr": 0.01, "weight_decay": 0.01, "data": data, "losses": losses, "grad_norms": norms,
                     "trainable": [n.removeprefix("base_model.model.") for n, _ in params]})
        print(case, losses[0], losses[-1], len(params))
    write("training.json", rows)


def single_layers():
    """Layers that the two model types lack, and those they have: everything that a layer's forward needs."""
    from transformers.pytorch_utils import Conv1D
    nn = torch.nn
    made = {
        "linear": (lambda: nn.Linear(6, 5), (3, 6)),
        "linear-no-bias": (lambda: nn.Linear(6, 5, bias=False), (2, 3, 6)),
        "conv1d-gpt2": (lambda: Conv1D(5, 6), (3, 6)),
        "embedding": (lambda: nn.Embedding(11, 6), None),
        "embedding-padding": (lambda: nn.Embedding(11, 6, padding_idx=2), None),
        "embedding-max-norm": (lambda: nn.Embedding(11, 6, max_norm=0.7), None),
        "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 15)),
        "conv1d-dilated": (lambda: nn.Conv1d(4, 6, 3, dilation=2), (2, 4, 15)),
        "conv1d-pointwise": (lambda: nn.Conv1d(4, 6, 1, bias=False), (2, 4, 7)),
        "conv2d": (lambda: nn.Conv2d(4, 6, 3, padding=1, stride=(2, 1)), (2, 4, 7, 6)),
        "conv2d-pointwise": (lambda: nn.Conv2d(4, 6, 1), (2, 4, 5, 5)),
        "conv2d-groups": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1), (2, 4, 5, 6)),
        "conv2d-circular": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (2, 4, 5, 6)),
    }
    ways = {
        "lora": lambda fan: LoraConfig(r=2, lora_alpha=3, target_modules=["layer"], fan_in_fan_out=fan),
        "rslora": lambda fan: LoraConfig(r=2, lora_alpha=3, use_rslora=True, target_modules=["layer"], fan_in_fan_out=fan),
        "dora": lambda fan: LoraConfig(r=2, lora_alpha=3, use_dora=True, target_modules=["layer"], fan_in_fan_out=fan),
        "lora-bias": lambda fan: LoraConfig(r=2, lora_alpha=3, lora_bias=True, target_modules=["layer"], fan_in_fan_out=fan),
        "ia3": lambda fan: IA3Config(target_modules=["layer"], feedforward_modules=[], fan_in_fan_out=fan),
        "ia3-feedforward": lambda fan: IA3Config(target_modules=["layer"], feedforward_modules=["layer"], fan_in_fan_out=fan),
    }
    rows, tensors = [], {}
    for layer, (make, shape) in made.items():
        for way, config in ways.items():
            torch.manual_seed(len(rows))
            key, row = f"{layer}.{way}", {"layer": layer, "way": way}
            rows.append(row)

            class Net(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.layer = make().double()

                def forward(self, x):
                    return self.layer(x)

            net = Net().eval()
            for p in net.parameters():
                nn.init.normal_(p)
            x = torch.randint(0, 11, (3, 4)) if shape is None else torch.randn(shape, dtype=torch.float64)
            tensors[key + ".x"] = x
            for n, p in net.layer.named_parameters():
                tensors[f"{key}.base.{n}"] = p.detach().clone()
            try:
                model = get_peft_model(net, config(layer == "conv1d-gpt2")).double().eval()
                row["starts"] = starts(model)
                perturb(model, len(rows))
                for k, v in peft.get_peft_model_state_dict(model).items():
                    tensors[f"{key}.adapter.{k.removeprefix('base_model.model.layer.')}"] = v.detach().clone().contiguous()
                out = model(x.clone())
                tensors[key + ".out"] = out.detach().clone()
                (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)).sum().backward()
                for n, p in model.named_parameters():
                    if p.requires_grad:
                        name = n.removeprefix("base_model.model.layer.").replace(".default", "")
                        tensors[f"{key}.grad.{name}"] = p.grad.clone().contiguous()
                model.merge_adapter()
                for n, p in model.base_model.model.layer.base_layer.named_parameters():
                    tensors[f"{key}.merged.{n}"] = p.detach().clone().contiguous()
                tensors[key + ".merged_out"] = model(x.clone()).detach().clone()
            except Exception as e:
                row["error"] = f"{type(e).__name__}: {e}".split("\n")[0][:300]
            print(key, row.get("error"))
    write("layers.json", rows)
    save_file(tensors, os.path.join(OUT, "layers.safetensors"))


def targets():
    """Random configs over the modules of both models: what peft hits."""
    r = random.Random(7)
    words = {
        "bert": ["query", "key", "value", "dense", "output.dense", "attention.output.dense", "intermediate.dense", "self.query", "pooler.dense",
                 "word_embeddings", "classifier", "bert.encoder.layer.1.attention.self.query", "layer.0.attention.self.key", "uery", "decoder", "nope"],
        "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "gate_proj", "down_proj", "self_attn.q_proj", "mlp.up_proj", "embed_tokens",
                  "lm_head", "score", "model.layers.1.mlp.down_proj", "0.self_attn.v_proj", "proj", "nope"],
    }
    regexes = {
        "bert": [r".*\.(query|key)", r"bert\.encoder\.layer\.[01]\.attention\.self\.value", r".*query$", r".*(?:output|intermediate)\.dense", r"query", r".*",
                 r"(?i).*QUERY", r".*layer\.\d+\.output\.dense", r"[^.]+\.encoder\..*\.(self\.(query|value))"],
        "llama": [r".*\.(q_proj|v_proj)", r"model\.layers\.1\.self_attn\.[qk]_proj", r".*_proj", r".*mlp\.(?:up|down)_proj$", r"q_proj", r".*",
                  r".*layers\.\d+\.mlp\.\w+", r"(model\.)?layers\.(0|1)\..*(gate|down)_proj", r"^.*self_attn\.(q|o)_proj\Z"],
    }
    patterns = {
        "bert": ["query", "^query", r"layer\.1\.attention\.self\.query", "output.dense", r".*\.key", "bert.encoder.layer.0.attention.self.value", "dense", "(query|value)",
                 r"layer.\d.intermediate.dense", "nope"],
        "llama": ["q_proj", "^q_proj", r"layers\.1\.self_attn\.q_proj", "mlp.up_proj", r".*\.v_proj", "model.layers.0.mlp.down_proj", "proj", "(q|k)_proj",
                  r"layers.\d.self_attn.o_proj", "nope"],
    }
    saves = {"bert": ["classifier", "pooler", "LayerNorm", "layer.1", "dense", "embeddings"], "llama": ["lm_head", "norm", "embed_tokens", "score", "layers.0.mlp", "model.norm"]}
    layer_names = {"bert": ["layer", "encoder.layer", "nope", "encoder"], "llama": ["layers", "model.layers", "nope", "h"]}
    bases = {"bert": ["bert-seqcls", "bert-mlm", "bert", "bert-tokcls"], "llama": ["llama", "llama-tied-rope-llama3", "llama-seqcls"]}

    def some(choices, most=3):
        return r.sample(choices, r.randrange(1, most + 1))

    rows = []
    while len(rows) < 400:
        family = r.choice(["bert", "llama"])
        base, ia3 = r.choice(bases[family]), r.random() < 0.25
        kw = {}
        kind = r.random()
        if kind < 0.5:
            kw["target_modules"] = some(words[family], 4)
        elif kind < 0.75:
            kw["target_modules"] = r.choice(regexes[family])
        elif kind < 0.92:
            kw["target_modules"] = r.choice(["all-linear", "all-linear", "All-Linear"])
        if r.random() < 0.25:
            kw["exclude_modules"] = r.choice([some(words[family]), r.choice(regexes[family])])
        if r.random() < 0.25:
            kw["modules_to_save"] = some(saves[family], 2)
        if r.random() < 0.3:
            kw["task_type"] = r.choice(["SEQ_CLS", "CAUSAL_LM", "TOKEN_CLS", "FEATURE_EXTRACTION"])
        if ia3:
            if r.random() < 0.7:
                if isinstance(kw.get("target_modules"), list) and r.random() < 0.9:
                    kw["feedforward_modules"] = r.choice([[], kw["target_modules"][:1], kw["target_modules"]])
                else:
                    kw["feedforward_modules"] = r.choice([r.choice(regexes[family]), some(words[family])])
        else:
            kw["r"], kw["lora_alpha"] = r.randrange(1, 9), r.choice([1, 2, 8, 16, 0.5])
            kw["use_rslora"], kw["use_dora"] = r.random() < 0.2, r.random() < 0.1
            if r.random() < 0.35:
                kw["layers_to_transform"] = r.choice([0, 1, 2, [1], [0, 1], [5], []])
            if r.random() < 0.15:
                kw["layers_pattern"] = r.choice([r.choice(layer_names[family]), some(layer_names[family], 2), [], ""])
            if r.random() < 0.4:
                kw["rank_pattern"] = {p: r.randrange(1, 9) for p in some(patterns[family])}
            if r.random() < 0.4:
                kw["alpha_pattern"] = {p: r.choice([1, 3, 16, 2.5]) for p in some(patterns[family])}
        row = {"base": base, "peft_type": "IA3" if ia3 else "LORA", "config": kw}
        with torch.device("meta"):
            config = tf.AutoConfig.from_pretrained(folder(base))
            model = getattr(tf, document(base)["class"])(config)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                c = (IA3Config if ia3 else LoraConfig)(**kw)
                model = peft.inject_adapter_in_model(c, model, low_cpu_mem_usage=True)
                row["hit"] = layers_of(model)
            except Exception as e:
                row["error"] = f"{type(e).__name__}: {e}".split("\n")[0][:300]
        row["warnings"] = [str(w.message)[:300] for w in caught]
        rows.append(row)
    print("targets:", len(rows), "errors:", sum("error" in row for row in rows))
    write("targets.json", rows)


def configs():
    """Config files as peft writes them, and what it makes of keys and values that are off."""
    os.makedirs(os.path.join(OUT, "configs"), exist_ok=True)
    made = [
        LoraConfig(), IA3Config(), LoraConfig(target_modules=["v_proj"]), LoraConfig(target_modules="all-linear", r=16, lora_alpha=32, lora_dropout=0.05, bias="all"),
        LoraConfig(target_modules=r".*\.(q|v)_proj", rank_pattern={"q_proj": 4, "a.b": 2}, alpha_pattern={"v_proj": 0.5}, use_rslora=True, use_dora=True, revision="main"),
        LoraConfig(task_type="SEQ_2_SEQ_LM", lora_alpha=1e-07, lora_dropout=1e-05, layers_to_transform=[0, 3], layers_pattern=["layers", "h"], modules_to_save=["lm_head"], target_modules=["q"]),
        LoraConfig(task_type="CAUSAL_LM", lora_alpha=2.0, layers_to_transform=3, layers_pattern="blocks", target_modules=["q"], exclude_modules="lm_head", init_lora_weights="gaussian", inference_mode=True),
        LoraConfig(target_modules=["é\"\\", "\U0001f600"], exclude_modules=["x"], base_model_name_or_path="org/名前", init_lora_weights=False, lora_bias=True, ensure_weight_tying=True),
        IA3Config(task_type="TOKEN_CLS", target_modules=["k"], feedforward_modules=["k"], modules_to_save=["classifier"], fan_in_fan_out=True, init_ia3_weights=False),
        IA3Config(target_modules=".*", feedforward_modules=".*down", exclude_modules="lm_head", revision="v1"),
    ]
    for i, c in enumerate(made):
        path = os.path.join(OUT, "configs", "tmp")
        c.save_pretrained(path)
        os.rename(os.path.join(path, "adapter_config.json"), os.path.join(OUT, "configs", f"{i}.json"))
        os.rmdir(path)
    odd = {
        "unknown": {"peft_type": "LORA", "zebra": 1, "aardvark": None, "target_modules": ["q"]},
        "runtime_config": {"peft_type": "LORA", "runtime_config": {"ephemeral_gpu_offload": True}},
        "no_type": {"r": 8}, "null_type": {"peft_type": None, "r": 8}, "lower_type": {"peft_type": "lora"}, "minimal": {"peft_type": "LORA"}, "minimal_ia3": {"peft_type": "IA3"},
        "task": {"peft_type": "LORA", "task_type": "NOPE"}, "regex_layers": {"peft_type": "LORA", "target_modules": ".*", "layers_to_transform": [1]},
        "regex_pattern": {"peft_type": "LORA", "target_modules": ".*", "layers_pattern": "h"}, "pattern_alone": {"peft_type": "LORA", "target_modules": ["q"], "layers_pattern": "h"},
        "not_subset": {"peft_type": "IA3", "target_modules": ["q"], "feedforward_modules": ["v"]}, "dora_bias": {"peft_type": "LORA", "use_dora": True, "lora_bias": True},
        "dora_megatron": {"peft_type": "LORA", "use_dora": True, "megatron_config": {"a": 1}}, "pissa_bias": {"peft_type": "LORA", "init_lora_weights": "pissa", "lora_bias": True},
        "parameters": {"peft_type": "LORA", "target_parameters": "x"}, "loftq_ignored": {"peft_type": "LORA", "loftq_config": {"loftq_bits": 4}},
        "eva_ignored": {"peft_type": "LORA", "eva_config": {"rho": 2.0}}, "ia3_with_r": {"peft_type": "IA3", "r": 8, "lora_alpha": 1},
        "list": [1], "empty": {},
    }
    rows = []
    for name, doc in odd.items():
        path = os.path.join(OUT, "configs", "tmp")
        os.makedirs(path)
        with open(os.path.join(path, "adapter_config.json"), "w") as f:
            json.dump(doc, f)
        row = {"name": name, "document": doc}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                c = peft.PeftConfig.from_pretrained(path)
                row["config"] = {k: sorted(v) if isinstance(v, set) else v for k, v in c.to_dict().items()}
            except Exception as e:
                row["error"] = f"{type(e).__name__}: {e}".replace(path, "$DIR")[:300]
        row["warnings"] = [str(w.message)[:200] for w in caught]
        rows.append(row)
        shutil.rmtree(path)
    write("configs.json", rows)


def expressions():
    """What Python's re makes of expressions: an error, or which of the names they match as a whole."""
    import re
    names = ["model.layers.0.self_attn.q_proj", "model.layers.11.mlp.up_proj", "lm_head", "a", "aa", "aaa", "a{,2}", "a1", "a_b", "A", "ab]", "[", "a-b", "", "a.b", ":x", "x{}", "x{1", "aZ", "Q", "-", "^", "a$"]
    patterns = [
        r".*q_proj", r".*\.(q|k)_proj", r"a{,2}", r"a{2,}", r"a{2}", r"a{1,3}", r"a{,}", r"x{}", r"x{1", r"a{,b", r"[a]{,2}", r"a{,2}?", r"\d", r"a\d", r"\w+", r"\W*", r"\s*", r"a\Z", r"\Aa", r"a$", r"a\$", r"^a", r"a\z", r"\Qa.b\E", r"\p{L}", r"\pL", r"\C",
        r"(?i)A", r"(?i:A)a", r"a(?i)", r"(?s).*", r"(?m)^a$", r"(?x) a", r"(?U)a+", r"(?iU)a", r"(?P<n>a)", r"(?<n>a)", r"(?P<n>a)(?P=n)", r"(a)\1", r"(?=a)a", r"(?!b)a", r"(?<=a)b", r"(?<!a)b", r"(?>a+)", r"a++", r"a*+", r"a?+", r"a**", r"a+*", r"a{2}{3}", r"(a{2}){3}", r"(?#x)a",
        r"(?:a|aa)", r"a|aa", r"(a|aa)+$", r"[]a]+", r"[^]a]", r"[a-z]+", r"[z-a]", r"[a\]b]+", r"[[:alpha:]]", r"[a&&b]+", r"[\d]", r"[\w.]+", r"[^a]", r"[", r"[a", r"(", r")", r"a)", r"(a", r"*a", r"+", r"?", r"\\", r"\.", r"a\.b", r"a\_b", r"a\-b", r"\ba\b", r"\Ba", r"a\b", r"\x61", r"\x{61}", r"\u0061", r"\N{DIGIT ONE}", r"\07", r"\a", r"\e", r"\y", r"a.", r"...", r".{3}", r".{1001}", r"(?:a{50}){50}", r"()", r"(|a)", r"a||aa",
        r"[^\W\d_]+", r"[A-Z]", r"a[-_]b", r"a[_-]b", r"\-", r"\^", r"(?-i:a)", r"(?i-i:a)", r"(?a)a", r"(?L)a", r"(?u)a", r"(?(1)a|b)", r"(a)?(?(1)b|c)", r"(?P<n", r"(?P>n)", r"(?", r"(?:", r"(?i", "\\", "a\\", r"{1}", r"{", r"}", r"]", r"a{1}b", r"a]", r"[a-]b?", r"\S+", r"\D+", r"[\D]+", r"[\s\S]+", r"(?:)", r"^$", r"\A\Z", r"$", r"^", r"\b", r"(?i)[a-z]\.B", r"(?i)LM_HEAD", r"model\.layers\.(?:\d|1[01])\..*", r"model(?:\.layers)?\.\d+", r"[\[]", r"[a\-z]+", r"\{", r"a\{,2\}", r"[{},a2]+", r"(?:x|(?:y|a){1,2})", r"a{3,2}", r"a{0}", r"a{0}aa",
    ]
    rows = []
    for p in patterns:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                rows.append({"pattern": p, "matches": [n for n in names if re.fullmatch(p, n)]})
        except re.error as e:
            rows.append({"pattern": p, "error": str(e)})
    print("expressions:", len(rows))
    write("expressions.json", {"names": names, "rows": rows})


def write(name, value):
    with open(os.path.join(OUT, name), "w") as f:
        json.dump(value, f, separators=(",", ":"))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    os.makedirs(OUT, exist_ok=True)
    adapters()
    several()
    training()
    single_layers()
    targets()
    configs()
    expressions()

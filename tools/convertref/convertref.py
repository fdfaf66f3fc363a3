"""Records what transformers' weight converters make of checkpoints, and how it saves them again.

    pip install torch==2.15.0 transformers==5.23.0 safetensors
    python tools/convertref/convertref.py MODELS OUT_DIR
    go run ./tools/pack OUT_DIR testdata/convert.tar.zst

MODELS has tiny checkpoints (MoE: mixtral, qwen3-moe, deepseek-v3), each a folder as save_pretrained makes it.
OUT_DIR gets
  NAME/           the checkpoint, and report.json: names, shapes and digests of the state dict that
                  transformers loads, as it is and as float16; the digests of what it saves again; and what it
                  reports when tensors are absent or have another shape. twelve is a Mixtral of 12 experts.
  rules.json      every converter and every plain renaming of transformers' conversion_mapping: what a renaming makes
                  of a sample name, and what its reverse makes of that
  ops.json        each operation of transformers.core_model_loading on small tensors, forwards and backwards
A digest is the first 16 hexadecimal digits of the SHA-256 of a tensor's little-endian bytes.
"""

import hashlib
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM
from transformers import conversion_mapping, core_model_loading as cml


def digest(t):
    return hashlib.sha256(t.contiguous().view(torch.uint8).numpy().tobytes() if t.dim() else t.numpy().tobytes()).hexdigest()[:16]


def state(model):
    return {k: [v.dtype.__str__().removeprefix("torch."), list(v.shape), digest(v)] for k, v in model.state_dict().items()}


def shapes(info):
    return {
        "missing_keys": sorted(info["missing_keys"]),
        "unexpected_keys": sorted(info["unexpected_keys"]),
        "mismatched_keys": sorted([k, list(a), list(b)] for k, a, b in info["mismatched_keys"]),
    }


def attempt(folder, tensors, **kwargs):
    """What from_pretrained says of a folder with other tensors."""
    with tempfile.TemporaryDirectory() as d:
        shutil.copy(folder / "config.json", d)
        save_file(tensors, f"{d}/model.safetensors", {"format": "pt"})
        try:
            _, info = AutoModelForCausalLM.from_pretrained(d, output_loading_info=True, **kwargs)
        except RuntimeError as e:
            return {"error": str(e).split(".")[0]}
    return shapes(info)


def moe(folder, variants=False):
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    report = {"class": type(model).__name__, "state": state(model), **shapes(info)}
    report["float16"] = state(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16))
    with tempfile.TemporaryDirectory() as d:
        model.save_pretrained(d)
        report["saved"] = [[k, digest(v)] for k, v in load_file(f"{d}/model.safetensors").items()]
        model.save_pretrained(d, save_original_format=False)
        fused = AutoModelForCausalLM.from_pretrained(d)
        fused.save_pretrained(d)
        report["saved_fused"] = sorted(load_file(f"{d}/model.safetensors"))
    if variants:
        at = "model.layers.0.block_sparse_moe.experts."
        file = load_file(folder / "model.safetensors")

        def without(*names):
            return {k: v for k, v in file.items() if k not in names}

        def put(**new):
            return {**file, **{at + k.replace("_", "."): v for k, v in new.items()}}

        cases = {
            "no w1": without(at + "2.w1.weight"),
            "no w2": without(at + "2.w2.weight"),
            "no w1 and w3": without(at + "2.w1.weight", at + "2.w3.weight"),
            "no w3 at all": without(*[f"{at}{i}.w3.weight" for i in range(4)]),
            "one shape": put(**{"2_w2_weight": torch.zeros(32, 40)}),
            "all shapes": put(**{f"{i}_w2_weight": torch.zeros(32, 40) for i in range(4)}),
            "one more": put(**{"4_w2_weight": torch.zeros(32, 48)}),
            "other index": {k.replace("experts.2.w2", "experts.9.w2"): v for k, v in file.items()},
            "another layer": put() | {"model.layers.7.block_sparse_moe.experts.0.w1.weight": torch.zeros(48, 32)},
        }
        report["variants"] = {
            name: {"default": attempt(folder, t), "ignore": attempt(folder, t, ignore_mismatched_sizes=True)} for name, t in cases.items()
        }
    (folder / "report.json").write_text(json.dumps(report))


def values(t):
    return {"shape": list(t.shape), "data": t.flatten().tolist()}


def numbers(*shape, start=0):
    n = 1
    for s in shape:
        n *= s
    return torch.arange(start, start + n, dtype=torch.float32).reshape(shape)


def apply(sources, targets, ops, tensors, config, params):
    """Sources by pattern (a list if it has an index) -> targets by name, as WeightConverter.convert does."""
    model = SimpleNamespace(get_parameter=lambda name: params[name])
    out = {k: list(v) for k, v in tensors.items()}
    for op in ops:
        out = op.convert(out, source_patterns=sources, target_patterns=targets, full_layer_name=targets[0].replace("*", "0"), model=model, config=config)
    return {k: v[0] if isinstance(v, list) else v for k, v in out.items()}


def operations():
    config = SimpleNamespace(num_attention_heads=2, parts=3)
    config.get_text_config = lambda: config
    cases = []

    def case(name, sources, targets, ops, tensors, params=None, back=True):
        sources, targets = list(sources), list(targets)
        got = apply(sources, targets, ops, tensors, config, params or {})
        record = {
            "name": name, "sources": sources, "targets": targets,
            "from": {p.replace("*", str(i)): values(t) for p in sources for i, t in enumerate(tensors[p])},
            "to": {k: values(v) for k, v in got.items()},
        }
        if back:  # the targets, by pattern
            groups = {p: [got[p.replace("*", str(i))] for i in range(len(got))] if "*" in p else [got[p]] for p in targets}
            again = apply(targets, sources, [op.reverse_op for op in ops[::-1]], groups, config, {k: torch.zeros(v["shape"]) for k, v in record["from"].items()})
            record["back"] = {k: values(v) for k, v in again.items()}
        cases.append(record)

    two = [numbers(2, 3), numbers(2, 3, start=100)]
    for n in (2, 12):
        experts = [numbers(2, 3, start=10 * i) for i in range(n)]
        up = [numbers(2, 3, start=1000 + 10 * i) for i in range(n)]
        down = [numbers(3, 2, start=2000 + 10 * i) for i in range(n)]
        case(f"stack {n}", ["e.*.w"], ["x"], [cml.MergeModulelist(0)], {"e.*.w": experts})
        case(f"stack {n} dim 1", ["e.*.w"], ["x"], [cml.MergeModulelist(1)], {"e.*.w": experts})
        case(f"unstack {n}", ["x"], ["e.*.w"], [cml.SplitModulelist(0)], {"x": [torch.stack(experts)]})
        case(f"stack concatenate {n}", ["e.*.g", "e.*.u"], ["x"], [cml.MergeModulelist(0), cml.Concatenate(1)], {"e.*.g": experts, "e.*.u": up})
        case(f"stack transpose {n}", ["e.*.d"], ["x"], [cml.MergeModulelist(0), cml.Transpose(1, 2)], {"e.*.d": down})
    case("concatenate", ["a", "b"], ["x"], [cml.Concatenate(0)], {"a": [two[0]], "b": [two[1]]})
    case("concatenate dim 1", ["a", "b"], ["x"], [cml.Concatenate(1)], {"a": [two[0]], "b": [two[1]]})
    case("concatenate unequal", ["a", "b"], ["x"], [cml.Concatenate(0)], {"a": [numbers(4, 3)], "b": [numbers(1, 3, start=50)]}, back=False)
    case("concatenate parts", ["p.*.w"], ["x"], [cml.Concatenate(0, "parts")], {"p.*.w": [numbers(2, 2, start=10 * i) for i in range(3)]})
    case("chunk", ["x"], ["a", "b", "c"], [cml.Chunk(0)], {"x": [numbers(6, 2)]})
    case("chunk dim 1", ["x"], ["a", "b"], [cml.Chunk(1)], {"x": [numbers(3, 4)]})
    case("split", ["x"], ["a", "b", "c"], [cml.Split(0)], {"x": [numbers(8, 2)]}, {"a": torch.zeros(4, 2), "b": torch.zeros(2, 2), "c": torch.zeros(2, 2)})
    case("transpose", ["y"], ["x"], [cml.Transpose(0, 1)], {"y": [numbers(2, 3)]})
    case("transpose 1 2", ["y"], ["x"], [cml.Transpose(1, 2)], {"y": [numbers(2, 3, 4)]})
    case("interleave", ["y"], ["x"], [cml.Interleave(0)], {"y": [numbers(6, 2)]})
    case("interleave dim 1", ["y"], ["x"], [cml.Interleave(1)], {"y": [numbers(2, 6)]})
    case("interleave inverse", ["y"], ["x"], [cml.Interleave(0, inverse=True)], {"y": [numbers(8, 2)]})
    case("interleave chunk", ["y"], ["a", "b"], [cml.Interleave(1), cml.Chunk(1)], {"y": [numbers(2, 8)]}, back=False)
    case("rope", ["y"], ["x"], [cml.PermuteForRope()], {"y": [numbers(12, 3)]})
    case("rope bias", ["y"], ["x"], [cml.PermuteForRope()], {"y": [numbers(12)]})
    case("rope inverse", ["y"], ["x"], [cml.PermuteForRope(inverse=True)], {"y": [numbers(12, 3)]})
    case("chunk rope", ["qkv"], ["q_proj", "k_proj", "v_proj"], [cml.Chunk(0), cml.PermuteForRope(permute_layer_names=["q_proj", "k_proj"])], {"qkv": [numbers(24, 2)]})
    return cases


def sample(pattern):
    """A name that a renaming's pattern is found in."""
    name = re.sub(r"\(\?[!<].*?\)", "", pattern.removeprefix("^"))
    name = re.sub(r"\(([^()|]+)(\|[^()]*)?\)", r"\1", name)  # the first of several
    name = name.replace("\\d+", "3").replace("\\d", "3").replace(".+", "x.y").replace(".*", "x").replace("\\.", ".").replace("$", "").replace("?", "")
    if not pattern.startswith("^"):
        name = "a" + name if name.startswith((".", "_")) else "a." + name
    return name + ("weight" if name.endswith(".") else ".weight" if not pattern.endswith("$") and not name.endswith("_") else "")


def rules():
    seen, out = set(), {"converters": [], "renamings": []}
    for rows in conversion_mapping._build_checkpoint_conversion_mapping().values():
        for row in rows:
            sources, targets = row.source_patterns, row.target_patterns
            key = (type(row).__name__, tuple(sources), tuple(targets))
            if key in seen:
                continue
            seen.add(key)
            if isinstance(row, cml.WeightConverter):
                ops = [{"op": type(o).__name__, **{k: v for k, v in vars(o).items() if v not in (None, False)}} for o in row.operations]
                out["converters"].append({"sources": sources, "targets": targets, "ops": ops})
            elif type(row) is cml.WeightRenaming and len(sources) == len(targets) == 1:
                name = sample(sources[0])
                new, matched = row.rename_source_key(name)
                if matched is None:
                    continue
                try:
                    back = row.reverse_transform().rename_source_key(new)[0]
                except (ValueError, re.error):
                    back = None
                out["renamings"].append([sources[0], targets[0], name, new, back])
    return out


if __name__ == "__main__":
    models, out = Path(sys.argv[1]), Path(sys.argv[2])
    for name in ("mixtral", "qwen3-moe", "deepseek-v3"):
        (out / name).mkdir(parents=True, exist_ok=True)
        for file in ("config.json", "model.safetensors"):
            shutil.copyfile(models / name / file, out / name / file)
        moe(out / name, variants=name == "mixtral")
    torch.manual_seed(12)
    config = MixtralConfig(vocab_size=8, hidden_size=8, intermediate_size=4, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, num_local_experts=12, max_position_embeddings=8)
    MixtralForCausalLM(config).save_pretrained(out / "twelve")
    (out / "twelve" / "generation_config.json").unlink()
    moe(out / "twelve")
    (out / "rules.json").write_text(json.dumps(rules()))
    (out / "ops.json").write_text(json.dumps(operations()))

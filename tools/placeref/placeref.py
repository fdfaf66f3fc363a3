"""What transformers and accelerate plan for 200 generated models: the reference of pretrained/placement.

    placeref.py OUT REFS

REFS holds the tiny reference models (bert, llama, …), a folder each. Writes OUT/generated.json, OUT/ties.json and
OUT/models.json. A module is [name, class, parameters, buffers, children], a tensor
[name, bytes]. Nothing is allocated: all is on the meta device.

Requirements: torch 2.15.0, transformers 5.23.0, accelerate 1.15.0
"""

import json
import logging
import os
import random
import sys

import accelerate.utils.modeling as accelerate
import torch
import transformers.integrations.accelerate as place
from torch import nn
from transformers import AutoConfig, AutoModel
import transformers

logging.disable(logging.WARNING)

DTYPES = [torch.float32, torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.float64]


class Leaf(nn.Module):
    pass


class Block(nn.Module):
    pass


class Inner(nn.Module):
    pass


def tensor(r):
    shape = [r.choice([1, 2, 3, 5, 8, 13, 64, 100]) for _ in range(r.choice([0, 1, 1, 2, 2, 2]))]
    return torch.empty(shape, dtype=r.choice(DTYPES), device="meta")


def fill(r, module, parameters, buffers):
    for i in range(parameters):
        module.register_parameter(r.choice(["weight", "bias", "scale", "w"]) + (str(i) if i else ""), nn.Parameter(tensor(r), requires_grad=False))
    for i in range(buffers):
        module.register_buffer(f"buf{i}", tensor(r), persistent=r.random() < 0.5)


def tree(r, depth):
    kind = r.random()
    if depth == 0 or kind < 0.3:
        module = Leaf()
        fill(r, module, r.choice([0, 1, 1, 2, 3]), r.choice([0, 0, 0, 1]))
        return module
    if kind < 0.5:
        module = nn.ModuleList()
        same = r.random() < 0.7
        seed = r.random()
        for _ in range(r.choice([1, 2, 3, 4, 6, 12])):
            module.append(block(random.Random(seed) if same else r, depth - 1))
        return module
    module = Block() if kind < 0.6 else Inner()
    fill(r, module, r.choice([0, 0, 0, 1, 2]), r.choice([0, 0, 0, 1]))
    children(r, module, depth)
    return module


def block(r, depth):
    module = Block()
    fill(r, module, r.choice([0, 0, 1]), r.choice([0, 0, 1]))
    children(r, module, depth)
    return module


def children(r, module, depth):
    names = ["embed", "layers", "norm", "head", "attn", "mlp", "proj", "gate"]
    for name in r.sample(names, r.choice([1, 2, 2, 3, 4])):
        module.add_module(name, tree(r, max(0, depth - 1)))


def generate(seed, groups=0):
    """A model; groups: so many sources of ties at most, 0: one, in half of the models."""
    r = random.Random(seed)
    root = Inner()
    fill(r, root, r.choice([0, 0, 0, 1, 2]), r.choice([0, 0, 0, 1]))
    children(r, root, r.choice([1, 2, 3, 3, 4]))
    names = list(dict(root.named_parameters()))
    root.all_tied_weights_keys = {}
    if groups:
        tie_more(r, root, names, groups)
    elif len(names) > 3 and r.random() < 0.5:
        # As in real models: the tied one comes last, and both are in modules of their own.
        source, *targets = r.sample([n for n in names if "." in n] or names, 1)
        after = [n for n in names[names.index(source) + 1:] if "." in n and n.rsplit(".", 1)[0] != source.rsplit(".", 1)[0]]
        if "." in source and after:
            tie(r, root, source, after, [1, 1, 2])
    return root


def tie(r, root, source, after, counts):
    parameters = dict(root.named_parameters())
    targets = r.sample(after, min(len(after), r.choice(counts)))
    for target in targets:
        assign(root, target, nn.Parameter(torch.empty_like(parameters[source]), requires_grad=False))
        root.all_tied_weights_keys[target] = source
    return targets


def tie_more(r, root, names, groups):
    free = [n for n in names if "." in n]
    for _ in range(groups):
        if not free:
            return
        source = r.choice(free)
        after = [n for n in free[free.index(source) + 1:] if n.rsplit(".", 1)[0] != source.rsplit(".", 1)[0]]
        if after:
            used = tie(r, root, source, after, [1, 2, 2, 3])
            free = [n for n in free if n != source and n not in used]


def assign(root, name, value):
    *path, last = name.split(".")
    for p in path:
        root = getattr(root, p)
    setattr(root, last, value)


def describe(name, m):
    def tensors(named):
        return [[n, t.numel() * t.element_size()] for n, t in named]

    return [name, type(m).__name__, tensors(m.named_parameters(recurse=False)), tensors(m.named_buffers(recurse=False)),
            [describe(n, c) for n, c in m.named_children()]]


def budgets(r, total):
    """max_memory dicts: roomy, tight, with and without cpu, zero."""
    part = lambda low, high: int(total * r.uniform(low, high))
    yield {0: 2 * total + 1000, "cpu": total}
    yield {0: part(0.3, 0.8), 1: part(0.3, 0.8), "cpu": part(0.5, 2)}
    yield {0: part(0.1, 0.4), 1: part(0.1, 0.4), 2: part(0.1, 0.4), "cpu": part(0.1, 0.5)}
    yield {"cpu": part(0.1, 1.5)}
    yield {0: 0, 1: part(0.4, 1.2), "cpu": part(0.2, 1)}
    yield {0: part(0.5, 1.5), 1: part(0.5, 1.5), 2: part(0.5, 1.5), 3: part(0.5, 1.5)}
    yield {0: part(0.02, 0.2), "cpu": part(0.02, 0.3), "disk": 10 * total}


def attempt(fn, *args, **kwargs):
    try:
        return fn(*args, **kwargs)
    except Exception as e:
        return {"error": type(e).__name__}


def plans(model, max_memory, no_split, ties):
    out = {"max_memory": [[str(k), v] for k, v in max_memory.items()]}
    # Sorted: transformers takes the groups from a set of strings, whose order differs between processes.
    tied = [sorted([t for t, s in model.all_tied_weights_keys.items() if s == source] + [source]) for source in set(model.all_tied_weights_keys.values())]
    infer = lambda m: attempt(place.infer_auto_device_map, model, max_memory=dict(m), no_split_module_classes=no_split, tied_parameters=sorted(tied) or [[]])
    text = lambda m: {k: v if k == "error" else str(v) for k, v in m.items()}
    out["sequential"] = text(infer(max_memory))
    for name, low in (("balanced", False), ("balanced_low_0", True)):
        m = attempt(place.get_balanced_memory, model, max_memory=dict(max_memory), no_split_module_classes=no_split, low_zero=low)
        if "error" in m:
            out[name] = m
            continue
        out[name + "_memory"] = [[str(k), v] for k, v in m.items()]
        out[name] = text(infer(m))
    # accelerate looks for tensors that are tied already.
    parameters = dict(model.named_parameters())
    for target, source in ties.items():
        assign(model, target, parameters[source])
    out["accelerate"] = text(attempt(accelerate.infer_auto_device_map, model, max_memory=dict(max_memory), no_split_module_classes=list(no_split)))
    for target in ties:
        assign(model, target, parameters[target])
    return out


def generated(count, seed=0, groups=0):
    models = []
    while len(models) < count:
        seed += 1
        model = generate(seed, groups)
        if not any(True for _ in model.parameters()) or groups and not model.all_tied_weights_keys:
            continue
        ties = model.all_tied_weights_keys
        total = place.compute_module_sizes(model)[0][""]
        r = random.Random(seed)
        no_split = {"Block"} if any(isinstance(m, Block) for m in model.modules()) else set()
        models.append({"tree": describe("", model), "ties": ties, "no_split": sorted(no_split),
                       "runs": [plans(model, b, no_split, ties) for b in budgets(r, total)]})
    return models


def ties():
    """Models whose maps depend on the order in which tied modules are split: found among 6,000 generated ones."""
    found = {0: [100341],
             1: [1000194, 1000472, 1000696, 1000732, 1000923, 1002090],
             2: [2000012, 2000164, 2000497, 2000564, 2000596, 2000604, 2000683, 2000812],
             3: [3000462, 3000860, 3001521, 3001755]}
    return [generated(1, seed - 1, groups)[0] for groups, seeds in found.items() for seed in seeds]


def real(refs):
    models = []
    for case, cls in (("bert", "BertModel"), ("bert-mlm", "BertForMaskedLM"), ("bert-seqcls", "BertForSequenceClassification"),
                      ("llama", "LlamaForCausalLM"), ("llama-tied-rope-llama3", "LlamaForCausalLM"), ("llama-seqcls", "LlamaForSequenceClassification")):
        config = AutoConfig.from_pretrained(os.path.join(refs, case))
        for dtype in ("float32", "bfloat16"):
            with torch.device("meta"):
                model = getattr(transformers, cls)._from_config(config, dtype=getattr(torch, dtype))
            sizes = place.compute_module_sizes(model)[0]
            r = random.Random(case + dtype)
            models.append({"case": case, "class": cls, "dtype": dtype, "bytes": sizes[""],
                           "runs": [plans(model, b, model._no_split_modules or set(), {}) for b in budgets(r, sizes[""])]})
    return models


if __name__ == "__main__":
    out, refs = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    for name, value in (("generated", generated(200)), ("ties", ties()), ("models", real(refs))):
        with open(os.path.join(out, name + ".json"), "w") as f:
            json.dump(value, f, separators=(",", ":"))
            f.write("\n")

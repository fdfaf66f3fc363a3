#!/usr/bin/env python3
"""What transformers' model methods say of the repository's tiny checkpoints: counts, accessors, resizing, conversions.

usage: methodsref.py OUT FOLDER...
FOLDER: unpacked groups of testdata (models-bert, bert-heads, models-llama; answers, base and tokens of llama): each case
a folder with inputs.json
needs: Python 3.11, torch 2.15.0, transformers 5.23.0
OUT/methods.json: {model type/case: {...}}
"""
import json, os, sys, tempfile, warnings
os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import transformers as tf
from safetensors import safe_open

tf.logging.set_verbosity_error()
warnings.filterwarnings("ignore")
torch.set_num_threads(1)


def path_of(model, module):
    """The name of a module; None for none, "" for the model itself."""
    return None if module is None else next(n for n, m in model.named_modules() if m is module)


def shared(model):
    """Groups of names with one storage."""
    groups = {}
    for k, v in model.state_dict().items():
        groups.setdefault(v.data_ptr(), []).append(k)
    return sorted(sorted(g) for g in groups.values() if len(g) > 1)


def dtypes(model):
    names = list(model.named_parameters(remove_duplicate=False)) + list(model.named_buffers(remove_duplicate=False))
    return {k: str(v.dtype).removeprefix("torch.") for k, v in names}


def counts(model):
    return {
        "all": model.num_parameters(),
        "only_trainable": model.num_parameters(only_trainable=True),
        "exclude_embeddings": model.num_parameters(exclude_embeddings=True),
        "both": model.num_parameters(only_trainable=True, exclude_embeddings=True),
        "footprint": model.get_memory_footprint(),
        "without_buffers": model.get_memory_footprint(return_buffers=False),
    }


def not_saved(model):
    """The keys that save_pretrained leaves out."""
    with tempfile.TemporaryDirectory() as d:
        try:
            model.save_pretrained(d)
        except RuntimeError as e:
            return str(e)
        with safe_open(os.path.join(d, "model.safetensors"), "pt") as f:
            return sorted(set(model.state_dict()) - set(f.keys()))


def rows(t):
    return t if t.dim() == 2 else t[:, None]


def resize(load, n, pad=None, mean=True, **kw):
    model = load(**kw)
    model.get_input_embeddings().weight.requires_grad_(False)
    old = {k: v.clone() for k, v in model.state_dict().items()}
    out = {"n": n, "pad": pad, "mean": mean, "tied": model.config.tie_word_embeddings}
    try:
        e = model.resize_token_embeddings(n, pad_to_multiple_of=pad, mean_resizing=mean)
    except Exception as err:
        return {**out, "error": type(err).__name__}
    head = model.get_output_embeddings()
    new = model.state_dict()
    changed = {}
    for k, v in new.items():
        kept = min(len(v), len(old[k])) if v.dim() else 0
        if v.dim() and not torch.equal(v[:kept], old[k][:kept]):
            # BERT's set_output_embeddings puts the decoder's bias in the place of an untied one
            changed[k] = {"shape": list(v.shape), "is": next(j for j, w in new.items() if j != k and w.data_ptr() == v.data_ptr())}
            continue
        if v.shape == old[k].shape:
            continue
        added = v[kept:].double()
        # how far new rows are from the mean of the old ones: 0 for exactly that
        far = None if not len(added) else (added - old[k].double().mean(0)).abs().max().item()
        changed[k] = {"shape": list(v.shape), "far": far, "zero": bool(len(added)) and not added.any().item(), "std": added.std().item() if len(added) > 1 else None}
    return {**out, "changed": changed, "shared": shared(model), "vocab_size": model.config.get_text_config().vocab_size,
            "num_embeddings": e.num_embeddings, "padding_idx": e.padding_idx, "out_features": head.out_features if head is not None else None,
            "input_requires_grad": e.weight.requires_grad, "output_requires_grad": head.weight.requires_grad if head is not None else None,
            "not_saved": not_saved(model)}


def describe(folder):
    info = json.load(open(os.path.join(folder, "inputs.json")))
    cls = getattr(tf, info["class"])

    def load(**kw):
        return cls.from_pretrained(folder, dtype=torch.float32, **kw)

    model = load()
    out = {"class": info["class"], "model_type": model.config.model_type, "counts": counts(model), "dtype": str(model.dtype), "device": str(model.device)}
    out["paths"] = {
        "base_model": path_of(model, model.base_model), "encoder": path_of(model, model.get_encoder()), "decoder": path_of(model, model.get_decoder()),
        "input_embeddings": path_of(model, model.get_input_embeddings()), "output_embeddings": path_of(model, model.get_output_embeddings()),
    }
    out["can_generate"] = cls.can_generate()
    out["supports_activation_checkpointing"] = cls.supports_gradient_checkpointing
    for p in model.base_model.parameters():
        p.requires_grad_(False)
    out["frozen_base"] = counts(model)
    out["half"] = {"dtypes": dtypes(load().half()), "config": str(load().half().config.dtype)}
    v = model.config.vocab_size
    out["resize"] = [resize(load, v + 9), resize(load, v + 9, mean=False), resize(load, v + 4, pad=64), resize(load, v - 16), resize(load, v),
                     resize(load, v, pad=64), resize(load, 8), resize(load, v + 5, tie_word_embeddings=not model.config.tie_word_embeddings),
                     resize(load, v - 5, tie_word_embeddings=not model.config.tie_word_embeddings)]
    # fewer rows than columns: the covariance is singular
    small = load()
    small.resize_token_embeddings(8)
    w = small.get_input_embeddings().weight.data.clone()
    small.resize_token_embeddings(12)
    out["singular_is_mean"] = bool((small.get_input_embeddings().weight.data[8:] == w.mean(0)).all())
    return out


def main():
    out, folders = sys.argv[1], sys.argv[2:]
    cases = {}
    for folder in folders:
        for name in sorted(os.listdir(folder)):
            if os.path.exists(os.path.join(folder, name, "inputs.json")):
                torch.manual_seed(0)
                case = describe(os.path.join(folder, name))
                cases[case["model_type"] + "/" + name] = case
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "methods.json"), "w") as f:
        json.dump(cases, f, indent=1, sort_keys=True)
        f.write("\n")


main()

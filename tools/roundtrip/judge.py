#!/usr/bin/env python3
"""Judges checkpoints that torchgo saved: does transformers load them, with equal tensors and no warning?

usage: TORCHGO_ROUNDTRIP=DIR go test ./pretrained -run TestRoundTrips   # saves DIR/CASE and DIR/CASE.json
       judge.py DIR OUT                                               # writes OUT/verdicts.json
       go run ./tools/pack OUT testdata/roundtrip.tar.zst
needs: torch 2.15.0, transformers 5.23.0, safetensors

verdicts.json  {case: {"files": {name: sha256 of what was judged}, "state": which of the states that are right was found,
               "missing", "unexpected", "mismatched", "errors", "log": what transformers said,
               "untied": tied keys that are not one tensor, "changed": documents that saving again writes otherwise}}
"""
import hashlib, json, logging, os, sys, tempfile, warnings
os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import transformers as tf

tf.utils.logging.disable_progress_bar()
tf.logging.set_verbosity_warning()
torch.set_num_threads(1)


class Keep(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def sha(path):
    return hashlib.sha256(open(path, "rb").read()).hexdigest()


def entry(t):
    data = t.detach().contiguous().view(torch.uint8) if t.dim() else t.detach().reshape(1).view(torch.uint8)
    return {"dtype": str(t.dtype).split(".")[1], "shape": list(t.shape), "sha256": hashlib.sha256(data.numpy().tobytes()).hexdigest()}


def judge(folder, want):
    verdict = {"files": {f: sha(os.path.join(folder, f)) for f in sorted(os.listdir(folder))}}
    keep = Keep()
    logger = logging.getLogger("transformers")
    logger.addHandler(keep)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            kwargs = {"variant": want["variant"]} if want["variant"] else {}
            if want["class"]:
                cls = getattr(tf, want["class"])
            else:
                cls = getattr(tf, tf.AutoConfig.from_pretrained(folder).architectures[0])
            model, info = cls.from_pretrained(folder, output_loading_info=True, **kwargs)
        finally:
            logger.removeHandler(keep)
    verdict["log"] = keep.lines + [str(w.message) for w in warned]
    for key, name in ("missing_keys", "missing"), ("unexpected_keys", "unexpected"), ("mismatched_keys", "mismatched"), ("error_msgs", "errors"):
        verdict[name] = sorted(info[key])
    state = {k: entry(v) for k, v in model.state_dict().items()}
    verdict["state"] = next((i for i, s in enumerate(want["states"]) if s == state), -1)
    tensors = model.state_dict(keep_vars=True)
    verdict["untied"] = [t for t, s in want["ties"].items() if tensors[t] is not tensors[s]]
    verdict["changed"] = []
    if not want["class"]:  # of an interrupted save: config.json may name the weights, and be of another model than generation_config.json
        return verdict
    with tempfile.TemporaryDirectory() as d:
        model.save_pretrained(d, **kwargs)
        for f in ("config.json", "generation_config.json"):
            again, given = os.path.join(d, f), os.path.join(folder, f)
            if os.path.exists(again) != os.path.exists(given) or os.path.exists(given) and sha(again) != sha(given):
                verdict["changed"].append(f)
    return verdict


source, out = sys.argv[1:3]
verdicts = {}
for name in sorted(os.listdir(source)):
    folder = os.path.join(source, name)
    if os.path.isdir(folder):
        verdicts[name] = judge(folder, json.load(open(folder + ".json")))
        v = verdicts[name]
        bad = {k: v[k] for k in v if k != "files" and v[k] and not (k == "state" and v[k] > 0)}
        print(name, "BAD" if bad else "ok", bad or "")
os.makedirs(out, exist_ok=True)
with open(os.path.join(out, "verdicts.json"), "w") as f:
    json.dump(verdicts, f, indent=1)
    f.write("\n")

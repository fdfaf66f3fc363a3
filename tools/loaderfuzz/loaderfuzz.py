#!/usr/bin/env python3
"""Makes random loading situations of tiny BERT and Llama checkpoints and records what transformers does with them:
what it reports, which tensors the model then has, what it saves.

usage: loaderfuzz.py OUT FIRST LAST [SEED...]   # seeds FIRST to LAST-1, and the others
       go run ./tools/pack OUT testdata/loaderfuzz.tar.zst && go test ./pretrained -run TestRandomSituations
needs: torch 2.15.0, transformers 5.23.0, safetensors

OUT/SEED holds a checkpoint and case.json: "what" was done to it, "class" and "options" to load it with, and "error", or
"report", "state" {name: [dtype, shape, sha256, or "" where values are drawn]} and "saved" {file: text, or {tensor:
[dtype, sha256]}}. Weights are eighths of small integers, so that they pack well. What torchgo refuses on purpose (see
docs/compat.md) is not made: integers in place of floats, two names of one parameter, span heads with other than two outputs.
"""
import collections, hashlib, json, logging, os, random, shutil, sys, tempfile
os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import transformers as tf
from safetensors import safe_open
from safetensors.torch import save_file

BERT = ["BertModel", "BertForMaskedLM", "BertLMHeadModel", "BertForPreTraining", "BertForNextSentencePrediction",
        "BertForSequenceClassification", "BertForTokenClassification", "BertForMultipleChoice"]
LLAMA = ["LlamaModel", "LlamaForCausalLM", "LlamaForSequenceClassification", "LlamaForTokenClassification"]
AUTO = ["AutoModel", "AutoModelForMaskedLM", "AutoModelForCausalLM", "AutoModelForSequenceClassification",
        "AutoModelForTokenClassification", "AutoModelForPreTraining", "AutoModelForNextSentencePrediction"]
SOURCES = {"lm_head.weight": "model.embed_tokens.weight", "cls.predictions.decoder.bias": "cls.predictions.bias",
           "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight"}
STRANGE = ["foo.weight", "bert.embeddings.position_ids", "embeddings.position_ids", "model.rotary_emb.inv_freq",
           "model.layers.0.self_attn.rotary_emb.inv_freq", "cls.predictions.decoder.bias", "lm_head.bias", "score.weight",
           "classifier.weight", "bert.pooler.dense.weight", "model.layers.7.input_layernorm.weight", "a b", "é.weight"]
LABELS = {"0": "x", "1": "y", "2": "z"}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}
FILE = {"vocab_size": [40, 24], "num_hidden_layers": [0, 1, 3], "num_labels": [4], "hidden_act": ["relu"], "label2id": [{"a": 0, "b": 1}],
        "id2label": [LABELS, None], "tie_word_embeddings": [True, False], "torchscript": [True], "tokenizer_class": ["X"], "head_dim": [None],
        "num_key_value_heads": [None], "layer_norm_eps": [1e-5], "eos_token_id": [[1, 2]], "num_beams": [4], "foo": [{"b": [1, 2.50]}]}
OVERRIDE = {"vocab_size": [40], "num_labels": [4, 2], "num_hidden_layers": [1, 3], "tie_word_embeddings": [True, False], "id2label": [LABELS, {"0": "q"}],
            "label2id": [{"a": 0, "b": 1}], "output_hidden_states": [True], "hidden_act": ["relu"], "pad_token_id": [7], "foo": [1],
            "rope_parameters": [LINEAR], "problem_type": ["multi_label_classification"], "is_decoder": [True], "attention_dropout": [0.5]}
MAPPINGS = [{"^bert\\.": ""}, {"^model\\.": ""}, {"self_attn\\.(q|k)_proj": "self_attn.\\1_proj"},
            {"^module\\.": ""}, {"^transformer\\.": "bert."}, {"^transformer": "model"}, {"foo": "bar"}]


class Situation:
    """One checkpoint, changed at random, and the arguments to load it with."""

    def __init__(self, seed):
        r = self.r = random.Random(seed)
        torch.manual_seed(seed)
        self.what, self.options = [], {}
        self.bert = r.random() < 0.5
        self.base = "bert" if self.bert else "model"
        self.cls = r.choice(BERT if self.bert else LLAMA)
        keys = dict(vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=16)
        maybe = [("tie_word_embeddings", r.random() < 0.5), ("num_labels", r.choice([1, 3, 5])), ("pad_token_id", r.choice([0, 3]))]
        if not self.bert:
            keys["num_key_value_heads"] = 1
            maybe += [("attention_bias", True), ("mlp_bias", True), ("head_dim", 4)]
        keys.update((k, v) for k, v in maybe if r.random() < 0.3)
        model = getattr(tf, self.cls)((tf.BertConfig if self.bert else tf.LlamaConfig)(**keys))
        self.config = json.loads(model.config.to_json_string(use_diff=r.random() < 0.7))
        self.config["architectures"] = [self.cls]
        self.state = {k: torch.randint(-4, 5, t.shape) / 8 for k, t in model.state_dict().items()}
        for change, p in (self.ties, 1), (self.drop, 0.4), (self.add, 0.3), (self.prefix, 0.3), (self.old_names, 0.2), (self.dtypes, 0.3), \
                (self.shapes, 0.3), (self.keys, 1), (self.arguments, 1):
            if r.random() < p:
                change()

    def did(self, *what):
        self.what.append(" ".join(map(str, what)))

    def ties(self):
        if not self.config.get("tie_word_embeddings", self.bert):
            return
        for target, source in SOURCES.items():
            if target in self.state:
                how = self.r.choice(["gone", "gone", "gone", "equal", "differs", "alone"])
                self.did(target, how)
                if how == "gone":
                    del self.state[target]
                elif how == "alone":
                    self.state.pop(source, None)
                else:
                    self.state[target] = self.state.get(source, self.state[target]) + (how == "differs")

    def drop(self):
        keys = list(self.state)
        n = min(len(keys), self.r.choice([1, 2, 5, len(keys) // 2, len(keys)]))
        self.did("drop", n)
        for k in self.r.sample(keys, n):
            del self.state[k]

    def add(self):
        for k in self.r.sample(STRANGE, 2):
            if k not in self.state:
                self.did("add", k)
                self.state[k] = torch.ones(self.r.choice([(16,), (16, 16), (1, 16)]))

    def prefix(self):
        how, base = self.r.choice(["strip", "strip some", "add", "add some", "module", "twice", "other"]), self.base + "."
        self.did("prefix", how)
        renamed = {}
        for k, t in self.state.items():
            has = k.startswith(base)
            if not how.endswith("some") or self.r.random() < 0.5:
                if how.startswith("strip") and has:
                    k = k[len(base):]
                elif how.startswith("add") and not has or how == "twice":
                    k = base + k
                elif how == "module":
                    k = "module." + k
                elif how == "other" and has:
                    k = "transformer." + k[len(base):]
            renamed.setdefault(k, t)
        self.state = renamed

    def old_names(self):
        self.did("gamma and beta")
        self.state = {k.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta") if self.r.random() < 0.7 else k: t
                      for k, t in self.state.items()}

    def dtypes(self):
        every, dtype = self.r.random() < 0.5, self.r.choice([torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
        every = every and dtype.itemsize > 1  # of fp8 alone transformers can't build a model
        self.did(dtype, "all" if every else "some")
        self.state = {k: t.to(dtype) if every or self.r.random() < 0.3 else t for k, t in self.state.items()}

    def shapes(self):
        for k in self.r.sample(list(self.state), min(len(self.state), 2)):
            how, t = self.r.choice(["half", "transposed", "unsqueezed", "empty", "scalar", "flat"]), self.state[k]
            self.did(k, how)
            self.state[k] = {"half": lambda: t[:max(1, len(t) // 2)], "transposed": t.t, "unsqueezed": lambda: t[None], "empty": lambda: t[:0],
                             "scalar": lambda: t.flatten()[0], "flat": t.flatten}[how]() if t.dim() in (1, 2) and t.numel() else t

    def keys(self):
        r, c = self.r, self.config
        for key in "dtype", "torch_dtype":
            c.pop(key, None)
            if r.random() < 0.3:
                c[key] = r.choice(["float16", "bfloat16", "float32", None])
        if r.random() < 0.4:
            key = r.choice(list(FILE))
            c[key] = r.choice(FILE[key])
            self.did("config", key, c[key])
        if r.random() < 0.1:
            c["model_type"] = r.choice(["bert", "llama", "foo"])

    def arguments(self):
        r, o = self.r, self.options
        if r.random() < 0.5:
            self.cls = r.choice(AUTO if r.random() < 0.3 else BERT + LLAMA if r.random() < 0.2 else BERT if self.bert else LLAMA)
        if r.random() < 0.25:
            o["dtype"] = r.choice(["float32", "bfloat16", "float16", "float64"])
        if r.random() < 0.6:
            o["ignore_mismatched_sizes"] = True
        if r.random() < 0.3:
            key = r.choice(list(OVERRIDE))
            o["config"] = {key: r.choice(OVERRIDE[key])}
        if r.random() < 0.15:
            o["key_mapping"] = r.choice(MAPPINGS)
        if r.random() < 0.1:
            o["variant"] = "x"
        self.save = {"save_original_format": r.random() < 0.7}
        if r.random() < 0.5:
            self.save["max_shard_size"] = r.choice(["1KB", "3KB", "10KB"])

    def write(self, folder):
        v = "." + self.options["variant"] if "variant" in self.options else ""
        json.dump(self.config, open(f"{folder}/config.json", "w"), indent=1)
        state = {k: t.contiguous().clone() for k, t in self.state.items()}
        if self.r.random() < 0.7 or len(state) < 2:
            save_file(state, f"{folder}/model{v}.safetensors", metadata={"format": "pt"})
            return
        names = list(state)
        self.r.shuffle(names)
        index = {"metadata": {"total_size": 1}, "weight_map": {}}
        if self.r.random() < 0.3:
            index["metadata"]["dtype"] = self.r.choice(["float16", "bfloat16", "float32"])
        for i in range(2):
            file = f"model{v}-{i + 1:05d}-of-00002.safetensors"
            save_file({k: state[k] for k in names[i::2]}, f"{folder}/{file}")
            index["weight_map"].update(dict.fromkeys(names[i::2], file))
        json.dump(index, open(f"{folder}/model.safetensors.index{v}.json", "w"), indent=1)


def name(dtype):
    return str(dtype).removeprefix("torch.")


def sha(t):
    return hashlib.sha256(t.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()[:16]


def ask_transformers(s, folder):
    o = dict(s.options)
    o.update(o.pop("config", {}))
    try:
        model, info = getattr(tf, s.cls).from_pretrained(folder, output_loading_info=True, **o)
    except NotImplementedError:
        return None  # it compares tied weights that are on the meta device, because one has another shape
    except Exception as e:
        return {"error": f"{type(e).__name__}: {e}"[:200]}
    if any(t.is_meta for t in model.state_dict().values()):
        return None  # a tied weight that is only in the file as its target, and of another shape
    shared = collections.defaultdict(list)
    for k, p in model.named_parameters(remove_duplicate=False):
        shared[p.data_ptr() if p.numel() else k].append(k)
    ties = sorted(sorted(g) for g in shared.values() if len(g) > 1)
    drawn = set(info["missing_keys"]) | {k for k, _, _ in info["mismatched_keys"]}
    drawn.update(k for g in ties if drawn & set(g) for k in g)
    state = {k: [name(t.dtype), list(t.shape), "" if k in drawn and t.unique().numel() > 1 else sha(t)] for k, t in model.state_dict().items()}
    return {"report": {"class": type(model).__name__, "dtype": name(model.dtype), "missing_keys": sorted(info["missing_keys"]),
                       "unexpected_keys": sorted(info["unexpected_keys"]), "mismatched_keys": sorted(map(list, info["mismatched_keys"])),
                       "num_parameters": model.num_parameters(), "memory_footprint": model.get_memory_footprint()},
            "ties": ties, "state": state, "saved": save(model, s.save, state)}


def save(model, options, state):
    drawn = any(not digest for _, _, digest in state.values())
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, **options)
        saved = {}
        for file in sorted(os.listdir(folder)):
            if file.endswith(".json"):
                saved[file] = open(f"{folder}/{file}").read()
                continue
            with safe_open(f"{folder}/{file}", "pt") as f:
                saved[file] = {k: [name(f.get_tensor(k).dtype), "" if drawn else sha(f.get_tensor(k))] for k in f.keys()}
        return saved


def main():
    out, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    tf.utils.logging.disable_progress_bar()
    tf.logging.set_verbosity(logging.CRITICAL)
    torch.set_num_threads(1)
    for seed in [*range(first, last), *map(int, sys.argv[4:])]:
        s, folder = Situation(seed), f"{out}/{seed}"
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        s.write(folder)
        answer = ask_transformers(s, folder)
        if answer is None:
            shutil.rmtree(folder)
            continue
        case = {"what": s.what, "class": s.cls, "options": s.options, "save": s.save, **answer}
        json.dump(case, open(f"{folder}/case.json", "w"), indent=1, sort_keys=True)


if __name__ == "__main__":
    main()

"""Writes the reference data of testdata/gguf-models.tar.zst: python models.py OUT SMOLLM2

SMOLLM2: the file SmolLM2-135M-Instruct.Q4_1.gguf that `go run ./tools/fetchmodel SmolLM2-135M-Instruct-GGUF` fetches.
Needs torch 2.15.0 (CPU), transformers 5.23.0, gguf 0.19, safetensors, numpy.

OUT/<case>.gguf, <case>.json     small llamas whose metadata leave things out or say more; "config" is the config.json of
                                 what transformers makes of it, "saved" sha256 of model.safetensors, "sd" of each float32
                                 tensor, "info" its loading info
  <case>.expected.safetensors    input_ids and logits, float32
OUT/smollm2.json                 "config", "saved"; "dequantized" is sha256 of each tensor by the file's name as gguf.dequantize
                                 makes it, "sd" of each of the model's; "prompts" with their token ids
  smollm2.safetensors            by prompt N, whose logits l are (positions, vocabulary), float32:
                                 logits.N  l[:, ::STRIDE]; mean.N, std.N  of all l at a position, as float64
                                 top.N, top_ids.N  the 8 greatest at each position; last.N  l[-1] of the first prompt
"""
import copy, hashlib, json, os, sys, tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import gguf
import numpy as np
import torch
import transformers as tf
from gguf import GGMLQuantizationType as T, quants
from safetensors.numpy import save_file

tf.logging.set_verbosity_error()
torch.set_num_threads(1)
out, smollm2 = sys.argv[1:]
os.makedirs(out, exist_ok=True)
STRIDE = 101
E, H, F, V = 32, 4, 48, 40


def digest(a):
    return hashlib.sha256(np.ascontiguousarray(a, dtype=np.float32).tobytes()).hexdigest()


def state(m):
    return {k: digest(v.float().numpy()) for k, v in m.state_dict().items()}


def plain(m):
    """The model without the marks of the file that it came from, with which transformers does not save it."""
    c = copy.deepcopy(m.config)
    if hasattr(c, "quantization_config"):
        del c.quantization_config
    p = type(m)(c)
    p.load_state_dict(m.state_dict())
    p.tie_weights()
    return p


def saved(m):
    """The sha256 of what transformers saves, and its config.json."""
    with tempfile.TemporaryDirectory() as to:
        plain(m).save_pretrained(to)
        data = open(os.path.join(to, "model.safetensors"), "rb").read()
        return hashlib.sha256(data).hexdigest(), json.load(open(os.path.join(to, "config.json")))


def write(path, kv_heads, head_dim, dtype, tied, say, more, layers, context, say_heads):
    r = np.random.default_rng(len(path.split("/")[-1]))
    w = gguf.GGUFWriter(path, "llama")
    w.add_block_count(layers)
    w.add_context_length(context)
    w.add_embedding_length(E)
    w.add_feed_forward_length(F)
    w.add_head_count(H)
    if say_heads:
        w.add_head_count_kv(kv_heads)
    w.add_layer_norm_rms_eps(1e-5)
    say(w)

    def add(name, *shape):
        a = r.standard_normal(shape).astype(np.float32) * np.float32(0.3)
        if len(shape) == 1:
            w.add_tensor(name, a)
        else:
            w.add_tensor(name, quants.quantize(a, dtype), raw_dtype=dtype)

    q, k = H * head_dim, kv_heads * head_dim
    add("token_embd.weight", V, E)
    add("output_norm.weight", E)
    if not tied:
        add("output.weight", V, E)
    for i in range(layers):
        p = f"blk.{i}."
        add(p + "attn_norm.weight", E)
        add(p + "attn_q.weight", q, E)
        add(p + "attn_k.weight", k, E)
        add(p + "attn_v.weight", k, E)
        add(p + "attn_output.weight", E, q)
        add(p + "ffn_norm.weight", E)
        add(p + "ffn_gate.weight", F, E)
        add(p + "ffn_up.weight", F, E)
        add(p + "ffn_down.weight", E, F)
    for name, x in more.items():
        if isinstance(x, np.ndarray):
            w.add_tensor(name, x)
        else:
            add(name, *x)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def case(name, kv_heads=None, head_dim=E // H, dtype=T.F32, tied=False, say=lambda w: None, more={}, layers=1, context=64, rope=None):
    file = name + ".gguf"
    write(os.path.join(out, file), kv_heads or H, head_dim, dtype, tied, say, more, layers, context, bool(kv_heads))
    with tempfile.TemporaryDirectory() as full:
        # Without a number of key heads, transformers leaves the rows of q and k in the file's order, which is wrong: it
        # gets the same file with it.
        write(os.path.join(full, file), kv_heads or H, head_dim, dtype, tied, say, more, layers, context, True)
        m, info = tf.AutoModelForCausalLM.from_pretrained(full, gguf_file=file, output_loading_info=True)
        if rope:
            said = tf.AutoConfig.from_pretrained(full, gguf_file=file, rope_parameters=rope)
            m = tf.AutoModelForCausalLM.from_pretrained(full, gguf_file=file, config=said)
    ids = torch.arange(3, 12)[None]
    with torch.no_grad():
        logits = m(input_ids=ids).logits
    save_file({"input_ids": ids.numpy(), "logits": logits.numpy()}, os.path.join(out, name + ".expected.safetensors"))
    info = {k: sorted(map(str, info[k])) for k in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    weights, config = saved(m)
    json.dump({"config": config, "info": info, "sd": state(m), "saved": weights}, open(os.path.join(out, name + ".json"), "w"), indent=1)
    print(name, info, {k: v for k, v in config.items() if k in ("rope_parameters", "head_dim", "vocab_size", "tie_word_embeddings")})


def tokens(w):
    w.add_tokenizer_model("llama")
    w.add_token_list([f"t{i}" for i in range(V)])


def ids(w):
    w.add_name("tiny")
    tokens(w)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_pad_token_id(3)
    w.add_unk_token_id(0)
    w.add_rope_freq_base(500000.0)


def wide(w):
    w.add_vocab_size(V)
    w.add_rope_dimension_count(16)
    w.add_key_length(16)
    w.add_value_length(16)


def scaled(w):
    w.add_vocab_size(V)
    w.add_rope_dimension_count(8)
    w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    w.add_rope_scaling_factor(4.0)


def frequencies(w):
    w.add_vocab_size(V)
    w.add_rope_dimension_count(16)
    w.add_rope_freq_base(500000.0)


def llama3(dim, theta, factor=8.0, low=1.0, high=4.0, original=8192):
    """What the frequencies of a Llama 3.1 are divided by: 1 where there are many turns in the original length, factor
    where there are few."""
    turns = original / (2 * np.pi) * theta ** -(np.arange(0, dim, 2) / dim)
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


def yarn(w):
    w.add_vocab_size(V)
    w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    w.add_rope_scaling_factor(4.0)
    w.add_rope_scaling_orig_ctx_len(16)


case("least", say=tokens, tied=True, layers=2)  # only what must be there: heads of keys and values, RoPE, vocabulary left out
case("ids", kv_heads=1, say=ids)
case("wide", kv_heads=2, head_dim=16, say=wide)  # heads of 16 where 32/4 is 8
case("bf16", kv_heads=2, dtype=T.BF16, say=wide, head_dim=16, tied=True)
case("more", say=tokens, more={"rope_freqs.weight": (4,), "blk.0.attn_q.bias": (E,), "blk.0.attn_rot_embd.weight": (4,), "blk.7.odd.weight": (3, 2)})
# transformers leaves rope.scaling and rope_freqs out of a llama's config; these three have the config that the file's model had.
case("scaled", kv_heads=2, say=scaled, rope={"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0})
case("yarn", kv_heads=2, say=yarn, rope={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 10000.0})
case("freqs", kv_heads=2, head_dim=16, say=frequencies, context=1 << 17, more={"rope_freqs.weight": llama3(16, 500000.0)},
     rope={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192, "rope_theta": 500000.0})

# The real one.
folder, file = os.path.split(smollm2)
record = {"dequantized": {}, "prompts": []}
for t in gguf.GGUFReader(smollm2).tensors:
    record["dequantized"][t.name] = digest(quants.dequantize(t.data, t.tensor_type))
tok = tf.AutoTokenizer.from_pretrained(folder, gguf_file=file)
m, info = tf.AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, output_loading_info=True)
assert not any(info.values()), info
(record["saved"], record["config"]), record["sd"] = saved(m), state(m)
double = tf.AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float64)
tensors = {}
PROMPTS = [  # float32 is within 1e-4 of float64 in each, so that others' float32 can be, too
    "The capital of France is",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "Gravity is explained by general relativity as the curvature of spacetime, which",
    "<|im_start|>user\nWhat is 7 times 8?<|im_end|>\n<|im_start|>assistant\n",
    "Ich weiß es nicht, 你好 🙂",
]
for n, text in enumerate(PROMPTS):
    x = tok(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        y, z = m(input_ids=x).logits[0], double(input_ids=x).logits[0]
    top = y.topk(8, dim=-1)
    print(n, tuple(y.shape), repr(tok.decode(y[-1].argmax())), "float64 differs by", float((y.double() - z).abs().max()), "largest", float(y.abs().max()))
    record["prompts"].append({"text": text, "input_ids": x[0].tolist()})
    tensors[f"logits.{n}"] = y[:, ::STRIDE].contiguous().numpy()
    tensors[f"mean.{n}"] = y.double().mean(-1).numpy()
    tensors[f"std.{n}"] = y.double().std(-1).numpy()
    tensors[f"top.{n}"], tensors[f"top_ids.{n}"] = top.values.numpy(), top.indices.numpy()
    if n == 0:
        tensors["last.0"] = y[-1].numpy()
record["stride"] = STRIDE
save_file(tensors, os.path.join(out, "smollm2.safetensors"))
json.dump(record, open(os.path.join(out, "smollm2.json"), "w"), indent=1)

package peft

import "strings"

// defaultTargets are the modules that peft 0.21.2 gives adapters of a model type where the config names none.
var defaultTargets = map[Type]map[string]string{
	LoRA: {
		"t5": "q v", "mt5": "q v", "bart": "q_proj v_proj", "gpt2": "c_attn", "bloom": "query_key_value", "blip-2": "q v q_proj v_proj",
		"opt": "q_proj v_proj", "gptj": "q_proj v_proj", "gpt_neox": "query_key_value", "gpt_neo": "q_proj v_proj", "bert": "query value",
		"roberta": "query value", "xlm-roberta": "query value", "electra": "query value", "deberta-v2": "query_proj value_proj",
		"deberta": "in_proj", "layoutlm": "query value", "llama": "q_proj v_proj", "llama4": "q_proj v_proj", "chatglm": "query_key_value",
		"gpt_bigcode": "c_attn", "mpt": "Wqkv", "RefinedWebModel": "query_key_value", "RefinedWeb": "query_key_value",
		"falcon": "query_key_value", "btlm": "c_proj c_attn", "codegen": "qkv_proj", "mistral": "q_proj v_proj", "mixtral": "q_proj v_proj",
		"stablelm": "q_proj v_proj", "phi": "q_proj v_proj fc1 fc2", "gemma": "q_proj v_proj", "gemma2": "q_proj v_proj",
		"gemma3_text": "q_proj v_proj", "qwen2": "q_proj v_proj", "qwen3": "q_proj v_proj", "nemotron_h": "q_proj k_proj v_proj o_proj",
		"rwkv": "key value receptance output", "rwkv7": "r_proj k_proj v_proj o_proj key value",
	},
	IA3: {
		"t5": "k v wo", "mt5": "k v wi_1", "gpt2": "c_attn mlp.c_proj", "bloom": "query_key_value mlp.dense_4h_to_h",
		"roberta": "key value output.dense", "opt": "q_proj k_proj fc2", "gptj": "q_proj v_proj fc_out",
		"gpt_neox": "query_key_value dense_4h_to_h", "gpt_neo": "q_proj v_proj c_proj", "bart": "q_proj v_proj fc2",
		"gpt_bigcode": "c_attn mlp.c_proj", "llama": "k_proj v_proj down_proj", "llama4": "q_proj v_proj down_proj",
		"mistral": "k_proj v_proj down_proj", "mixtral": "k_proj v_proj w2", "bert": "key value output.dense",
		"deberta-v2": "key_proj value_proj output.dense", "deberta": "in_proj output.dense", "RefinedWebModel": "query_key_value dense_4h_to_h",
		"RefinedWeb": "query_key_value dense_4h_to_h", "falcon": "query_key_value dense_4h_to_h", "phi": "q_proj v_proj fc2",
		"gemma": "q_proj v_proj down_proj", "gemma2": "q_proj v_proj down_proj", "gemma3_text": "q_proj v_proj down_proj",
		"qwen2": "q_proj v_proj down_proj", "qwen3": "q_proj v_proj down_proj",
	},
}

// defaultFeedforward are those of them that IA³ takes for feed-forward modules.
var defaultFeedforward = map[string]string{
	"t5": "wo", "mt5": "", "gpt2": "mlp.c_proj", "bloom": "mlp.dense_4h_to_h", "roberta": "output.dense", "opt": "fc2", "gptj": "fc_out",
	"gpt_neox": "dense_4h_to_h", "gpt_neo": "c_proj", "bart": "fc2", "gpt_bigcode": "mlp.c_proj", "llama": "down_proj", "llama4": "down_proj",
	"mistral": "down_proj", "mixtral": "w2", "bert": "output.dense", "deberta-v2": "output.dense", "deberta": "output.dense",
	"RefinedWeb": "dense_4h_to_h", "RefinedWebModel": "dense_4h_to_h", "falcon": "dense_4h_to_h", "phi": "fc2", "gemma": "down_proj",
	"gemma2": "down_proj", "gemma3_text": "down_proj", "qwen2": "down_proj", "qwen3": "down_proj",
}

// orDefault is n, or if it says nothing what a table has for a model type.
func (n Names) orDefault(key string, table map[string]string, modelType string) (Names, error) {
	if !n.None() {
		return n, nil
	}
	words, ok := table[modelType]
	if !ok {
		return n, &Error{Class: ErrBadConfig, Detail: key, Actual: "none, and no default for models of type " + quoted(modelType), Remedy: "set " + key}
	}
	return Names{List: append([]string{}, strings.Fields(words)...)}, nil
}

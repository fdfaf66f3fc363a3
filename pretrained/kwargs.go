package pretrained

import (
	"fmt"
	"strings"
)

// kwargs are the arguments of from_pretrained by their names in Python, which are no keys of a config: what to do
// instead. Those that are neither here nor keys of the config are unknown.
var kwargs = map[string]string{
	"attn_implementation":     "use Options.Attn",
	"cache_dir":               "use Options.CacheDir",
	"config":                  "use Options.ConfigInstance or ConfigPath",
	"device_map":              "use Options.DeviceMap",
	"disable_mmap":            "use Options.DisableMmap",
	"force_download":          "use Options.ForceDownload",
	"generation_config":       "use Options.GenerationConfig",
	"gguf_file":               "use Options.GGUFFile",
	"ignore_mismatched_sizes": "use Options.IgnoreMismatchedSizes",
	"key_mapping":             "use Options.KeyMapping",
	"local_files_only":        "use Options.LocalFilesOnly",
	"max_memory":              "use Options.MaxMemory",
	"output_loading_info":     "Load returns the report",
	"revision":                "use Options.Revision",
	"state_dict":              "use Options.StateDict",
	"subfolder":               "use Options.Subfolder",
	"token":                   "use Options.Token",
	"tqdm_class":              "use Options.Progress and DownloadProgress",
	"use_safetensors":         "use Options.UseSafetensors",
	"variant":                 "use Options.Variant",

	"adapter_kwargs":         "adapters can't be loaded yet",
	"adapter_name":           "adapters can't be loaded yet",
	"load_in_4bit":           "quantization can't be done yet",
	"load_in_8bit":           "quantization can't be done yet",
	"quantization_config":    "quantization can't be done yet",
	"weights_only":           "use Options.WeightsOnly",
	"trust_remote_code":      "Python code of a checkpoint is never run",
	"code_revision":          "Python code of a checkpoint is never run",
	"experts_implementation": "no model has experts yet",
	"offload_buffers":        "use Options.OffloadBuffers",
	"offload_folder":         "use Options.OffloadFolder",
	"tp_plan":                "a model can't be spread over processes yet",
	"tp_size":                "a model can't be spread over processes yet",
	"device_mesh":            "a model can't be spread over processes yet",
	"distributed_config":     "a model can't be spread over processes yet",
	"use_kernels":            "kernels of the hub are Python",
	"kernel_config":          "kernels of the hub are Python",
	"allow_all_kernels":      "kernels of the hub are Python",
	"fusion_config":          "kernels of the hub are Python",
	"from_tf":                "convert TensorFlow's checkpoint to safetensors with transformers 4",
	"from_flax":              "convert Flax's checkpoint to safetensors with transformers 4",
	"low_cpu_mem_usage":      "leave it out: weights are always streamed",
	"_fast_init":             "leave it out: what is loaded is never initialised",
	"offload_state_dict":     "leave it out: weights are always streamed",
	"mirror":                 "set HF_ENDPOINT",
	"proxies":                "set HTTPS_PROXY",
	"resume_download":        "leave it out: downloads always resume",
	"use_flash_attention_2":  "use Options.Attn",
	"_commit_hash":           "use Options.Revision",
	"_from_auto":             "leave it out",
	"_from_pipeline":         "leave it out",
	"bettertransformer":      "leave it out: sdpa is the default",
	"use_auth_token":         "use Options.Token",
}

// unknownKey is the error for an override that is no key of the config.
func unknownKey(key string) error {
	e := &Error{Class: ErrArgument, Detail: fmt.Sprintf("config override %q: not a key of this model's config.json", shorten(key)), Remedy: kwargs[key]}
	if strings.Contains(e.Remedy, "yet") || strings.Contains(e.Remedy, "are Python") || strings.Contains(e.Remedy, "never run") {
		e.Class, e.Detail = ErrUnsupported, key
	}
	return e
}

// refuseQuantized is an error for a config whose weights are quantized.
func (l *loader) refuseQuantized() error {
	err := refuseQuantized(l.files.raw)
	if err != nil && l.gguf() != nil { // the caller's config
		return &Error{Class: ErrArgument, Detail: "quantization_config", Expected: "none for a GGUF file", Actual: Describe(l.files.raw["quantization_config"])}
	}
	return err
}

// refuseQuantized is an error for a checkpoint whose weights are quantized: they must not be taken for plain ones.
func refuseQuantized(raw map[string]any) error {
	for key, v := range raw {
		inner, _ := v.(map[string]any)
		if key != "quantization_config" {
			if inner != nil && strings.HasSuffix(key, "_config") {
				if err := refuseQuantized(inner); err != nil {
					return err
				}
			}
			continue
		}
		if v == nil {
			continue
		}
		method := "of an unknown method"
		if m, ok := inner["quant_method"].(string); ok {
			method = "with " + shorten(m)
		} else if inner["load_in_4bit"] == true || inner["load_in_8bit"] == true || inner["_load_in_4bit"] == true || inner["_load_in_8bit"] == true {
			method = "with bitsandbytes"
		}
		return &Error{Class: ErrUnsupported, Detail: "quantization_config: weights quantized " + method + " can't be loaded yet"}
	}
	return nil
}

/* The loader: opens the shim and forwards each function of its table under the name tg_<name>. */
#ifndef TORCHGO_LOADER_H
#define TORCHGO_LOADER_H

#include "shim/torchgo.h"

#define TG_FORWARD_DECLARE(name, params, args) int32_t tg_##name params;
TG_FUNCTIONS(TG_FORWARD_DECLARE)
#undef TG_FORWARD_DECLARE

/* Opens the library at `path`; first, if not NULL, the one at `cuda` (libtorch decides about CUDA
   at its first use). Returns NULL, or a malloc'ed text that says why not. */
char* tg_load(const char* path, const char* cuda);

/* NULL before tg_load has succeeded. */
const tg_api* tg_loaded(void);
const char* tg_runtime_version(void);

/* Whether the machine has a CUDA driver with at least one device. */
int32_t tg_cuda_driver(void);

/* Gives free memory of the C allocator back to the system. */
void tg_trim(void);

/* Passes the Go function for hooks to the shim. */
int32_t tg_install_hooks(tg_error* err);

#endif

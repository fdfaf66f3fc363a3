#include "loader.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "_cgo_export.h"

static _Atomic(const tg_api*) loaded;

const tg_api* tg_loaded(void) { return atomic_load_explicit(&loaded, memory_order_acquire); }

const char* tg_runtime_version(void) { return tg_loaded()->runtime(); }

static char* why(const char* what) {
  const char* text = dlerror();
  size_t n = strlen(what) + (text ? strlen(text) : 0) + 3;
  char* out = malloc(n);
  if (out != NULL) snprintf(out, n, "%s%s%s", what, text ? ": " : "", text ? text : "");
  return out;
}

char* tg_load(const char* path, const char* cuda) {
  /* libtorch's CUDA library registers its kernels when it is opened; it has to be there before the
     first at:: call. It is global so that the shim's CUDA half finds its symbols. */
  if (cuda != NULL && dlopen(cuda, RTLD_LAZY | RTLD_GLOBAL) == NULL) return why("can't open libtorch's CUDA library");
  void* handle = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
  if (handle == NULL) return why("can't open the shim");
  const tg_api* (*table)(void) = (const tg_api* (*)(void))dlsym(handle, "torchgo_api");
  if (table == NULL) return why("not a torchgo shim");
  const tg_api* api = table();
  if (api == NULL) return strdup("not a torchgo shim: it has no table");
  if (api->abi != TG_ABI || api->size != (int32_t)sizeof(tg_api)) {
    char text[128];
    snprintf(text, sizeof text, "the shim has ABI %d (%d bytes), this program needs ABI %d (%d bytes)", api->abi, api->size, TG_ABI,
             (int)sizeof(tg_api));
    return strdup(text);
  }
  if (strcmp(api->libtorch, api->runtime()) != 0) {
    char text[128];
    snprintf(text, sizeof text, "the shim was compiled against libtorch %.20s, but libtorch %.20s was found", api->libtorch,
             api->runtime());
    return strdup(text);
  }
  atomic_store_explicit(&loaded, api, memory_order_release);
  return NULL;
}

int32_t tg_cuda_driver(void) {
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (driver == NULL) return 0;
  int (*init)(unsigned) = (int (*)(unsigned))dlsym(driver, "cuInit");
  int (*count)(int*) = (int (*)(int*))dlsym(driver, "cuDeviceGetCount");
  int n = 0;
  return init != NULL && count != NULL && init(0) == 0 && count(&n) == 0 && n > 0;
}

#if defined(__GLIBC__)
#include <malloc.h>
void tg_trim(void) { malloc_trim(0); }
#else
void tg_trim(void) {}
#endif

static int32_t not_loaded(tg_error* err) {
  if (err != NULL) {
    err->kind = TG_E_NOT_LOADED;
    err->message = (uintptr_t)strdup("libtorch is not loaded");
    err->backtrace = 0;
    err->cause = 0;
  }
  return TG_E_NOT_LOADED;
}

#define TG_FORWARD(name, params, args)             \
  int32_t tg_##name params {                       \
    const tg_api* api = tg_loaded();               \
    return api ? api->name args : not_loaded(err); \
  }
TG_FUNCTIONS(TG_FORWARD)
#undef TG_FORWARD

static int32_t run_hook(uint64_t id, const uint64_t* in, int64_t n, uint64_t* out, int64_t cap, tg_error* err) {
  err->message = (uintptr_t)goHook(id, (uint64_t*)in, n, out, cap, &err->cause);
  err->backtrace = 0;
  err->kind = err->message ? TG_E_CALLBACK : TG_OK;
  return (int32_t)err->kind;
}

int32_t tg_install_hooks(tg_error* err) { return tg_set_hook_fn(run_hook, err); }

/* torchgo.h: the C face of libtorch as torchgo uses it. Plain C.
 *
 * Conventions
 * - Every function returns a tg_kind: TG_OK, or the kind that it also wrote into *err. The error
 *   is returned by value in the same call (goroutines change threads, so nothing is thread-local);
 *   its two texts are malloc'ed and the caller frees them. `err` must not be NULL.
 * - No function lets a C++ exception out.
 * - A tg_tensor is an owned reference. 0 is the undefined tensor. What a function returns, the
 *   caller frees (tensors_free); what it takes, it borrows.
 * - Texts that a function returns are malloc'ed; the caller frees them.
 * - Lists of values are passed as flat 64-bit words (see tg_tag), so that no Go memory that holds Go
 *   pointers ever crosses.
 */
#ifndef TORCHGO_H
#define TORCHGO_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Grows with every change of this file that an older or newer loader would misread. */
#define TG_ABI 2

/* Handles are addresses as integers, so that Go's collector never takes one for a pointer. */
typedef uintptr_t tg_tensor;
typedef uintptr_t tg_op;
typedef uintptr_t tg_generator;
typedef uintptr_t tg_guard;
typedef uintptr_t tg_state;
typedef uintptr_t tg_event;
typedef uintptr_t tg_object; /* an instance of a TorchScript class */
typedef uintptr_t tg_graph;
typedef uintptr_t tg_saved;

typedef enum {
  TG_OK = 0,
  TG_E_ARGUMENT = 1,        /* the shim itself refuses an argument */
  TG_E_RUNTIME = 2,         /* c10::Error (Python's RuntimeError) */
  TG_E_INDEX = 3,           /* c10::IndexError */
  TG_E_VALUE = 4,           /* c10::ValueError */
  TG_E_TYPE = 5,            /* c10::TypeError */
  TG_E_NOT_IMPLEMENTED = 6, /* c10::NotImplementedError: no kernel for this device or dtype */
  TG_E_OUT_OF_MEMORY = 7,   /* c10::OutOfMemoryError, std::bad_alloc, the CPU allocator */
  TG_E_LINALG = 8,          /* c10::LinAlgError */
  TG_E_NO_OPERATOR = 9,     /* this libtorch has no operator of that name */
  TG_E_SCHEMA = 10,         /* this libtorch has the operator with another schema */
  TG_E_SYSTEM = 11,         /* another std::exception */
  TG_E_UNKNOWN = 12,        /* something thrown that is no std::exception */
  TG_E_CALLBACK = 13,       /* a Go callback failed; the message is its error */
  TG_E_NOT_LOADED = 14,     /* the shim is not loaded (the loader says so, never the shim) */
  TG_E_NO_DEVICE = 15       /* there is no such device, or this libtorch is without CUDA */
} tg_kind;

/* The texts are addresses as integers, like handles: Go passes this struct without a check. */
typedef struct {
  int64_t kind;
  uintptr_t message;   /* char*: without the C++ backtrace */
  uintptr_t backtrace; /* char*: only with TORCH_SHOW_CPP_STACKTRACES=1, else 0 */
  uint64_t cause;      /* of TG_E_CALLBACK: what the callback gave as the error's id, now the caller's; else 0 */
} tg_error;

/* A value is a head word, tag | n << 8, and its payload words. */
typedef enum {
  TG_NONE = 0,
  TG_TENSOR = 1,     /* 1 word: tg_tensor. As a result 2: tg_tensor, bytes of storage that only it uses */
  TG_INT = 2,        /* 1 word */
  TG_DOUBLE = 3,     /* 1 word: IEEE bits */
  TG_BOOL = 4,       /* 1 word: 0 or 1 */
  TG_COMPLEX = 5,    /* 2 words: IEEE bits of the real and the imaginary part */
  TG_STRING = 6,     /* n bytes, padded to words */
  TG_INTS = 7,       /* n words */
  TG_DOUBLES = 8,    /* n words */
  TG_BOOLS = 9,      /* n words */
  TG_TENSORS = 10,   /* n words. As a result 2n words, as TG_TENSOR */
  TG_DEVICE = 11,    /* 2 words: c10::DeviceType, index */
  TG_GENERATOR = 12, /* 1 word: tg_generator */
  TG_LIST = 13,      /* n values */
  TG_SAME = 14,      /* only as a result, 1 word: the result is the argument of that index, written to */
  TG_OBJECT = 15     /* 1 word: tg_object, as a result an owned one */
} tg_tag;

/* What tensor_info writes before the sizes (dim words) and the strides (dim words). */
enum {
  TG_INFO_DTYPE = 0, /* c10::ScalarType */
  TG_INFO_DEVICE = 1,
  TG_INFO_DEVICE_INDEX = 2,
  TG_INFO_LAYOUT = 3,
  TG_INFO_FLAGS = 4,
  TG_INFO_NUMEL = 5,
  TG_INFO_OFFSET = 6, /* in elements of its storage */
  TG_INFO_STORAGE_BYTES = 7,
  TG_INFO_DATA = 8,    /* address of the first element, 0 without storage or on meta */
  TG_INFO_STORAGE = 9, /* identity of the storage, 0 without one */
  TG_INFO_ITEMSIZE = 10,
  TG_INFO_VERSION = 11, /* autograd's version counter, -1 for inference tensors */
  TG_INFO_DIM = 12,
  TG_INFO_SIZES = 13
};
enum {
  TG_FLAG_REQUIRES_GRAD = 1,
  TG_FLAG_LEAF = 2,
  TG_FLAG_CONTIGUOUS = 4,
  TG_FLAG_STRIDED = 8, /* the strides are there */
  TG_FLAG_CONJ = 16,
  TG_FLAG_NEG = 32,
  TG_FLAG_INFERENCE = 64
};

enum { TG_MODE_KEEP = 0, TG_MODE_GRAD = 1, TG_MODE_NO_GRAD = 2, TG_MODE_INFERENCE = 3, TG_MODE_NO_INFERENCE = 4 };

enum {
  TG_STATE_SCOPE = 0, /* token of the innermost scope of this thread, 0 outside */
  TG_STATE_BUSY = 1,  /* > 0 inside a call that may call back into Go */
  TG_STATE_GRAD = 2,
  TG_STATE_INFERENCE = 3,
  TG_STATE_WORDS = 4
};

/* Flags of the process (at::globalContext()). */
enum {
  TG_FLAG_DETERMINISTIC = 0, /* 0, 1: raise, 2: warn */
  TG_FLAG_FILL_UNINITIALIZED = 1,
  TG_FLAG_CUDNN = 2,
  TG_FLAG_CUDNN_BENCHMARK = 3,
  TG_FLAG_CUDNN_BENCHMARK_LIMIT = 4,
  TG_FLAG_CUDNN_DETERMINISTIC = 5,
  TG_FLAG_CUDNN_TF32 = 6,
  TG_FLAG_MATMUL_TF32 = 7,
  TG_FLAG_MATMUL_PRECISION = 8, /* 0 highest, 1 high, 2 medium */
  TG_FLAG_MATMUL_FP16_REDUCTION = 9,
  TG_FLAG_MATMUL_BF16_REDUCTION = 10,
  TG_FLAG_COUNT = 11
};

/* What device_properties writes. */
enum {
  TG_PROP_TOTAL_MEMORY = 0, /* bytes */
  TG_PROP_MAJOR = 1,        /* compute capability */
  TG_PROP_MINOR = 2,
  TG_PROP_MULTIPROCESSORS = 3,
  TG_PROP_WARP_SIZE = 4,
  TG_PROP_THREADS_PER_MULTIPROCESSOR = 5,
  TG_PROP_THREADS_PER_BLOCK = 6,
  TG_PROP_SHARED_PER_BLOCK = 7, /* bytes, without opting in */
  TG_PROP_SHARED_PER_MULTIPROCESSOR = 8,
  TG_PROP_REGISTERS_PER_MULTIPROCESSOR = 9,
  TG_PROP_L2_BYTES = 10,
  TG_PROP_INTEGRATED = 11,
  TG_PROP_WORDS = 12
};

/* What memory_stats writes: for each of 9 statistics its current value, peak, sum of what was added and
   sum of what was taken away, each of these for all blocks, small ones and large ones (in that order); the
   same four of oversize allocations and oversize segments; six counters. */
enum { TG_MEMORY_WORDS = 9 * 12 + 2 * 4 + 6 };

/* Streams that stream_get gives. */
enum { TG_STREAM_CURRENT = 0, TG_STREAM_DEFAULT = 1, TG_STREAM_NEW = 2 };

/* A Go callback; what `id` stands for says what it is to do. `in` are n tensors that it takes over (0:
   undefined). It writes `cap` results, which the caller takes over; `out` tells on entry which of them
   are wanted (1) and which are not (0).
   - a hook of a tensor: one gradient, one result, 0 for no change
   - a hook after accumulation: the tensor, no result
   - the backward of a function: the gradients of its outputs and what it saved; those of its inputs
   - saved-tensor hooks: the tensor; an id that stands for what it was packed into
   - what a tensor was packed into: nothing; the tensor */
typedef int32_t (*tg_hook_fn)(uint64_t id, const uint64_t* in, int64_t n, uint64_t* out, int64_t cap, tg_error* err);

/* Every function once: name, parameters, arguments. */
/* clang-format off */
#define TG_FUNCTIONS(F)                                                                                       \
  /* Finds an operator, "aten::add" and "Tensor". `schema`, if not NULL, must be the one it has. */           \
  F(op_find, (const char* name, const char* overload, const char* schema, tg_op* out, tg_error* err),         \
    (name, overload, schema, out, err))                                                                       \
  F(op_schema, (tg_op op, char** out, tg_error* err), (op, out, err))                                         \
  /* The schemas of all operators, sorted, one a line. */                                                     \
  F(op_list, (char** out, tg_error* err), (out, err))                                                         \
  /* Calls an operator. args: nargs values in `words` words. The results are the scope token of this          \
     thread, the number of values, the values. Where they need more than `cap` words, *more becomes the       \
     address of malloc'ed words: their number, then they; else 0. */                                          \
  F(call, (tg_op op, const uint64_t* args, int64_t words, int64_t nargs, uint64_t* rets, int64_t cap,         \
           uint64_t* more, tg_error* err),                                                                    \
    (op, args, words, nargs, rets, cap, more, err))                                                           \
  F(tensors_free, (const uint64_t* tensors, int64_t n, tg_error* err), (tensors, n, err))                     \
  F(object_free, (tg_object o, tg_error* err), (o, err))                                                      \
  F(tensor_retain, (tg_tensor t, tg_tensor* out, tg_error* err), (t, out, err))                               \
  /* Writes TG_INFO_SIZES + 2*dim words; *need says how many that is, also when `cap` is too small. */        \
  F(tensor_info, (tg_tensor t, int64_t* out, int64_t cap, int64_t* need, tg_error* err),                      \
    (t, out, cap, need, err))                                                                                 \
  /* A CPU tensor over memory of the caller's. When its storage's last user is gone, `id` turns up in         \
     `released`. */                                                                                           \
  F(tensor_from_blob, (void* data, int64_t nbytes, const int64_t* sizes, const int64_t* strides, int64_t dim, \
                       int32_t dtype, uint64_t id, tg_tensor* out, tg_error* err),                            \
    (data, nbytes, sizes, strides, dim, dtype, id, out, err))                                                 \
  F(set_requires_grad, (tg_tensor t, int32_t on, tg_error* err), (t, on, err))                                \
  F(grad_get, (tg_tensor t, tg_tensor* out, tg_error* err), (t, out, err))                                    \
  F(grad_set, (tg_tensor t, tg_tensor grad, tg_error* err), (t, grad, err))                                   \
  /* Makes t use the data of `data` (Python's `t.data = data`). */                                            \
  F(set_data, (tg_tensor t, tg_tensor data, tg_error* err), (t, data, err))                                   \
  /* Name of the autograd node that made t; empty for a leaf. */                                              \
  F(grad_fn, (tg_tensor t, char** out, tg_error* err), (t, out, err))                                         \
  /* torch.autograd.backward. grads is NULL or has n entries, of which 0 stands for None. */                  \
  F(backward, (const uint64_t* tensors, const uint64_t* grads, int64_t n, const uint64_t* inputs,             \
               int64_t ninputs, int32_t retain, int32_t create, tg_error* err),                               \
    (tensors, grads, n, inputs, ninputs, retain, create, err))                                                \
  /* torch.autograd.grad: writes ninputs tensors into `out`, 0 for None. */                                   \
  F(grad, (const uint64_t* outputs, const uint64_t* grads, int64_t n, const uint64_t* inputs,                 \
           int64_t ninputs, int32_t retain, int32_t create, int32_t allow_unused, uint64_t* out,              \
           tg_error* err),                                                                                    \
    (outputs, grads, n, inputs, ninputs, retain, create, allow_unused, out, err))                             \
  F(hook_add, (tg_tensor t, uint64_t id, int64_t* handle, tg_error* err), (t, id, handle, err))               \
  F(hook_remove, (tg_tensor t, int64_t handle, tg_error* err), (t, handle, err))                              \
  F(set_hook_fn, (tg_hook_fn fn, tg_error* err), (fn, err))                                                   \
  /* A call during which libtorch may call back into Go (saved-tensor hooks, backward in an operator).        \
     `site` says where in the program the call is, for anomaly mode; or NULL. */                              \
  F(call_open, (tg_op op, const uint64_t* args, int64_t words, int64_t nargs, uint64_t* rets, int64_t cap,    \
                uint64_t* more, const char* site, tg_error* err),                                             \
    (op, args, words, nargs, rets, cap, more, site, err))                                                     \
  /* Hooks that run when a leaf's gradient has been accumulated. */                                           \
  F(accumulated_hook_add, (tg_tensor t, uint64_t id, int64_t* handle, tg_error* err), (t, id, handle, err))   \
  F(accumulated_hook_remove, (tg_tensor t, int64_t handle, tg_error* err), (t, handle, err))                  \
  /* Puts a node into the graph whose backward is the callback `id`. tensors has n entries: the inputs, the   \
     outputs that were computed of them, what is saved for backward, the inputs that were changed in place    \
     and the outputs that are not differentiable; parts says how many of each. Writes as many tensors as      \
     there are outputs. */                                                                                    \
  F(function_apply, (uint64_t id, const char* name, const uint64_t* tensors, int64_t n, const int64_t* parts, \
                     int32_t materialize, const char* site, uint64_t* out, int64_t cap, tg_error* err),       \
    (id, name, tensors, n, parts, materialize, site, out, cap, err))                                          \
  /* A tensor as a node saves it: with the check of its version and under the hooks in force. */              \
  F(saved_new, (tg_tensor t, tg_saved* out, tg_error* err), (t, out, err))                                    \
  F(saved_unpack, (tg_saved s, tg_tensor* out, tg_error* err), (s, out, err))                                 \
  F(saved_free, (tg_saved s, tg_error* err), (s, err))                                                        \
  /* Sets the hooks for tensors that nodes save; for id 0, forbids to set any: `why`. As guard_enter. */      \
  F(saved_hooks_enter, (uint64_t scope, uint64_t id, const char* why, tg_guard* out, tg_error* err),          \
    (scope, id, why, out, err))                                                                               \
  /* Anomaly mode of the process. */                                                                          \
  F(anomaly_set, (int32_t on, int32_t check_nan, tg_error* err), (on, check_nan, err))                        \
  /* The number of the backward pass that this thread works for, -1 outside. */                               \
  F(backward_pass, (int64_t* out, tg_error* err), (out, err))                                                 \
  /* Ids of callbacks and blobs that nothing uses any more: writes up to cap, *n says how many. */            \
  F(released, (uint64_t* ids, int64_t cap, int64_t* n, tg_error* err), (ids, cap, n, err))                    \
  /* Sets modes of this thread and, if scope != 0, its scope token; guard_leave undoes it, on the same        \
     thread and in reverse order. */                                                                          \
  F(guard_enter, (uint64_t scope, int32_t mode, tg_guard* out, tg_error* err), (scope, mode, out, err))       \
  F(guard_leave, (tg_guard g, tg_error* err), (g, err))                                                       \
  F(thread_state, (uint64_t* out, int64_t cap, tg_error* err), (out, cap, err))                               \
  F(set_num_threads, (int32_t n, tg_error* err), (n, err))                                                    \
  F(num_threads, (int32_t* out, tg_error* err), (out, err))                                                   \
  F(manual_seed, (uint64_t seed, tg_error* err), (seed, err))                                                 \
  F(generator_new, (int32_t device, int32_t index, uint64_t seed, tg_generator* out, tg_error* err),          \
    (device, index, seed, out, err))                                                                          \
  F(generator_free, (tg_generator g, tg_error* err), (g, err))                                                \
  /* The state as a uint8 tensor. g 0 is the CPU's default generator. */                                      \
  F(generator_state, (tg_generator g, tg_tensor* out, tg_error* err), (g, out, err))                          \
  F(generator_set_state, (tg_generator g, tg_tensor state, tg_error* err), (g, state, err))                   \
  F(device_count, (int32_t device, int64_t* out, tg_error* err), (device, out, err))                          \
  F(empty_cache, (tg_error* err), (err))                                                                      \
  /* libtorch's own description of its build (at::show_config and the CPU capability). */                     \
  F(show_config, (char** out, tg_error* err), (out, err))                                                     \
  /* Devices. A device is its c10::DeviceType and an index, -1 for the current one; a stream is a device      \
     and an id. Without the device the error is TG_E_NO_DEVICE. What each needs is done on the CPU, too,      \
     where it has a meaning there.                                                                            \
                                                                                                              \
     Opens the library of what needs CUDA's headers, libtorchgo_cuda.so. */                                   \
  F(cuda_open, (const char* path, tg_error* err), (path, err))                                                \
  F(device_current, (int32_t device, int32_t* out, tg_error* err), (device, out, err))                        \
  F(device_enter, (int32_t device, int32_t index, tg_guard* out, tg_error* err), (device, index, out, err))   \
  F(device_synchronize, (int32_t device, int32_t index, tg_error* err), (device, index, err))                 \
  /* Writes TG_PROP_WORDS. */                                                                                 \
  F(device_properties, (int32_t device, int32_t index, int64_t* out, int64_t cap, char** name, tg_error* err),\
    (device, index, out, cap, name, err))                                                                     \
  /* Writes the stream's device index and id. */                                                              \
  F(stream_get, (int32_t device, int32_t index, int32_t which, int32_t priority, int64_t* out, int64_t cap,   \
                 tg_error* err),                                                                              \
    (device, index, which, priority, out, cap, err))                                                          \
  F(stream_enter, (int32_t device, int32_t index, int64_t id, tg_guard* out, tg_error* err),                  \
    (device, index, id, out, err))                                                                            \
  F(stream_query, (int32_t device, int32_t index, int64_t id, int32_t* out, tg_error* err),                   \
    (device, index, id, out, err))                                                                            \
  F(stream_synchronize, (int32_t device, int32_t index, int64_t id, tg_error* err), (device, index, id, err)) \
  F(event_new, (int32_t device, int32_t timing, tg_event* out, tg_error* err), (device, timing, out, err))    \
  F(event_free, (tg_event e, tg_error* err), (e, err))                                                        \
  F(event_record, (tg_event e, int32_t device, int32_t index, int64_t id, tg_error* err),                     \
    (e, device, index, id, err))                                                                              \
  /* Makes a stream wait for the event. */                                                                    \
  F(event_block, (tg_event e, int32_t device, int32_t index, int64_t id, tg_error* err),                      \
    (e, device, index, id, err))                                                                              \
  F(event_query, (tg_event e, int32_t* out, tg_error* err), (e, out, err))                                    \
  F(event_synchronize, (tg_event e, tg_error* err), (e, err))                                                 \
  F(event_elapsed, (tg_event from, tg_event to, double* milliseconds, tg_error* err),                         \
    (from, to, milliseconds, err))                                                                            \
  F(record_stream, (tg_tensor t, int32_t device, int32_t index, int64_t id, tg_error* err),                   \
    (t, device, index, id, err))                                                                              \
  /* Writes TG_MEMORY_WORDS. */                                                                               \
  F(memory_stats, (int32_t device, int32_t index, int64_t* out, int64_t cap, tg_error* err),                  \
    (device, index, out, cap, err))                                                                           \
  F(memory_reset, (int32_t device, int32_t index, int32_t accumulated, tg_error* err),                        \
    (device, index, accumulated, err))                                                                        \
  /* Writes the free and the total bytes of the device. */                                                    \
  F(memory_info, (int32_t device, int32_t index, int64_t* out, int64_t cap, tg_error* err),                   \
    (device, index, out, cap, err))                                                                           \
  F(memory_fraction, (int32_t device, int32_t index, double fraction, tg_error* err),                         \
    (device, index, fraction, err))                                                                           \
  /* A reference to the device's default generator. */                                                        \
  F(generator_default, (int32_t device, int32_t index, tg_generator* out, tg_error* err),                     \
    (device, index, out, err))                                                                                \
  F(generator_seed, (tg_generator g, uint64_t seed, tg_error* err), (g, seed, err))                           \
  F(graph_new, (int32_t device, tg_graph* out, tg_error* err), (device, out, err))                            \
  F(graph_free, (tg_graph g, tg_error* err), (g, err))                                                        \
  /* Captures what is queued on the current stream. The pool's two words are 0 for one of its own. `mode`:    \
     0 global, 1 thread local, 2 relaxed. */                                                                  \
  F(graph_begin, (tg_graph g, uint64_t pool0, uint64_t pool1, int32_t mode, tg_error* err),                   \
    (g, pool0, pool1, mode, err))                                                                             \
  F(graph_end, (tg_graph g, tg_error* err), (g, err))                                                         \
  F(graph_replay, (tg_graph g, tg_error* err), (g, err))                                                      \
  F(graph_reset, (tg_graph g, tg_error* err), (g, err))                                                       \
  /* Writes the pool's two words; of a new pool for g 0. */                                                   \
  F(graph_pool, (tg_graph g, int64_t* out, int64_t cap, tg_error* err), (g, out, cap, err))                   \
  /* Autocast of a device in this thread. dtype -1 is the device's own, cache -1 leaves that as it is. */     \
  F(autocast_enter, (int32_t device, int32_t on, int32_t dtype, int32_t cache, tg_guard* out, tg_error* err), \
    (device, on, dtype, cache, out, err))                                                                     \
  /* Writes whether it is on, its dtype, whether it caches. */                                                \
  F(autocast_state, (int32_t device, int64_t* out, int64_t cap, tg_error* err), (device, out, cap, err))      \
  /* All modes of this thread, for another one; 0 where they are the default ones. */                         \
  F(state_capture, (tg_state* out, tg_error* err), (out, err))                                                \
  F(state_enter, (tg_state state, tg_guard* out, tg_error* err), (state, out, err))                           \
  F(state_free, (tg_state state, tg_error* err), (state, err))                                                \
  F(flag_get, (int32_t flag, int64_t* out, tg_error* err), (flag, out, err))                                  \
  F(flag_set, (int32_t flag, int64_t value, tg_error* err), (flag, value, err))
/* clang-format on */

#define TG_FIELD(name, params, args) int32_t(*name) params;
typedef struct {
  int32_t abi;                  /* TG_ABI */
  int32_t size;                 /* sizeof(tg_api) */
  const char* libtorch;         /* version it was compiled with, "2.15.0" */
  const char* (*runtime)(void); /* version of the libtorch that is loaded, "2.15.0" */
  TG_FUNCTIONS(TG_FIELD)
} tg_api;
#undef TG_FIELD

/* The one symbol that the shim exports. */
const tg_api* torchgo_api(void);

#ifdef __cplusplus
}
#endif
#endif

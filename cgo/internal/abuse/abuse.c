#include "abuse.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

const tg_api* api;
tg_tensor tensors[16];
tg_op ops[8];
tg_generator generators[2];
tg_guard guards[2] = {0, 1}; /* 1: a fresh one */
tg_state states[2];
tg_event events[2];
tg_object objects[2];
tg_graph graphs[1]; /* 0: there is none without a GPU */
const double doubles[6] = {0, 0.5, 1, -1, 1e300, NAN};
tg_saved saveds[2];
const char* texts[8] = {NULL, "", "aten::add", "Tensor", "aten::add.Tensor", "no such thing", "\xff\xfe\x80", NULL};
const uint64_t ids[4] = {0, 1, 2, UINT64_MAX};
const int64_t numbers[8] = {0, 2, 3, 4, 6, -1, INT64_MAX, INT64_MIN};
const int32_t codes[10] = {-1, 0, 1, 2, 3, 14, 99, 65537, INT32_MAX, INT32_MIN};
const int32_t flags[3] = {0, 1, -1};
const int64_t counts[10] = {0, 1, 2, 3, 8, 65, 80, -1, INT64_MIN, INT64_MAX};
const uint64_t* lists[6];
const int64_t* extents[7];
void* blobs[2];
span arg_spans[32];

static int64_t calls, succeeded, limit, failures;
static char failure_text[4096];
static uint64_t blob[ROOM], arg_pool[N(arg_spans)][ROOM], list_pool[N(lists)][ROOM];
static int64_t extent_pool[N(extents)][ROOM];

static void failed(const char* name, const char* what, int32_t kind) {
  size_t n = strlen(failure_text);
  if (failures++ < 20) snprintf(failure_text + n, sizeof failure_text - n, "%s: %s (kind %d)\n", name, what, kind);
}

void check(const char* name, int32_t kind, tg_error* err) {
  calls++;
  if (kind == TG_OK) succeeded++;
  if (kind < TG_OK || kind == TG_E_NOT_LOADED || kind > TG_E_NO_DEVICE) failed(name, "unknown kind", kind);
  if (err == NULL) {
    if (kind != TG_E_ARGUMENT) failed(name, "err is NULL, expected TG_E_ARGUMENT", kind);
    return;
  }
  if (kind == TG_OK && (err->kind != 0 || err->message != 0 || err->backtrace != 0)) failed(name, "succeeded, but filled err", kind);
  if (kind != TG_OK && err->kind != kind) failed(name, "err has another kind", kind);
  if (kind != TG_OK && (err->message == 0 || *(const char*)err->message == 0)) failed(name, "error without a message", kind);
  free((void*)err->message);
  free((void*)err->backtrace);
}

int64_t combinations(const int64_t* radix, int n) {
  int64_t all = 1;
  for (int i = 0; i < n; i++) all *= radix[i];
  return all < limit ? all : limit;
}

void pick(int64_t k, const int64_t* radix, int n, int* at) {
  int64_t all = 1;
  for (int i = 0; i < n; i++) all *= radix[i];
  /* Where there are too many, take some of all parts: the same ones each time. */
  uint64_t x = (uint64_t)k;
  if (all > limit) {
    x = (x + 1) * 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 32)) % (uint64_t)all;
  }
  for (int i = 0; i < n; i++) {
    at[i] = (int)(x % (uint64_t)radix[i]);
    x /= (uint64_t)radix[i];
  }
}

void* room(const char* name) {
  static uint64_t rooms[4][ROOM];
  int i = strcmp(name, "rets") == 0 ? 0 : strcmp(name, "more") == 0 ? 1 : strcmp(name, "out") == 0 ? 2 : 3;
  memset(rooms[i], 0, sizeof rooms[i]);
  return rooms[i];
}

/* must is for what the driver itself needs to work. */
static void must(const char* what, int32_t kind, tg_error* err) {
  if (kind == TG_OK) return;
  failed(what, err->message ? (const char*)err->message : "failed", kind);
  free((void*)err->message);
  free((void*)err->backtrace);
}

void free_list(uint64_t* list, int64_t n) {
  tg_error e = {0, 0, 0, 0};
  must("tensors_free", api->tensors_free(list, n, &e), &e);
}

void free_tensor(tg_tensor t) {
  uint64_t word = t;
  free_list(&word, 1);
}

void free_generator(tg_generator g) {
  tg_error e = {0, 0, 0, 0};
  must("generator_free", api->generator_free(g, &e), &e);
}

void leave(tg_guard g) {
  tg_error e = {0, 0, 0, 0};
  must("guard_leave", api->guard_leave(g, &e), &e);
}

void free_state(tg_state s) {
  tg_error e = {0, 0, 0, 0};
  must("state_free", api->state_free(s, &e), &e);
}

void free_event(tg_event event) {
  tg_error e = {0, 0, 0, 0};
  must("event_free", api->event_free(event, &e), &e);
}

void free_graph(tg_graph g) {
  tg_error e = {0, 0, 0, 0};
  must("graph_free", api->graph_free(g, &e), &e);
}

void free_saved(tg_saved s) {
  tg_error e = {0, 0, 0, 0};
  must("saved_free", api->saved_free(s, &e), &e);
}

static tg_saved fresh_saved(void) {
  tg_error e = {0, 0, 0, 0};
  tg_saved s = 0;
  must("saved_new", api->saved_new(tensors[3], &s, &e), &e);
  return s;
}

int32_t own_saved_free(tg_saved s, tg_error* err) {
  if (s != 0) s = fresh_saved();
  int32_t kind = api->saved_free(s, err);
  if (kind != TG_OK && s != 0) free_saved(s);
  return kind;
}

static void free_object(tg_object o) {
  tg_error e = {0, 0, 0, 0};
  must("object_free", api->object_free(o, &e), &e);
}

/* Frees the tensors and objects among n values and returns the word after them. */
static const uint64_t* free_values(const uint64_t* p, uint64_t n) {
  while (n-- > 0) {
    uint64_t head = *p++, tag = head & 0xff, count = head >> 8;
    switch (tag) {
      case TG_TENSOR: free_tensor(p[0]); p += 2; break;
      case TG_TENSORS:
        for (uint64_t i = 0; i < count; i++, p += 2) free_tensor(p[0]);
        break;
      case TG_OBJECT: free_object(*p++); break;
      case TG_LIST: p = free_values(p, count); break;
      case TG_NONE: break;
      case TG_COMPLEX: case TG_DEVICE: p += 2; break;
      case TG_STRING: p += count / 8 + (count % 8 != 0); break;
      case TG_INTS: case TG_DOUBLES: case TG_BOOLS: p += count; break;
      default: p++;
    }
  }
  return p;
}

void free_results(uint64_t* rets, uint64_t* more) {
  const uint64_t* p = rets;
  if (*more != 0) p = (const uint64_t*)*more + 1;
  free_values(p + 2, p[1]);
  free((void*)*more);
}

int32_t own_tensors_free(const uint64_t* list, int64_t n, tg_error* err) {
  uint64_t copies[ROOM] = {0};
  if (list == NULL || n <= 0) return api->tensors_free(list, n, err);
  for (int64_t i = 0; i < n; i++) {
    tg_error e = {0, 0, 0, 0};
    tg_tensor copy = 0;
    if (list[i] != 0) must("tensor_retain", api->tensor_retain(list[i], &copy, &e), &e);
    copies[i] = copy;
  }
  int32_t kind = api->tensors_free(copies, n, err);
  if (kind != TG_OK) free_list(copies, n);
  return kind;
}

static tg_generator fresh_generator(void) {
  tg_error e = {0, 0, 0, 0};
  tg_generator g = 0;
  must("generator_new", api->generator_new(0, -1, 1, &g, &e), &e);
  return g;
}

int32_t own_generator_free(tg_generator g, tg_error* err) {
  if (g != 0) g = fresh_generator();
  int32_t kind = api->generator_free(g, err);
  if (kind != TG_OK) free_generator(g);
  return kind;
}

int32_t own_guard_leave(tg_guard g, tg_error* err) {
  tg_error e = {0, 0, 0, 0};
  if (g != 0) must("guard_enter", api->guard_enter(7, TG_MODE_NO_GRAD, &g, &e), &e);
  int32_t kind = api->guard_leave(g, err);
  if (kind != TG_OK && g != 0) leave(g);
  return kind;
}

static tg_state fresh_state(void) {
  tg_error e = {0, 0, 0, 0};
  tg_guard g = 0;
  tg_state s = 0;
  must("guard_enter", api->guard_enter(0, TG_MODE_NO_GRAD, &g, &e), &e);
  must("state_capture", api->state_capture(&s, &e), &e);
  leave(g);
  return s;
}

static tg_event fresh_event(void) {
  tg_error e = {0, 0, 0, 0};
  tg_event event = 0;
  must("event_new", api->event_new(0, 1, &event, &e), &e);
  return event;
}

int32_t own_state_free(tg_state s, tg_error* err) {
  if (s != 0) s = fresh_state();
  int32_t kind = api->state_free(s, err);
  if (kind != TG_OK) free_state(s);
  return kind;
}

static tg_op find(const char* name, const char* overload);

/* The weights of a linear layer, packed. */
static tg_object fresh_object(void) {
  tg_error e = {0, 0, 0, 0};
  uint64_t args[] = {TG_TENSOR, tensors[1], TG_NONE}, rets[4] = {0}, more = 0;
  must("call", api->call(find("quantized::linear_prepack_fp16", ""), args, 3, 2, rets, 4, &more, &e), &e);
  return rets[3];
}

int32_t own_object_free(tg_object o, tg_error* err) {
  if (o != 0) o = fresh_object();
  int32_t kind = api->object_free(o, err);
  if (kind != TG_OK) free_object(o);
  return kind;
}

int32_t own_event_free(tg_event event, tg_error* err) {
  if (event != 0) event = fresh_event();
  int32_t kind = api->event_free(event, err);
  if (kind != TG_OK) free_event(event);
  return kind;
}

/* Fails for odd ids, with and without a text; else gives back what it got first, or nothing. */
static int32_t c_hook(uint64_t id, const uint64_t* in, int64_t n, uint64_t* out, int64_t cap, tg_error* err) {
  uint64_t given[ROOM] = {0};
  for (int64_t i = 0; i < n && i < ROOM; i++) given[i] = in[i];
  if (id == 0 && n > 0 && cap > 0) given[0] = 0;
  for (int64_t i = 0; i < cap; i++) out[i] = 0;
  if (id == 0 && n > 0 && cap > 0) out[0] = in[0];
  free_list(given, ROOM);
  if (id % 2 == 0) return TG_OK;
  err->kind = TG_E_CALLBACK;
  err->message = id == 1 ? (uintptr_t)strdup("a hook in C fails") : 0;
  return TG_E_CALLBACK;
}
tg_hook_fn hook_fns[2] = {NULL, c_hook};

static tg_op find(const char* name, const char* overload) {
  tg_op op = 0;
  tg_error e = {0, 0, 0, 0};
  must(name, api->op_find(name, overload, NULL, &op, &e), &e);
  return op;
}

/* The first result of an operator. */
static tg_tensor run(tg_op op, const uint64_t* args, int64_t words, int64_t nargs) {
  uint64_t rets[16], more = 0;
  tg_error e = {0, 0, 0, 0};
  int32_t kind = api->call(op, args, words, nargs, rets, 16, &more, &e);
  must("fixture", kind, &e);
  return kind == TG_OK ? rets[3] : 0;
}

static tg_tensor ones(int64_t dim, int64_t size, int dtype, int device) {
  uint64_t w[ROOM], n = 0;
  w[n++] = TG_INTS | (uint64_t)dim << 8;
  for (int64_t i = 0; i < dim; i++) w[n++] = (uint64_t)size;
  w[n++] = TG_INT;
  w[n++] = (uint64_t)dtype;
  w[n++] = TG_NONE;
  w[n++] = TG_DEVICE;
  w[n++] = (uint64_t)device;
  w[n++] = (uint64_t)-1;
  w[n++] = TG_NONE;
  return run(find("aten::ones", ""), w, (int64_t)n, 5);
}

static void args(int i, int64_t extra, int64_t n, const uint64_t* words) {
  memcpy(arg_pool[i], words, (size_t)n * 8);
  arg_spans[i].p = arg_pool[i];
  arg_spans[i].n = n + extra;
}
#define ARGS(i, extra, ...) \
  args(i, extra, N(((const uint64_t[]){__VA_ARGS__})), (const uint64_t[]){__VA_ARGS__})

enum { F32 = 6, F64 = 7, I64 = 4, BOOL = 11, C64 = 9, BF16 = 15, CPU = 0, META = 14 };

/* The values that functions may change are made anew for each function. */
static void setup(void) {
  tg_error e = {0, 0, 0, 0};
  tg_guard g = 0;
  tg_tensor* t = tensors;
  memset(tensors, 0, sizeof tensors);
  t[1] = ones(2, 3, F32, CPU);
  t[2] = ones(1, 3, F32, CPU);
  must("set_requires_grad", api->set_requires_grad(t[2], 1, &e), &e);
  t[3] = run(find("aten::mul", "Tensor"), (uint64_t[]){TG_TENSOR, t[2], TG_TENSOR, t[2]}, 4, 2);
  t[4] = run(find("aten::sum", ""), (uint64_t[]){TG_TENSOR, t[3], TG_NONE}, 3, 2);
  t[5] = ones(2, 3, I64, CPU);
  t[6] = ones(1, 2, BOOL, CPU);
  t[7] = ones(3, 0, F32, CPU);
  t[8] = ones(2, 3, F32, META);
  t[9] = ones(0, 0, F64, CPU);
  t[10] = ones(1, 4, C64, CPU);
  t[11] = ones(12, 1, BF16, CPU);
  must("generator_state", api->generator_state(0, &t[12], &e), &e);
  t[13] = run(find("aten::to_sparse", "sparse_dim"), (uint64_t[]){TG_TENSOR, t[1], TG_INT, 1}, 4, 2);
  must("guard_enter", api->guard_enter(0, TG_MODE_INFERENCE, &g, &e), &e);
  t[14] = ones(1, 3, F32, CPU);
  leave(g);
  t[15] = ones(1, 3, F32, CPU); /* a leaf with hooks */
  must("set_requires_grad", api->set_requires_grad(t[15], 1, &e), &e);
  must("set_hook_fn", api->set_hook_fn(c_hook, &e), &e);
  int64_t handle = 0;
  must("hook_add", api->hook_add(t[15], 0, &handle, &e), &e);
  must("accumulated_hook_add", api->accumulated_hook_add(t[15], 0, &handle, &e), &e);

  saveds[1] = fresh_saved();
  generators[1] = fresh_generator();
  states[1] = fresh_state();
  events[1] = fresh_event();
  objects[1] = fresh_object();
  ops[0] = 0;
  ops[1] = find("aten::add", "Tensor");
  ops[2] = find("aten::cat", "");
  ops[3] = find("aten::sum", "dim_IntList");
  ops[4] = find("aten::split", "Tensor");
  ops[5] = find("aten::empty", "memory_format");
  ops[6] = find("aten::add_", "Tensor");
  ops[7] = find("aten::normal_", "");

  for (int i = 0; i < ROOM; i++) {
    list_pool[1][i] = t[2];
    list_pool[2][i] = t[i % 16];
    list_pool[3][i] = t[4];
    list_pool[4][i] = i % 2 ? t[15] : t[3];
    list_pool[5][i] = 0;
    extent_pool[1][i] = 1;
    extent_pool[2][i] = i < 2 ? 2 : 0;
    extent_pool[3][i] = -1;
    extent_pool[4][i] = INT64_MAX;
    extent_pool[5][i] = (int64_t)1 << 31;
    extent_pool[6][i] = i < 2 ? 2 - i : 0;
  }
  for (int i = 1; i < N(lists); i++) lists[i] = list_pool[i];
  for (int i = 1; i < N(extents); i++) extents[i] = extent_pool[i];
  blobs[1] = blob;

  memset(arg_spans, 0, sizeof arg_spans);
  arg_spans[1].n = 3, arg_spans[2].n = -1, arg_spans[3].n = INT64_MAX;
  ARGS(4, -8, TG_TENSOR, t[1], TG_TENSOR, t[1], TG_INT, 1); /* a count below 0 */
  ARGS(5, -6, TG_TENSOR, t[1], TG_TENSOR, t[1], TG_INT, 1);
  ARGS(6, 0, TG_TENSOR, t[1], TG_TENSOR, t[1], TG_INT, 1);
  ARGS(7, -1, TG_TENSOR, t[1], TG_TENSOR, t[1], TG_INT, 1);
  ARGS(8, 1, TG_TENSOR, t[1], TG_TENSOR, t[1], TG_INT, 1);
  ARGS(9, 0, TG_TENSOR, t[2], TG_TENSOR, t[3], TG_DOUBLE, 0);
  ARGS(10, 0, TG_TENSOR, t[1], TG_TENSOR, 0, TG_INT, 1);
  ARGS(11, 0, TG_TENSOR, t[1], TG_NONE, TG_INT, 1);
  ARGS(12, 0, TG_TENSOR, t[1], TG_TENSOR, t[10], TG_INT, 1);
  ARGS(13, 0, TG_TENSOR, t[1], TG_TENSOR, t[8], TG_STRING | 5 << 8, 1);
  ARGS(14, 0, TG_TENSOR, t[13], TG_TENSOR, t[14], TG_BOOL, 1);
  ARGS(15, 0, TG_TENSORS | 2 << 8, t[1], t[1], TG_INT, 0);
  ARGS(16, 0, TG_TENSORS | 2 << 8, t[1], 0, TG_INT, 0);
  ARGS(17, 0, TG_TENSORS, TG_INT, 0);
  ARGS(18, 0, TG_TENSORS | (uint64_t)1 << 48, t[1], TG_INT, 0);
  ARGS(19, 0, TG_TENSORS | 2 << 8, t[1], t[5], TG_INT, 99);
  ARGS(20, 0, TG_TENSOR, t[1], TG_INTS | 1 << 8, 0, TG_BOOL, 0, TG_NONE);
  ARGS(21, 0, TG_TENSOR, t[1], TG_INTS | 1 << 8, 0, TG_BOOL, 0, TG_INT, 99);
  ARGS(22, 0, TG_TENSOR, t[1], TG_INTS | 1 << 8, 0, TG_BOOL, 0, TG_INT, (uint64_t)-1);
  ARGS(23, 0, TG_TENSOR, t[1], TG_INTS | 2 << 8, 0, (uint64_t)INT64_MIN, TG_BOOL, 7, TG_NONE);
  ARGS(24, 0, TG_TENSOR, t[1], TG_INT, 1, TG_INT, 0);
  ARGS(25, 0, TG_TENSOR, t[1], TG_INT, (uint64_t)-1, TG_INT, 99);
  ARGS(26, 0, TG_INTS | 2 << 8, (uint64_t)1 << 40, (uint64_t)1 << 20, TG_NONE, TG_NONE, TG_NONE, TG_NONE, TG_NONE);
  ARGS(27, 0, TG_INTS | 1 << 8, (uint64_t)-5, TG_INT, 200, TG_INT, 99, TG_DEVICE, 99, 99, TG_BOOL, 1, TG_INT, 99);
  ARGS(28, 0, 77, 77, TG_SAME, 0, TG_LIST | (uint64_t)1 << 50, 1);
  ARGS(29, 0, TG_TENSOR, t[9], TG_DOUBLE, 0, TG_DOUBLE, 0x7ff8000000000000u, TG_GENERATOR, generators[1]);
  ARGS(30, 0, TG_TENSOR, t[5], TG_DOUBLE, 0, TG_INT, (uint64_t)-1, TG_GENERATOR, 0);
  ARGS(31, 0, TG_LIST | 2 << 8, TG_INT, 1, TG_INT, 2, TG_COMPLEX, 0, 0);
}

static void teardown(void) {
  tg_error e = {0, 0, 0, 0};
  /* A gradient that autograd can differentiate refers to its leaf: a cycle, as in Python. */
  for (int i = 1; i < N(tensors); i++) must("grad_set", api->grad_set(tensors[i], 0, &e), &e);
  free_list(tensors, N(tensors));
  free_generator(generators[1]);
  free_state(states[1]);
  free_event(events[1]);
  free_object(objects[1]);
  /* What the process shares. */
  must("flag_set", api->flag_set(TG_FLAG_DETERMINISTIC, 0, &e), &e);
  free_saved(saveds[1]);
  must("anomaly_set", api->anomaly_set(0, 1, &e), &e);
  must("set_num_threads", api->set_num_threads(1, &e), &e);
  uint64_t gone[ROOM];
  int64_t n = 1;
  while (n > 0 && failures == 0) must("released", api->released(gone, ROOM, &n, &e), &e);
}

/* What works with a GPU only. */
static const char* const of_gpus[] = {"cuda_open",    "device_properties", "event_record", "event_elapsed", "record_stream",
                                      "memory_stats", "memory_reset",      "memory_info",  "memory_fraction", "graph_new",
                                      "graph_begin",  "graph_end",         "graph_replay", "graph_reset",   "graph_pool"};

static int needs_gpu(const char* name) {
  for (int i = 0; i < N(of_gpus); i++) {
    if (strcmp(name, of_gpus[i]) == 0) return 1;
  }
  return 0;
}

int64_t abuse_run(const char* path, int64_t at_most) {
  void* handle = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
  const tg_api* (*table)(void) = handle ? (const tg_api* (*)(void))dlsym(handle, "torchgo_api") : NULL;
  if (table == NULL) return -1;
  api = table();
  limit = at_most;
  static char long_text[100001];
  memset(long_text, 'x', sizeof long_text - 1);
  texts[7] = long_text;
  for (int i = 0; i < abuse_case_count; i++) {
    int64_t before = calls;
    succeeded = 0;
    /* If a function ends the process, this says which. */
    fprintf(stderr, "abuse: %s\n", abuse_cases[i].name);
    setup();
    abuse_cases[i].run();
    teardown();
    if (calls == before) failed(abuse_cases[i].name, "was not called", 0);
    /* Values that are all refused at the door would test little. */
    if (succeeded == 0 && !needs_gpu(abuse_cases[i].name)) failed(abuse_cases[i].name, "never succeeded", 0);
    if (succeeded != 0 && needs_gpu(abuse_cases[i].name)) failed(abuse_cases[i].name, "succeeded without a GPU", 0);
    if (succeeded == calls - before) failed(abuse_cases[i].name, "never failed", 0);
  }
  return calls;
}

const char* abuse_failures(void) { return failure_text; }

const char* abuse_name(int i) { return abuse_cases[i].name; }

/* What the generated driver stands on: values to pass, and what must hold after each call. */
#ifndef TORCHGO_ABUSE_H
#define TORCHGO_ABUSE_H

#include <stdlib.h>

#include "../../shim/torchgo.h"

#define N(table) ((int64_t)(sizeof(table) / sizeof((table)[0])))
enum { ROOM = 80 }; /* words in every buffer: no count that goes with one is larger */

typedef struct {
  const char* name;
  void (*run)(void);
} abuse_case;
extern const abuse_case abuse_cases[];
extern const int abuse_case_count;

typedef struct {
  const uint64_t* p;
  int64_t n;
} span;

extern const tg_api* api;
extern tg_tensor tensors[16];
extern tg_op ops[8];
extern tg_generator generators[2];
extern tg_guard guards[2];
extern tg_state states[2];
extern tg_event events[2];
extern tg_object objects[2];
extern tg_graph graphs[1];
extern const double doubles[6];
extern tg_saved saveds[2];
extern const char* texts[8];
extern const uint64_t ids[4];
extern const int64_t numbers[8];
extern const int32_t codes[10];
extern const int32_t flags[3];
extern const int64_t counts[10];
extern tg_hook_fn hook_fns[2];
extern const uint64_t* lists[6];
extern const int64_t* extents[7];
extern void* blobs[2];
extern span arg_spans[32];

/* How many combinations to try, and the k-th of them. */
int64_t combinations(const int64_t* radix, int n);
void pick(int64_t k, const int64_t* radix, int n, int* at);

void* room(const char* name);
void free_tensor(tg_tensor t);
void free_generator(tg_generator g);
void leave(tg_guard g);
void free_state(tg_state s);
void free_event(tg_event e);
void free_graph(tg_graph g);
void free_saved(tg_saved s);
void free_list(uint64_t* list, int64_t n);
void free_results(uint64_t* rets, uint64_t* more);

int32_t own_tensors_free(const uint64_t* list, int64_t n, tg_error* err);
int32_t own_generator_free(tg_generator g, tg_error* err);
int32_t own_guard_leave(tg_guard g, tg_error* err);
int32_t own_state_free(tg_state s, tg_error* err);
int32_t own_event_free(tg_event e, tg_error* err);
int32_t own_saved_free(tg_saved s, tg_error* err);
int32_t own_object_free(tg_object o, tg_error* err);

void check(const char* name, int32_t kind, tg_error* err);

/* Calls everything. Returns how many calls there were, -1 if the shim at path can't be opened. */
int64_t abuse_run(const char* path, int64_t limit);
const char* abuse_failures(void);
const char* abuse_name(int i);

#endif

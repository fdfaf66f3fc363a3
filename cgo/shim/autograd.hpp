// What the files about autograd share: calls into Go, and hooks on saved tensors.
#pragma once

#include <c10/util/ThreadLocalDebugInfo.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <memory>
#include <string>

#include "common.hpp"

namespace tg {

// c10::intrusive_ptr<Node>; std::shared_ptr<Node> in older versions.
using NodePtr = decltype(torch::autograd::Edge::function);

// Calls Go; see tg_hook_fn. Throws CallbackError.
void call_go(uint64_t id, torch::autograd::variable_list&& in, uint64_t* out, int64_t cap);

// The thread's slot for hooks on saved tensors. Of what is thread-local, libtorch hands this to the
// threads of its engine, too.
inline c10::DebugInfoKind saved_hooks_slot() { return c10::DebugInfoKind::TEST_INFO_2; }

struct SavedHooks final : c10::DebugInfoBase {
  SavedHooks(uint64_t id, std::string why) : hooks(id), why(std::move(why)) {}
  Token hooks;
  std::string why;  // there may be none, if it isn't empty
};

// Where in the program an operator was called, for the nodes that are made meanwhile.
class AtSite {
 public:
  explicit AtSite(const char* site) : before_(std::exchange(thread_state().site, site)) {}
  ~AtSite() { thread_state().site = before_; }
  AtSite(const AtSite&) = delete;
  AtSite& operator=(const AtSite&) = delete;

 private:
  const char* before_;
};

}  // namespace tg

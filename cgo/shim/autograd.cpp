// Autograd: backward, gradients, hooks of tensors, thread modes.
#include "autograd.hpp"

#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/variable.h>

#include <atomic>
#include <map>
#include <mutex>
#include <optional>

namespace tg {
namespace {

std::atomic<tg_hook_fn> hook_fn{nullptr};

// Marks the thread as one whose permit to compute belongs to a caller further up.
struct Busy {
  Busy() { thread_state().busy++; }
  ~Busy() { thread_state().busy--; }
};

at::Tensor run_hook(uint64_t id, const at::Tensor& grad) {
  uint64_t result = 1;
  call_go(id, {grad}, &result, 1);
  return result == 0 ? grad : take(result);
}

// The hooks of a leaf that run when its gradient has been accumulated.
struct AccumulatedHooks final : torch::autograd::PostAccumulateGradHook {
  using Hooks = std::map<int64_t, std::shared_ptr<Token>>;
  std::mutex mutex;
  Hooks hooks;
  int64_t next = 0;

  void operator()(const at::Tensor& tensor) override {
    Hooks now;
    {
      std::lock_guard<std::mutex> lock(mutex);
      now = hooks;  // one may remove itself
    }
    for (const auto& [number, token] : now) call_go(token->id(), {tensor}, nullptr, 0);
  }

  static AccumulatedHooks* of(const at::Tensor& t) {
    return dynamic_cast<AccumulatedHooks*>(torch::autograd::impl::post_acc_grad_hooks(t).get());
  }
};

struct AutogradMode final : Guard {
  ~AutogradMode() override { thread_state().scope = scope; }

  uint64_t scope = thread_state().scope;  // what it was
  std::optional<c10::AutoGradMode> grad;
  std::optional<c10::InferenceMode> inference;
  std::optional<c10::DebugInfoGuard> saved_hooks;
};

tg_guard enter(uint64_t scope, std::unique_ptr<AutogradMode> guard) {
  if (scope != 0) thread_state().scope = scope;
  return hand(guard.release());
}

std::vector<at::Tensor> gradients(const uint64_t* words, int64_t n) {
  if (words == nullptr) return {};
  return borrow_all(words, n, true);
}

}  // namespace

void call_go(uint64_t id, torch::autograd::variable_list&& in, uint64_t* out, int64_t cap) {
  tg_hook_fn fn = hook_fn.load();
  TORCH_CHECK(fn != nullptr, "no function for hooks is set");
  // Go has promised its runtime that this operator doesn't call back.
  TORCH_CHECK(thread_state().boxed == 0, "a hook in Go can't run inside an operator; use Backward");
  Busy busy;
  // It may run on a thread of the engine; a scope of that thread is none of its business, nor is what is
  // called in it called at this one's place.
  uint64_t scope = std::exchange(thread_state().scope, 0);
  AtSite nowhere(nullptr);
  std::vector<uint64_t> words;
  words.reserve(in.size());
  for (auto& t : in) words.push_back(release(std::move(t)));
  tg_error error{};
  int32_t kind = fn(id, words.data(), static_cast<int64_t>(words.size()), out, cap, &error);
  thread_state().scope = scope;
  if (kind == TG_OK) return;
  auto* text = reinterpret_cast<char*>(error.message);
  std::string message = text ? text : "a hook failed";
  std::free(text);
  throw CallbackError(message, error.cause);
}

ThreadState& thread_state() noexcept {
  static thread_local ThreadState state;
  return state;
}

int32_t set_requires_grad(tg_tensor t, int32_t on, tg_error* err) noexcept {
  return guarded(err, [&] { defined(t).requires_grad_(on != 0); });
}

int32_t grad_get(tg_tensor t, tg_tensor* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "grad_get: NULL argument");
    *out = release(at::Tensor(defined(t).grad()));
  });
}

int32_t grad_set(tg_tensor handle, tg_tensor grad, tg_error* err) noexcept {
  return guarded(err, [&] {
    at::Tensor t = defined(handle), g = borrow(grad);
    if (g.defined()) {
      require(!g.is_same(t), "grad_set: a tensor can't be its own gradient");
      TORCH_CHECK_TYPE(g.scalar_type() == t.scalar_type(), "the gradient's dtype ", g.scalar_type(), " is not the tensor's, ",
                       t.scalar_type());
      TORCH_CHECK(g.device() == t.device(), "the gradient's device ", g.device(), " is not the tensor's, ", t.device());
      TORCH_CHECK(g.sizes() == t.sizes(), "the gradient's shape ", g.sizes(), " is not the tensor's, ", t.sizes());
    }
    t.mutable_grad() = g;
  });
}

int32_t grad_fn(tg_tensor t, char** out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "grad_fn: NULL argument");
    const auto& fn = defined(t).grad_fn();
    *out = owned(fn ? fn->name() : std::string());
  });
}

int32_t backward(const uint64_t* tensors, const uint64_t* grads, int64_t n, const uint64_t* inputs, int64_t ninputs, int32_t retain,
                 int32_t create, tg_error* err) noexcept {
  return guarded(err, [&] {
    Busy busy;
    torch::autograd::backward(borrow_all(tensors, n, false), gradients(grads, n), retain != 0, create != 0,
                              borrow_all(inputs, ninputs, false));
  });
}

int32_t grad(const uint64_t* outputs, const uint64_t* grads, int64_t n, const uint64_t* inputs, int64_t ninputs, int32_t retain,
             int32_t create, int32_t allow_unused, uint64_t* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(ninputs == 0 || out != nullptr, "grad: NULL argument");
    Busy busy;
    auto found = torch::autograd::grad(borrow_all(outputs, n, false), borrow_all(inputs, ninputs, false), gradients(grads, n), retain != 0,
                                       create != 0, true);
    for (const auto& g : found) {
      TORCH_CHECK(allow_unused != 0 || g.defined(),
                  "One of the differentiated Tensors appears to not have been used in the graph. Set allow_unused=True if this is the "
                  "desired behavior.");
    }
    require(static_cast<int64_t>(found.size()) == ninputs, "grad: wrong number of gradients");
    for (int64_t i = 0; i < ninputs; i++) out[i] = release(std::move(found[i]));
  });
}

int32_t hook_add(tg_tensor handle, uint64_t id, int64_t* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "hook_add: NULL argument");
    at::Tensor t = defined(handle);
    TORCH_CHECK(t.requires_grad(), "cannot register a hook on a tensor that doesn't require gradient");
    auto token = std::make_shared<Token>(id);
    *out = t.register_hook([token](const at::Tensor& g) -> at::Tensor { return run_hook(token->id(), g); });
  });
}

int32_t hook_remove(tg_tensor t, int64_t handle, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(handle >= 0 && handle <= UINT32_MAX, "hook_remove: no such hook");
    defined(t).remove_hook(static_cast<unsigned>(handle));
  });
}

int32_t accumulated_hook_add(tg_tensor handle, uint64_t id, int64_t* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "accumulated_hook_add: NULL argument");
    auto token = std::make_shared<Token>(id);
    at::Tensor t = defined(handle);
    TORCH_CHECK(t.requires_grad(), "cannot register a hook on a tensor that doesn't require gradient");
    TORCH_CHECK(t.is_leaf(), "post accumulate grad hooks cannot be registered on non-leaf tensors");
    AccumulatedHooks* hooks = AccumulatedHooks::of(t);
    if (hooks == nullptr) {
      auto fresh = std::make_unique<AccumulatedHooks>();
      hooks = fresh.get();
      torch::autograd::impl::set_post_acc_grad_hooks(t, std::move(fresh));
    }
    std::lock_guard<std::mutex> lock(hooks->mutex);
    hooks->hooks[*out = hooks->next++] = std::move(token);
  });
}

int32_t accumulated_hook_remove(tg_tensor t, int64_t handle, tg_error* err) noexcept {
  return guarded(err, [&] {
    AccumulatedHooks* hooks = AccumulatedHooks::of(defined(t));
    require(hooks != nullptr && handle >= 0, "accumulated_hook_remove: no such hook");
    std::lock_guard<std::mutex> lock(hooks->mutex);
    hooks->hooks.erase(handle);
  });
}

int32_t set_hook_fn(tg_hook_fn fn, tg_error* err) noexcept {
  return guarded(err, [&] { hook_fn.store(fn); });
}

int32_t guard_enter(uint64_t scope, int32_t mode, tg_guard* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "guard_enter: NULL argument");
    require(mode >= TG_MODE_KEEP && mode <= TG_MODE_NO_INFERENCE, "guard_enter: unknown mode");
    auto g = std::make_unique<AutogradMode>();
    switch (mode) {
      case TG_MODE_GRAD:
        g->grad.emplace(true);
        break;
      case TG_MODE_NO_GRAD:
        g->grad.emplace(false);
        break;
      case TG_MODE_INFERENCE:
        g->inference.emplace(true);
        break;
      case TG_MODE_NO_INFERENCE:
        g->inference.emplace(false);
        break;
      default:
        break;
    }
    *out = enter(scope, std::move(g));
  });
}

int32_t saved_hooks_enter(uint64_t scope, uint64_t id, const char* why, tg_guard* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr && (id != 0 || (why != nullptr && *why != 0)), "saved_hooks_enter: NULL argument");
    auto* now = static_cast<SavedHooks*>(c10::ThreadLocalDebugInfo::get(saved_hooks_slot()));
    bool forbidden = now != nullptr && !now->why.empty();
    TORCH_CHECK(id == 0 || !forbidden, now->why);
    TORCH_CHECK(id != 0 || now == nullptr || forbidden, why);
    auto g = std::make_unique<AutogradMode>();
    g->saved_hooks.emplace(saved_hooks_slot(), std::make_shared<SavedHooks>(id, id == 0 ? why : ""));
    *out = enter(scope, std::move(g));
  });
}

int32_t guard_leave(tg_guard handle, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(handle != 0, "guard_leave: no guard");
    delete reinterpret_cast<Guard*>(handle);
  });
}

int32_t thread_state(uint64_t* out, int64_t cap, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr && cap >= TG_STATE_WORDS, "thread_state: no room");
    out[TG_STATE_SCOPE] = thread_state().scope;
    out[TG_STATE_BUSY] = static_cast<uint64_t>(thread_state().busy);
    out[TG_STATE_GRAD] = c10::GradMode::is_enabled();
    out[TG_STATE_INFERENCE] = c10::InferenceMode::is_enabled();
  });
}

}  // namespace tg

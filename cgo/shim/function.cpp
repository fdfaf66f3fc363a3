// Operations whose gradient is written in Go.
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/variable_info.h>

#include <mutex>
#include <unordered_set>

#include "autograd.hpp"

namespace tg {
namespace {

using namespace torch::autograd;
using Impls = std::unordered_set<at::TensorImpl*>;

class FunctionNode final : public Node {
 public:
  FunctionNode(uint64_t id, std::string name, bool materialize) : call_(id), name_(std::move(name)), materialize_(materialize) {}

  std::string name() const override { return name_; }

  void complete(const variable_list& saved, const std::vector<std::optional<at::Tensor>>& outputs) {
    for (const auto& t : saved) saved_.emplace_back(t, t.defined() && t.grad_fn().get() == this);
    for (const auto& t : outputs) outputs_.push_back(t ? VariableInfo(*t) : VariableInfo());
  }

  variable_list apply(variable_list&& grads) override {
    at::OptionalDeviceGuard device;
    variable_list in = std::move(grads);
    for (size_t i = 0; i < in.size() && materialize_; i++) {
      if (!in[i].defined()) in[i] = outputs_[i].zeros(device);
    }
    {
      // Not longer: the callback may run this node again, in a backward pass of its own.
      std::lock_guard<std::mutex> lock(saving_);
      TORCH_CHECK(!released_, ERR_BACKWARD_TWICE);
      for (const auto& s : saved_) in.push_back(s.unpack(getptr()));
    }
    std::vector<uint64_t> out(num_outputs());
    for (size_t i = 0; i < out.size(); i++) out[i] = task_should_compute_output(i);
    call_go(call_.id(), std::move(in), out.data(), static_cast<int64_t>(out.size()));
    variable_list result;
    for (uint64_t t : out) result.push_back(take(t));
    return result;
  }

  void release_variables() override {
    std::lock_guard<std::mutex> lock(saving_);
    released_ = !saved_.empty() || released_;
    saved_.clear();
  }

 private:
  Token call_;
  std::string name_;
  bool materialize_;
  std::mutex saving_;
  bool released_ = false;
  std::vector<SavedVariable> saved_;
  std::vector<VariableInfo> outputs_;
};

template <class Pointer = NodePtr, class... Args>
Pointer make_node(Args&&... args) {
  if constexpr (std::is_same_v<Pointer, std::shared_ptr<Node>>) {
    return Pointer(new FunctionNode(std::forward<Args>(args)...), [](auto* node) { deleteNode(node); });
  } else {
    return c10::make_intrusive<FunctionNode>(std::forward<Args>(args)...);
  }
}

// The newest versions also tell which node became the outputs' history.
template <class... Args>
auto wrap_outputs_of(const NodePtr& node, Args&&... args) {
  NodePtr attached;
  if constexpr (requires { _wrap_outputs(args..., attached); }) return _wrap_outputs(args..., attached);
  else return _wrap_outputs(args...);
}

Impls impls(const variable_list& tensors) {
  Impls out;
  for (const auto& t : tensors) {
    if (t.defined()) out.insert(t.unsafeGetTensorImpl());
  }
  return out;
}

variable_list given(const variable_list& tensors) {
  variable_list out;
  for (const auto& t : tensors) {
    if (t.defined()) out.push_back(t);
  }
  return out;
}

}  // namespace

int32_t function_apply(uint64_t id, const char* name, const uint64_t* tensors, int64_t n, const int64_t* parts, int32_t materialize,
                       const char* site, uint64_t* out, int64_t cap, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(name != nullptr && parts != nullptr && n >= 0 && (n == 0 || tensors != nullptr), "function_apply: NULL argument");
    variable_list part[5];
    int64_t at = 0;
    for (int i = 0; i < 5; i++) {
      require(parts[i] >= 0 && parts[i] <= n - at, "function_apply: the parts are longer than the list");
      part[i] = borrow_all(tensors + at, parts[i], true);
      at += parts[i];
    }
    require(at == n, "function_apply: the parts are shorter than the list");
    const auto& [inputs, outputs, saved, dirty, constant] = part;
    require(cap >= static_cast<int64_t>(outputs.size()) && (cap == 0 || out != nullptr), "function_apply: no room for results");

    AtSite here(site);
    bool recorded = c10::GradMode::is_enabled() && any_variable_requires_grad(inputs);
    NodePtr node = make_node(id, name, materialize != 0);
    if (recorded) node->set_next_edges(collect_next_edges(inputs));
    else node.reset();
    for (const auto& t : dirty) {
      if (t.defined()) t.unsafeGetTensorImpl()->bump_version();
    }
    std::vector<std::optional<at::Tensor>> raw;
    for (const auto& t : outputs) raw.push_back(t.defined() ? std::optional(t) : std::nullopt);
    _jvp_fn_t jvp = [](const variable_list&, const variable_list&) -> variable_list {
      TORCH_CHECK_NOT_IMPLEMENTED(false, "a function written in Go has no forward-mode gradient");
    };
    _view_as_self_fn_t view = [](const at::Tensor& t) { return t.view_as(t); };
    auto wrapped = wrap_outputs_of(node, given(inputs), impls(constant), impls(dirty), at::ArrayRef(raw), node, jvp, Impls{}, view, false);
    if (recorded) static_cast<FunctionNode&>(*node).complete(saved, wrapped);
    for (size_t i = 0; i < wrapped.size(); i++) out[i] = wrapped[i] ? release(std::move(*wrapped[i])) : 0;
  });
}

}  // namespace tg

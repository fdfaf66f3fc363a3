// The engine of autograd with what libtorch leaves to the language: hooks on saved tensors, and where in
// the program a failing node comes from.
#include <torch/csrc/autograd/anomaly_mode.h>
#include <torch/csrc/autograd/engine.h>

#include "autograd.hpp"

namespace tg {
namespace {

using namespace torch::autograd;

// A saved tensor under hooks: what Go made of it.
class Packed final : public SavedVariableHooks {
 public:
  explicit Packed(uint64_t hooks) : hooks_(hooks) {}
  void call_pack_hook(const at::Tensor& tensor) override {
    uint64_t id = 1;
    call_go(hooks_, {tensor.detach()}, &id, 1);  // an output refers to its node, which is to own what is packed
    packed_ = std::make_unique<Token>(id);
  }
  at::Tensor call_unpack_hook() override {
    uint64_t tensor = 1;
    call_go(packed_->id(), {}, &tensor, 1);
    TORCH_CHECK(tensor != 0, "the unpack hook of a saved tensor returned no tensor");
    return take(tensor);
  }

 private:
  uint64_t hooks_;  // good while they are in force, and packing happens only then
  std::unique_ptr<Token> packed_;
};

// Where the operator that made a node was called.
class Site final : public AnomalyMetadata {
 public:
  void store_stack() override {
    if (const char* site = thread_state().site) site_ = site;
  }
  void print_stack(const std::string&) override {}  // the error says it
  void assign_parent(const NodePtr& parent) override { parent_ = parent; }

  // "; the forward call is at x.go:12", and for a node that backward made also where that one's node is from.
  std::string note() const {
    std::string out;
    for (const Site* s = this; s != nullptr;) {
      if (!s->site_.empty()) out += "; " + std::string(s == this ? "its" : "that one's") + " forward call is at " + s->site_;
      if (!s->parent_) break;
      out += "; it was made by the backward of " + s->parent_->name();
      s = dynamic_cast<const Site*>(s->parent_->metadata());
    }
    return out;
  }

 private:
  std::string site_;
  NodePtr parent_;
};

class GoEngine final : public Engine {
 public:
  std::unique_ptr<SavedVariableHooks> get_default_saved_variable_hooks() override {
    auto* hooks = static_cast<SavedHooks*>(c10::ThreadLocalDebugInfo::get(saved_hooks_slot()));
    if (hooks == nullptr || !hooks->why.empty()) return nullptr;
    return std::make_unique<Packed>(hooks->hooks.id());
  }
  std::unique_ptr<AnomalyMetadata> make_anomaly_metadata() override { return std::make_unique<Site>(); }
  void thread_on_exception(const std::shared_ptr<GraphTask>& task, const NodePtr& node, std::exception& e) override {
    std::string note;
    if (AnomalyMode::is_enabled() && node) {
      if (auto* site = dynamic_cast<Site*>(node->metadata())) note = site->note();
    }
    if (note.empty()) return Engine::thread_on_exception(task, node, e);
    try {  // which takes the exception in flight
      throw AnnotatedError(std::current_exception(), note);
    } catch (std::exception& annotated) {
      Engine::thread_on_exception(task, node, annotated);
    }
  }

  static Engine& get() {
    static auto* engine = new GoEngine();  // never freed: its threads run until the process ends
    return *engine;
  }
};

// From when the shim is opened, before any backward pass.
[[maybe_unused]] const bool installed = (set_default_engine_stub(&GoEngine::get), true);

SavedVariable* saved_of(tg_saved s) {
  require(s != 0, "no saved tensor");
  return reinterpret_cast<SavedVariable*>(s);
}

}  // namespace

int32_t saved_new(tg_tensor t, tg_saved* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "saved_new: NULL argument");
    *out = reinterpret_cast<tg_saved>(new SavedVariable(defined(t), false));
  });
}

int32_t saved_unpack(tg_saved s, tg_tensor* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "saved_unpack: NULL argument");
    *out = release(saved_of(s)->unpack());
  });
}

int32_t saved_free(tg_saved s, tg_error* err) noexcept {
  return guarded(err, [&] { delete saved_of(s); });
}

int32_t anomaly_set(int32_t on, int32_t check_nan, tg_error* err) noexcept {
  return guarded(err, [&] { AnomalyMode::set_enabled(on != 0, check_nan != 0); });
}

int32_t backward_pass(int64_t* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "backward_pass: NULL argument");
    *out = get_current_graph_task_id();
  });
}

}  // namespace tg

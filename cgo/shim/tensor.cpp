// Tensors: what they are, memory of the caller's, references.
#include <atomic>
#include <mutex>

#include "common.hpp"

namespace tg {
namespace {

// Ids whose objects are gone, until Go asks for them. A destructor runs wherever libtorch drops the
// last reference, often inside a call that may not call back, so it only notes the id.
struct Released {
  std::mutex mutex;
  std::vector<uint64_t> ids;
  std::atomic<int64_t> count{0};
};

Released& released_ids() {
  static auto& r = *new Released();  // never destroyed: threads of libtorch outlive static objects
  return r;
}

constexpr int64_t max_dim = 64;

}  // namespace

Token::~Token() {
  uint64_t id = give();
  if (id == 0) return;
  Released& r = released_ids();
  std::lock_guard<std::mutex> lock(r.mutex);
  r.ids.push_back(id);
  r.count.store(static_cast<int64_t>(r.ids.size()), std::memory_order_release);
}

int32_t released(uint64_t* ids, int64_t cap, int64_t* n, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(n != nullptr && cap >= 0 && (cap == 0 || ids != nullptr), "released: NULL argument");
    Released& r = released_ids();
    *n = 0;
    if (r.count.load(std::memory_order_acquire) == 0) return;
    std::lock_guard<std::mutex> lock(r.mutex);
    while (*n < cap && !r.ids.empty()) {
      ids[(*n)++] = r.ids.back();
      r.ids.pop_back();
    }
    r.count.store(static_cast<int64_t>(r.ids.size()), std::memory_order_release);
  });
}

int32_t tensors_free(const uint64_t* tensors, int64_t n, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(n >= 0 && (n == 0 || tensors != nullptr), "tensors_free: NULL argument");
    for (int64_t i = 0; i < n; i++) {
      take(tensors[i]);
    }
  });
}

int32_t tensor_retain(tg_tensor t, tg_tensor* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "tensor_retain: NULL argument");
    *out = release(defined(t));
  });
}

int32_t tensor_info(tg_tensor handle, int64_t* out, int64_t cap, int64_t* need, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(need != nullptr && cap >= 0 && (cap == 0 || out != nullptr), "tensor_info: NULL argument");
    at::Tensor t = defined(handle);
    *need = TG_INFO_SIZES + 2 * t.dim();
    if (cap < *need) return;
    bool strided = t.layout() == c10::Layout::Strided;
    bool storage = t.has_storage();
    int64_t flags = 0;
    if (t.requires_grad()) flags |= TG_FLAG_REQUIRES_GRAD;
    if (t.is_inference()) flags |= TG_FLAG_INFERENCE | TG_FLAG_LEAF;
    else if (t.is_leaf()) flags |= TG_FLAG_LEAF;
    if (strided) flags |= TG_FLAG_STRIDED;
    if (strided && t.is_contiguous()) flags |= TG_FLAG_CONTIGUOUS;
    if (t.is_conj()) flags |= TG_FLAG_CONJ;
    if (t.is_neg()) flags |= TG_FLAG_NEG;
    out[TG_INFO_DTYPE] = static_cast<int64_t>(t.scalar_type());
    out[TG_INFO_DEVICE] = static_cast<int64_t>(t.device().type());
    out[TG_INFO_DEVICE_INDEX] = t.device().index();
    out[TG_INFO_LAYOUT] = static_cast<int64_t>(t.layout());
    out[TG_INFO_FLAGS] = flags;
    out[TG_INFO_NUMEL] = t.numel();
    out[TG_INFO_OFFSET] = storage ? t.storage_offset() : 0;
    out[TG_INFO_STORAGE_BYTES] = storage ? static_cast<int64_t>(t.storage().nbytes()) : 0;
    bool data = storage && t.device().type() != c10::DeviceType::Meta;
    out[TG_INFO_DATA] = data ? reinterpret_cast<int64_t>(t.mutable_data_ptr()) : 0;
    out[TG_INFO_STORAGE] = storage ? reinterpret_cast<int64_t>(t.storage().unsafeGetStorageImpl()) : 0;
    out[TG_INFO_ITEMSIZE] = static_cast<int64_t>(t.element_size());
    out[TG_INFO_VERSION] = t.is_inference() ? -1 : static_cast<int64_t>(t._version());
    out[TG_INFO_DIM] = t.dim();
    for (int64_t i = 0; i < t.dim(); i++) {
      out[TG_INFO_SIZES + i] = t.size(i);
      out[TG_INFO_SIZES + t.dim() + i] = strided ? t.stride(i) : 0;
    }
  });
}

int32_t tensor_from_blob(void* data, int64_t nbytes, const int64_t* sizes, const int64_t* strides, int64_t dim, int32_t dtype, uint64_t id,
                         tg_tensor* out, tg_error* err) noexcept {
  return guarded(err, [&] {
    require(out != nullptr, "tensor_from_blob: NULL argument");
    require(dim >= 0 && dim <= max_dim, "tensor_from_blob: number of dimensions is out of range");
    require(dim == 0 || (sizes != nullptr && strides != nullptr), "tensor_from_blob: sizes or strides are NULL");
    require(dtype >= 0 && dtype < static_cast<int32_t>(c10::ScalarType::Undefined), "tensor_from_blob: unknown dtype");
    auto type = static_cast<c10::ScalarType>(dtype);
    // The furthest element must lie inside the memory.
    int64_t numel = 1, last = 0;
    for (int64_t i = 0; i < dim; i++) {
      int64_t step = 0;
      require(sizes[i] >= 0 && strides[i] >= 0, "tensor_from_blob: negative size or stride");
      require(!__builtin_mul_overflow(numel, sizes[i], &numel), "tensor_from_blob: the number of elements overflows");
      require(sizes[i] == 0 || !__builtin_mul_overflow(sizes[i] - 1, strides[i], &step), "tensor_from_blob: the extent overflows");
      require(!__builtin_add_overflow(last, step, &last), "tensor_from_blob: the extent overflows");
    }
    int64_t bytes = 0;
    require(numel == 0 || !__builtin_add_overflow(last, 1, &bytes), "tensor_from_blob: the extent overflows");
    require(!__builtin_mul_overflow(bytes, static_cast<int64_t>(c10::elementSize(type)), &bytes), "tensor_from_blob: the extent overflows");
    require(nbytes >= 0 && bytes <= nbytes, "tensor_from_blob: the tensor reaches past its memory");
    require(numel == 0 || data != nullptr, "tensor_from_blob: data is NULL");
    auto token = std::make_shared<Token>(id);
    auto t = at::from_blob(
        data, at::IntArrayRef(sizes, dim), at::IntArrayRef(strides, dim), [token](void*) mutable { token.reset(); },
        at::TensorOptions().dtype(type).device(c10::kCPU));
    *out = release(std::move(t));
  });
}

int32_t set_data(tg_tensor handle, tg_tensor data, tg_error* err) noexcept {
  return guarded(err, [&] { defined(handle).set_data(defined(data)); });
}

}  // namespace tg

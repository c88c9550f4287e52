// Memory that goes to other libraries' tensors and comes from them, as DLPack's capsules say where it lies
// (https://dmlc.github.io/dlpack/latest/c_api.html). No Python object stands behind what is given: a thread
// that lets go of it needs no GIL.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <type_traits>
#include <utility>

#include "arrays.hpp"

namespace rnncore {

/// DLTensor and DLManagedTensor of DLPack before its version 1.
struct DlTensor {
  void* data;
  int32_t device_type, device;
  int32_t axes;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *extents, *strides; // (axes)  strides in elements; null if each follows the one before
  uint64_t offset;            // bytes from `data`
};
struct DlManaged {
  DlTensor tensor;
  void* context;
  void (*deleter)(DlManaged*);
};

constexpr const char* dl_capsule = "dltensor"; // until somebody has taken what is in it
constexpr int32_t dl_cpu = 1;

template <class T>
constexpr uint8_t dl_code = std::is_floating_point_v<T> ? 2 : 0;

/// A tensor that is read while a call lasts; or none.
template <class T>
class LentTensor {
public:
  /// `capsule`: None, or a contiguous tensor of T on the CPU.
  LentTensor(const char* name, const py::object& capsule) : name_(name) {
    if (capsule.is_none()) return;
    const auto* managed = static_cast<const DlManaged*>(PyCapsule_GetPointer(capsule.ptr(), dl_capsule));
    if (!managed) throw py::error_already_set();
    tensor_ = &managed->tensor;
    const bool on_cpu = tensor_->device_type == dl_cpu;
    const bool typed = tensor_->code == dl_code<T> && tensor_->bits == 8 * sizeof(T) && tensor_->lanes == 1;
    if (!on_cpu || !typed || !is_contiguous() || (!tensor_->data && size() > 0))
      throw py::type_error(std::string(name) + " must be a contiguous tensor of " +
                           py::str(py::dtype::of<T>()).template cast<std::string>() + " on the CPU");
    data_ = reinterpret_cast<const T*>(static_cast<const char*>(tensor_->data) + tensor_->offset);
    if (reinterpret_cast<std::uintptr_t>(data_) % alignof(T)) align();
  }

  explicit operator bool() const { return tensor_; }
  const T* data() const { return data_; }
  Index axes() const { return tensor_->axes; }
  Index extent(Index axis) const { return tensor_->extents[axis]; }
  const int64_t* begin() const { return tensor_->extents; }
  const int64_t* end() const { return begin() + axes(); }
  Index size() const { return std::accumulate(begin(), end(), Index(1), std::multiplies<>()); }

  void expect(Extents shape) const {
    if (!std::equal(shape.begin(), shape.end(), begin(), end()))
      throw py::value_error(std::string(name_) + " must have shape " + text_of(shape) + ", got " +
                            text_of({begin(), end()}));
  }

private:
  bool is_contiguous() const {
    Index stride = 1;
    for (Index axis = axes(); tensor_->strides && axis-- > 0; stride *= extent(axis))
      if (extent(axis) != 1 && tensor_->strides[axis] != stride && size() > 0) return false;
    return true;
  }
  void align() {
    copy_ = Buffer(std::size_t(size()) * sizeof(T));
    std::memcpy(copy_.as<void>(), data_, copy_.bytes());
    data_ = copy_.as<T>();
  }

  const char* const name_;
  const DlTensor* tensor_ = nullptr;
  const T* data_ = nullptr;
  Buffer copy_;
};

/// A new tensor, not filled, to be given away.
template <class T>
class NewTensor {
public:
  template <class I>
  NewTensor(const I* begin, const I* end)
      : size_(std::accumulate(begin, end, Index(1), std::multiplies<>())),
        made_(Made::make(std::size_t(size_) * sizeof(T))) {
    std::copy(begin, end, made_->extents);
    DlTensor& tensor = made_->managed.tensor;
    tensor = {};
    tensor.data = data();
    tensor.device_type = dl_cpu;
    tensor.axes = int32_t(end - begin);
    tensor.code = dl_code<T>;
    tensor.bits = 8 * sizeof(T);
    tensor.lanes = 1;
    tensor.extents = made_->extents;
    made_->managed.context = made_.get();
    made_->managed.deleter = [](DlManaged* managed) { Free()(static_cast<Made*>(managed->context)); };
  }
  explicit NewTensor(Extents shape) : NewTensor(shape.begin(), shape.end()) {}

  T* data() const {
    void* const own = made_->buffer.template as<void>();
    return static_cast<T*>(own ? own : made_.get() + 1);
  }
  Index size() const { return size_; }

  /// The capsule, which from here on owns it.
  py::object give() {
    PyObject* const capsule = PyCapsule_New(&made_->managed, dl_capsule, [](PyObject* object) {
      if (!PyCapsule_IsValid(object, dl_capsule)) return; // somebody has taken it
      auto* const managed = static_cast<DlManaged*>(PyCapsule_GetPointer(object, dl_capsule));
      managed->deleter(managed);
    });
    if (!capsule) throw py::error_already_set();
    made_.release();
    return py::reinterpret_steal<py::object>(capsule);
  }

private:
  /// In one block with its numbers, unless these are many.
  struct alignas(64) Made {
    DlManaged managed;
    int64_t extents[3];
    Buffer buffer;

    static Made* make(std::size_t bytes) {
      const bool apart = bytes >= large;
      void* const memory =
          ::operator new(sizeof(Made) + (apart ? 0 : bytes), std::align_val_t(alignof(Made)), std::nothrow);
      if (!memory) throw std::bad_alloc();
      std::unique_ptr<Made, Free> made(new (memory) Made{});
      if (apart) made->buffer = take_memory(bytes);
      return made.release();
    }
  };
  struct Free {
    void operator()(Made* made) const {
      give_memory(std::move(made->buffer));
      made->~Made();
      ::operator delete(made, std::align_val_t(alignof(Made)));
    }
  };

  Index size_;
  std::unique_ptr<Made, Free> made_;
};

} // namespace rnncore

// Aligned memory, allocated once and grown when needed.
#pragma once

#include <cstddef>
#include <new>
#include <utility>

namespace rnncore {

/// A block of 64-byte aligned memory, uninitialised.
class Buffer {
public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes)
      : data_(bytes ? ::operator new(bytes, alignment) : nullptr), bytes_(bytes) {}
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Buffer() { ::operator delete(data_, alignment); }

  /// At least this much; what was in it is lost if it must grow.
  void* reserve(std::size_t bytes) {
    if (bytes > bytes_) {
      {
        Buffer old = std::move(*this);
      } // freed first: both never exist together
      *this = Buffer(bytes);
    }
    return data_;
  }
  std::size_t bytes() const { return bytes_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

private:
  static constexpr std::align_val_t alignment{64};
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

} // namespace rnncore

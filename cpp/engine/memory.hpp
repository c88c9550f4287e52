// Aligned memory, allocated once and grown when needed.
#pragma once

#include <cstddef>
#include <new>
#include <utility>

#include "locks.hpp"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace rnncore {

/// A block of 64-byte aligned memory, uninitialised; a large one in large pages, where the system has them:
/// products walk through weights faster than small pages are looked up.
class Buffer {
public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes)
      : data_(bytes ? ::operator new(bytes, alignment(bytes), std::nothrow) : nullptr), bytes_(bytes) {
    // Not by the operator that throws: in the address sanitizer's library it ends the process instead.
    if (bytes && !data_) throw std::bad_alloc();
#ifdef __linux__
    if (bytes >= large_page) madvise(data_, bytes, MADV_HUGEPAGE);
#endif
  }
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Buffer() { ::operator delete(data_, alignment(bytes_)); }

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
  static constexpr std::size_t large_page = 2 << 20;
  static constexpr std::align_val_t alignment(std::size_t bytes) {
    return std::align_val_t(bytes < large_page ? 64 : large_page);
  }

  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

/// Memory of the calling thread, until it asks again.
inline void* scratch(std::size_t bytes) {
  static thread_local Buffer buffer;
  return bytes ? buffer.reserve(bytes) : nullptr;
}

/// Buffers of arrays that are no longer used, for the arrays of the next calls: memory fresh from the
/// system is cleared page by page first. A few of them, and not more than `most` bytes in all.
class BufferPool {
public:
  Buffer take(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    for (Buffer& kept : kept_)
      if (kept.bytes() >= bytes && kept.bytes() / 2 <= bytes) {
        bytes_ -= kept.bytes();
        return std::exchange(kept, Buffer());
      }
    return Buffer(bytes);
  }
  void give(Buffer buffer) {
    const std::lock_guard lock(mutex_);
    for (Buffer& kept : kept_)
      if (!kept.bytes() && bytes_ + buffer.bytes() <= most) {
        bytes_ += buffer.bytes();
        kept = std::move(buffer);
        return;
      }
  }

private:
  static constexpr std::size_t most = 64 << 20;
  Mutex mutex_;
  Buffer kept_[6];
  std::size_t bytes_ = 0;
};

} // namespace rnncore

// Aligned memory, allocated once and grown when needed.
#pragma once

#include <algorithm>
#include <array>
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
/// system is cleared page by page first. A few of them, and not more than `most` bytes in all: the oldest
/// make room for others, so that what a program no longer asks for does not stay.
class BufferPool {
public:
  Buffer take(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    const auto kept = std::find_if(kept_.begin(), kept_.end(), [&](const Buffer& buffer) {
      return buffer.bytes() >= bytes && buffer.bytes() / 2 <= bytes && !is_empty(buffer);
    });
    if (kept != kept_.end()) {
      bytes_ -= kept->bytes();
      std::rotate(kept, kept + 1, kept_.end());
      return std::exchange(kept_.back(), Buffer());
    }
    return Buffer(bytes);
  }
  void give(Buffer buffer) {
    if (buffer.bytes() > most) return;
    std::array<Buffer, slots> old; // returned to the system once others need not wait for it
    const std::lock_guard lock(mutex_);
    bytes_ += buffer.bytes();
    for (std::size_t i = 0; i < slots && (bytes_ > most || kept_.back().bytes()); ++i) {
      bytes_ -= kept_.front().bytes();
      old[i] = std::move(kept_.front());
      std::rotate(kept_.begin(), kept_.begin() + 1, kept_.end());
    }
    *std::find_if(kept_.begin(), kept_.end(), is_empty) = std::move(buffer);
  }

private:
  static constexpr std::size_t most = 64 << 20, slots = 6;

  static bool is_empty(const Buffer& buffer) { return buffer.bytes() == 0; }

  Mutex mutex_;
  std::array<Buffer, slots> kept_; // the oldest first, and behind them those that are empty
  std::size_t bytes_ = 0;
};

} // namespace rnncore

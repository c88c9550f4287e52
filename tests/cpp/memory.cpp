// Buffers that serve again: which of them stay, and that those no longer asked for make room.
#include "engine/memory.hpp"

#include <cstddef>
#include <utility>

#include "check.hpp"

namespace rnncore {

void test_memory() {
  constexpr std::size_t mib = 1 << 20;
  BufferPool pool;
  Buffer buffer = pool.take(mib);
  void* const first = buffer.as<void>();
  pool.give(std::move(buffer));
  Buffer again = pool.take(mib);
  CHECK(again.as<void>() == first, "a buffer of %zu bytes is not the one before", again.bytes());
  CHECK(pool.take(mib).as<void>() != first, "one buffer of %zu bytes serves twice", mib);

  // Sizes, none of which serves for another: the last six are kept.
  for (std::size_t bytes = 64, i = 0; i < 9; ++i, bytes *= 3) pool.give(Buffer(bytes));
  pool.give(std::move(again));
  Buffer last = pool.take(mib);
  CHECK(last.as<void>() == first, "older buffers keep one of %zu bytes out", last.bytes());

  // Too large ones are not kept, and let the others be.
  pool.give(std::move(last));
  pool.give(Buffer(65 * mib));
  CHECK(pool.take(mib).as<void>() == first, "a buffer of %zu MiB puts others out", std::size_t(65));
  pool.give(Buffer(40 * mib));
  Buffer large(41 * mib);
  *large.as<int>() = 7;        // memory fresh from the system may lie in the same place, and holds zeros
  pool.give(std::move(large)); // only one of the two has room
  const Buffer kept = pool.take(41 * mib);
  CHECK(*kept.as<int>() == 7, "the older of two large buffers stays, not that of %zu", kept.bytes());
}

} // namespace rnncore

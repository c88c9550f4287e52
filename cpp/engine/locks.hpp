// Locks; where there are no threads (WASI), some that nobody can wait for.
#pragma once

#include <mutex>

#if defined(__wasi__)
#define RNNCORE_NO_THREADS
#else
#include <shared_mutex>
#endif

namespace rnncore {

#if defined(RNNCORE_NO_THREADS)
struct Mutex {
  void lock() {}
  bool try_lock() { return true; }
  void unlock() {}
  void lock_shared() {}
  void unlock_shared() {}
};
using SharedMutex = Mutex;
#else
using Mutex = std::mutex;
using SharedMutex = std::shared_mutex;
#endif

} // namespace rnncore

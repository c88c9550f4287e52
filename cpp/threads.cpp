#include "threads.hpp"

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace rnncore {
namespace {

inline void pause_briefly() {
#if defined(__SSE2__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Waits until `done()`: spinning first, since most waits are shorter than a system call, then giving the
/// processor away.
template <class Done>
void spin_until(Done done, int spins) {
  for (int i = 0; !done(); ++i) {
    if (i < spins)
      pause_briefly();
    else
      std::this_thread::yield();
  }
}

class Barrier {
public:
  explicit Barrier(Index size) : size_(size) {}
  void wait() {
    const unsigned phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
    } else {
      spin_until([&] { return phase_.load(std::memory_order_acquire) != phase; }, 2000);
    }
  }

private:
  const Index size_;
  alignas(64) std::atomic<Index> arrived_{0};
  alignas(64) std::atomic<unsigned> phase_{0};
};

struct Job {
  TeamWork work;
  void* argument;
  Index size;
  Barrier* barrier;
};

void take_part(const Job& job, Index rank) {
  const Team team{rank, job.size, [](void* barrier) { static_cast<Barrier*>(barrier)->wait(); },
                  job.barrier};
  job.work(team, job.argument);
}

/// Workers sleep between calls, but first spin for a while: calls come in bursts.
class Pool {
public:
  ~Pool() {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  void run(const Job& job) {
    while (Index(workers_.size()) + 1 < job.size) {
      const Index rank = Index(workers_.size()) + 1;
      workers_.emplace_back([this, rank, seen = generation_.load()] { serve(rank, seen); });
    }
    unfinished_.store(job.size - 1, std::memory_order_relaxed);
    {
      const std::lock_guard lock(mutex_);
      job_ = job;
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    take_part(job, 0);
    spin_until([&] { return unfinished_.load(std::memory_order_acquire) == 0; }, 20000);
  }

private:
  void serve(Index rank, unsigned seen) {
    for (;;) {
      for (int i = 0; i < 20000 && generation_.load(std::memory_order_acquire) == seen; ++i)
        pause_briefly();
      Job job;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_relaxed) != seen; });
        if (closing_) return;
        seen = generation_.load(std::memory_order_relaxed);
        job = job_;
      }
      if (rank >= job.size) continue;
      take_part(job, rank);
      unfinished_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<unsigned> generation_{0};
  std::atomic<Index> unfinished_{0};
  Job job_{};
  bool closing_ = false;
};

/// A forked child has none of its parent's threads: it leaves the parent's pool alone and makes its own.
struct Shared {
  std::mutex busy;
  std::unique_ptr<Pool> pool;
};
Shared* shared = nullptr;
std::once_flag prepared;

void prepare() {
  shared = new Shared; // never destroyed: a daemon thread may outlive the statics
#if defined(__unix__) || defined(__APPLE__)
  pthread_atfork(nullptr, nullptr, [] { shared = new Shared; });
#endif
}

Index positive(const char* variable) {
  const char* text = std::getenv(variable);
  const long value = text ? std::strtol(text, nullptr, 10) : 0;
  return value > 0 ? Index(value) : 0;
}

Index processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned n = std::thread::hardware_concurrency();
  return n ? Index(n) : 1;
}

std::atomic<Index> chosen{0};

} // namespace

Index num_threads() {
  if (const Index n = chosen.load(std::memory_order_relaxed)) return n;
  Index n = positive("RNNCORE_NUM_THREADS");
  if (!n) n = positive("OMP_NUM_THREADS");
  if (!n) n = processors();
  chosen.store(n, std::memory_order_relaxed);
  return n;
}

void set_num_threads(Index n) { chosen.store(n, std::memory_order_relaxed); }

void run_team(Index size, TeamWork work, void* argument) {
  std::call_once(prepared, prepare);
  std::unique_lock lock(shared->busy, std::defer_lock);
  if (size > 1 && lock.try_lock()) {
    if (!shared->pool) shared->pool = std::make_unique<Pool>();
    Barrier barrier(size);
    shared->pool->run({work, argument, size, &barrier});
  } else {
    Barrier alone(1);
    take_part({work, argument, 1, &alone}, 0);
  }
}

} // namespace rnncore

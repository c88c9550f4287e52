#include "threads.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "compiler.hpp"
#include "locks.hpp"
#include "quota.hpp"

#if !defined(RNNCORE_NO_THREADS)
#include <condition_variable>
#include <thread>
#endif
#if (defined(__unix__) || defined(__APPLE__)) && !defined(RNNCORE_NO_THREADS)
#define RNNCORE_FORKS
#include <csignal>
#include <pthread.h>
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
  RNNCORE_ASM volatile("yield");
#endif
}

inline void give_way() {
#if !defined(RNNCORE_NO_THREADS)
  std::this_thread::yield();
#endif
}

/// Waits until `done()`, or for so many rounds: pausing first, since most waits are shorter than a system
/// call, but soon giving the processor away, since another process may have that of whom we wait for.
template <class Done>
void spin_until(Done done, Index rounds = std::numeric_limits<Index>::max()) {
  for (Index i = 0; i < rounds && !done(); ++i)
    if (i < 300)
      pause_briefly();
    else
      give_way();
}

using Clock = std::chrono::steady_clock;

std::atomic<int64_t> spins{500'000}; // nanoseconds

/// The same for as long as the spin time, and then no more.
template <class Done>
void spin_briefly(Done done) {
  const std::chrono::nanoseconds most(spins.load(std::memory_order_relaxed));
  if (most.count() == 0) return;
  const auto start = Clock::now();
  while (!done() && Clock::now() - start < most) spin_until(done, 310);
}

/// A wait this long is no imbalance of the work: somebody else had the processor.
constexpr std::chrono::milliseconds long_wait{1};

class Barrier {
public:
  explicit Barrier(Index size) : size_(size) {}
  /// Before the first wait; all who take part say the same.
  void set_size(Index size) { size_.store(size, std::memory_order_relaxed); }
  void wait() {
    const unsigned phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_.load(std::memory_order_relaxed)) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
      return;
    }
    const auto done = [&] { return phase_.load(std::memory_order_acquire) != phase; };
    spin_until(done, 300);
    if (done()) return;
    const auto start = Clock::now();
    spin_until(done);
    if (Clock::now() - start > long_wait) long_waits_.fetch_add(1);
  }
  /// How many waits were long.
  Index long_waits() const { return long_waits_.load(); }

private:
  std::atomic<Index> size_;
  std::atomic<Index> long_waits_{0};
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

/// The job on threads of somebody else, which may be fewer than asked for.
void run_on(const OtherThreads& threads, const Job& job) {
  struct Region {
    const OtherThreads& threads;
    const Job& job;
  } region{threads, job};
  const auto part = [](void* data) {
    const auto& [threads, job] = *static_cast<const Region*>(data);
    const Index size = threads.count();
    job.barrier->set_size(size);
    take_part({job.work, job.argument, size, job.barrier}, threads.rank());
  };
  threads.parallel(part, &region, unsigned(job.size), 0);
}

#if defined(RNNCORE_NO_THREADS)

/// Of the calling thread alone.
struct Pool {
  Index grow(Index) { return 1; }
  void run(const Job& job) { take_part(job, 0); }
};

#else

/// While one exists, threads that this one starts get no signals: those belong to the program's own.
class SignalsBlocked {
public:
  SignalsBlocked(const SignalsBlocked&) = delete;
#if defined(RNNCORE_FORKS)
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &saved_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &saved_, nullptr); }

private:
  sigset_t saved_;
#else
  SignalsBlocked() {}
#endif
};

/// Workers sleep between calls, but first spin for a while: calls come in bursts.
class Pool {
public:
  Pool() = default;
  ~Pool() {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  /// Starts workers for a team of `size`; returns how large a team the system allows.
  Index grow(Index size) {
    if (Index(workers_.size()) + 1 >= size) return size;
    const SignalsBlocked blocked;
    try {
      while (Index(workers_.size()) + 1 < size) {
        const Index rank = Index(workers_.size()) + 1;
        workers_.emplace_back([this, rank, seen = generation_.load()] { serve(rank, seen); });
      }
    } catch (const std::system_error&) { // no more threads to be had
    } catch (const std::bad_alloc&) {    // nor memory for them
    }
    return Index(workers_.size()) + 1;
  }

  /// `job.size` is at most what `grow` returned.
  void run(const Job& job) {
    unfinished_.store(job.size - 1, std::memory_order_relaxed);
    {
      const std::lock_guard lock(mutex_);
      job_ = job;
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    take_part(job, 0);
    spin_until([&] { return unfinished_.load(std::memory_order_acquire) == 0; });
  }

private:
  void serve(Index rank, unsigned seen) {
    for (;;) {
      spin_briefly([&] { return generation_.load(std::memory_order_acquire) != seen; });
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

#endif

/// What the threads of this process share.
struct Shared {
  SharedMutex calls; // held by calls, and alone by fork
  Mutex busy;        // held by the call that has the pool, as is all that follows
  std::unique_ptr<Pool> pool;
  OtherThreads others; // or none
  Index rest = 0, next_rest = 1;

  /// Where other processes want the processors, threads that wait for each other at every step are slower
  /// than one. So after a call with long waits the next ones do without, the more of them the more often it
  /// happens again. Results do not depend on it.
  bool rests() { return rest > 0 && rest-- > 0; }
  void learn(Index long_waits) {
    const bool crowded = long_waits > 2;
    rest = crowded ? next_rest : 0;
    next_rest = crowded ? std::min<Index>(2 * next_rest, 64) : std::max<Index>(next_rest / 2, 1);
  }
};
Shared* shared = nullptr; // never destroyed: a daemon thread may outlive the statics

/// A child has none of its parent's threads, and of its parent's locks those that were held at the fork
/// stay so for ever. So fork waits for calls to end and the pool is gone meanwhile; the child starts anew.
[[maybe_unused]] void prepare_for_fork() {
  shared->calls.lock();
  shared->busy.lock();
  shared->pool.reset();
}
[[maybe_unused]] void after_fork_in_parent() {
  shared->busy.unlock();
  shared->calls.unlock();
}
[[maybe_unused]] void after_fork_in_child() { shared = new Shared; }

/// The whole number above zero that a variable holds, or starts with; else 0.
Index positive(const char* variable) {
  const char* text = std::getenv(variable);
  const long value = text ? std::strtol(text, nullptr, 10) : 0;
  return value > 0 ? Index(value) : 0;
}

std::atomic<Index> requested{0};

/// Seconds of an environment variable, from 0 to a day, as nanoseconds; -1: it makes no sense.
int64_t nanoseconds(const std::string& text) {
  char* end = nullptr;
  const double seconds = std::strtod(text.c_str(), &end);
  return *end == 0 && seconds >= 0 && seconds <= 86400 ? int64_t(seconds * 1e9) : -1;
}

} // namespace

void start_threads() {
  const char* text = std::getenv("RNNCORE_NUM_THREADS");
  if (text && *text) {
    const std::string given(text);
    const bool digits = given.find_first_not_of("0123456789") == given.npos;
    requested = digits ? positive("RNNCORE_NUM_THREADS") : 0;
    if (!requested)
      throw std::runtime_error("RNNCORE_NUM_THREADS=" + given + " is not a whole number above 0");
  }
  const char* seconds = std::getenv("RNNCORE_SPIN_TIME");
  if (seconds && *seconds) {
    const int64_t given = nanoseconds(seconds);
    if (given < 0)
      throw std::runtime_error("RNNCORE_SPIN_TIME=" + std::string(seconds) +
                               " is not a number of seconds from 0 to 86400");
    set_spin_time(given);
  }
  if (shared) return;
  shared = new Shared;
#if defined(RNNCORE_FORKS)
  pthread_atfork(prepare_for_fork, after_fork_in_parent, after_fork_in_child);
#endif
}

Index num_threads() {
  if (const Index n = requested.load(std::memory_order_relaxed)) return n;
  Index n = positive("OMP_NUM_THREADS");
  if (!n) n = processors();
  Index none = 0; // unless another thread has asked for some meanwhile
  return requested.compare_exchange_strong(none, n) ? n : none;
}

void set_num_threads(Index n) { requested.store(n < 1 ? 1 : n, std::memory_order_relaxed); }

int64_t spin_time() { return spins.load(std::memory_order_relaxed); }
void set_spin_time(int64_t nanoseconds) { spins.store(nanoseconds, std::memory_order_relaxed); }

void use_threads(const OtherThreads& threads) {
  const std::lock_guard lock(shared->busy);
  shared->pool.reset();
  shared->others = threads;
}

NoFork::NoFork() { shared->calls.lock_shared(); }
NoFork::~NoFork() { shared->calls.unlock_shared(); }

void run_team(Index size, TeamWork work, void* argument) {
  std::unique_lock lock(shared->busy, std::defer_lock);
  if (size > 1 && lock.try_lock() && !shared->rests()) {
    if (shared->others.parallel) {
      Barrier barrier(size);
      run_on(shared->others, {work, argument, size, &barrier});
      return shared->learn(barrier.long_waits());
    }
    if (!shared->pool) shared->pool = std::make_unique<Pool>();
    size = shared->pool->grow(size);
    Barrier barrier(size);
    shared->pool->run({work, argument, size, &barrier});
    shared->learn(barrier.long_waits());
  } else {
    Barrier barrier(1);
    take_part({work, argument, 1, &barrier}, 0);
  }
}

} // namespace rnncore

// For threadpoolctl, which finds a library by its symbols.
extern "C" {
RNNCORE_EXPORT int rnncore_get_num_threads() { return int(rnncore::num_threads()); }
RNNCORE_EXPORT void rnncore_set_num_threads(int n) { rnncore::set_num_threads(n); }
}

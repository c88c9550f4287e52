// A small pool of threads that work on one call together.
#pragma once

#include "api.hpp"
#include "denormals.hpp"

namespace rnncore {

/// Once, before anything else here. Throws std::runtime_error if RNNCORE_NUM_THREADS or RNNCORE_SPIN_TIME
/// makes no sense.
void start_threads();

/// Threads a call may use: set_num_threads, else RNNCORE_NUM_THREADS, else OMP_NUM_THREADS, else the
/// processors this process may have.
Index num_threads();
void set_num_threads(Index n);

/// How long a thread of the pool waits for the next call before it sleeps, in nanoseconds: set_spin_time,
/// else RNNCORE_SPIN_TIME, which is in seconds, else half a millisecond. Until then it uses a processor.
int64_t spin_time();
void set_spin_time(int64_t nanoseconds);

/// Threads of somebody else, as GCC's OpenMP has them: what runs a function on so many of them and waits,
/// and what says within it which thread this is, and of how many.
struct OtherThreads {
  void (*parallel)(void (*function)(void*), void* data, unsigned threads, unsigned flags) = nullptr;
  int (*rank)() = nullptr;
  int (*count)() = nullptr;
};

/// From now on teams are made of these threads, and of none of ours: two pools that wait by spinning slow
/// each other down by far. A forked child has its own again.
void use_threads(const OtherThreads& threads);

/// While one exists fork waits, so that a child never finds a lock that somebody held. Its holder must not
/// fork, nor wait for the GIL: the thread that forks may have it.
class NoFork {
public:
  NoFork();
  NoFork(const NoFork&) = delete;
  ~NoFork();
};

using TeamWork = void (*)(const Team& team, void* argument) noexcept;

/// Runs `work` once on each of up to `size` threads, the calling one among them, and returns when all are
/// done. While another call has the pool, or where the system gives no more threads, the team is as small
/// as need be: results do not depend on its size.
void run_team(Index size, TeamWork work, void* argument);

/// f(team) on each of up to `threads` threads, denormals flushed.
template <class F>
void on_team(Index threads, F f) {
  run_team(
      threads,
      [](const Team& team, void* function) noexcept {
        const FlushDenormals flush;
        (*static_cast<F*>(function))(team);
      },
      &f);
}

} // namespace rnncore

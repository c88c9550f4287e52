// A small pool of threads that work on one call together.
#pragma once

#include "api.hpp"
#include "denormals.hpp"

namespace rnncore {

/// Threads a call may use: set_num_threads, else RNNCORE_NUM_THREADS, else OMP_NUM_THREADS, else the
/// processors this process may run on.
Index num_threads();
void set_num_threads(Index n);

using TeamWork = void (*)(const Team& team, void* argument);

/// Runs `work` once on each of up to `size` threads, the calling one among them, and returns when all are
/// done. While another call has the pool, or in a process forked from one that had it, the team is as
/// small as need be: results do not depend on its size.
void run_team(Index size, TeamWork work, void* argument);

/// f(team) on each of up to `threads` threads, denormals flushed.
template <class F>
void on_team(Index threads, F f) {
  run_team(
      threads,
      [](const Team& team, void* function) {
        const FlushDenormals flush;
        (*static_cast<F*>(function))(team);
      },
      &f);
}

} // namespace rnncore

// Sequences of a batch that have nothing to do with each other, shared between threads.
#pragma once

#include <atomic>

#include "../engine/pieces.hpp"
#include "arrays.hpp"

namespace rnncore {

/// Fewer operations than this are done before another thread is awake.
constexpr double least_sequence_work = 200'000;

/// f(sequence) for 0 .. count, where each thread has an f = of_thread(space) of its own; `work`: operations
/// of all, `bytes`: what a thread works in. Whoever is free takes the next, so what f does with a sequence
/// must not depend on the thread.
template <class F>
void over_sequences(Index count, double work, Index bytes, F of_thread) {
  const double each = work / double(std::max<Index>(count, 1));
  in_pieces(count, each, 8, [&](Index begin, Index end) {
    const double own = each * double(end - begin);
    const Index threads = std::min({num_threads(), 1 + Index(own / least_sequence_work), end - begin});
    const Index space = (bytes + 63) / 64 * 64;
    // For all threads, and taken here: one of the pool that had no memory could not say so.
    char* const memory = static_cast<char*>(scratch(std::size_t(space * threads)));
    std::atomic<Index> next = begin;
    on_team(threads, [&](const Team& team) {
      auto f = of_thread(memory + space * team.rank);
      for (Index b = next++; b < end; b = next++) f(b);
    });
  });
}

} // namespace rnncore

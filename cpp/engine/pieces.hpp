// Long work in pieces: between them the thread that made the call may find that it is to end.
#pragma once

#include <algorithm>
#include <chrono>

#include "api.hpp"

namespace rnncore {

/// Operations of a piece: some milliseconds of a fast processor, some tenths of a second of a slow one.
double piece_work();
/// For tests: short calls then have pieces, too. Returns what it was.
double set_piece_work(double operations);

/// Looks now and then, as long as it exists, whether the work of the thread that made it is to end.
class Watch {
public:
  Watch();
  Watch(const Watch&) = delete;
  virtual ~Watch();

  /// Between two pieces, on the thread that made the call, while it holds no lock. Throws if the call is to
  /// end; a thread that no watch is kept for goes on.
  static void pause();

protected:
  /// Throws if the work is to end.
  virtual void look() = 0;
  /// No more looks.
  void stop() { due_ = Clock::time_point::max(); }

private:
  using Clock = std::chrono::steady_clock;

  Watch* const outer_;
  Clock::time_point due_;
};

/// f(begin, end) for 0 .. count, in pieces of a multiple of `unit`; `work`: operations of each of them all.
template <class F>
void in_pieces(Index count, double work, Index unit, F f) {
  const double most = std::min(piece_work() / std::max(work, 1.0), 1e15);
  const Index piece = std::max<Index>(Index(most) / unit * unit, unit);
  for (Index begin = 0; begin < count; begin += piece) {
    if (begin > 0) Watch::pause();
    f(begin, std::min(begin + piece, count));
  }
}

} // namespace rnncore

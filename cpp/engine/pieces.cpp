#include "pieces.hpp"

#include <atomic>
#include <utility>

namespace rnncore {
namespace {

/// Nobody waits longer than this, and a piece, for Ctrl-C; seldom enough to cost nothing.
constexpr std::chrono::milliseconds between_looks{100};

std::atomic<double> operations{1e9};
thread_local Watch* kept = nullptr;

} // namespace

double piece_work() { return operations.load(std::memory_order_relaxed); }
double set_piece_work(double n) { return operations.exchange(std::max(n, 1.0)); }

Watch::Watch() : outer_(std::exchange(kept, this)), due_(Clock::now() + between_looks) {}
Watch::~Watch() { kept = outer_; }

void Watch::pause() {
  Watch* const watch = kept;
  if (!watch || Clock::now() < watch->due_) return;
  watch->due_ = Clock::now() + between_looks;
  watch->look();
}

} // namespace rnncore

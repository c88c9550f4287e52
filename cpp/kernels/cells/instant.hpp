// What a cell sees of one instant: vectors of hidden units side by side.
#pragma once

#include "../layout.hpp"

namespace rnncore::RNNCORE_LEVEL {

constexpr Index most_units = 18, most_branches = 5;

/// The state before and after; `middle` passes from one stage of the instant to the next. `unit`: the
/// numbers that each hidden unit has of its own.
template <class V>
struct Instant {
  V h_prev, c_prev, h, c, middle;
  V kept; // of the predecessors, each through a gate of its own
  V unit[most_units];
  V branch[most_branches]; // cell states of several predecessors
};

/// Gradients: of the state after the instant when `backward` is called, of the state before it when it
/// returns, as far as they do not pass through a product. `middle` likewise; those of `unit` are added to.
template <class V>
struct Gradient {
  V h, c, middle, kept;
  V unit[most_units];
  V branch[most_branches];
};

template <Index n>
struct Stage {};

} // namespace rnncore::RNNCORE_LEVEL

// What a cell sees of one time step: vectors of hidden units side by side.
#pragma once

#include "../layout.hpp"

namespace rnncore::RNNCORE_LEVEL {

constexpr Index most_units = 18, most_branches = 5;

/// The state before and after; `middle` passes from one phase of the time step to the next. `unit`: the
/// numbers that each hidden unit has of its own.
template <class V>
struct TimeStep {
  V h_prev, c_prev, h, c, middle;
  V kept; // of the predecessors, each through a gate of its own
  V unit[most_units];
  V branch[most_branches]; // cell states of several predecessors
};

/// Gradients: of the state after the time step when `backward` is called, of the state before it when it
/// returns, as far as they do not pass through a product. `middle` likewise; those of `unit` are added to.
template <class V>
struct Gradient {
  V h, c, middle, kept;
  V unit[most_units];
  V branch[most_branches];
};

template <Index n>
struct Phase {};

/// A gate for each of any number of predecessors, summed up of what they all have in common, a slot, and
/// what each offers.
template <Index slot>
struct Joined {
  template <class V>
  static RNNCORE_INLINE V joined(const auto& s, const TimeStep<V>&, V offer) {
    return s[slot] + offer;
  }
  /// The gradient of an offer from that of its sum,
  template <class V>
  static RNNCORE_INLINE V unjoin(V d_sum, V, const TimeStep<V>&, Gradient<V>&) {
    return d_sum;
  }
  /// and those of what all have in common, from that of all sums.
  template <class V>
  static RNNCORE_INLINE void unjoin_common(V d_sums, auto& s, const TimeStep<V>&, Gradient<V>&) {
    s[slot] = d_sums;
  }
};

} // namespace rnncore::RNNCORE_LEVEL

// Cells of one gate.
#pragma once

#include "../activations.hpp"
#include "time_step.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// The plain recurrent cell (Elman 1990):  h' = phi(W x + b + U h + b')
template <class Phi>
struct Vanilla {
  enum { a, slots };
  using Rules = Fixed<Sigmoid, Phi>;
  static constexpr Plan plan{
      .slots = slots, .gates = 1, .input = {{a, 1, {0}}}, .recurrent = {{0, {a, 1, {0}}}}};

  template <class V>
  static RNNCORE_INLINE void forward(Phase<0>, const auto& rules, V (&s)[slots], TimeStep<V>& t) {
    s[a] = rules.candidate(s[a]);
    t.h = s[a];
  }

  template <class V>
  static RNNCORE_INLINE void backward(Phase<0>, const auto& rules, V (&s)[slots], const TimeStep<V>&,
                                      Gradient<V>& d) {
    s[a] = d.h * rules.candidate_slope(s[a]);
  }
};

/// The recursive neural tensor network (Socher et al. 2013):  p = phi(W x + b + U a + a^T V a), where a are
/// the states of all predecessors, one after the other: [U V] times their entries and the products of two.
template <class Phi>
struct Tensor : Vanilla<Phi> {
  using Steps = Vanilla<Phi>;
  static constexpr Plan plan = [] {
    Plan plan = Vanilla<Phi>::plan;
    plan.recurrent_input = RecurrentInput::pairs;
    return plan;
  }();
};

/// Independently recurrent (Li et al. 2018, eq. 2):  h' = phi(W x + b + u h), u a number for each unit
template <class Phi>
struct Independent {
  enum { a, slots };
  using Rules = Fixed<Sigmoid, Phi>;
  static constexpr Plan plan{.slots = slots,
                             .gates = 1,
                             .units = 1,
                             .input = {{a, 1, {0}}},
                             .recurrent = {},
                             .sees_h = true,
                             .direct = true};

  template <class V>
  static RNNCORE_INLINE void forward(Phase<0>, const auto& rules, V (&s)[slots], TimeStep<V>& t) {
    s[a] = rules.candidate(fma(t.unit[0], t.h_prev, s[a]));
    t.h = s[a];
  }

  template <class V>
  static RNNCORE_INLINE void backward(Phase<0>, const auto& rules, V (&s)[slots], const TimeStep<V>& t,
                                      Gradient<V>& d) {
    s[a] = d.h * rules.candidate_slope(s[a]);
    d.unit[0] = fma(s[a], t.h_prev, d.unit[0]);
    d.h = s[a] * t.unit[0];
  }
};

} // namespace rnncore::RNNCORE_LEVEL

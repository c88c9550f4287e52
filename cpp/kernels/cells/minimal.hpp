// Cells whose gates do not see the state (Feng et al. 2024, "Were RNNs all we needed?"): their recurrence
// is elementwise. No activation but the gates': the candidate is W x + b itself, unless the options name
// another.
#pragma once

#include "../activations.hpp"
#include "time_step.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// minGRU, gates z, n:  z = sigmoid(W x + b),  n = W x + b,  h' = (1 - z) h + z n
struct MinGru {
  enum { z, n, slots };
  using Rules = Fixed<Sigmoid, Identity>;
  static constexpr Plan plan{.slots = slots,
                             .gates = 2,
                             .input = {{z, 2, {0, 1}}},
                             .recurrent = {},
                             .sees_h = true,
                             .direct = true};

  template <class V>
  static RNNCORE_INLINE void forward(Phase<0>, const auto& rules, V (&s)[slots], TimeStep<V>& t) {
    s[z] = rules.gate(s[z]);
    s[n] = rules.candidate(s[n]);
    t.h = fma(s[z], rules.drop(s[n]) - t.h_prev, t.h_prev);
  }

  template <class V>
  static RNNCORE_INLINE void backward(Phase<0>, const auto& rules, V (&s)[slots], const TimeStep<V>& t,
                                      Gradient<V>& d) {
    const V d_z = d.h * (rules.drop(s[n]) - t.h_prev);
    s[n] = rules.drop(d.h * s[z]) * rules.candidate_slope(s[n]);
    d.h = d.h * (V(1) - s[z]);
    s[z] = d_z * rules.gate_slope(s[z]);
  }
};

/// minLSTM, gates f, i, n, normalised so that they add up to one:
///
///   f, i = sigmoid(W x + b),  n = W x + b,  w = f / (f + i),  h' = w h + (1 - w) n
struct MinLstm {
  enum { f, i, n, w, slots };
  using Rules = Fixed<Sigmoid, Identity>;
  static constexpr Plan plan{.slots = slots,
                             .gates = 3,
                             .input = {{f, 3, {0, 1, 2}}},
                             .recurrent = {},
                             .sees_h = true,
                             .direct = true};

  /// w from the sums a and b of f and i, which may be so low that both gates vanish.
  template <class V>
  static RNNCORE_INLINE V share(V a, V b) {
    const V zero(0), lower = select_le(a, b, a, b), m = select_le(lower, zero, lower, zero);
    const V one = exp_below(m), u = exp_below(m - a), v = exp_below(m - b); // all times exp(-m)
    return (one + v) / ((one + u) + (one + v));
  }

  template <class V>
  static RNNCORE_INLINE void forward(Phase<0>, const auto& rules, V (&s)[slots], TimeStep<V>& t) {
    const V a = s[f], b = s[i];
    s[f] = rules.gate(a);
    s[i] = rules.gate(b);
    s[n] = rules.candidate(s[n]);
    s[w] = rules.sigmoid_gates() ? share(a, b) : s[f] / (s[f] + s[i]);
    const V update = rules.drop(s[n]);
    t.h = fma(s[w], t.h_prev - update, update);
  }

  template <class V>
  static RNNCORE_INLINE void backward(Phase<0>, const auto& rules, V (&s)[slots], const TimeStep<V>& t,
                                      Gradient<V>& d) {
    const V d_w = d.h * (t.h_prev - rules.drop(s[n])), one(1);
    s[n] = rules.drop(d.h * (one - s[w])) * rules.candidate_slope(s[n]);
    d.h = d.h * s[w];
    if (rules.sigmoid_gates()) {
      const V d_both = d_w * s[w] * (one - s[w]);
      s[f] = d_both * (one - s[f]);
      s[i] = -(d_both * (one - s[i]));
    } else {
      const V both = s[f] + s[i], d_both = d_w / (both * both), v_f = s[f];
      s[f] = d_both * s[i] * rules.gate_slope(s[f]);
      s[i] = -(d_both * v_f * rules.gate_slope(s[i]));
    }
  }
};

} // namespace rnncore::RNNCORE_LEVEL

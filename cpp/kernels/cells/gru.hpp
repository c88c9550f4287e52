// Gated recurrent units, in torch's gate order r, z, n. Both start from
//
//   r, z = sigmoid(W x + b + U h + b')
//   h' = (1 - z) n + z h
#pragma once

#include "../activations.hpp"
#include "time_step.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// h' = n + z (h - n), and the gradients of z and n.
template <class V>
RNNCORE_INLINE V blend(V z, V n, V h) {
  return fma(z, h - n, n);
}

/// Reset after the product (cuDNN, torch):  n = tanh(W x + b + r (U h + b'))
struct GruResetAfter {
  enum { n, r, z, u, slots }; // u = U h + b' of n: both windows stay whole runs of slots
  using Rules = Fixed<Sigmoid, Tanh>;
  static constexpr Plan plan{.slots = slots,
                             .gates = 3,
                             .input = {{n, 3, {2, 0, 1}}},
                             .recurrent = {{0, {r, 3, {0, 1, 2}}}},
                             .sees_h = true,
                             .direct = true};

  template <class V>
  static RNNCORE_INLINE void forward(Phase<0>, const auto& rules, V (&s)[slots], TimeStep<V>& t) {
    s[r] = rules.gate(s[r]);
    s[z] = rules.gate(s[z]);
    s[n] = rules.candidate(fma(s[r], s[u], s[n]));
    t.h = blend(s[z], rules.drop(s[n]), t.h_prev);
  }

  template <class V>
  static RNNCORE_INLINE void backward(Phase<0>, const auto& rules, V (&s)[slots], const TimeStep<V>& t,
                                      Gradient<V>& d) {
    const V d_z = d.h * (t.h_prev - rules.drop(s[n]));
    const V d_n = rules.drop(d.h * (V(1) - s[z])) * rules.candidate_slope(s[n]);
    d.h = d.h * s[z];
    const V d_r = d_n * s[u]; // n = tanh(... + r u)
    s[u] = d_n * s[r];
    s[n] = d_n;
    s[r] = d_r * rules.gate_slope(s[r]);
    s[z] = d_z * rules.gate_slope(s[z]);
  }
};

/// Reset before the product (Cho et al. 2014):  n = tanh(W x + b + U (r h) + b')
struct GruResetBefore {
  enum { r, z, n, slots };
  using Rules = Fixed<Sigmoid, Tanh>;
  static constexpr Plan plan{.slots = slots,
                             .gates = 3,
                             .phases = 2,
                             .input = {{r, 3, {0, 1, 2}}},
                             .recurrent = {{0, {r, 2, {0, 1}}}, {1, {n, 1, {2}}}},
                             .sees_h = true,
                             .direct = true};

  template <class V>
  static RNNCORE_INLINE void forward(Phase<0>, const auto& rules, V (&s)[slots], TimeStep<V>& t) {
    s[r] = rules.gate(s[r]);
    s[z] = rules.gate(s[z]);
    t.middle = s[r] * t.h_prev;
  }
  template <class V>
  static RNNCORE_INLINE void forward(Phase<1>, const auto& rules, V (&s)[slots], TimeStep<V>& t) {
    s[n] = rules.candidate(s[n]);
    t.h = blend(s[z], rules.drop(s[n]), t.h_prev);
  }

  template <class V>
  static RNNCORE_INLINE void backward(Phase<1>, const auto& rules, V (&s)[slots], const TimeStep<V>& t,
                                      Gradient<V>& d) {
    const V d_z = d.h * (t.h_prev - rules.drop(s[n]));
    s[n] = rules.drop(d.h * (V(1) - s[z])) * rules.candidate_slope(s[n]);
    d.h = d.h * s[z];
    s[z] = d_z * rules.gate_slope(s[z]);
  }
  template <class V>
  static RNNCORE_INLINE void backward(Phase<0>, const auto& rules, V (&s)[slots], const TimeStep<V>& t,
                                      Gradient<V>& d) {
    const V d_r = d.middle * t.h_prev; // middle = r h
    d.h = fma(d.middle, s[r], d.h);
    s[r] = d_r * rules.gate_slope(s[r]);
  }
};

/// The update gate RNN (Collins et al. 2016), gates g, c:
///
///   g = sigmoid(W x + b + U h + b'),  c = tanh(W x + b + U h + b'),  h' = g h + (1 - g) c
struct UpdateGated {
  enum { g, c, slots };
  using Rules = Fixed<Sigmoid, Tanh>;
  static constexpr Plan plan{.slots = slots,
                             .gates = 2,
                             .input = {{g, 2, {0, 1}}},
                             .recurrent = {{0, {g, 2, {0, 1}}}},
                             .sees_h = true,
                             .direct = true};

  template <class V>
  static RNNCORE_INLINE void forward(Phase<0>, const auto& rules, V (&s)[slots], TimeStep<V>& t) {
    s[g] = rules.gate(s[g]);
    s[c] = rules.candidate(s[c]);
    t.h = blend(s[g], rules.drop(s[c]), t.h_prev);
  }

  template <class V>
  static RNNCORE_INLINE void backward(Phase<0>, const auto& rules, V (&s)[slots], const TimeStep<V>& t,
                                      Gradient<V>& d) {
    const V d_g = d.h * (t.h_prev - rules.drop(s[c]));
    s[c] = rules.drop(d.h * (V(1) - s[g])) * rules.candidate_slope(s[c]);
    d.h = d.h * s[g];
    s[g] = d_g * rules.gate_slope(s[g]);
  }
};

/// The minimal gated unit (Zhou et al. 2016, eq. 8), gates f, n:
///
///   f = sigmoid(W x + b + U h + b'),  n = tanh(W x + b + U (f h) + b'),  h' = (1 - f) h + f n
struct MinimalGated {
  enum { f, n, p, slots }; // p: in backward the blend's gradient of f, until the product has added its own
  using Rules = Fixed<Sigmoid, Tanh>;
  static constexpr Plan plan{.slots = slots,
                             .gates = 2,
                             .phases = 2,
                             .input = {{f, 2, {0, 1}}},
                             .recurrent = {{0, {f, 1, {0}}}, {1, {n, 1, {1}}}},
                             .sees_h = true,
                             .direct = true};

  template <class V>
  static RNNCORE_INLINE void forward(Phase<0>, const auto& rules, V (&s)[slots], TimeStep<V>& t) {
    s[f] = rules.gate(s[f]);
    t.middle = s[f] * t.h_prev;
  }
  template <class V>
  static RNNCORE_INLINE void forward(Phase<1>, const auto& rules, V (&s)[slots], TimeStep<V>& t) {
    s[n] = rules.candidate(s[n]);
    t.h = blend(s[f], t.h_prev, rules.drop(s[n]));
  }

  template <class V>
  static RNNCORE_INLINE void backward(Phase<1>, const auto& rules, V (&s)[slots], const TimeStep<V>& t,
                                      Gradient<V>& d) {
    s[p] = d.h * (rules.drop(s[n]) - t.h_prev);
    s[n] = rules.drop(d.h * s[f]) * rules.candidate_slope(s[n]);
    d.h = d.h * (V(1) - s[f]);
  }
  template <class V>
  static RNNCORE_INLINE void backward(Phase<0>, const auto& rules, V (&s)[slots], const TimeStep<V>& t,
                                      Gradient<V>& d) {
    d.h = fma(d.middle, s[f], d.h); // middle = f h
    s[f] = fma(d.middle, t.h_prev, s[p]) * rules.gate_slope(s[f]);
  }
};

} // namespace rnncore::RNNCORE_LEVEL

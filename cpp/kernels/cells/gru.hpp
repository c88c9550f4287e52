// Gated recurrent units, in torch's gate order r, z, n. Both start from
//
//   r, z = sigmoid(W x + b + U h + b')
//   h' = (1 - z) n + z h
#pragma once

#include "instant.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// Reset after the product (cuDNN, torch):  n = tanh(W x + b + r (U h + b'))
template <class Act>
struct GruResetAfter {
  enum { n, r, z, u, slots }; // u = U h + b' of n: both windows stay whole runs of slots
  static constexpr Index gates = 3;
  static constexpr bool has_cell_state = false, direct = true;
  static constexpr Window input{n, 3, {2, 0, 1}};
  static constexpr Window recurrent[] = {{r, 3, {0, 1, 2}}};

  template <class V>
  static RNNCORE_INLINE void forward(Stage<0>, V (&s)[slots], Instant<V>& t) {
    s[r] = Act::gate(s[r]);
    s[z] = Act::gate(s[z]);
    s[n] = Act::squash(fma(s[r], s[u], s[n]));
    t.h = fma(s[z], t.h_prev - s[n], s[n]);
  }

  template <class V>
  static RNNCORE_INLINE void backward(Stage<0>, V (&s)[slots], const Instant<V>& t, Gradient<V>& d) {
    const V d_z = d.h * (t.h_prev - s[n]); // h' = n + z (h - n)
    const V d_n = d.h * (V(1) - s[z]) * Act::squash_slope(s[n]);
    d.h = d.h * s[z];
    const V d_r = d_n * s[u]; // n = tanh(... + r u)
    s[u] = d_n * s[r];
    s[n] = d_n;
    s[r] = d_r * Act::gate_slope(s[r]);
    s[z] = d_z * Act::gate_slope(s[z]);
  }
};

/// Reset before the product (Cho et al. 2014):  n = tanh(W x + b + U (r h) + b')
template <class Act>
struct GruResetBefore {
  enum { r, z, n, slots };
  static constexpr Index gates = 3;
  static constexpr bool has_cell_state = false, direct = true;
  static constexpr Window input{r, 3, {0, 1, 2}};
  static constexpr Window recurrent[] = {{r, 2, {0, 1}}, {n, 1, {2}}};

  template <class V>
  static RNNCORE_INLINE void forward(Stage<0>, V (&s)[slots], Instant<V>& t) {
    s[r] = Act::gate(s[r]);
    s[z] = Act::gate(s[z]);
    t.middle = s[r] * t.h_prev;
  }
  template <class V>
  static RNNCORE_INLINE void forward(Stage<1>, V (&s)[slots], Instant<V>& t) {
    s[n] = Act::squash(s[n]);
    t.h = fma(s[z], t.h_prev - s[n], s[n]);
  }

  template <class V>
  static RNNCORE_INLINE void backward(Stage<1>, V (&s)[slots], const Instant<V>& t, Gradient<V>& d) {
    const V d_z = d.h * (t.h_prev - s[n]); // h' = n + z (h - n)
    s[n] = d.h * (V(1) - s[z]) * Act::squash_slope(s[n]);
    d.h = d.h * s[z];
    s[z] = d_z * Act::gate_slope(s[z]);
  }
  template <class V>
  static RNNCORE_INLINE void backward(Stage<0>, V (&s)[slots], const Instant<V>& t, Gradient<V>& d) {
    const V d_r = d.middle * t.h_prev; // middle = r h
    d.h = fma(d.middle, s[r], d.h);
    s[r] = d_r * Act::gate_slope(s[r]);
  }
};

} // namespace rnncore::RNNCORE_LEVEL

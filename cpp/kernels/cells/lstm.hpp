// Long short-term memory (Hochreiter and Schmidhuber 1997, forget gate of Gers et al. 2000):
//
//   i, f, o = sigmoid(W x + b + U h + b'),  g = tanh(W x + b + U h + b')
//   c' = f c + i g
//   h' = o tanh(c')
#pragma once

#include "instant.hpp"

namespace rnncore::RNNCORE_LEVEL {

template <class Act>
struct Lstm {
  enum { i, f, g, o, slots };
  static constexpr Index gates = 4;
  static constexpr bool has_cell_state = true, direct = false;
  static constexpr Window input{0, 4, {0, 1, 2, 3}};
  static constexpr Window recurrent[] = {{0, 4, {0, 1, 2, 3}}};

  template <class V>
  static RNNCORE_INLINE void forward(Stage<0>, V (&s)[slots], Instant<V>& t) {
    s[i] = Act::gate(s[i]);
    s[f] = Act::gate(s[f]);
    s[g] = Act::squash(s[g]);
    s[o] = Act::gate(s[o]);
    t.c = fma(s[f], t.c_prev, s[i] * s[g]);
    t.h = s[o] * Act::squash(t.c);
  }

  template <class V>
  static RNNCORE_INLINE void backward(Stage<0>, V (&s)[slots], const Instant<V>& t, Gradient<V>& d) {
    const V m = Act::squash(t.c);
    const V dc = fma(d.h * s[o], Act::squash_slope(m), d.c); // h' = o tanh(c')
    const V d_o = d.h * m;
    d.c = dc * s[f]; // c' = f c + i g
    const V d_f = dc * t.c_prev, d_i = dc * s[g], d_g = dc * s[i];
    s[i] = d_i * Act::gate_slope(s[i]);
    s[f] = d_f * Act::gate_slope(s[f]);
    s[g] = d_g * Act::squash_slope(s[g]);
    s[o] = d_o * Act::gate_slope(s[o]);
  }
};

} // namespace rnncore::RNNCORE_LEVEL

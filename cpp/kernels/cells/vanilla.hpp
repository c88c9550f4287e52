// The plain recurrent cell (Elman 1990):  h' = phi(W x + b + U h + b')
#pragma once

#include "instant.hpp"

namespace rnncore::RNNCORE_LEVEL {

struct Tanh : Standard {};

struct Identity : NoActivation {};

struct Relu {
  template <class V>
  static RNNCORE_INLINE V squash(V x) {
    return select_le(x, V(0), V(0), x);
  }
  template <class V>
  static RNNCORE_INLINE V squash_slope(V y) {
    return select_le(y, V(0), V(0), V(1));
  }
};

template <class Phi>
struct Vanilla {
  enum { a, slots };
  static constexpr Index gates = 1;
  static constexpr bool has_cell_state = false, direct = false;
  static constexpr Window input{0, 1, {0}};
  static constexpr Window recurrent[] = {{0, 1, {0}}};

  template <class V>
  static RNNCORE_INLINE void forward(Stage<0>, V (&s)[slots], Instant<V>& t) {
    s[a] = Phi::squash(s[a]);
    t.h = s[a];
  }

  template <class V>
  static RNNCORE_INLINE void backward(Stage<0>, V (&s)[slots], const Instant<V>&, Gradient<V>& d) {
    s[a] = d.h * Phi::squash_slope(s[a]);
  }
};

} // namespace rnncore::RNNCORE_LEVEL

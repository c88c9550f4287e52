// What a cell sees of one instant: vectors of hidden units side by side.
#pragma once

#include "../layout.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// The state before and after; `middle` passes from one stage of the instant to the next.
template <class V>
struct Instant {
  V h_prev, c_prev, h, c, middle;
};

/// Gradients: of the state after the instant when `backward` is called, of the state before it when it
/// returns, as far as they do not pass through a product. `middle` likewise.
template <class V>
struct Gradient {
  V h, c, middle;
};

template <Index n>
struct Stage {};

/// Gate activations, each with its slope in terms of its value.
struct Standard {
  template <class V>
  static RNNCORE_INLINE V gate(V x) {
    return sigmoid(x);
  }
  template <class V>
  static RNNCORE_INLINE V gate_slope(V y) {
    return y * (V(1) - y);
  }
  template <class V>
  static RNNCORE_INLINE V squash(V x) {
    return tanh(x);
  }
  template <class V>
  static RNNCORE_INLINE V squash_slope(V y) {
    return V(1) - y * y;
  }
};

/// All activations the identity: whole numbers stay whole, so tests can demand equality.
struct NoActivation {
  template <class V>
  static RNNCORE_INLINE V gate(V x) {
    return x;
  }
  template <class V>
  static RNNCORE_INLINE V gate_slope(V) {
    return V(1);
  }
  template <class V>
  static RNNCORE_INLINE V squash(V x) {
    return x;
  }
  template <class V>
  static RNNCORE_INLINE V squash_slope(V) {
    return V(1);
  }
};

} // namespace rnncore::RNNCORE_LEVEL

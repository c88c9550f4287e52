// Activations, each with its slope in terms of its value; and the rules by which a cell applies them.
#pragma once

#include "simd.hpp"

namespace rnncore::RNNCORE_LEVEL {

struct Sigmoid {
  static constexpr ActivationKind kind = ActivationKind::sigmoid;
  template <class V>
  static RNNCORE_INLINE V value(V x) {
    return sigmoid(x);
  }
  template <class V>
  static RNNCORE_INLINE V slope(V y) {
    return y * (V(1) - y);
  }
};

struct Tanh {
  static constexpr ActivationKind kind = ActivationKind::tanh;
  template <class V>
  static RNNCORE_INLINE V value(V x) {
    return tanh(x);
  }
  template <class V>
  static RNNCORE_INLINE V slope(V y) {
    return V(1) - y * y;
  }
};

struct Relu {
  static constexpr ActivationKind kind = ActivationKind::relu;
  template <class V>
  static RNNCORE_INLINE V value(V x) {
    return select_le(x, V(0), V(0), x);
  }
  template <class V>
  static RNNCORE_INLINE V slope(V y) {
    return select_le(y, V(0), V(0), V(1));
  }
};

struct Identity {
  static constexpr ActivationKind kind = ActivationKind::identity;
  template <class V>
  static RNNCORE_INLINE V value(V x) {
    return x;
  }
  template <class V>
  static RNNCORE_INLINE V slope(V) {
    return V(1);
  }
};

/// The rules of the papers: fixed when compiled, nothing dropped, nothing clipped.
template <class Gate, class Candidate>
struct Fixed {
  static constexpr ActivationKind gate_kind = Gate::kind, candidate_kind = Candidate::kind;
  static constexpr bool sigmoid_gates() { return __is_same(Gate, Sigmoid); }
  static RNNCORE_INLINE auto gate(auto x) { return Gate::value(x); }
  static RNNCORE_INLINE auto gate_slope(auto y) { return Gate::slope(y); }
  static RNNCORE_INLINE auto candidate(auto x) { return Candidate::value(x); }
  static RNNCORE_INLINE auto candidate_slope(auto y) { return Candidate::slope(y); }
  static RNNCORE_INLINE auto output(auto c) { return Candidate::value(c); }
  static RNNCORE_INLINE auto output_slope(auto y) { return Candidate::slope(y); }
  static RNNCORE_INLINE auto drop(auto update) { return update; }
  static RNNCORE_INLINE auto clip(auto c) { return c; }
  static RNNCORE_INLINE auto unclip(auto dc, auto) { return dc; }
};

constexpr double selu_scale = 1.0507009873554805, selu_alpha = 1.6732632423543772;

/// exp(min(x, 0)) - 1
template <class T>
RNNCORE_INLINE Vec<T> expm1_below(Vec<T> x) {
  const ExpParts<Vec<T>> e = exp_parts(select_le(x, Vec<T>(T(0)), x, Vec<T>(T(0))));
  return fma(e.scale, e.fraction, e.scale - Vec<T>(T(1)));
}

/// exp(x), as exp(x / 2)^2: neither end overflows on the way.
template <class V>
RNNCORE_INLINE V exp_of(V x) {
  using T = typename V::Number;
  const V most(T(-Exponential<T>::lowest) / 2 + 1), half = x * V(T(0.5));
  const V root = exp_below(select_le(most, half, most, half));
  return root * root;
}

/// log(1 + z) for 0 <= z <= 1, as 2 artanh(z / (2 + z)) by its series.
template <class T>
RNNCORE_INLINE Vec<T> log1p_of(Vec<T> z) {
  constexpr int terms = sizeof(T) == 4 ? 8 : 16; // the argument is at most 1/3
  const Vec<T> twice = z / fma(z, Vec<T>(T(0.5)), Vec<T>(T(1))), square = twice * twice * Vec<T>(T(0.25));
  Vec<T> sum(T(0));
  for (int k = terms - 1; k >= 0; --k) sum = fma(sum, square, Vec<T>(T(1) / T(2 * k + 1)));
  return twice * sum;
}

/// x > 0 ? above : below
template <class T>
RNNCORE_INLINE Vec<T> by_sign(Vec<T> x, Vec<T> above, Vec<T> below) {
  return select_le(x, Vec<T>(T(0)), below, above);
}

template <class T>
RNNCORE_NOINLINE Vec<T> value_of(const Activation& f, Vec<T> x) {
  const Vec<T> zero(T(0)), one(T(1)), alpha{T(f.alpha)}, beta{T(f.beta)};
  switch (f.kind) {
  case ActivationKind::sigmoid:
    return sigmoid(x);
  case ActivationKind::tanh:
    return tanh(x);
  case ActivationKind::relu:
    return Relu::value(x);
  case ActivationKind::identity:
    return x;
  case ActivationKind::affine:
    return fma(alpha, x, beta);
  case ActivationKind::leaky_relu:
    return by_sign(x, x, alpha * x);
  case ActivationKind::thresholded_relu:
    return select_le(x, alpha, zero, x);
  case ActivationKind::scaled_tanh:
    return alpha * tanh(beta * x);
  case ActivationKind::hard_sigmoid: {
    const Vec<T> line = fma(alpha, x, beta), low = select_le(line, zero, zero, line);
    return select_le(one, low, one, low);
  }
  case ActivationKind::elu:
    return by_sign(x, x, alpha * expm1_below(x));
  case ActivationKind::selu:
    return by_sign(x, Vec<T>(T(selu_scale)) * x, Vec<T>(T(selu_scale * selu_alpha)) * expm1_below(x));
  case ActivationKind::softsign:
    return x / (one - minus_abs(x));
  case ActivationKind::softplus:
    return Relu::value(x) + log1p_of(exp_below(minus_abs(x)));
  case ActivationKind::exponential:
    return exp_of(x);
  }
  return x;
}

template <class T>
RNNCORE_NOINLINE Vec<T> slope_of(const Activation& f, Vec<T> y) {
  const Vec<T> zero(T(0)), one(T(1)), alpha{T(f.alpha)}, beta{T(f.beta)};
  switch (f.kind) {
  case ActivationKind::sigmoid:
    return Sigmoid::slope(y);
  case ActivationKind::tanh:
    return Tanh::slope(y);
  case ActivationKind::relu:
    return Relu::slope(y);
  case ActivationKind::identity:
    return one;
  case ActivationKind::affine:
    return alpha;
  case ActivationKind::leaky_relu:
    return by_sign(y, one, alpha);
  case ActivationKind::thresholded_relu:
    return by_sign(y, one, zero);
  case ActivationKind::scaled_tanh:
    return beta * (alpha - y * y / alpha);
  case ActivationKind::hard_sigmoid:
    return by_sign(y, select_le(one, y, zero, alpha), zero);
  case ActivationKind::elu:
    return by_sign(y, one, y + alpha);
  case ActivationKind::selu:
    return by_sign(y, Vec<T>(T(selu_scale)), y + Vec<T>(T(selu_scale * selu_alpha)));
  case ActivationKind::softsign: {
    const Vec<T> rest = one + minus_abs(y);
    return rest * rest;
  }
  case ActivationKind::softplus:
    return minus_abs(expm1_below(-y)) * Vec<T>(T(-1));
  case ActivationKind::exponential:
    return y;
  }
  return one;
}

/// x between -most and most
template <class T>
RNNCORE_INLINE Vec<T> within(double most, Vec<T> x) {
  const Vec<T> above{T(most)}, below = -above;
  return select_le(above, x, above, select_le(x, below, below, x));
}

/// Of a sum that is clipped first, unless `clip` is 0. Out of line: cells have many of these.
template <class T>
RNNCORE_NOINLINE Vec<T> value_of(const Activation& f, Vec<T> x, double clip) {
  return value_of(f, clip == 0 ? x : within(clip, x));
}

/// No slope where the sum was clipped: there the value is that of a bound, to the bit.
template <class T>
RNNCORE_NOINLINE Vec<T> slope_of(const Activation& f, Vec<T> y, double clip) {
  Vec<T> slope = slope_of(f, y);
  if (clip == 0) return slope;
  for (const double bound : {clip, -clip}) {
    const Vec<T> end = value_of(f, Vec<T>(T(bound)));
    slope = select_le(end, y, select_le(y, end, Vec<T>(T(0)), slope), slope);
  }
  return slope;
}

/// The rules that a user chose, for some hidden units of one row.
template <class T>
struct WithOptions {
  const CellOptions& options;
  Vec<T> update; // what the candidate is multiplied by

  RNNCORE_INLINE bool sigmoid_gates() const { return options.gate.kind == ActivationKind::sigmoid; }
  RNNCORE_INLINE Vec<T> gate(Vec<T> x) const { return value_of(options.gate, x, options.gate_clip); }
  RNNCORE_INLINE Vec<T> gate_slope(Vec<T> y) const { return slope_of(options.gate, y, options.gate_clip); }
  RNNCORE_INLINE Vec<T> candidate(Vec<T> x) const {
    return value_of(options.candidate, x, options.gate_clip);
  }
  RNNCORE_INLINE Vec<T> candidate_slope(Vec<T> y) const {
    return slope_of(options.candidate, y, options.gate_clip);
  }
  RNNCORE_INLINE Vec<T> output(Vec<T> c) const { return value_of(options.output, c); }
  RNNCORE_INLINE Vec<T> output_slope(Vec<T> y) const { return slope_of(options.output, y); }
  RNNCORE_INLINE Vec<T> drop(Vec<T> v) const { return v * update; }
  RNNCORE_INLINE Vec<T> clip(Vec<T> c) const {
    return options.cell_clip == 0 ? c : within(options.cell_clip, c);
  }
  /// The gradient of a clipped cell state passes where it was not clipped.
  RNNCORE_INLINE Vec<T> unclip(Vec<T> dc, Vec<T> c) const {
    if (options.cell_clip == 0) return dc;
    const Vec<T> most{T(options.cell_clip)}, zero(T(0));
    return select_le(most, c, zero, select_le(c, -most, zero, dc));
  }
};

} // namespace rnncore::RNNCORE_LEVEL

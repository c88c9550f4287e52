// Probabilities that are products of thousands of factors, and sums of them.
//
// In log space each sum takes exponentials and a logarithm, and a logarithm of size 10^4 in float32 has
// lost three digits of the probability. Here a probability is m 2^e with m in [1, 2), both in float64: sums
// are aligned by powers of two, so that they cost a few additions, round to 2^-53, and never underflow.
#pragma once

#include <cmath>

#include "simd.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// The exponent of zero: far below any other, and m is 1. Adding to it changes nothing.
constexpr double nothing = -1e290;

/// A vector of m 2^e. NaN is in m.
struct Wide {
  Vec<double> m, e;
};

/// 2^d for whole numbers d <= 0; zero from -1023 on.
RNNCORE_INLINE Vec<double> shift(Vec<double> d) {
  using E = Exponential<double>;
  return power_of_two(at_least(d, Vec<double>(-1023.)) + Vec<double>(E::round + 1023));
}

RNNCORE_INLINE Wide operator*(Wide a, Wide b) { return {a.m * b.m, a.e + b.e}; }

/// Aligned at the larger exponent.
RNNCORE_INLINE Wide operator+(Wide a, Wide b) {
  const Vec<double> top = at_least(a.e, b.e);
  return {fma(a.m, shift(a.e - top), b.m * shift(b.e - top)), top};
}

/// The same number with m in [1, 2) again, from one in [2^-500, 2^500].
RNNCORE_INLINE Wide tidy(Wide a) {
  constexpr uint64_t two_52 = 0x4330000000000000;
  const Words64 exponent = (Words64(a.m.p) >> 52) | two_52;
  const Vec<double> n = Vec<double>(Vec<double>::Packet(exponent)) - Vec<double>(4503599627370496. + 1023);
  // Not by changing the bits: NaN is to stay.
  return {a.m * power_of_two(Vec<double>(Exponential<double>::round + 1023) - n), a.e + n};
}

/// exp(z), of any z that is not +inf; zero below -1e289.
RNNCORE_INLINE Wide exp_wide(Vec<double> z) {
  using E = Exponential<double>;
  constexpr double whole = 2251799813685248.; // 2^51: from here on no number says what is left of it
  const Vec<double> t = z * Vec<double>(1.4426950408889634074), size = minus_abs(t);
  const Vec<double> n =
      select_le(size, Vec<double>(-whole), t, (t + Vec<double>(E::round)) - Vec<double>(E::round));
  const Vec<double> r = select_le(size, Vec<double>(-whole), Vec<double>(0.),
                                  fma(n, Vec<double>(-E::ln2_low), fma(n, Vec<double>(-E::ln2_high), z)));
  Vec<double> q(E::q[0]);
  for (std::size_t i = 1; i < sizeof(E::q) / sizeof(E::q[0]); ++i) q = fma(q, r, Vec<double>(E::q[i]));
  const Vec<double> least(nothing);
  return {fma(r * r, q, r) + Vec<double>(1.), select_le(least, n, n, least)};
}

/// Arrays of m and e.
struct WideRow {
  double *m, *e;

  RNNCORE_INLINE Wide operator[](Index i) const { return {load(m + i), load(e + i)}; }
  RNNCORE_INLINE void set(Index i, Wide a) const {
    store(m + i, a.m);
    store(e + i, a.e);
  }
  RNNCORE_INLINE WideRow operator+(Index i) const { return {m + i, e + i}; }
};

/// The natural logarithm of the first lane.
inline double log_of(Wide a) {
  alignas(64) double ms[lanes<double>], es[lanes<double>];
  store(ms, a.m);
  store(es, a.e);
  const double m = ms[0], e = es[0];
  return e > nothing / 2 ? std::log(m) + e * 0.69314718055994530942 : m == m ? -INFINITY : m;
}

} // namespace rnncore::RNNCORE_LEVEL

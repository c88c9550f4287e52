// One vector of numbers, as wide as the instruction set has them, and the functions cells are made of.
#pragma once

#include "packets.hpp"

namespace rnncore::RNNCORE_LEVEL {

template <class T>
struct Vec {
  using Number = T;
  using Packet = PacketOf<T>;
  static constexpr int lanes = sizeof(Packet) / sizeof(T);

  Packet p;

  Vec() = default;
  RNNCORE_INLINE Vec(const Packet& packet) : p(packet) {}
  RNNCORE_INLINE Vec(T value) : p(packets::pset1<Packet>(value)) {}

  friend RNNCORE_INLINE Vec operator+(Vec a, Vec b) { return packets::padd(a.p, b.p); }
  friend RNNCORE_INLINE Vec operator-(Vec a, Vec b) { return packets::psub(a.p, b.p); }
  friend RNNCORE_INLINE Vec operator*(Vec a, Vec b) { return packets::pmul(a.p, b.p); }
  friend RNNCORE_INLINE Vec operator/(Vec a, Vec b) { return packets::pdiv(a.p, b.p); }
  friend RNNCORE_INLINE Vec operator-(Vec a) { return packets::pnegate(a.p); }
};

template <class T>
constexpr int lanes = Vec<T>::lanes;

/// As many bits as a vector has, as words.
using Words32 = VectorOf<uint32_t, sizeof(Vec<float>)>::Type;
using Words64 = VectorOf<uint64_t, sizeof(Vec<float>)>::Type;
/// Lane by lane, as the language converts numbers.
template <class To, class From>
RNNCORE_INLINE To convert(From v) {
  return __builtin_convertvector(v, To);
}

// Not the standard library's, which levels would share.
RNNCORE_INLINE bool is_finite(double x) { return __builtin_isfinite(x); }
RNNCORE_INLINE int lowest_bit(uint64_t bits) { return __builtin_ctzll(bits); }
RNNCORE_INLINE float logarithm(float x) { return __builtin_logf(x); }
RNNCORE_INLINE double logarithm(double x) { return __builtin_log(x); }
RNNCORE_INLINE float sine(float x) { return __builtin_sinf(x); }
RNNCORE_INLINE double sine(double x) { return __builtin_sin(x); }
RNNCORE_INLINE float cosine(float x) { return __builtin_cosf(x); }
RNNCORE_INLINE double cosine(double x) { return __builtin_cos(x); }

/// Asks for what will soon be read, or written, to be brought near.
RNNCORE_INLINE void will_read(const void* at) { __builtin_prefetch(at, 0, 2); }
RNNCORE_INLINE void will_write(void* at) { __builtin_prefetch(at, 1); }

/// Registers that hold a vector: how large a tile of sums may be.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int registers = 32;
#else
constexpr int registers = 16;
#endif

template <class T>
RNNCORE_INLINE Vec<T> load(const T* from) {
  return packets::ploadu<typename Vec<T>::Packet>(from);
}

template <class T>
RNNCORE_INLINE void store(T* to, Vec<T> v) {
  packets::pstoreu(to, v.p);
}

// The first n lanes of a vector at the edge of a row; the others read as zero. Going through memory a
// number at a time costs more than the rest of a small tile, so AVX-512 uses its masks.
#if defined(__AVX512F__)
RNNCORE_INLINE Vec<float> load_edge(const float* from, Index n) {
  return _mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), from);
}
RNNCORE_INLINE Vec<double> load_edge(const double* from, Index n) {
  return _mm512_maskz_loadu_pd(__mmask8((1u << n) - 1), from);
}
RNNCORE_INLINE void store_edge(float* to, Vec<float> v, Index n) {
  _mm512_mask_storeu_ps(to, __mmask16((1u << n) - 1), v.p);
}
RNNCORE_INLINE void store_edge(double* to, Vec<double> v, Index n) {
  _mm512_mask_storeu_pd(to, __mmask8((1u << n) - 1), v.p);
}
#else
template <class T>
RNNCORE_NOINLINE Vec<T> load_edge(const T* from, Index n) {
  alignas(64) T buffer[lanes<T>] = {};
  std::memcpy(buffer, from, n * sizeof(T));
  return load(buffer);
}
template <class T>
RNNCORE_NOINLINE void store_edge(T* to, Vec<T> v, Index n) {
  alignas(64) T buffer[lanes<T>];
  store(buffer, v);
  std::memcpy(to, buffer, n * sizeof(T));
}
#endif

template <class T>
RNNCORE_INLINE Vec<T> load(const T* from, Index n) {
  return n >= lanes<T> ? load(from) : load_edge(from, n);
}

template <class T>
RNNCORE_INLINE void store(T* to, Vec<T> v, Index n) {
  n >= lanes<T> ? store(to, v) : store_edge(to, v, n);
}

/// A vector that several operations read, in a register: compilers would else have each of them load it.
template <class V>
RNNCORE_INLINE V held(V v) {
  return v;
}
#if defined(__SSE2__) && !defined(__AVX512F__)
template <class T>
RNNCORE_INLINE Vec<T> held(Vec<T> v) {
  RNNCORE_ASM("" : "+x"(v.p));
  return v;
}
#endif

/// a * b + c, rounded once where the hardware can.
template <class T>
RNNCORE_INLINE Vec<T> fma(Vec<T> a, Vec<T> b, Vec<T> c) {
  return packets::pmadd(a.p, b.p, c.p);
}

/// -|a|
template <class T>
RNNCORE_INLINE Vec<T> minus_abs(Vec<T> a) {
  return packets::por(a.p, Vec<T>(T(-0.0)).p);
}

/// a, which is not negative, with the sign of b.
template <class T>
RNNCORE_INLINE Vec<T> with_sign(Vec<T> a, Vec<T> b) {
  return packets::por(a.p, packets::pand(b.p, Vec<T>(T(-0.0)).p));
}

/// The larger of a and a bound, which is a number; NaN stays NaN.
template <class T>
RNNCORE_INLINE Vec<T> at_least(Vec<T> a, Vec<T> bound) {
  return packets::pmax(a.p, bound.p); // as std::max: a, if one of them is NaN
}

/// Lanewise `when_le` where a <= b, else `otherwise`; NaN goes the other way.
template <class T>
RNNCORE_INLINE Vec<T> select_le(Vec<T> a, Vec<T> b, Vec<T> when_le, Vec<T> otherwise) {
  return packets::pselect(packets::pcmp_le(a.p, b.p), when_le.p, otherwise.p);
}

#if defined(__AVX512F__)
// Eigen makes a vector of the comparison's mask, and of that a mask.
RNNCORE_INLINE Vec<float> select_le(Vec<float> a, Vec<float> b, Vec<float> when_le, Vec<float> otherwise) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.p, b.p, _CMP_LE_OQ), otherwise.p, when_le.p);
}
RNNCORE_INLINE Vec<double> select_le(Vec<double> a, Vec<double> b, Vec<double> when_le,
                                     Vec<double> otherwise) {
  return _mm512_mask_blend_pd(_mm512_cmp_pd_mask(a.p, b.p, _CMP_LE_OQ), otherwise.p, when_le.p);
}
#endif

/// What exp needs to know of a floating-point type. `q` is the polynomial, highest power first, with
/// expm1(r) = r + r^2 q(r) for |r| <= ln(2) / 2, near-minimax by Chebyshev interpolation.
template <class T>
struct Exponential;

template <>
struct Exponential<float> {
  using Bits = uint32_t;
  static constexpr int mantissa = 23, bias = 127;
  static constexpr float round = 12582912.f; // 1.5 * 2^23: adding it rounds to an integer
  static constexpr float lowest = -88.f;     // exp underflows to zero
  static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  static constexpr float q[] = {1.3926184037700295e-3f, 8.363178931176662e-3f, 0.041666556149721146f,
                                0.16666576266288757f, 0.5f};
};

template <>
struct Exponential<double> {
  using Bits = uint64_t;
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr double round = 6755399441055744.; // 1.5 * 2^52
  static constexpr double lowest = -709.;
  static constexpr double ln2_high = 0.693145751953125, ln2_low = 1.42860682030941723212e-6;
  static constexpr double q[] = {2.0914686968086876e-9,
                                 2.5105217004720745e-8,
                                 2.75572736431103e-7,
                                 2.7557255400206422e-6,
                                 2.4801587325547743e-5,
                                 1.9841269874820627e-4,
                                 1.3888888888883748e-3,
                                 8.333333333326136e-3,
                                 0.04166666666666667,
                                 0.1666666666666667,
                                 0.5};
};

/// 2^n for numbers whose low bits are n + bias.
template <class T>
RNNCORE_INLINE Vec<T> power_of_two(Vec<T> rounded) {
  using Bits = typename Exponential<T>::Bits;
  using Vector = typename VectorOf<Bits, sizeof(Vec<T>)>::Type;
  return typename Vec<T>::Packet(Vector(rounded.p) << Exponential<T>::mantissa);
}

/// Two vectors that go through the same operations side by side: while one waits for a result, the other
/// has work.
template <class T>
struct Pair {
  using Number = T;

  Vec<T> a, b;

  Pair() = default;
  RNNCORE_INLINE Pair(Vec<T> first, Vec<T> second) : a(first), b(second) {}
  RNNCORE_INLINE Pair(T value) : a(value), b(value) {}

  friend RNNCORE_INLINE Pair operator+(Pair x, Pair y) { return {x.a + y.a, x.b + y.b}; }
  friend RNNCORE_INLINE Pair operator-(Pair x, Pair y) { return {x.a - y.a, x.b - y.b}; }
  friend RNNCORE_INLINE Pair operator*(Pair x, Pair y) { return {x.a * y.a, x.b * y.b}; }
  friend RNNCORE_INLINE Pair operator/(Pair x, Pair y) { return {x.a / y.a, x.b / y.b}; }
  friend RNNCORE_INLINE Pair operator-(Pair x) { return {-x.a, -x.b}; }
};

template <class T>
RNNCORE_INLINE Pair<T> fma(Pair<T> x, Pair<T> y, Pair<T> z) {
  return {fma(x.a, y.a, z.a), fma(x.b, y.b, z.b)};
}
template <class T>
RNNCORE_INLINE Pair<T> minus_abs(Pair<T> x) {
  return {minus_abs(x.a), minus_abs(x.b)};
}
template <class T>
RNNCORE_INLINE Pair<T> with_sign(Pair<T> x, Pair<T> y) {
  return {with_sign(x.a, y.a), with_sign(x.b, y.b)};
}
template <class T>
RNNCORE_INLINE Pair<T> at_least(Pair<T> x, Pair<T> bound) {
  return {at_least(x.a, bound.a), at_least(x.b, bound.b)};
}
template <class T>
RNNCORE_INLINE Pair<T> select_le(Pair<T> x, Pair<T> y, Pair<T> when_le, Pair<T> otherwise) {
  return {select_le(x.a, y.a, when_le.a, otherwise.a), select_le(x.b, y.b, when_le.b, otherwise.b)};
}
template <class T>
RNNCORE_INLINE Pair<T> power_of_two(Pair<T> rounded) {
  return {power_of_two(rounded.a), power_of_two(rounded.b)};
}

/// The sum of all lanes.
template <class T>
RNNCORE_INLINE T sum_of(Vec<T> v) {
  return packets::predux(v.p);
}

/// A square of numbers in registers. (The attribute that GCC ignores is the vector's alignment.)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"
template <class T>
using Square = packets::PacketBlock<typename Vec<T>::Packet, lanes<T>>;
#pragma GCC diagnostic pop

template <class T>
RNNCORE_INLINE Square<T> load_square(const T* from, Index stride) {
  Square<T> square;
  for (int i = 0; i < lanes<T>; ++i) square.packet[i] = load(from + i * stride).p;
  return square;
}

template <class T>
RNNCORE_INLINE void transpose(Square<T>& square) {
  packets::ptranspose(square);
}

/// exp(x) = scale * (1 + fraction) for x <= 0. Kept apart so that expm1 loses nothing to cancellation. As
/// below, V is a vector or a pair of them.
template <class V>
struct ExpParts {
  V scale, fraction;
};

template <class V>
RNNCORE_INLINE ExpParts<V> exp_parts(V x) {
  using E = Exponential<typename V::Number>;
  x = at_least(x, V(E::lowest));
  // The low bits of `rounded` are n + bias with n = round(x / ln 2).
  const V rounded = fma(x, V(typename V::Number(1.4426950408889634074)), V(E::round + E::bias));
  const V n = rounded - V(E::round + E::bias);
  const V r = fma(n, V(-E::ln2_low), fma(n, V(-E::ln2_high), x));
  const V square = r * r;
  V q;
  if constexpr (sizeof(typename V::Number) == 4) { // two short chains in place of a long one
    const V high = fma(V(E::q[0]), square, fma(V(E::q[1]), r, V(E::q[2])));
    q = fma(high, square, fma(V(E::q[3]), r, V(E::q[4])));
  } else {
    q = V(E::q[0]);
    for (std::size_t i = 1; i < sizeof(E::q) / sizeof(E::q[0]); ++i) q = fma(q, r, V(E::q[i]));
  }
  return {power_of_two(rounded), fma(square, q, r)};
}

/// exp(x) for x <= 0
template <class V>
RNNCORE_INLINE V exp_below(V x) {
  const ExpParts<V> e = exp_parts(x);
  return fma(e.scale, e.fraction, e.scale);
}

/// 1 / (1 + exp(-x)), from exp(-|x|) so that neither end overflows. 4 ulp; below the smallest normal
/// number the result is zero.
template <class V>
RNNCORE_INLINE V sigmoid(V x) {
  const V one(1);
  const V small = exp_below(minus_abs(x));
  return select_le(x, V(0), small, one) / (one + small);
}

/// (1 - exp(-2|x|)) / (1 + exp(-2|x|)) with the sign of x. 4 ulp.
template <class V>
RNNCORE_INLINE V tanh(V x) {
  const V one(1), two(2), negative = minus_abs(x);
  const ExpParts<V> e = exp_parts(negative + negative);
  const V size = fma(minus_abs(e.scale), e.fraction, one - e.scale); // 1 - exp(-2|x|)
  return with_sign(size / (two - size), x);
}

} // namespace rnncore::RNNCORE_LEVEL

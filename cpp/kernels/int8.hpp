// Products of weights in 8 bits: each gate row has a scale, each row that is multiplied has one, and what
// lies between is a sum of whole numbers, which is exact on every instruction set.
//
//   w = scale_w q_w,  |q_w| <= 127       x = scale_x q_x,  scale_x = max |x| / 127
//   x . w = scale_x scale_w sum_k q_x q_w
//
// Nothing saturates: a sum of K products is at most 127^2 K, which 32 bits hold for K up to 133,000.
#pragma once

#include <cmath>

#include "arithmetic.hpp"

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace rnncore::RNNCORE_LEVEL {

/// How four weights of a lane meet four numbers of a row.
enum class Dot {
  vnni,  // AVX-512 VNNI: bytes without a sign by bytes with one, four products at once
  pairs, // 16-bit numbers, two products at once
  bytes, // bytes with a sign
};

#if defined(__AVX512VNNI__)
constexpr Dot own_dot = Dot::vnni;
#elif defined(EIGEN_VECTORIZE_SSE2)
constexpr Dot own_dot = Dot::pairs;
#else
constexpr Dot own_dot = Dot::bytes;
#endif

/// A weight, or one of the bytes of its row's scale.
template <Dot dot>
struct Int8 {
  uint8_t byte;
};

constexpr Index fold = 4; // weights of a lane that lie side by side

using Ints = VectorOf<int32_t, sizeof(Vec<float>)>::Type;
using Shorts = VectorOf<int16_t, sizeof(Vec<float>)>::Type;

RNNCORE_INLINE Ints ints(int32_t value) { return Ints{} + value; }
RNNCORE_INLINE Ints bits_of(Vec<float> v) { return (Ints)v.p; }
RNNCORE_INLINE Vec<float> floats(Ints v) {
  return Vec<float>((Vec<float>::Packet)convert<VectorOf<float, sizeof(Vec<float>)>::Type>(v));
}
template <class V>
RNNCORE_INLINE V load_vector(const void* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
RNNCORE_INLINE int32_t load_word(const void* from) {
  int32_t word;
  std::memcpy(&word, from, sizeof word);
  return word;
}

/// What each way of multiplying knows: the type of a row's numbers, the order in which the weights of four
/// of them lie, what is added to each weight so that it has no sign, and how to add up.
template <Dot dot>
struct Multiplier;

#if defined(__AVX512F__)
template <>
struct Multiplier<Dot::vnni> {
  using Number = int8_t;
  using Loaded = Ints;
  using Factor = Ints;
  using Sum = Ints;
  static constexpr int order[fold] = {0, 1, 2, 3}, added = 128;

  static RNNCORE_INLINE Loaded load(const void* weights) { return load_vector<Ints>(weights); }
  static RNNCORE_INLINE Factor factor(const Number* row) { return ints(load_word(row)); }
  static RNNCORE_INLINE Sum add(Factor factor, Loaded weights, Sum sum) {
    // Written out, as the rest of the level is compiled for processors that do not have it.
    RNNCORE_ASM("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(factor));
    return sum;
  }
  static RNNCORE_INLINE Ints total(Sum sum) { return sum; }
};
#endif

#if defined(EIGEN_VECTORIZE_SSE2)
#if defined(__AVX512F__)
RNNCORE_INLINE Ints multiply_pairs(Shorts a, Shorts b) {
  return (Ints)_mm512_madd_epi16((__m512i)a, (__m512i)b);
}
#elif defined(__AVX2__)
RNNCORE_INLINE Ints multiply_pairs(Shorts a, Shorts b) {
  return (Ints)_mm256_madd_epi16((__m256i)a, (__m256i)b);
}
#else
RNNCORE_INLINE Ints multiply_pairs(Shorts a, Shorts b) {
  return (Ints)_mm_madd_epi16((__m128i)a, (__m128i)b);
}
#endif

template <>
struct Multiplier<Dot::pairs> {
  using Number = int16_t;
  struct Loaded {
    Shorts even, odd;
  };
  struct Factor {
    Shorts even, odd;
  };
  using Sum = Ints;
  static constexpr int order[fold] = {0, 2, 1, 3}, added = 128;

  static RNNCORE_INLINE Loaded load(const void* from) {
    using Words = VectorOf<uint16_t, sizeof(Shorts)>::Type;
    const Words weights = load_vector<Words>(from);
    return {(Shorts)(weights & 255), (Shorts)(weights >> 8)};
  }
  static RNNCORE_INLINE Factor factor(const Number* row) {
    return {(Shorts)ints(load_word(row)), (Shorts)ints(load_word(row + 2))};
  }
  static RNNCORE_INLINE Sum add(Factor factor, Loaded weights, Sum sum) {
    return sum + multiply_pairs(weights.even, factor.even) + multiply_pairs(weights.odd, factor.odd);
  }
  static RNNCORE_INLINE Ints total(Sum sum) { return sum; }
};
#endif

template <>
struct Multiplier<Dot::bytes> {
  using Number = int8_t;
  static constexpr int order[fold] = {0, 1, 2, 3}, added = 0;
#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
  using Loaded = int8x16_t;
  using Factor = int8x16_t;
  using Sum = Ints;

  static RNNCORE_INLINE Loaded load(const void* from) { return load_vector<Loaded>(from); }
  static RNNCORE_INLINE Factor factor(const Number* row) {
    return vreinterpretq_s8_s32(vdupq_n_s32(load_word(row)));
  }
  static RNNCORE_INLINE Sum add(Factor factor, Loaded weights, Sum sum) {
    return (Ints)vdotq_s32((int32x4_t)sum, weights, factor);
  }
  static RNNCORE_INLINE Ints total(Sum sum) { return sum; }
#elif defined(__aarch64__)
  using Loaded = int8x16_t;
  using Factor = int8x8_t;
  struct Sum { // of two lanes each, not yet added up
    int32x4_t low, high;

    friend RNNCORE_INLINE Sum operator+(Sum a, Sum b) {
      return {vaddq_s32(a.low, b.low), vaddq_s32(a.high, b.high)};
    }
  };

  static RNNCORE_INLINE Loaded load(const void* from) { return load_vector<Loaded>(from); }
  static RNNCORE_INLINE Factor factor(const Number* row) {
    return vreinterpret_s8_s32(vdup_n_s32(load_word(row)));
  }
  static RNNCORE_INLINE Sum add(Factor factor, Loaded weights, Sum sum) {
    return {vpadalq_s16(sum.low, vmull_s8(vget_low_s8(weights), factor)),
            vpadalq_s16(sum.high, vmull_s8(vget_high_s8(weights), factor))};
  }
  static RNNCORE_INLINE Ints total(Sum sum) { return (Ints)vpaddq_s32(sum.low, sum.high); }
#else
  using Loaded = Ints;
  using Factor = const int8_t*;
  using Sum = Ints;

  static RNNCORE_INLINE Loaded load(const void* from) { return load_vector<Ints>(from); }
  static RNNCORE_INLINE Factor factor(const Number* row) { return row; }
  static RNNCORE_INLINE Sum add(Factor factor, Loaded weights, Sum sum) {
    for (int i = 0; i < int(fold); ++i) sum += (weights << (24 - 8 * i) >> 24) * factor[i];
    return sum;
  }
  static RNNCORE_INLINE Ints total(Sum sum) { return sum; }
#endif
};

/// Rows found through pointers, made whole numbers before they are multiplied: `prepare`.
template <Dot dot>
struct QuantisedRows {
  using Number = typename Multiplier<dot>::Number;
  struct Row {
    float scale;
    int32_t start; // of the sums: takes back what was added to the weights
  };

  const float* const* rows;
  Index columns;
  Row* scales;
  Number* numbers;

  static constexpr bool prepares = true;
  static constexpr Index stride(Index columns) { return ceil_div(columns, 64) * 64; }
  static constexpr Index bytes(Index rows, Index columns) {
    return rows * (Index(sizeof(Row)) + stride(columns) * Index(sizeof(Number))) + 64;
  }
  /// In `space` of so many bytes.
  static RNNCORE_INLINE QuantisedRows of(const float* const* rows, Index columns, void* space,
                                         Index count) {
    Number* const numbers = static_cast<Number*>(space);
    return {rows, columns, reinterpret_cast<Row*>(numbers + count * stride(columns)), numbers};
  }
  RNNCORE_INLINE QuantisedRows from(Index row) const {
    return {rows + row, columns, scales + row, numbers + row * stride(columns)};
  }
  RNNCORE_INLINE void prepare(Index row) const {
    scales[row] = quantise(rows[row], columns, numbers + row * stride(columns));
  }

  RNNCORE_INLINE Index segments() const { return 1; }
  RNNCORE_INLINE Index length(Index) const { return ceil_div(columns, fold); }
  RNNCORE_INLINE Index all_columns() const { return ceil_div(columns, fold); }
  RNNCORE_INLINE const Number* at(Index, Index row) const { return numbers + row * stride(columns); }

private:
  /// x, K numbers, as whole ones with a scale; a row with one that is not finite gets a scale of NaN.
  static Row quantise(const float* x, Index K, Number* to) {
    constexpr Index L = lanes<float>;
    Vec<float> most(0.f), odd(0.f);
    for (Index k = 0; k < K; k += L) {
      const Vec<float> v = rnncore::RNNCORE_LEVEL::load(x + k, K - k);
      most = at_least(-minus_abs(v), most);
      odd = fma(v, Vec<float>(0.f), odd); // NaN where v is not finite
    }
    if (const float all = sum_of(odd); all != 0) {
      for (Index k = 0; k < stride(K); ++k) to[k] = 0;
      return {all, 0};
    }
    alignas(64) float all[L];
    store(all, most);
    float largest = 0;
    for (Index i = 0; i < L; ++i) largest = all[i] > largest ? all[i] : largest;
    const Vec<float> inverse(largest < 1e-30f ? 0.f : 127.f / largest);
    constexpr float magic = 12582912.f; // 1.5 * 2^23: adding it rounds to a whole number
    Ints sum{};
    for (Index k = 0; k < K; k += L) {
      const Vec<float> v = rnncore::RNNCORE_LEVEL::load(x + k, K - k);
      const Ints q = bits_of(v * inverse + Vec<float>(magic)) - 0x4B400000;
      const auto narrow = convert<typename VectorOf<Number, L * sizeof(Number)>::Type>(q);
      std::memcpy(to + k, &narrow, sizeof narrow);
      sum += q;
    }
    uint32_t total = 0; // what goes round on the way is right at the end
    for (Index i = 0; i < L; ++i) total += uint32_t(sum[i]);
    for (Index k = ceil_div(K, L) * L; k < stride(K); ++k) to[k] = 0;
    return {largest < 1e-30f ? 0.f : largest / 127.f, int32_t(-uint32_t(Multiplier<dot>::added) * total)};
  }
};

/// A panel: a scale for each of its columns, in float32, and then [k / 4][vector][lane][k % 4].
template <Dot dot>
struct Arithmetic<float, Int8<dot>> : Multiplier<dot> {
  using W = Int8<dot>;
  using Rows = QuantisedRows<dot>;
  using typename Multiplier<dot>::Number;
  using typename Multiplier<dot>::Sum;
  static constexpr Index vector = lanes<float> * fold;
  static constexpr bool starts_late = true;

  /// Fewer, to compile less: of narrow ones, and with AVX-512 without VNNI, which few processors have.
  static constexpr int most_rows(int n) {
    return dot == Dot::pairs && registers > 16 ? 2 : n < 3 ? 4 : tallest;
  }
  static constexpr Index depth(Index columns) {
    return columns ? Index(sizeof(float)) + ceil_div(columns, fold) * fold : 0;
  }
  static RNNCORE_INLINE const W* weights(const W* panel, Index width) {
    return panel + width * lanes<float> * Index(sizeof(float));
  }
  static RNNCORE_INLINE Sum zero() { return Sum{}; }
  static RNNCORE_INLINE auto factor(const Number* row, Index k) {
    return Multiplier<dot>::factor(row + k * fold);
  }
  /// scale_w of a vector of columns.
  static RNNCORE_INLINE Vec<float> scale(const W* panel, Index n) {
    return rnncore::RNNCORE_LEVEL::load(reinterpret_cast<const float*>(panel) + n * lanes<float>);
  }
  /// start + scale_x scale_w sum
  static RNNCORE_INLINE Vec<float> finish(Sum sum, const typename Rows::Row& row, Vec<float> scale,
                                          Vec<float> start) {
    const Vec<float> all = floats((Ints)((Words32)Multiplier<dot>::total(sum) + uint32_t(row.start)));
    return fma(all, scale * Vec<float>(row.scale), start);
  }

  static void pack(const float* rows, Index K, Index valid, W* panel, Index column, Index columns) {
    constexpr Index L = lanes<float>;
    float* const scales = reinterpret_cast<float*>(panel) + column;
    W* const to = panel + columns * Index(sizeof(float)) + column * fold;
    for (Index lane = 0; lane < L; ++lane) {
      const float* row = rows + lane * K;
      float largest = 0;
      for (Index k = 0; lane < valid && k < K; ++k) {
        const float size = row[k] < 0 ? -row[k] : row[k];
        largest = size <= largest ? largest : size; // NaN stays
      }
      scales[lane] = largest / 127.f;
      const float inverse = largest > 0 ? 127.f / largest : 0.f;
      for (Index k = 0; k < ceil_div(K, fold) * fold; ++k) {
        const float scaled = lane < valid && k < K ? row[k] * inverse : 0.f;
        const bool is_number = scaled > -128.f && scaled < 128.f; // and not NaN
        const int q = is_number ? int(std::nearbyint(scaled)) : 0;
        to[k / fold * columns * fold + lane * fold + place(k % fold)].byte =
            uint8_t(q + Multiplier<dot>::added);
      }
    }
  }

private:
  static constexpr Index place(Index k) {
    for (int i = 0; i < int(fold); ++i)
      if (Multiplier<dot>::order[i] == k) return i;
    return 0;
  }
};

} // namespace rnncore::RNNCORE_LEVEL

// Weights in 16 bits, the upper half of a float32: products widen them and do all else as float32's do.
#pragma once

#include "arithmetic.hpp"

namespace rnncore::RNNCORE_LEVEL {

struct BFloat16 {
  uint16_t bits;

  BFloat16() = default;
  /// The nearest, of two the even one; NaN stays NaN.
  explicit BFloat16(float value) {
    uint32_t word;
    __builtin_memcpy(&word, &value, sizeof word);
    const bool is_nan = value != value;
    bits = uint16_t(is_nan ? word >> 16 | 64 : (word + 0x7FFF + (word >> 16 & 1)) >> 16);
  }
};

/// Rows found through pointers, read two numbers at a time.
struct PairedRows : Gathered<float> {
  static RNNCORE_INLINE PairedRows of(const float* const* rows, Index columns, void*, Index) {
    return {{rows, columns}};
  }
  RNNCORE_INLINE PairedRows from(Index row) const { return {{rows + row, columns}}; }
  RNNCORE_INLINE Index length(Index) const { return columns / 2; }
  RNNCORE_INLINE Index all_columns() const { return ceil_div(columns, 2); }
};

/// [panel][k / 2][vector][lane][k % 2]: of a word's two weights each is a number but for a shift or a mask.
template <>
struct Arithmetic<float, BFloat16> {
  using W = BFloat16;
  using Rows = PairedRows;
  using Sum = Vec<float>;
  struct Two {
    Vec<float> first, second;
  };
  static constexpr Index vector = 2 * lanes<float>;
  static constexpr bool starts_late = false;

  /// Rows of a tile of n vectors: each has two factors, and weights that are widened take two registers.
  static constexpr int most_rows(int n) {
    if (registers > 16) return tallest;
    int m = 1;
    while (m < tallest && (m + 1) * (n + 2) + 3 <= registers) ++m;
    return m;
  }
  static constexpr Index depth(Index columns) { return ceil_div(columns, 2) * 2; }
  static RNNCORE_INLINE const W* weights(const W* panel, Index) { return panel; }
  static RNNCORE_INLINE Sum zero() { return Vec<float>(0.f); }
  static RNNCORE_INLINE Two load(const W* from) {
    Words32 words;
    __builtin_memcpy(&words, from, sizeof words);
    using Packet = Vec<float>::Packet;
    return {Vec<float>((Packet)(words << 16)), Vec<float>((Packet)(words & 0xFFFF0000u))};
  }
  static RNNCORE_INLINE Two factor(const float* row, Index k) {
    return {Vec<float>(row[2 * k]), Vec<float>(row[2 * k + 1])};
  }
  static RNNCORE_INLINE Sum add(Two factor, Two weights, Sum sum) {
    return fma(factor.second, weights.second, fma(factor.first, weights.first, sum));
  }
  /// The last of an odd number of columns.
  static RNNCORE_INLINE Sum add_rest(const PairedRows& rows, Index row, const W* weights, Index width,
                                     Index n, Sum sum) {
    if (rows.columns % 2 == 0) return sum;
    const Vec<float> factor(rows.at(0, row)[rows.columns - 1]);
    return fma(factor, load(weights + (rows.columns / 2 * width + n) * vector).first, sum);
  }

  static void pack(const float* rows, Index K, Index valid, W* panel, Index column, Index columns) {
    for (Index k = 0; k < depth(K); ++k)
      for (Index lane = 0; lane < lanes<float>; ++lane)
        panel[(k / 2 * columns + column + lane) * 2 + k % 2] =
            BFloat16(lane < valid && k < K ? rows[lane * K + k] : 0.f);
  }
};

} // namespace rnncore::RNNCORE_LEVEL

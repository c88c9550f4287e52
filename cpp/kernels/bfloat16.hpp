// Weights in 16 bits, the upper half of a float32: products widen them and do all else as float32's do. Or,
// as `BFloat16Dot`, rows are rounded likewise, and an instruction multiplies and adds two of them at once.
#pragma once

#include "arithmetic.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// A weight that meets a row as it is.
struct BFloat16 {
  uint16_t bits;

  BFloat16() = default;
  /// The nearest, of two the even one; NaN stays NaN.
  explicit BFloat16(float value) {
    uint32_t word;
    std::memcpy(&word, &value, sizeof word);
    const bool is_nan = value != value;
    bits = uint16_t(is_nan ? word >> 16 | 64 : (word + 0x7FFF + (word >> 16 & 1)) >> 16);
  }
};

/// [panel][k / 2][vector][lane][k % 2], the last of an odd number of columns beside a zero.
template <class Weight>
struct WeightPairs {
  using W = Weight;
  using Sum = Vec<float>;
  static constexpr Index vector = 2 * lanes<float>;
  static constexpr bool starts_late = false;

  static constexpr Index depth(Index columns) { return ceil_div(columns, 2) * 2; }
  static RNNCORE_INLINE const W* weights(const W* panel, Index) { return panel; }
  static RNNCORE_INLINE Sum zero() { return Vec<float>(0.f); }
  static RNNCORE_INLINE Words32 load_words(const W* from) {
    Words32 words;
    std::memcpy(&words, from, sizeof words);
    return words;
  }

  static void pack(const float* rows, Index K, Index valid, W* panel, Index column, Index columns) {
    for (Index k = 0; k < depth(K); ++k)
      for (Index lane = 0; lane < lanes<float>; ++lane)
        panel[(k / 2 * columns + column + lane) * 2 + k % 2] =
            W(lane < valid && k < K ? rows[lane * K + k] : 0.f);
  }
};

/// Rows found through pointers, read two numbers at a time.
struct PairedRows {
  const float* const* rows;
  Index columns;

  static constexpr bool prepares = false;
  static constexpr Index bytes(Index, Index) { return 0; }
  static RNNCORE_INLINE PairedRows of(const float* const* rows, Index columns, void*, Index) {
    return {rows, columns};
  }
  RNNCORE_INLINE PairedRows from(Index row) const { return {rows + row, columns}; }
  RNNCORE_INLINE void prepare(Index) const {}

  RNNCORE_INLINE Index segments() const { return 1; }
  RNNCORE_INLINE Index length(Index) const { return columns / 2; }
  RNNCORE_INLINE Index all_columns() const { return ceil_div(columns, 2); }
  RNNCORE_INLINE const float* at(Index, Index row) const { return rows[row]; }
};

/// Of a word's two weights each is a number but for a shift or a mask.
template <>
struct Arithmetic<float, BFloat16> : WeightPairs<BFloat16> {
  using Rows = PairedRows;
  struct Two {
    Vec<float> first, second;
  };

  /// Rows of a tile of n vectors: each has two factors, and weights that are widened take two registers.
  static constexpr int most_rows(int n) {
    if (registers > 16) return n < 3 ? 4 : tallest; // narrow ones: to compile less
    int m = 1;
    while (m < tallest && (m + 1) * (n + 2) + 3 <= registers) ++m;
    return m;
  }
  static RNNCORE_INLINE Two load(const W* from) {
    const Words32 words = load_words(from);
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
};

#if defined(RNNCORE_HAS_BF16_DOT)
/// A weight that meets rounded rows.
struct BFloat16Dot : BFloat16 {
  using BFloat16::BFloat16;
};

/// Rows found through pointers, rounded before they are multiplied: `prepare`.
struct RoundedRows {
  const float* const* rows;
  Index columns;
  BFloat16* numbers;

  static constexpr bool prepares = true;
  static constexpr Index stride(Index columns) { return ceil_div(columns, 32) * 32; }
  static constexpr Index bytes(Index rows, Index columns) {
    return rows * stride(columns) * Index(sizeof(BFloat16));
  }
  /// In `space` of so many bytes.
  static RNNCORE_INLINE RoundedRows of(const float* const* rows, Index columns, void* space, Index) {
    return {rows, columns, static_cast<BFloat16*>(space)};
  }
  RNNCORE_INLINE RoundedRows from(Index row) const {
    return {rows + row, columns, numbers + row * stride(columns)};
  }
  RNNCORE_INLINE void prepare(Index row) const {
    const float* from = rows[row];
    BFloat16* to = numbers + row * stride(columns);
    for (Index k = 0; k < columns; ++k) to[k] = BFloat16(from[k]);
    if (columns % 2) to[columns] = BFloat16(0.f);
  }

  RNNCORE_INLINE Index segments() const { return 1; }
  RNNCORE_INLINE Index length(Index) const { return ceil_div(columns, 2); }
  RNNCORE_INLINE Index all_columns() const { return ceil_div(columns, 2); }
  RNNCORE_INLINE const BFloat16* at(Index, Index row) const { return numbers + row * stride(columns); }
};

template <>
struct Arithmetic<float, BFloat16Dot> : WeightPairs<BFloat16Dot> {
  using Rows = RoundedRows;

  static constexpr int most_rows(int n) { return n < 3 ? 4 : tallest; } // narrow ones: to compile less
  static RNNCORE_INLINE Words32 load(const W* from) { return load_words(from); }
  static RNNCORE_INLINE Words32 factor(const BFloat16* row, Index k) {
    uint32_t two;
    std::memcpy(&two, row + 2 * k, sizeof two);
    return Words32{} + two;
  }
  static RNNCORE_INLINE Sum add(Words32 factor, Words32 weights, Sum sum) {
    // Written out, as the rest of the level is compiled for processors that do not have it.
    RNNCORE_ASM("vdpbf16ps %2, %1, %0" : "+v"(sum.p) : "v"(weights), "v"(factor));
    return sum;
  }
};
#endif

} // namespace rnncore::RNNCORE_LEVEL

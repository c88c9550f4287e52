// What a product computes with, by the type of its weights: how they lie, what rows are multiplied by them,
// and what their products are summed in. One tile (products.hpp) serves all of them.
#pragma once

#include <type_traits>

#include "layout.hpp"
#include "level.hpp"

namespace rnncore::RNNCORE_LEVEL {

// Rows of a tile, and vectors of a single row that are summed at once; for old processors less is compiled.
constexpr int tallest = vector_bytes == 16 ? 2 : 8, broadest = vector_bytes == 16 ? 4 : 8;

/// A window of the gates of some nodes, one segment a panel, of some panels.
template <class T>
struct GateRows {
  const Panels<T>& hidden;
  Window window;
  Index slots;
  const T* gates; // of a chunk of `rows` nodes
  Index rows, first;
  Index begin, end; // panels

  RNNCORE_INLINE Index segments() const { return end - begin; }
  RNNCORE_INLINE Index length(Index segment) const {
    return window.count * hidden.width(begin + segment) * lanes<T>;
  }
  RNNCORE_INLINE Index all_columns() const {
    const Index vectors = hidden.vectors.begin(end) - hidden.first(begin);
    return window.count * vectors * lanes<T>;
  }
  RNNCORE_INLINE const T* at(Index segment, Index row) const {
    const Index panel = begin + segment;
    return gates + (slots * (rows * hidden.first(panel) + (first + row) * hidden.width(panel)) +
                    window.begin * hidden.width(panel)) *
                       lanes<T>;
  }
  /// Numbers from row to row of a segment.
  RNNCORE_INLINE Index stride(Index segment) const {
    return slots * hidden.width(begin + segment) * lanes<T>;
  }
};

/// Rows found through pointers, as they are.
template <class T>
struct Gathered {
  const T* const* rows;
  Index columns;

  static constexpr bool prepares = false;
  static constexpr Index bytes(Index, Index) { return 0; }
  static RNNCORE_INLINE Gathered of(const T* const* rows, Index columns, void*, Index) {
    return {rows, columns};
  }
  RNNCORE_INLINE Gathered from(Index row) const { return {rows + row, columns}; }
  RNNCORE_INLINE void prepare(Index) const {}

  RNNCORE_INLINE Index segments() const { return 1; }
  RNNCORE_INLINE Index length(Index) const { return columns; }
  RNNCORE_INLINE Index all_columns() const { return columns; }
  RNNCORE_INLINE const T* at(Index, Index row) const { return rows[row]; }
};

/// Rows in several segments: found through pointers, whose sums run in one strand, so that it does not
/// matter where a segment ends; or gates. A single type, so that tiles of sums are compiled once for both.
template <class T>
struct SegmentedRows {
  const T* const* rows; // [segment][row]
  Index columns;        // of a segment
  Index count, step;
  bool one_strand = true;
  const GateRows<T>* gates = nullptr;

  static RNNCORE_INLINE SegmentedRows of(const GateRows<T>& gates) {
    return {nullptr, 0, gates.segments(), 0, false, &gates};
  }

  RNNCORE_INLINE Index segments() const { return count; }
  RNNCORE_INLINE Index length(Index segment) const { return gates ? gates->length(segment) : columns; }
  RNNCORE_INLINE Index all_columns() const { return gates ? gates->all_columns() : count * columns; }
};

/// Rows of a tile.
template <class T, int M>
struct Pointers {
  T* at[M];

  RNNCORE_INLINE T* operator[](int m) const { return at[m]; }
};

/// M rows of a segment from `row` on.
template <int M, class A>
RNNCORE_INLINE auto rows_of(const A& rows, Index segment, Index row) {
  Pointers<std::remove_pointer_t<decltype(rows.at(0, 0))>, M> found;
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) found.at[m] = rows.at(segment, row + m);
  return found;
}
template <int M, class T>
RNNCORE_INLINE auto rows_of(const SegmentedRows<T>& rows, Index segment, Index row) {
  Pointers<const T, M> found;
  if (rows.gates) {
    const Index stride = rows.gates->stride(segment);
    found.at[0] = rows.gates->at(segment, row);
#pragma GCC unroll 8
    for (int m = 1; m < M; ++m) found.at[m] = found.at[m - 1] + stride;
  } else {
    const T* const* const from = rows.rows + segment * rows.step + row;
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) found.at[m] = from[m];
  }
  return found;
}

template <class T, class W>
struct Arithmetic;

/// Weights of the type of the sums: [panel][k][vector][lane].
template <class T>
struct Arithmetic<T, T> {
  using Rows = Gathered<T>;
  using Sum = Vec<T>;
  static constexpr Index vector = lanes<T>;  // so many weights are loaded at once
  static constexpr bool starts_late = false; // what a sum starts from is added when it is through

  static constexpr int most_rows(int) { return tallest; } // of a tile so many vectors wide
  /// Of the weights of a column, to which so many numbers of a row come.
  static constexpr Index depth(Index columns) { return columns; }
  /// The first weights of a panel of `width` vectors.
  static RNNCORE_INLINE const T* weights(const T* panel, Index) { return panel; }
  static RNNCORE_INLINE Sum zero() { return Vec<T>(T(0)); }
  static RNNCORE_INLINE Vec<T> load(const T* from) { return rnncore::RNNCORE_LEVEL::load(from); }
  static RNNCORE_INLINE Vec<T> factor(const T* row, Index k) { return Vec<T>(row[k]); }
  static RNNCORE_INLINE Sum add(Vec<T> factor, Vec<T> weights, Sum sum) {
    return fma(factor, weights, sum);
  }

  /// to[k][lane] = rows[lane][k], or zero from `valid` lanes on, in a panel of so many columns.
  static void pack(const T* rows, Index K, Index valid, T* panel, Index column, Index columns) {
    constexpr Index L = lanes<T>;
    T* const to = panel + column;
    Index k = 0;
    if (valid >= L)
      for (; k + L <= K; k += L) {
        Square<T> square = load_square(rows + k, K);
        transpose<T>(square);
        for (Index i = 0; i < L; ++i) store(to + (k + i) * columns, Vec<T>(square.packet[i]));
      }
    for (; k < K; ++k)
      for (Index lane = 0; lane < L; ++lane)
        to[k * columns + lane] = lane < valid ? rows[lane * K + k] : T(0);
  }
};

/// Whether there is a backward pass: of weights as they are, which nothing has been taken from.
template <class T, class W>
constexpr bool trains = false;
template <class T>
constexpr bool trains<T, T> = true;

/// Where weights of type W lie, and, after those of all numbers, their gradients.
template <class T, class W>
using OffsetsOf = WeightOffsets<T, Arithmetic<T, W>::depth>;
template <class T>
using GradientOffsets = OffsetsOf<T, T>;

} // namespace rnncore::RNNCORE_LEVEL

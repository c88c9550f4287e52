// The three products everything is made of, each a tile of sums held in registers:
//
//   multiply   C[r] (+)= A[r] B      rows times packed weights; forward, and back to x and h
//   outer      C (+)= A^T B           rows times gate gradients; the weights' gradients
//   add_rows   c (+)= sum_r B[r]       the biases' gradients
//
// A sum always runs in the same order, whatever tile it falls in: a row's result does not depend on the
// rows around it. Where a matrix is narrow, a sum is that of a few strands that run side by side.
#pragma once

#include "arithmetic.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// Rows of a tile whose sums are `n` vectors wide: as many as the registers hold.
constexpr int tile_rows(int n) {
  int m = 1;
  while (m < tallest && (m + 1) * n + min(m + 1, n) + 1 <= registers) ++m;
  return m;
}

/// f(m, n, factor, weights) for all M factors and N vectors of weights. Where registers are few, those come
/// first of which there are fewer: they stay, the others are loaded one by one. `pairs`: weights take two
/// registers each, and a row of them would leave none for the sums.
template <int M, int N, bool pairs, class Factor, class Weights, class F>
RNNCORE_INLINE void for_each_pair(Factor factor, Weights weights, F f) {
  const auto vector = [&](int n) RNNCORE_HOT {
    if constexpr (M > 1)
      return held(weights(n));
    else
      return weights(n);
  };
  if constexpr (registers <= 16 && (M < N || pairs)) {
    decltype(factor(0)) factors[M];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) factors[m] = factor(m);
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      const auto v = vector(n);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) f(m, n, factors[m], v);
    }
  } else {
    decltype(weights(0)) vectors[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) vectors[n] = vector(n);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const auto v = factor(m);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) f(m, n, v, vectors[n]);
    }
  }
}

/// Strands of a sum: two where the whole matrix has too few vectors beside each other to hide the time that
/// one addition takes.
constexpr int strands(Index vectors) { return vectors < 3 ? 2 : 1; }

/// Whether a sum may not be that of several strands.
template <class A>
RNNCORE_INLINE bool in_one_strand(const A& a) {
  if constexpr (requires { a.one_strand; })
    return a.one_strand;
  else
    return false;
}

/// Where sums go: rows at a stride, or through pointers.
template <class T>
struct Target {
  T* base;
  Index stride;
  T* const* rows; // or null
  Index offset;

  RNNCORE_INLINE T* at(Index row) const { return rows ? rows[row] + offset : base + row * stride; }
  RNNCORE_INLINE Target from_column(Index column) const {
    return rows ? Target{nullptr, 0, rows, offset + column} : Target{base + column, stride, nullptr, 0};
  }
};

enum class Start { zero, keep, bias };

/// Where sums start from that start from nothing: less code than a way of their own.
template <class T>
alignas(64) constexpr T no_start[widest * lanes<T>] = {};

/// Some panels of equal width, one after the other. T is the type of rows and sums, W that of the weights.
template <class T, class A, class W = T>
struct Product {
  A a;
  Index rows;
  const W* b; // packed: `width` vectors for every column of A
  Index width, panels;
  Index vectors; // of all panels of the matrix, also those that are others' work
  Index b_step;  // from panel to panel
  Target<T> c;
  Index c_step, tail; // lanes of the last vector of the last panel that exist in C
  Start start = Start::keep;
  const T* bias = nullptr;
  Index bias_step = 0;
};

/// The end of a tile whose sums are of another type. What a sum starts from is found without branches, and
/// all else read once: stores of floats could change it for all that the compiler knows.
template <class T, class A, class W, int P, int M, int N>
RNNCORE_INLINE void finish_tile(const Product<T, A, W>& p, Index panel, Index row, T* const (&c)[M],
                                const typename Arithmetic<T, W>::Sum (&sum)[P][M][N]) {
  using Own = Arithmetic<T, W>;
  constexpr Index L = lanes<T>;
  const Index tail = panel + P == p.panels ? p.tail : L, c_step = p.c_step, b_step = p.b_step;
  const bool keeps = p.start == Start::keep, has_bias = p.start == Start::bias;
  const T* const bias = has_bias ? p.bias + panel * p.bias_step : no_start<T>;
  const Index bias_step = has_bias ? p.bias_step : 0;
  const W* const panels = p.b + panel * b_step;
  const auto* const rows = p.a.scales + row;
#pragma GCC unroll 8
  for (int q = 0; q < P; ++q) {
    Vec<T> scale[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) scale[n] = Own::scale(panels + q * b_step, n);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      T* const to = c[m] + q * c_step;
      const T* const from = keeps ? to : bias + q * bias_step;
      const Index last = q + 1 < P ? L : tail;
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        const Vec<T> start = n + 1 < N ? load(from + n * L) : load(from + n * L, last);
        const Vec<T> value = Own::finish(sum[q][m][n], rows[m], scale[n], start);
        n + 1 < N ? store(to + n * L, value) : store(to + n * L, value, last);
      }
    }
  }
}

/// M rows of P panels, in S strands: as many sums in registers as hide the time one takes. `ahead`: weights
/// that will soon be wanted, a vector for each column; a tall tile has the time to ask for them, if it has
/// registers to spare.
template <class T, class A, class W, int S, int P, int M, int N>
void multiply_tile(const Product<T, A, W>& p, Index panel, Index row, const W* ahead) {
  using Own = Arithmetic<T, W>;
  constexpr Index L = lanes<T>;
  const Index tail = panel + P == p.panels ? p.tail : L;
  typename Own::Sum sum[S][P][M][N];
  T* c[M];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) c[m] = p.c.at(row + m) + panel * p.c_step;
  const bool keeps = p.start == Start::keep;
  const Index from_step = keeps ? p.c_step : p.start == Start::bias ? p.bias_step : 0;
  const Index given = keeps ? tail : L;
  const T* from[M];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
    from[m] = keeps ? c[m] : p.start == Start::bias ? p.bias + panel * p.bias_step : no_start<T>;
  // The last vector apart: at an edge it is loaded and stored in another way, for all rows at once.
  const auto is_last = [&](int q, int n) { return q + 1 == P && n + 1 == N; };
  Vec<T> last[M];
  const auto load_last = [&]() RNNCORE_HOT {
    const Index at = (P - 1) * from_step + (N - 1) * L;
    if (given < L)
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) last[m] = load_edge(from[m] + at, given);
    else
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) last[m] = load(from[m] + at);
  };
  const auto start = [&](int q, int m, int n) RNNCORE_HOT {
    return is_last(q, n) ? last[m] : load(from[m] + q * from_step + n * L);
  };
  if constexpr (!Own::starts_late) load_last();
  const W* b[P];
#pragma GCC unroll 8
  for (int q = 0; q < P; ++q) b[q] = Own::weights(p.b + (panel + q) * p.b_step, N);
#pragma GCC unroll 8
  for (int q = 0; q < P; ++q)
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
#pragma GCC unroll 8
        for (int s = 0; s < S; ++s) sum[s][q][m][n] = Own::zero();
        if constexpr (!Own::starts_late) sum[0][q][m][n] = start(q, m, n);
      }
  for (Index segment = 0; segment < p.a.segments(); ++segment) {
    const auto a = rows_of<M>(p.a, segment, row);
    const auto add = [&](int s, Index k) RNNCORE_HOT {
      if constexpr (registers > 16 && P * M * N >= 12) {
        will_read(ahead);
        ahead += Own::vector;
      }
#pragma GCC unroll 8
      for (int q = 0; q < P; ++q) {
        for_each_pair<M, N, (Own::vector > L)>(
            [&](int m) RNNCORE_HOT { return Own::factor(a[m], k); },
            [&](int n) RNNCORE_HOT { return Own::load(b[q] + n * Own::vector); },
            [&](int m, int n, auto factor, auto weights)
                RNNCORE_HOT { sum[s][q][m][n] = Own::add(factor, weights, sum[s][q][m][n]); });
        b[q] += N * Own::vector;
      }
    };
    const Index length = p.a.length(segment), even = length - length % S;
    for (Index k = 0; k < even; k += S)
#pragma GCC unroll 8
      for (int s = 0; s < S; ++s) add(s, k + s);
#pragma GCC unroll 8
    for (int s = 0; s + 1 < S; ++s)
      if (even + s < length) add(s, even + s);
  }
  if constexpr (requires { &Own::add_rest; })
#pragma GCC unroll 8
    for (int q = 0; q < P; ++q)
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n)
          sum[0][q][m][n] = Own::add_rest(p.a, row + m, Own::weights(p.b + (panel + q) * p.b_step, N), N, n,
                                          sum[0][q][m][n]);
  if constexpr (Own::starts_late) {
    finish_tile<T, A, W, P, M, N>(p, panel, row, c, sum[0]);
  } else {
    const auto result = [&](int q, int m, int n) RNNCORE_HOT {
      auto all = sum[0][q][m][n];
#pragma GCC unroll 8
      for (int s = 1; s < S; ++s) all = all + sum[s][q][m][n];
      return all;
    };
#pragma GCC unroll 8
    for (int q = 0; q < P; ++q)
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n)
          if (is_last(q, n))
            last[m] = result(q, m, n);
          else
            store(c[m] + q * p.c_step + n * L, result(q, m, n));
    const Index to = (P - 1) * p.c_step + (N - 1) * L;
    if (tail < L)
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) store_edge(c[m] + to, last[m], tail);
    else
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) store(c[m] + to, last[m]);
  }
}

template <class T, class A, class W, int S, int N, int M>
RNNCORE_INLINE void multiply_rows(const Product<T, A, W>& p, Index panel, Index row, Index rows,
                                  const W* ahead) {
  if (rows == M) return multiply_tile<T, A, W, S, 1, M, N>(p, panel, row, ahead);
  if constexpr (M > 1) multiply_rows<T, A, W, S, N, M - 1>(p, panel, row, rows, ahead);
}

/// A single row, several panels at a time.
template <class T, class A, class W, int S, int N, int P = (S > 1 ? 2 : broadest) / N>
RNNCORE_INLINE void multiply_row(const Product<T, A, W>& p, Index panel) {
  for (; panel + P <= p.panels; panel += P) multiply_tile<T, A, W, S, P, 1, N>(p, panel, 0, nullptr);
  if constexpr (P > 1) multiply_row<T, A, W, S, N, P / 2>(p, panel);
}

/// Whether tiles are compiled for a single row alone: more rows are multiplied as SegmentedRows.
template <class A>
constexpr bool only_single = false;
template <>
inline constexpr bool only_single<Gathered<float>> = true;

template <class T, class A, class W, int S, int N>
RNNCORE_INLINE void multiply_panels(const Product<T, A, W>& p) {
  if (only_single<A> || p.rows == 1) return multiply_row<T, A, W, S, N>(p, 0);
  if constexpr (!only_single<A>) {
    constexpr int most = min(tile_rows(N * S), Arithmetic<T, W>::most_rows(N * S));
    constexpr int tall = S > 1 ? min(4, most) : most; // narrow ones are rarely tall
    const EqualParts tiles(p.rows, tall);
    const Index columns = p.a.all_columns();
    for (Index panel = 0; panel < p.panels; ++panel) {
      // Of the last, its own: what lies beyond it is not wanted, and would only fill the cache.
      const W* next = p.b + min(panel + 1, p.panels - 1) * p.b_step;
      for (Index i = 0; i < tiles.count; ++i)
        multiply_rows<T, A, W, S, N, tall>(p, panel, tiles.begin(i), tiles.size(i),
                                           next + i % N * columns * Arithmetic<T, W>::vector);
    }
  }
}

template <class T, class A, class W, int N>
RNNCORE_INLINE void multiply_width(const Product<T, A, W>& p) {
  if constexpr (N < 3 && !Arithmetic<T, W>::starts_late)
    if (strands(p.vectors) == 2 && !in_one_strand(p.a)) return multiply_panels<T, A, W, 2, N>(p);
  multiply_panels<T, A, W, 1, N>(p);
}

template <class T, class A, class W>
void multiply(const Product<T, A, W>& p) {
  static_assert(widest == 4);
  switch (p.width) {
  case 1:
    return multiply_width<T, A, W, 1>(p);
  case 2:
    return multiply_width<T, A, W, 2>(p);
  case 3:
    return multiply_width<T, A, W, 3>(p);
  case 4:
    return multiply_width<T, A, W, 4>(p);
  }
}

/// Columns of rows in tiles, copied so that the rows of a tile lie one after the other. Between tiles there
/// is a gap: all of them are written at once, and would fall into the same few lines of a cache.
template <class T>
struct CopiedTiles {
  static constexpr Index gap = 64 / sizeof(T);

  T* base; // of tile `first`
  Index rows, first;
  EqualParts tiles;

  /// Numbers from one tile to the next.
  static Index step(Index rows, Index width) { return rows * width + gap; }
  RNNCORE_INLINE T* tile(Index tile) const {
    return base + rows * (tiles.begin(tile) - tiles.begin(first)) + (tile - first) * gap;
  }
  void copy(const T* const* from, Share share) const {
    for (const auto [begin, end] : {Share::of(share.begin, min(share.end, tiles.larger)),
                                    Share::of(max(share.begin, tiles.larger), share.end)})
      if (begin < end) copy_columns(from, tiles.begin(begin), tiles.size(begin), end - begin, tile(begin));
  }

private:
  /// `count` tiles of M columns: rows are read straight ahead, numbers of a size that the compiler knows.
  template <int M = tallest>
  void copy_columns(const T* const* from, Index column, Index width, Index count, T* to) const {
    if constexpr (M > 1)
      if (width < M) return copy_columns<M - 1>(from, column, width, count, to);
    for (Index r = 0; r < rows; ++r, to += M) {
      const T* a = from[r] + column;
      T* c = to;
      for (Index i = 0; i < count; ++i, a += M, c += step(rows, M)) std::memcpy(c, a, M * sizeof(T));
    }
  }
};

/// Columns of rows in tiles, found through pointers or copied.
template <class T>
struct SourceTiles {
  const T* const* rows;
  EqualParts tiles;
  const CopiedTiles<T>* copied = nullptr;

  static RNNCORE_INLINE SourceTiles of(const CopiedTiles<T>& copied) {
    return {nullptr, copied.tiles, &copied};
  }
};

template <class T>
struct Outer {
  SourceTiles<T> a;
  Share tiles; // of the columns of a
  Index rows;
  const T* b; // (rows, width vectors)
  Index b_stride, width;
  Index tail; // lanes of the last vector that exist in B and C
  T* c;       // (columns of a, width vectors)
  Index c_stride;
  bool add; // to what is there
};

template <class T, int M, int N, bool edge>
void outer_tile(const Outer<T>& p, Index tile) {
  constexpr Index L = lanes<T>;
  const auto last = [&](const T* from) { return edge ? load_edge(from, p.tail) : load(from); };
  const Index column = p.a.tiles.begin(tile);
  const T* const copied = p.a.copied ? p.a.copied->tile(tile) : nullptr;
  T* c = p.c + column * p.c_stride;
  Vec<T> sum[M][N];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      sum[m][n] = Vec<T>(T(0));
      will_write(c + m * p.c_stride + n * L);
    }
  const T* b = p.b;
  for (Index row = 0; row < p.rows; ++row, b += p.b_stride) {
    const T* a = copied ? copied + row * M : p.a.rows[row] + column;
    for_each_pair<M, N, false>(
        [&](int m) RNNCORE_HOT { return Vec<T>(a[m]); },
        [&](int n) RNNCORE_HOT { return n + 1 < N ? load(b + n * L) : last(b + n * L); },
        [&](int m, int n, Vec<T> factor, Vec<T> v) RNNCORE_HOT { sum[m][n] = fma(factor, v, sum[m][n]); });
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m, c += p.c_stride) {
    T* to = c;
#pragma GCC unroll 8
    for (int n = 0; n + 1 < N; ++n, to += L) store(to, p.add ? load(to) + sum[m][n] : sum[m][n]);
    store(to, p.add ? last(to) + sum[m][N - 1] : sum[m][N - 1], edge ? p.tail : L);
  }
}

template <class T, int N, bool edge, int M = tile_rows(N)>
RNNCORE_INLINE void outer_columns(const Outer<T>& p, Index tile, Index columns) {
  if (columns == M) return outer_tile<T, M, N, edge>(p, tile);
  if constexpr (M > 1) outer_columns<T, N, edge, M - 1>(p, tile, columns);
}

template <class T, bool edge, int N = widest>
void outer_panel(const Outer<T>& p) {
  if (p.width == N) {
    for (Index tile = p.tiles.begin; tile < p.tiles.end; ++tile)
      outer_columns<T, N, edge>(p, tile, p.a.tiles.size(tile));
  } else if constexpr (N > 1) {
    outer_panel<T, edge, N - 1>(p);
  }
}

/// Masks cost AVX-512 nothing, so there edges and all else are compiled once.
template <class T>
void outer(const Outer<T>& p) {
  if constexpr (vector_bytes == 64)
    outer_panel<T, true>(p);
  else
    p.tail < lanes<T> ? outer_panel<T, true>(p) : outer_panel<T, false>(p);
}

/// c (columns, whole vectors) = the sum of `rows` rows, or added to it.
template <class T>
void add_rows(const T* b, Index rows, Index stride, Index columns, T* c, bool add) {
  for (Index j = 0; j < columns; j += lanes<T>) {
    Vec<T> sum(T(0));
    for (Index row = 0; row < rows; ++row) sum = sum + load(b + row * stride + j);
    store(c + j, add ? load(c + j) + sum : sum);
  }
}

// In products.cpp and light_products.cpp, apart from the cells: two processors then share the compiling
// evenly.
extern template void multiply(const Product<float, Gathered<float>>&);
extern template void multiply(const Product<float, SegmentedRows<float>>&);
extern template void multiply(const Product<double, SegmentedRows<double>>&);
extern template void outer(const Outer<float>&);
extern template void outer(const Outer<double>&);

/// Rows through pointers are one segment: so tiles of sums are compiled once for all rows.
template <class T>
RNNCORE_NOINLINE void multiply_segmented(const Product<T, Gathered<T>>& p) {
  multiply(Product<T, SegmentedRows<T>>{{p.a.rows, p.a.columns, 1, 0, false},
                                        p.rows,
                                        p.b,
                                        p.width,
                                        p.panels,
                                        p.vectors,
                                        p.b_step,
                                        p.c,
                                        p.c_step,
                                        p.tail,
                                        p.start,
                                        p.bias,
                                        p.bias_step});
}
RNNCORE_INLINE void multiply(const Product<double, Gathered<double>>& p) { multiply_segmented(p); }
/// But for a single row in float32, where little is computed for each tile.
RNNCORE_INLINE void multiply(const Product<float, Gathered<float>>& p) {
  p.rows == 1 ? multiply<float, Gathered<float>, float>(p) : multiply_segmented(p);
}

} // namespace rnncore::RNNCORE_LEVEL

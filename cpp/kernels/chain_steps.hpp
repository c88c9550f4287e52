// A single sequence of few hidden units: product and cell of a time step in one, whose sums stay in
// registers from one to the other. Where a step takes some hundred cycles, what lies between counts.
#pragma once

#include <type_traits>

#include "bfloat16.hpp"
#include "int8.hpp"
#include "time_steps.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// One vector of hidden units whose slots are in registers.
template <class T, Index slots>
struct HeldSpot : Spot<T> {
  using V = Vec<T>;

  V held[slots];

  RNNCORE_INLINE V slot(Index j) const { return held[j]; }
};

/// Two of them, computed side by side.
template <class T, Index slots>
struct HeldSpots {
  using V = Pair<T>;

  const HeldSpot<T, slots>&a, &b;

  RNNCORE_INLINE V slot(Index j) const { return {a.held[j], b.held[j]}; }
  RNNCORE_INLINE void set_slot(Index j, V v) const { a.set_slot(j, v.a), b.set_slot(j, v.b); }
  RNNCORE_INLINE V from(const T* const* rows) const { return {a.from(rows), b.from(rows)}; }
  RNNCORE_INLINE void put(T* const* rows, V v) const { a.put(rows, v.a), b.put(rows, v.b); }
};

/// Panels whose sums are in registers at once, and the most hidden units of all: with more of them products
/// take nearly all of the time, and are faster by tiles.
constexpr int chain_panels = registers > 16 ? 4 : 2;
constexpr Index chain_columns = 128;

/// The types of weights for which there are chains, by number; -1: there is none. Of fewer bits with
/// AVX-512 alone, to compile less.
template <class T, class W>
constexpr int chain_kind = std::is_same_v<T, W>                 ? 0
                           : vector_bytes < 64                  ? -1
                           : std::is_same_v<W, BFloat16>        ? 1
                           : std::is_same_v<W, Int8<Dot::vnni>> ? 2
                                                                : -1;

/// A time step of row r, `P` panels from `first` on. Sums run as in any other product. Not inlined: it is
/// compiled once for each P.
template <class C, class T, class W, int P>
RNNCORE_NOINLINE void chain_step(const Layout<T>& at, const Span<T>& span,
                                 const typename Arithmetic<T, W>::Rows& rows, const W* weights,
                                 Index chunk_rows, Index r, Index first) {
  using Own = Arithmetic<T, W>;
  constexpr Index L = lanes<T>, row = C::slots * L;
  constexpr Window window = C::plan.recurrent[0].window;
  const Index columns = at.hidden.columns, panel = Own::depth(columns) * window.count * L;
  HeldSpot<T, C::slots> spots[P];
  const W* b[P];
#pragma GCC unroll 8
  for (int q = 0; q < P; ++q) {
    const Index column = (first + q) * L;
    T* const gates = span.gates + (first + q) * chunk_rows * row;
    static_cast<Spot<T>&>(spots[q]) = {{column, min(L, columns - column), L, row, gates}, r};
#pragma GCC unroll 8
    for (Index j = 0; j < C::slots; ++j) spots[q].held[j] = load(gates + r * row + j * L);
    b[q] = Own::weights(weights + (first + q) * panel, window.count);
  }
  typename Own::Sum sums[P][window.count];
  for (int q = 0; q < P && Own::starts_late; ++q)
    for (Index j = 0; j < window.count; ++j) sums[q][j] = Own::zero();
  const auto sum_of_slot = [&](int q, Index j) RNNCORE_HOT -> auto& {
    if constexpr (Own::starts_late)
      return sums[q][j];
    else
      return spots[q].held[window.begin + j];
  };
  const auto* const numbers = rows.at(0, 0);
  const Index length = rows.length(0);
  for (Index k = 0; k < length; ++k) {
    const auto factor = Own::factor(numbers, k);
#pragma GCC unroll 8
    for (int q = 0; q < P; ++q) {
#pragma GCC unroll 8
      for (Index j = 0; j < window.count; ++j) {
        auto& sum = sum_of_slot(q, j);
        sum = Own::add(factor, Own::load(b[q] + j * Own::vector), sum);
      }
      b[q] += window.count * Own::vector;
    }
  }
#pragma GCC unroll 8
  for (int q = 0; q < P; ++q)
#pragma GCC unroll 8
    for (Index j = 0; j < window.count; ++j) {
      const W* const own = weights + (first + q) * panel;
      Vec<T>& held = spots[q].held[window.begin + j];
      if constexpr (Own::starts_late)
        held = Own::finish(sums[q][j], rows.scales[0], Own::scale(own, j), held);
      else if constexpr (requires { &Own::add_rest; })
        held = Own::add_rest(rows, 0, own, window.count, j, held);
    }
#pragma GCC unroll 8
  for (int q = 0; q + 1 < P; q += 2) {
    TimeStep<Pair<T>> t;
    forward_one<C, T, false, 0>(span, HeldSpots<T, C::slots>{spots[q], spots[q + 1]}, t);
  }
  if constexpr (P % 2) {
    TimeStep<Vec<T>> t;
    forward_one<C, T, false, 0>(span, spots[P - 1], t);
  }
}

/// A time step of row r, panels from `first` on: as many at once as there are.
template <class C, class T, class W, int P = chain_panels>
RNNCORE_INLINE void chain_panels_from(const Layout<T>& at, const Span<T>& span,
                                      const typename Arithmetic<T, W>::Rows& row, const W* weights,
                                      Index rows, Index r, Index first) {
  for (; first + P <= at.hidden.count(); first += P)
    chain_step<C, T, W, P>(at, span, row, weights, rows, r, first);
  // Of weights of fewer bits three go as two and one: to compile less.
  constexpr int fewer = P == 4 && !std::is_same_v<T, W> ? 2 : P - 1;
  if constexpr (P > 1) chain_panels_from<C, T, W, fewer>(at, span, row, weights, rows, r, first);
}

/// All steps of a chunk whose waves have one row each.
template <class C, class T, class W>
void chain_steps(const Layout<T>& at, const Span<T>& span, const void* weights, Index rows) {
  using Rows = typename Arithmetic<T, W>::Rows;
  alignas(64) char space[max(1, Rows::bytes(1, chain_columns))];
  for (Index r = 0; r < rows; ++r) {
    const Rows row = Rows::of(span.h_prev + r, at.hidden.columns, space, 1);
    row.prepare(0);
    chain_panels_from<C, T, W>(at, span, row, static_cast<const W*>(weights), rows, r, 0);
  }
}

} // namespace rnncore::RNNCORE_LEVEL

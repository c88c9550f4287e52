// A single sequence of few hidden units: product and cell of a time step in one, whose sums stay in
// registers from one to the other. Where a step takes some hundred cycles, what lies between counts.
#pragma once

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

/// Panels whose sums are in registers at once.
constexpr int chain_panels = registers > 16 ? 4 : 2;

/// A time step of row r, `P` panels from `first` on.
template <class C, class T, int P>
RNNCORE_INLINE void chain_step(const Layout<T>& at, const Span<T>& span, const T* weights, Index chunk_rows,
                               Index r, Index first) {
  constexpr Index L = lanes<T>, row = C::slots * L;
  constexpr Window window = C::plan.recurrent[0].window;
  const Index columns = at.hidden.columns, panel = columns * window.count * L;
  HeldSpot<T, C::slots> spots[P];
  const T* b[P];
#pragma GCC unroll 8
  for (int q = 0; q < P; ++q) {
    const Index column = (first + q) * L;
    T* const gates = span.gates + (first + q) * chunk_rows * row;
    static_cast<Spot<T>&>(spots[q]) = {{column, min(L, columns - column), L, row, gates}, r};
#pragma GCC unroll 8
    for (Index j = 0; j < C::slots; ++j) spots[q].held[j] = load(gates + r * row + j * L);
    b[q] = weights + (first + q) * panel;
  }
  const T* const h = span.h_prev[r];
  for (Index k = 0; k < columns; ++k) {
    const Vec<T> factor(h[k]);
#pragma GCC unroll 8
    for (int q = 0; q < P; ++q) {
#pragma GCC unroll 8
      for (Index j = 0; j < window.count; ++j) {
        Vec<T>& sum = spots[q].held[window.begin + j];
        sum = fma(factor, load(b[q] + j * L), sum);
      }
      b[q] += window.count * L;
    }
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

template <class C, class T, int P>
void chain_of(const Layout<T>& at, const Span<T>& span, const T* weights, Index rows) {
  const Index count = at.hidden.count();
  for (Index r = 0; r < rows; ++r) {
    Index first = 0;
    for (; first + P <= count; first += P) chain_step<C, T, P>(at, span, weights, rows, r, first);
    if constexpr (P > 1)
      for (; first < count; ++first) chain_step<C, T, 1>(at, span, weights, rows, r, first);
  }
}

/// All steps of a chunk whose waves have one row each.
template <class C, class T, int P = chain_panels>
void chain_steps(const Layout<T>& at, const Span<T>& span, const T* weights, Index rows) {
  if constexpr (P > 1)
    if (at.hidden.count() < P) return chain_steps<C, T, P - 1>(at, span, weights, rows);
  chain_of<C, T, P>(at, span, weights, rows);
}

} // namespace rnncore::RNNCORE_LEVEL

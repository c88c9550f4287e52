// A cell over some rows and hidden units: what is loaded before an instant and stored after it.
#pragma once

#include "activations.hpp"
#include "cells/instant.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// Some rows of a chunk at one transition: pointers to what belongs to each of them, null what there is
/// not.
template <class T>
struct Span {
  T* gates;  // [panel][row][slot][vector][lane]
  T* scales; // (rows, norms)
  const T *const *h_prev, *const *c_prev;
  T *const *h, *const *c; // on the way back `c` is only read
  T* const* middle;
  const T* units;    // [unit][vector][lane]
  Index branch_step; // from the pointers of one predecessor to those of the next
  // Where there is any number of predecessors: row r has those from edges[r] - edges[0] on.
  const int32_t* edges;
  const T *const *each_h, *const *offer;
  bool keep_gates; // for the way back
  const T *const *update, *const *keep_h, *const *keep_c;
  const Choices* choices;

  // On the way back.
  const T* const* dy; // added to dh, or null
  const T* const* dh; // of the state after
  const T* const* dc;
  T *const *direct, *const *dc_prev, *const *d_offer; // of the states before
  bool adds;                                          // to those
  Rows<const T> d_middle;
  T* d_units;
};

/// The part of a span that is computed now.
struct Extent {
  Index chunk_rows, first, rows;
  Share panels;
};

template <class T>
using Instants = void (*)(const Layout<T>&, const Span<T>&, const Extent&);

/// What the engine is given of a cell: its plan, and its instants by rules (those of the paper, chosen
/// ones) and stage.
template <class T>
struct Recipe {
  const Plan& plan;
  Instants<T> forward[2][2], backward[2][2];
  Instants<T> leaf_forward[2] = {}, leaf_backward[2] = {}; // of what continues nothing, if it has its own
};

/// The rules for some hidden units of one row.
template <class C, class T, bool chosen>
RNNCORE_INLINE auto rules_of(const Span<T>& s, Index row, Index column, Index valid) {
  if constexpr (chosen)
    return ByChoice<T>{*s.choices, s.update ? load(s.update[row] + column, valid) : Vec<T>(T(1))};
  else
    return typename C::Rules{};
}

template <class T>
RNNCORE_INLINE Vec<T> first_lanes(Vec<T> v, Index n) {
  if (n >= lanes<T>) return v;
  alignas(64) T numbers[lanes<T>];
  store(numbers, v);
  return load_edge(numbers, n);
}

/// One vector of hidden units: where its numbers lie.
template <class T>
struct Place {
  Index column, valid, slot_step, row_step;
  T* gates; // of the chunk's first row

  RNNCORE_INLINE T* slot(Index row, Index j) const { return gates + row * row_step + j * slot_step; }
};

/// f(place) for each vector of hidden units of some panels of gates.
template <class T, class F>
RNNCORE_INLINE void for_each_place(const Layout<T>& at, Share panels, T* gates, Index rows, F f) {
  constexpr Index L = lanes<T>;
  const Index slots = at.plan.slots;
  Index column = at.hidden.first(panels.begin) * L;
  gates += slots * rows * column;
  for (Index p = panels.begin; p < panels.end; ++p) {
    const Index width = at.hidden.width(p) * L;
    for (Index u = 0; u < width; u += L, column += L)
      f(Place<T>{column, min(L, at.hidden.columns - column), width, slots * width, gates + u});
    gates += slots * rows * width;
  }
}

template <class C, class V>
RNNCORE_INLINE void load_units(const auto* from, Index padded, V (&to)[most_units]) {
  for (Index k = 0; k < C::plan.units; ++k) to[k] = load(from + k * padded);
}

template <class C, class T>
RNNCORE_INLINE void load_slots(const Place<T>& place, Index row, Vec<T> (&s)[C::slots]) {
  for (Index j = 0; j < C::slots; ++j) s[j] = load(place.slot(row, j));
}

/// f(place) for each predecessor of a row, of which there may be any number.
template <class T, class F>
RNNCORE_INLINE void for_each_edge(const Span<T>& span, Index r, F f) {
  for (Index e = span.edges[r] - span.edges[0]; e < span.edges[r + 1] - span.edges[0]; ++e) f(e);
}

/// What a predecessor's gate keeps of: its cell state, or h where there is none.
template <class C, class T>
RNNCORE_INLINE const T* const* carried(const Span<T>& span) {
  return C::plan.has_cell_state ? span.c_prev : span.each_h;
}

/// sum_k gate(x + offer_k) carried_k, where x is what all predecessors' gates have in common.
template <class C, class T>
RNNCORE_INLINE Vec<T> kept_of(const Span<T>& span, const Place<T>& at, Index r, const auto& rules,
                              Vec<T> x) {
  Vec<T> sum(T(0));
  for_each_edge(span, r, [&](Index e) RNNCORE_HOT {
    const Vec<T> gate = rules.gate(x + load(span.offer[e] + at.column, at.valid));
    sum = fma(gate, load(carried<C>(span)[e] + at.column, at.valid), sum);
  });
  return sum;
}

/// The way back: adds to what each predecessor carried and offered; returns the gradient of x.
template <class C, class T>
RNNCORE_INLINE Vec<T> unkeep(const Span<T>& span, const Place<T>& at, Index r, const auto& rules, Vec<T> x,
                             Vec<T> d_kept) {
  const auto add = [&](T* to, Vec<T> v)
                       RNNCORE_HOT { store(to + at.column, load(to + at.column, at.valid) + v, at.valid); };
  Vec<T> dx(T(0));
  for_each_edge(span, r, [&](Index e) RNNCORE_HOT {
    const Vec<T> gate = rules.gate(x + load(span.offer[e] + at.column, at.valid));
    const Vec<T> d = d_kept * load(carried<C>(span)[e] + at.column, at.valid) * rules.gate_slope(gate);
    add((C::plan.has_cell_state ? span.dc_prev : span.direct)[e], d_kept * gate);
    add(span.d_offer[e], d);
    dx = dx + d;
  });
  return dx;
}

template <class C, class T, bool chosen, Index S>
RNNCORE_INLINE void forward_one(const Span<T>& span, const Place<T>& at, Index r, Instant<Vec<T>>& t) {
  using V = Vec<T>;
  constexpr bool is_last = S + 1 == C::plan.stages;
  const Index column = at.column, valid = at.valid;
  V s[C::slots];
  load_slots<C>(at, r, s);
  const auto rules = rules_of<C, T, chosen>(span, r, column, valid);
  if (C::plan.sees_h || (chosen && span.keep_h)) t.h_prev = load(span.h_prev[r] + column, valid);
  if constexpr (C::plan.offer.count > 0) {
    if constexpr (S == 0) t.kept = kept_of<C>(span, at, r, rules, s[C::plan.offer.begin]);
  } else if constexpr (C::plan.has_cell_state) {
    t.c_prev = load(span.c_prev[r] + column, valid);
    for (Index k = 0; k < C::plan.branches; ++k)
      t.branch[k] = load(span.c_prev[k * span.branch_step + r] + column, valid);
  }
  C::forward(Stage<S>{}, rules, s, t);
  if (span.keep_gates || !is_last)
    for (Index j = 0; j < C::slots; ++j) store(at.slot(r, j), s[j]);
  if (chosen && is_last && span.keep_h) {
    const V keep = load(span.keep_h[r] + column, valid);
    t.h = fma(keep, t.h_prev, (V(1) - keep) * t.h);
  }
  if (chosen && C::plan.has_cell_state && span.keep_c) {
    const V keep = load(span.keep_c[r] + column, valid);
    t.c = fma(keep, t.c_prev, (V(1) - keep) * t.c);
  }
  if constexpr (C::plan.has_cell_state && S == 0) store(span.c[r] + column, t.c, valid);
  if constexpr (is_last)
    store(span.h[r] + column, t.h, valid);
  else if constexpr (C::plan.recurrent[1].stage > 0)
    store(span.middle[r] + column, t.middle, valid);
}

template <class C, class T, bool chosen, Index S>
void forward_instants(const Layout<T>& at, const Span<T>& span, const Extent& extent) {
  for_each_place(at, extent.panels, span.gates, extent.chunk_rows, [&](const Place<T>& place) RNNCORE_HOT {
    Instant<Vec<T>> t;
    load_units<C>(span.units + place.column, at.hidden.padded(), t.unit);
    for (Index r = extent.first; r < extent.first + extent.rows; ++r)
      forward_one<C, T, chosen, S>(span, place, r, t);
  });
}

/// Loads what the way back through an instant needs, goes it, and leaves the gradients in s and d.
template <class C, class T, bool chosen, Index S>
RNNCORE_INLINE void gradient_of(const Span<T>& span, const Place<T>& at, Index r, Instant<Vec<T>>& t,
                                Vec<T> (&s)[C::slots], Gradient<Vec<T>>& d) {
  using V = Vec<T>;
  constexpr bool is_last = S + 1 == C::plan.stages;
  const Index column = at.column, valid = at.valid;
  load_slots<C>(at, r, s);
  if (C::plan.sees_h || (chosen && span.keep_h)) t.h_prev = load(span.h_prev[r] + column, valid);
  d.h = load(span.dh[r] + column, valid);
  if ((is_last || !C::plan.direct) && span.dy) d.h = d.h + load(span.dy[r] + column, valid);
  const auto rules = rules_of<C, T, chosen>(span, r, column, valid);
  V kept_h, kept_c;
  if (chosen && span.keep_h) {
    const V keep = load(span.keep_h[r] + column, valid);
    kept_h = keep * d.h;
    d.h = (V(1) - keep) * d.h;
  }
  if constexpr (C::plan.has_cell_state) {
    if constexpr (C::plan.offer.count == 0) t.c_prev = load(span.c_prev[r] + column, valid);
    for (Index k = 0; k < C::plan.branches; ++k)
      t.branch[k] = load(span.c_prev[k * span.branch_step + r] + column, valid);
    t.c = load(span.c[r] + column, valid);
    d.c = load(span.dc[r] + column, valid);
    if constexpr (chosen && C::plan.stages == 1)
      if (span.keep_c) {
        const V keep = load(span.keep_c[r] + column, valid);
        kept_c = keep * d.c;
        d.c = (V(1) - keep) * d.c;
        t.c = C::cell(rules, s, t);
      }
  }
  if constexpr (!is_last && C::plan.recurrent[1].stage > 0)
    d.middle = load(span.d_middle.base + r * span.d_middle.stride + column, valid);
  C::backward(Stage<S>{}, rules, s, t, d);
  if constexpr (C::plan.offer.count > 0 && S == 0) {
    V& x = s[C::plan.offer.begin];
    x = unkeep<C>(span, at, r, rules, x, d.kept);
  }
  if (chosen && span.keep_h) d.h = C::plan.direct ? d.h + kept_h : kept_h;
  if (chosen && span.keep_c) d.c = d.c + kept_c;
}

template <class C, class T, bool chosen, Index S>
RNNCORE_INLINE void store_gradients(const Span<T>& span, const Place<T>& at, Index r,
                                    const Vec<T> (&s)[C::slots], const Gradient<Vec<T>>& d) {
  // Of an earlier stage only its own window: the others' slots may still be read by other threads.
  constexpr bool all = S + 1 == C::plan.stages || C::plan.norms > 0;
  constexpr Window own = C::plan.recurrent[S].window;
  constexpr Index begin = all ? 0 : C::plan.offer.count ? C::plan.offer.begin : own.begin;
  constexpr Index end = all ? Index(C::slots) : own.begin + own.count;
  for (Index j = begin; j < end; ++j) store(at.slot(r, j), s[j]);
  const auto put = [&](T* to, Vec<T> v) RNNCORE_HOT {
    to += at.column;
    store(to, span.adds ? load(to, at.valid) + v : v, at.valid);
  };
  if constexpr (C::plan.offer.count > 0) {
    if constexpr (C::plan.direct && S + 1 == C::plan.stages)
      for_each_edge(span, r, [&](Index e) RNNCORE_HOT { put(span.direct[e], d.h); });
    return;
  }
  if (C::plan.direct || (chosen && span.keep_h)) put(span.direct[r], d.h);
  if constexpr (S > 0)
    return;
  else if constexpr (C::plan.branches > 0)
    for (Index k = 0; k < C::plan.branches; ++k) put(span.dc_prev[k * span.branch_step + r], d.branch[k]);
  else if constexpr (C::plan.has_cell_state)
    put(span.dc_prev[r], d.c);
}

template <class C, class T>
RNNCORE_INLINE void add_units(const Gradient<Vec<T>>& d, Index padded, T* to) {
  for (Index k = 0; k < C::plan.units; ++k) store(to + k * padded, load(to + k * padded) + d.unit[k]);
}

template <class C, class T, bool chosen, Index S>
void backward_instants(const Layout<T>& at, const Span<T>& span, const Extent& extent) {
  const Index padded = at.hidden.padded();
  for_each_place(at, extent.panels, span.gates, extent.chunk_rows, [&](const Place<T>& place) RNNCORE_HOT {
    Instant<Vec<T>> t;
    Gradient<Vec<T>> d;
    load_units<C>(span.units + place.column, padded, t.unit);
    for (Index k = 0; k < C::plan.units; ++k) d.unit[k] = Vec<T>(T(0));
    for (Index r = extent.first; r < extent.first + extent.rows; ++r) {
      Vec<T> s[C::slots];
      gradient_of<C, T, chosen, S>(span, place, r, t, s, d);
      store_gradients<C, T, chosen, S>(span, place, r, s, d);
    }
    add_units<C>(d, padded, span.d_units + place.column);
  });
}

} // namespace rnncore::RNNCORE_LEVEL

// A cell over some rows and hidden units: what is loaded before a time step and stored after it.
#pragma once

#include "activations.hpp"
#include "cells/time_step.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// Some rows of a chunk at one transition: pointers to what belongs to each of them, null what there is
/// not.
template <class T>
struct Span {
  T* gates;  // [panel][row][slot][vector][lane]
  T* scales; // (rows, norms)
  const T* const* x;
  const T *const *h_prev, *const *c_prev;
  T *const *h, *const *c; // backward only reads `c`
  T* const* middle;
  const T* units;    // [unit][vector][lane]
  Index branch_step; // from the pointers of one predecessor to those of the next
  // Where there is any number of predecessors: row r has those from edges[r] - edges[0] on.
  const int32_t* edges;
  const T *const *each_h, *const *each_c, *const *offer;
  bool keep_gates; // for backward
  const T *const *update, *const *keep_h, *const *keep_c;
  const CellOptions* options;

  // In backward.
  const T* const* dy; // added to dh, or null
  const T* const* dh; // of the state after
  const T* const* dc;
  T *const *direct, *const *dc_prev, *const *d_offer; // of the states before
  bool adds;                                          // to those
  Rows<const T> d_middle;
  T* d_units;
  T *const *dx, *const *d_scalars; // null: not wanted. [scalar][vector of hidden units] of a row, added to
  bool adds_x;                     // to dx
};

/// The part of a span that is computed now.
struct Extent {
  Index chunk_rows, first, rows;
  Share panels;
};

template <class T>
using StepFunction = void (*)(const Layout<T>&, const Span<T>&, const Extent&);

/// The time steps of a cell, by phase.
template <class T>
struct Steps {
  StepFunction<T> forward[2], backward[2];
};

/// Products and time steps of a chunk whose waves have one row each, with the packed weights of the states.
template <class T>
using ChainFunction = void (*)(const Layout<T>&, const Span<T>&, const void* weights, Index rows);

/// What the engine is given of a cell: its plan, and its time steps by the rules of the paper, or of the
/// options.
template <class T>
struct Recipe {
  const Plan& plan;
  const CellOptions& paper; // what a call without options computes
  const Steps<T>* steps[2];
  const Steps<T>* leaf[2] = {};   // of what continues nothing, if it has its own
  ChainFunction<T> chain[3] = {}; // by the rules of the paper and the type of weights, or null
};

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

/// One vector of hidden units of one row: what a time step is computed for.
template <class T>
struct Spot {
  using V = Vec<T>;

  Place<T> place;
  Index row;

  RNNCORE_INLINE V slot(Index j) const { return load(place.slot(row, j)); }
  RNNCORE_INLINE void set_slot(Index j, V v) const { store(place.slot(row, j), v); }
  RNNCORE_INLINE V from(const T* numbers) const { return load(numbers + place.column, place.valid); }
  RNNCORE_INLINE V from(const T* const* rows) const { return from(rows[row]); }
  RNNCORE_INLINE V from(Rows<const T> rows) const { return from(rows.base + row * rows.stride); }
  RNNCORE_INLINE void put(T* numbers, V v, bool add = false) const {
    store(numbers + place.column, add ? from(numbers) + v : v, place.valid);
  }
  RNNCORE_INLINE void put(T* const* rows, V v, bool add = false) const { put(rows[row], v, add); }
};

/// Two of them, computed side by side.
template <class T>
struct Spots {
  using V = Pair<T>;

  Spot<T> a, b;

  RNNCORE_INLINE V slot(Index j) const { return {a.slot(j), b.slot(j)}; }
  RNNCORE_INLINE void set_slot(Index j, V v) const { a.set_slot(j, v.a), b.set_slot(j, v.b); }
  RNNCORE_INLINE V from(const T* const* rows) const { return {a.from(rows), b.from(rows)}; }
  RNNCORE_INLINE void put(T* const* rows, V v) const { a.put(rows, v.a), b.put(rows, v.b); }
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

/// f(two spots) for all vectors of some panels and rows. If their number is odd, the last is computed
/// twice: the same numbers are written to the same places. One call: f is compiled once.
template <class T, class F>
RNNCORE_INLINE void for_each_pair(const Layout<T>& at, T* gates, const Extent& extent, F f) {
  constexpr Index L = lanes<T>;
  const Index slots = at.plan.slots, end = extent.first + extent.rows;
  Index panel = extent.panels.begin, width = 0, u = 0, column = at.hidden.first(panel) * L, row = end;
  T* of_panel = gates + slots * extent.chunk_rows * column; // of the next one
  Index left = (at.hidden.first(extent.panels.end) - at.hidden.first(panel)) * extent.rows;
  Place<T> place;
  const auto next = [&]() RNNCORE_HOT {
    if (row == end) {
      row = extent.first;
      if (u == width) {
        gates = of_panel;
        width = at.hidden.width(panel++) * L;
        of_panel += slots * extent.chunk_rows * width;
        u = 0;
      }
      place = {column, min(L, at.hidden.columns - column), width, slots * width, gates + u};
      u += L;
      column += L;
    }
    return Spot<T>{place, row++};
  };
  for (; left > 0; left -= 2) {
    const Spot<T> a = next();
    Spot<T> b = a;
    if (left > 1) b = next();
    f(Spots<T>{a, b});
  }
}

/// The rules by which a time step goes.
template <class C, class T, bool has_options>
RNNCORE_INLINE auto rules_of(const Span<T>& s, const auto& at) {
  if constexpr (has_options)
    return WithOptions<T>{*s.options, s.update ? at.from(s.update) : Vec<T>(T(1))};
  else
    return typename C::Rules{};
}

template <class C, class V>
RNNCORE_INLINE void load_units(const auto* from, Index padded, V (&to)[most_units]) {
  for (Index k = 0; k < C::plan.units; ++k) to[k] = load(from + k * padded);
}

template <class C, class V>
RNNCORE_INLINE void load_slots(const auto& at, V (&s)[C::slots]) {
  for (Index j = 0; j < C::slots; ++j) s[j] = at.slot(j);
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

/// sum_k gate_k carried_k over all predecessors.
template <class C, class T>
RNNCORE_INLINE Vec<T> kept_of(const Span<T>& span, const Spot<T>& at, const auto& rules,
                              const Vec<T> (&s)[C::slots], const TimeStep<Vec<T>>& t) {
  Vec<T> sum(T(0));
  for_each_edge(span, at.row, [&](Index e) RNNCORE_HOT {
    const Vec<T> gate = rules.gate(C::joined(s, t, at.from(span.offer[e])));
    sum = fma(gate, at.from(carried<C>(span)[e]), sum);
  });
  return sum;
}

/// Its gradients: of what the gates have in common and, if it is for good, of what each predecessor carried
/// and offered.
template <class C, class T>
RNNCORE_INLINE void unkeep(const Span<T>& span, const Spot<T>& at, const auto& rules, Vec<T> (&s)[C::slots],
                           const TimeStep<Vec<T>>& t, Gradient<Vec<T>>& d, bool for_good) {
  Vec<T> d_joined(T(0));
  for_each_edge(span, at.row, [&](Index e) RNNCORE_HOT {
    const Vec<T> offer = at.from(span.offer[e]), gate = rules.gate(C::joined(s, t, offer));
    const Vec<T> own = d.kept * at.from(carried<C>(span)[e]) * rules.gate_slope(gate);
    const Vec<T> d_offer = C::unjoin(own, offer, t, d);
    d_joined = d_joined + own;
    if (!for_good) return;
    at.put((C::plan.has_cell_state ? span.dc_prev : span.direct)[e], d.kept * gate, true);
    at.put(span.d_offer[e], d_offer, true);
  });
  C::unjoin_common(d_joined, s, t, d);
}

template <class C, class T, bool has_options, Index S, class At>
RNNCORE_INLINE void forward_one(const Span<T>& span, const At& at, TimeStep<typename At::V>& t) {
  using V = typename At::V;
  constexpr bool is_last = S + 1 == C::plan.phases;
  V s[C::slots];
  load_slots<C>(at, s);
  const auto rules = rules_of<C, T, has_options>(span, at);
  if (C::plan.sees_h || (has_options && span.keep_h)) t.h_prev = at.from(span.h_prev);
  if constexpr (C::plan.offer.count > 0) {
    if constexpr (S == 0) t.kept = kept_of<C>(span, at, rules, s, t);
  } else if constexpr (C::plan.has_cell_state) {
    t.c_prev = at.from(span.c_prev);
    for (Index k = 0; k < C::plan.branches; ++k) t.branch[k] = at.from(span.c_prev + k * span.branch_step);
  }
  C::forward(Phase<S>{}, rules, s, t);
  if (span.keep_gates || !is_last)
    for (Index j = 0; j < C::slots; ++j) at.set_slot(j, s[j]);
  if (has_options && is_last && span.keep_h) {
    const V keep = at.from(span.keep_h);
    t.h = fma(keep, t.h_prev, (V(1) - keep) * t.h);
  }
  if (has_options && C::plan.has_cell_state && span.keep_c) {
    const V keep = at.from(span.keep_c);
    t.c = fma(keep, t.c_prev, (V(1) - keep) * t.c);
  }
  if constexpr (C::plan.has_cell_state && S == 0) at.put(span.c, t.c);
  if constexpr (is_last)
    at.put(span.h, t.h);
  else if constexpr (C::plan.recurrent[1].phase > 0)
    at.put(span.middle, t.middle);
}

/// Whether time steps go two by two: those that nothing but their own numbers belongs to. (In backward,
/// where chains are shorter and more is loaded, this gains nothing.)
template <class C, bool has_options>
constexpr bool in_pairs = !has_options && C::plan.units == 0 && C::plan.offer.count == 0;

template <class C, class T, bool has_options, Index S>
void forward_steps(const Layout<T>& at, const Span<T>& span, const Extent& extent) {
  if constexpr (in_pairs<C, has_options>) {
    for_each_pair(at, span.gates, extent, [&](const Spots<T>& spots) RNNCORE_HOT {
      TimeStep<Pair<T>> t;
      forward_one<C, T, has_options, S>(span, spots, t);
    });
  } else {
    for_each_place(at, extent.panels, span.gates, extent.chunk_rows,
                   [&](const Place<T>& place) RNNCORE_HOT {
                     TimeStep<Vec<T>> t;
                     load_units<C>(span.units + place.column, at.hidden.padded(), t.unit);
                     for (Index r = extent.first; r < extent.first + extent.rows; ++r)
                       forward_one<C, T, has_options, S>(span, Spot<T>{place, r}, t);
                   });
  }
}

/// Loads what backward of a time step needs, goes it, and leaves the gradients in s and d; those of
/// predecessors that there is any number of it adds to where they are, if it is gone for good.
template <class C, class T, bool has_options, Index S>
RNNCORE_INLINE void gradient_of(const Span<T>& span, const Spot<T>& at, TimeStep<Vec<T>>& t,
                                Vec<T> (&s)[C::slots], Gradient<Vec<T>>& d, bool for_good) {
  using V = Vec<T>;
  constexpr bool is_last = S + 1 == C::plan.phases;
  load_slots<C>(at, s);
  if (C::plan.sees_h || (has_options && span.keep_h)) t.h_prev = at.from(span.h_prev);
  d.h = at.from(span.dh);
  if ((is_last || !C::plan.direct) && span.dy) d.h = d.h + at.from(span.dy);
  const auto rules = rules_of<C, T, has_options>(span, at);
  V kept_h, kept_c;
  if (has_options && span.keep_h) {
    const V keep = at.from(span.keep_h);
    kept_h = keep * d.h;
    d.h = (V(1) - keep) * d.h;
  }
  if constexpr (C::plan.has_cell_state) {
    if constexpr (C::plan.offer.count == 0) t.c_prev = at.from(span.c_prev);
    for (Index k = 0; k < C::plan.branches; ++k) t.branch[k] = at.from(span.c_prev + k * span.branch_step);
    t.c = at.from(span.c);
    d.c = at.from(span.dc);
    if constexpr (has_options && C::plan.phases == 1)
      if (span.keep_c) {
        const V keep = at.from(span.keep_c);
        kept_c = keep * d.c;
        d.c = (V(1) - keep) * d.c;
        t.c = C::cell(rules, s, t);
      }
  }
  if constexpr (!is_last && C::plan.recurrent[1].phase > 0) d.middle = at.from(span.d_middle);
  C::backward(Phase<S>{}, rules, s, t, d);
  if constexpr (C::plan.offer.count > 0 && S == 0) unkeep<C>(span, at, rules, s, t, d, for_good);
  if (has_options && span.keep_h) d.h = C::plan.direct ? d.h + kept_h : kept_h;
  if (has_options && span.keep_c) d.c = d.c + kept_c;
}

template <class C, class T, bool has_options, Index S>
RNNCORE_INLINE void store_gradients(const Span<T>& span, const Spot<T>& at, const Vec<T> (&s)[C::slots],
                                    const Gradient<Vec<T>>& d) {
  // Of an earlier phase only its own window: the others' slots may still be read by other threads.
  constexpr bool all = S + 1 == C::plan.phases || C::plan.norms > 0;
  constexpr Window own = C::plan.recurrent[S].window;
  constexpr Index begin = all ? 0 : C::plan.offer.count ? C::plan.offer.begin : own.begin;
  constexpr Index end = all ? Index(C::slots) : own.begin + own.count;
  for (Index j = begin; j < end; ++j) at.set_slot(j, s[j]);
  if constexpr (C::plan.offer.count > 0) {
    if constexpr (C::plan.direct && S + 1 == C::plan.phases)
      for_each_edge(span, at.row, [&](Index e) RNNCORE_HOT { at.put(span.direct[e], d.h, span.adds); });
    return;
  }
  if (C::plan.direct || (has_options && span.keep_h)) at.put(span.direct, d.h, span.adds);
  if constexpr (S > 0)
    return;
  else if constexpr (C::plan.branches > 0)
    for (Index k = 0; k < C::plan.branches; ++k)
      at.put(span.dc_prev + k * span.branch_step, d.branch[k], span.adds);
  else if constexpr (C::plan.has_cell_state)
    at.put(span.dc_prev, d.c, span.adds);
}

template <class C, class T>
RNNCORE_INLINE void add_units(const Gradient<Vec<T>>& d, Index padded, T* to) {
  for (Index k = 0; k < C::plan.units; ++k) store(to + k * padded, load(to + k * padded) + d.unit[k]);
}

template <class C, class T, bool has_options, Index S>
void backward_steps(const Layout<T>& at, const Span<T>& span, const Extent& extent) {
  const Index padded = at.hidden.padded();
  for_each_place(at, extent.panels, span.gates, extent.chunk_rows, [&](const Place<T>& place) RNNCORE_HOT {
    TimeStep<Vec<T>> t;
    Gradient<Vec<T>> d;
    load_units<C>(span.units + place.column, padded, t.unit);
    for (Index k = 0; k < C::plan.units; ++k) d.unit[k] = Vec<T>(T(0));
    for (Index r = extent.first; r < extent.first + extent.rows; ++r) {
      const Spot<T> spot{place, r};
      Vec<T> s[C::slots];
      gradient_of<C, T, has_options, S>(span, spot, t, s, d, true);
      store_gradients<C, T, has_options, S>(span, spot, s, d);
    }
    add_units<C>(d, padded, span.d_units + place.column);
  });
}

} // namespace rnncore::RNNCORE_LEVEL

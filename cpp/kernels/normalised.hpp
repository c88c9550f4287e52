// Time steps of cells that normalise some of their slots over all hidden units before a phase.
#pragma once

#include "normalise.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// Normalises a run of slots of one row; returns one over the standard deviation.
template <class T>
T normalise(const Layout<T>& at, const Norm& norm, T* gates, Index chunk_rows, Index row) {
  const auto for_each = [&](auto f) {
    for_each_place(at, Share(at.hidden.count()), gates, chunk_rows, [&](const Place<T>& place) {
      for (Index j = norm.begin; j < norm.begin + norm.count; ++j) f(place.slot(row, j), place.valid);
    });
  };
  return normalise<T>(for_each, norm.count * at.shape.hidden);
}

template <class C, class T, bool has_options, Index S>
void normalised_forward(const Layout<T>& at, const Span<T>& span, const Extent& extent) {
  const Plan& plan = at.plan;
  for (Index r = extent.first; r < extent.first + extent.rows; ++r)
    for (Index k = 0; k < plan.norms; ++k)
      if (plan.norm[k].phase == S)
        span.scales[r * plan.scales() + k] = normalise(at, plan.norm[k], span.gates, extent.chunk_rows, r);
  forward_steps<C, T, has_options, S>(at, span, extent);
}

/// Whether a slot is normalised before a phase.
constexpr bool is_normalised(const Plan& plan, Index phase, Index slot) {
  for (const Norm& norm : plan.norm)
    if (norm.phase == phase && norm.begin <= slot && slot < norm.begin + norm.count) return true;
  return false;
}

/// What the gradients of a row's slots have in common: sums over all hidden units of dy and of dy y, slot
/// by slot; then the means of all that were normalised together, and one over their deviation.
template <class C, class T, Index S>
struct NormGradients {
  Vec<T> dy[C::slots], along[C::slots], scale[C::slots];

  NormGradients() {
    for_each([&](Index j) { dy[j] = along[j] = Vec<T>(T(0)); });
  }

  template <class F>
  static RNNCORE_INLINE void for_each(F f) {
    for (Index j = 0; j < C::slots; ++j)
      if (is_normalised(C::plan, S, j)) f(j);
  }

  /// The norms are those of `plan`, whose cell may share the time steps of C.
  void take_means(const Plan& plan, const T* scales, Index hidden) {
    for (Index k = 0; k < plan.norms; ++k) {
      const auto [phase, begin, count] = plan.norm[k];
      if (phase != S) continue;
      T sum(0), sum_along(0);
      for (Index j = begin; j < begin + count; ++j) sum += sum_of(dy[j]), sum_along += sum_of(along[j]);
      for (Index j = begin; j < begin + count; ++j) {
        dy[j] = Vec<T>(sum / T(count * hidden));
        along[j] = Vec<T>(sum_along / T(count * hidden));
        scale[j] = Vec<T>(scales[k]);
      }
    }
  }
};

/// Goes through each time step twice: first for the means over all hidden units, then for good. The loop is
/// compiled once for both.
template <class C, class T, bool has_options, Index S>
void normalised_backward(const Layout<T>& at, const Span<T>& span, const Extent& extent) {
  const Index padded = at.hidden.padded(), scales = at.plan.scales();
  for (Index r = extent.first; r < extent.first + extent.rows; ++r) {
    NormGradients<C, T, S> norms;
    for (const bool for_good : {false, true}) {
      for_each_place(at, Share(at.hidden.count()), span.gates, extent.chunk_rows,
                     [&](const Place<T>& place) {
                       TimeStep<Vec<T>> t;
                       Gradient<Vec<T>> d;
                       load_units<C>(span.units + place.column, padded, t.unit);
                       for (Index k = 0; k < C::plan.units; ++k) d.unit[k] = Vec<T>(T(0));
                       Vec<T> y[C::slots], s[C::slots];
                       const Spot<T> spot{place, r};
                       load_slots<C>(spot, y);
                       gradient_of<C, T, has_options, S>(span, spot, t, s, d, for_good);
                       norms.for_each([&](Index j) {
                         if (for_good) {
                           s[j] = (s[j] - fma(y[j], norms.along[j], norms.dy[j])) * norms.scale[j];
                         } else {
                           const Vec<T> own = first_lanes(s[j], place.valid);
                           norms.dy[j] = norms.dy[j] + own;
                           norms.along[j] = fma(own, y[j], norms.along[j]);
                         }
                       });
                       if (!for_good) return;
                       store_gradients<C, T, has_options, S>(span, spot, s, d);
                       add_units<C>(d, padded, span.d_units + place.column);
                     });
      if (!for_good) norms.take_means(at.plan, span.scales + r * scales, at.shape.hidden);
    }
  }
}

} // namespace rnncore::RNNCORE_LEVEL

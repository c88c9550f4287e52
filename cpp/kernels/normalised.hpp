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
  for (Index r = extent.first; r < extent.first + extent.rows; ++r)
    for (Index k = 0; k < C::plan.norms; ++k)
      if (C::plan.norm[k].phase == S)
        span.scales[r * C::plan.scales() + k] =
            normalise(at, C::plan.norm[k], span.gates, extent.chunk_rows, r);
  forward_steps<C, T, has_options, S>(at, span, extent);
}

/// Goes through each time step twice: first for the means over all hidden units, then for good. The loop is
/// compiled once for both.
template <class C, class T, bool has_options, Index S>
void normalised_backward(const Layout<T>& at, const Span<T>& span, const Extent& extent) {
  constexpr const Plan& plan = C::plan;
  const Index padded = at.hidden.padded();
  const auto normed = [&](auto f) { // f(norm, slot) of this phase
    for (Index k = 0; k < plan.norms; ++k)
      for (Index j = 0; plan.norm[k].phase == S && j < plan.norm[k].count; ++j)
        f(k, plan.norm[k].begin + j);
  };
  for (Index r = extent.first; r < extent.first + extent.rows; ++r) {
    Vec<T> dy[plan.norms], along[plan.norms]; // sums of dy and of dy y; then their means
    for (Index k = 0; k < plan.norms; ++k) dy[k] = along[k] = Vec<T>(T(0));
    for (const bool for_good : {false, true}) {
      for_each_place(
          at, Share(at.hidden.count()), span.gates, extent.chunk_rows, [&](const Place<T>& place) {
            TimeStep<Vec<T>> t;
            Gradient<Vec<T>> d;
            load_units<C>(span.units + place.column, padded, t.unit);
            for (Index k = 0; k < plan.units; ++k) d.unit[k] = Vec<T>(T(0));
            Vec<T> y[C::slots], s[C::slots];
            const Spot<T> spot{place, r};
            load_slots<C>(spot, y);
            gradient_of<C, T, has_options, S>(span, spot, t, s, d, for_good);
            normed([&](Index k, Index j) {
              if (for_good) {
                s[j] = (s[j] - fma(y[j], along[k], dy[k])) * Vec<T>(span.scales[r * plan.scales() + k]);
              } else {
                const Vec<T> own = first_lanes(s[j], place.valid);
                dy[k] = dy[k] + own;
                along[k] = fma(own, y[j], along[k]);
              }
            });
            if (!for_good) return;
            store_gradients<C, T, has_options, S>(span, spot, s, d);
            add_units<C>(d, padded, span.d_units + place.column);
          });
      for (Index k = 0; !for_good && k < plan.norms; ++k) {
        const T n = T(plan.norm[k].count * at.shape.hidden);
        dy[k] = Vec<T>(sum_of(dy[k]) / n);
        along[k] = Vec<T>(sum_of(along[k]) / n);
      }
    }
  }
}

} // namespace rnncore::RNNCORE_LEVEL

// Windows over two axes, as runs of numbers that lie one after the other.
#pragma once

#include "linear.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// Where a tap of an output reads along an axis; -1: a zero.
RNNCORE_INLINE Index source(const WindowAxis& axis, Index output, Index tap) {
  const Index at = output * axis.stride + tap * axis.dilation - axis.before;
  if (0 <= at && at < axis.size) return at;
  if (axis.padding == Padding::zeros) return -1;
  if (axis.padding == Padding::replicate) return at < 0 ? 0 : axis.size - 1;
  return at < 0 ? -at : 2 * (axis.size - 1) - at;
}

/// One output of all images: where its windows lie.
struct WindowPlace {
  Index image, a, b; // outputs along the two axes

  RNNCORE_INLINE WindowPlace(const Windows& w, Index row) {
    b = row % w.axes[1].outputs;
    row /= w.axes[1].outputs;
    a = row % w.axes[0].outputs;
    image = row / w.axes[0].outputs;
  }
  RNNCORE_INLINE void next(const Windows& w) {
    if (++b < w.axes[1].outputs) return;
    b = 0;
    if (++a < w.axes[0].outputs) return;
    a = 0;
    ++image;
  }
};

RNNCORE_INLINE Index outputs_of(const Windows& w) {
  return w.images * w.axes[0].outputs * w.axes[1].outputs;
}
RNNCORE_INLINE Index taps_of(const Windows& w) { return w.axes[0].taps * w.axes[1].taps; }

/// f(tap, where it reads in x, or -1) for all taps of an output.
template <class F>
RNNCORE_INLINE void for_each_tap(const Windows& w, const WindowPlace& place, F f) {
  const WindowAxis &first = w.axes[0], &second = w.axes[1];
  for (Index ta = 0; ta < first.taps; ++ta) {
    const Index a = source(first, place.a, ta), line = (place.image * first.size + a) * second.size;
    for (Index tb = 0; tb < second.taps; ++tb) {
      const Index b = source(second, place.b, tb);
      f(ta * second.taps + tb, a < 0 || b < 0 ? Index(-1) : (line + b) * w.channels);
    }
  }
}

/// The windows of a block of outputs as the products want them. The taps along the second axis are one run
/// of x where they lie one after the other; only windows that reach beyond x are copied, and short ones.
template <class T>
class WindowBlock {
public:
  /// `narrow`: sums may run in two strands, whose order must not depend on where runs end.
  WindowBlock(const Windows& w, Index groups, bool narrow, const T* x, void* work)
      : w_(w), x_(x), joined_(joins(w, groups)), copied_(copies(w, groups, narrow)),
        columns_((copied_   ? taps_of(w)
                  : joined_ ? w.axes[1].taps
                            : 1) *
                 w.channels / groups),
        runs_(copied_   ? 1
              : joined_ ? w.axes[0].taps
                        : taps_of(w)) {
    const Index outputs = min(row_block, outputs_of(w));
    rows_ = static_cast<const T**>(work);
    zeros_ = reinterpret_cast<T*>(static_cast<char*>(work) + pointers(w, outputs));
    copies_ = zeros_ + padded(zeros(w));
    for (Index i = 0; i < zeros(w); ++i) zeros_[i] = T(0);
  }

  static Index bytes(const Windows& w) {
    const Index outputs = min(row_block, outputs_of(w));
    return pointers(w, outputs) +
           Index(sizeof(T)) * padded(padded(zeros(w)) + outputs * taps_of(w) * w.channels);
  }

  void find(Index first, Index n) {
    n_ = n;
    WindowPlace place(w_, first);
    T* copy = copies_;
    for (Index i = 0; i < n; ++i, place.next(w_)) {
      if (copied_) {
        rows_[i] = copy;
        copy = each_line(place, copy, [&](Index, const T* run, T* to) {
          if (run != to) copy_run(run, w_.axes[1].taps * w_.channels, to);
          return true;
        });
      } else if (joined_) {
        copy = each_line(place, copy, [&](Index line, const T* run, T* to) {
          rows_[line * n + i] = run;
          return run == to;
        });
      } else {
        for_each_tap(w_, place,
                     [&](Index tap, Index at) { rows_[tap * n + i] = at < 0 ? zeros_ : x_ + at; });
      }
    }
  }

  /// On to the channels of the next group.
  void advance(Index channels) {
    for (Index i = 0; i < runs_ * n_; ++i) rows_[i] += channels;
  }

  Gathered<T> rows() const { return {rows_, columns_, runs_, n_}; }
  /// Of one run.
  const T* const* run(Index r) const { return rows_ + r * n_; }
  Index runs() const { return runs_; }
  Index columns() const { return columns_; }

private:
  /// A product of fewer numbers than these is sooner done from a copy of the whole window.
  static constexpr Index short_run = 16;

  static bool joins(const Windows& w, Index groups) { return groups == 1 && w.axes[1].dilation == 1; }
  static bool copies(const Windows& w, Index groups, bool narrow) {
    if (groups > 1 || taps_of(w) == 1) return false;
    return (joins(w, groups) ? w.axes[1].taps : 1) * w.channels < short_run || (narrow && w.channels % 2);
  }
  static Index padded(Index numbers) { return ceil_div(numbers * sizeof(T), 64) * 64 / Index(sizeof(T)); }
  static Index pointers(const Windows& w, Index outputs) {
    return ceil_div(outputs * taps_of(w) * Index(sizeof(T*)), 64) * 64;
  }
  static Index zeros(const Windows& w) { return w.axes[1].taps * w.channels; }

  /// A few numbers: sooner done than asked of the library.
  static RNNCORE_INLINE void copy_run(const T* from, Index count, T* to) {
    for (Index i = 0; i < count; ++i) to[i] = from[i];
  }

  /// f(tap of the first axis, the numbers at the taps of the second, copy) for each line of a window. Where
  /// these reach beyond x they are put together at `copy`, which moves on if f returns true.
  template <class F>
  RNNCORE_INLINE T* each_line(const WindowPlace& place, T* copy, F f) {
    const WindowAxis &first = w_.axes[0], &second = w_.axes[1];
    const Index C = w_.channels, begin = place.b * second.stride - second.before;
    const bool inside = second.dilation == 1 && 0 <= begin && begin + second.taps <= second.size;
    for (Index ta = 0; ta < first.taps; ++ta) {
      const Index a = source(first, place.a, ta);
      const T* const line = x_ + (place.image * first.size + a) * second.size * C;
      if (!inside && a >= 0)
        for (Index tb = 0; tb < second.taps; ++tb) {
          const Index b = source(second, place.b, tb);
          copy_run(b < 0 ? zeros_ : line + b * C, C, copy + tb * C);
        }
      if (f(ta, a < 0 ? zeros_ : inside ? line + begin * C : copy, copy)) copy += second.taps * C;
    }
    return copy;
  }

  const Windows& w_;
  const T* const x_;
  const bool joined_, copied_;
  const Index columns_, runs_;
  Index n_ = 0;
  const T** rows_;
  T *zeros_, *copies_;
};

} // namespace rnncore::RNNCORE_LEVEL

// Windows over two axes, as runs of numbers that lie one after the other.
#pragma once

#include <type_traits>

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

/// The taps of an output that read along an axis. The others read zeros, which add nothing to a sum.
RNNCORE_INLINE Share reading(const WindowAxis& axis, Index output) {
  if (axis.padding != Padding::zeros) return Share(axis.taps);
  const Index at = output * axis.stride - axis.before; // of the first tap
  const Index begin = min(max(ceil_div(-at, axis.dilation), 0), axis.taps);
  return Share::of(begin, max(begin, min(ceil_div(axis.size - at, axis.dilation), axis.taps)));
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
  /// To the first output of the next line of outputs along the second axis.
  RNNCORE_INLINE void next_line(const Windows& w) {
    b = w.axes[1].outputs - 1;
    next(w);
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
/// What a thread does of the outputs begin .. end where an image belongs to one thread.
inline Share whole_images(const Windows& w, Index begin, Index end, const Team& team) {
  const Index each = max(w.axes[0].outputs * w.axes[1].outputs, 1), first = begin / each;
  const Share images(team, ceil_div(end, each) - first);
  return Share::of(max(begin, (first + images.begin) * each), min(end, (first + images.end) * each));
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
  /// `whole`: whether each window must be one run.
  WindowBlock(const Windows& w, Index groups, bool whole, const T* x, void* work)
      : w_(w), x_(x), joined_(joins(w, groups)), copied_(copies(w, groups, whole)),
        columns_((copied_   ? taps_of(w)
                  : joined_ ? w.axes[1].taps
                            : 1) *
                 w.channels / groups),
        runs_(copied_   ? 1
              : joined_ ? w.axes[0].taps
                        : taps_of(w)),
        skips_(!copied_ && !whole && w.axes[0].padding == Padding::zeros &&
               w.axes[0].before + w.axes[0].after > 0),
        inner_(inner(w.axes[1])) {
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

  /// How many outputs from `first` on, before `end`, are a block: along the first axis the same taps read
  /// x.
  Index reach(Index first, Index end) const {
    const Index most = min(row_block, end - first);
    if (!skips_) return most;
    WindowPlace place(w_, first);
    const Share taps = reading(w_.axes[0], place.a);
    Index n = w_.axes[1].outputs - place.b;
    for (; n < most; n += w_.axes[1].outputs) {
      place.next_line(w_);
      const Share next = reading(w_.axes[0], place.a);
      if (next.begin != taps.begin || next.end != taps.end) break;
    }
    return min(n, most);
  }

  void find(Index first, Index n) {
    n_ = n;
    read_ = Share(runs_);
    next_ = copies_;
    WindowPlace place(w_, first);
    if (skips_) {
      const Share taps = reading(w_.axes[0], place.a);
      const Index each = runs_ / w_.axes[0].taps;
      read_ = Share::of(taps.begin * each, taps.end * each);
    }
    if (joined_ || copied_)
      for (Index i = 0; i < n; place.next_line(w_))
        i += copied_ ? copy_line(place, i) : find_line(place, i);
    else
      for (Index i = 0; i < n; ++i, place.next(w_)) find_taps(place, i);
  }

  /// On to the channels of the next group.
  void advance(Index channels) {
    for (Index i = 0; i < runs_ * n_; ++i) rows_[i] += channels;
  }

  /// As they are, without runs of zeros, or made into what `Own` multiplies, in space for so many.
  template <class Own>
  auto rows(void* space, Index most) const {
    if constexpr (std::is_same_v<typename Own::Rows, Gathered<T>>) {
      return SegmentedRows<T>{run(read_.begin), columns_, read_.end - read_.begin, n_};
    } else {
      const auto rows = Own::Rows::of(rows_, columns_, space, most);
      for (Index i = 0; i < n_; ++i) rows.prepare(i);
      return rows;
    }
  }
  /// Of one run.
  const T* const* run(Index r) const { return rows_ + r * n_; }
  Index runs() const { return runs_; }
  /// Numbers of a window before those that are read.
  Index skipped() const { return read_.begin * columns_; }
  Index columns() const { return columns_; }

private:
  /// A product of fewer numbers than these is sooner done from a copy of the whole window.
  static constexpr Index short_run = vector_bytes == 64 ? 3 : 16;

  static bool joins(const Windows& w, Index groups) { return groups == 1 && w.axes[1].dilation == 1; }
  static bool copies(const Windows& w, Index groups, bool whole) {
    if (taps_of(w) == 1) return false;
    const Index run = (joins(w, groups) ? w.axes[1].taps : 1) * w.channels;
    return whole || (groups == 1 && run < short_run);
  }
  static Index padded(Index numbers) { return ceil_div(numbers * sizeof(T), 64) * 64 / Index(sizeof(T)); }
  static Index pointers(const Windows& w, Index outputs) {
    return ceil_div(outputs * taps_of(w) * Index(sizeof(T*)), 64) * 64;
  }
  static Index zeros(const Windows& w) { return w.axes[1].taps * w.channels; }

  /// A few numbers: sooner done than asked of the library.
  static RNNCORE_INLINE void copy_run(const T* from, Index count, T* to) {
    constexpr Index L = lanes<T>;
    if constexpr (vector_bytes == 64) { // masks cost nothing
      for (Index i = 0; i < count; i += L) store(to + i, load(from + i, count - i), count - i);
    } else {
      Index i = 0;
      for (; i + L <= count; i += L) store(to + i, load(from + i));
      for (; i < count; ++i) to[i] = from[i];
    }
  }

  /// As many runs, at equal distances; short ones by numbers of a size that the compiler knows.
  template <int M = lanes<T>>
  static void copy_runs(const T* from, Index step, Index run, T* to, Index window, Index count) {
    if (run > M) {
      for (Index i = 0; i < count; ++i) copy_run(from + i * step, run, to + i * window);
    } else if constexpr (M > 1) {
      if (run < M) return copy_runs<M - 1>(from, step, run, to, window, count);
      for (Index i = 0; i < count; ++i) std::memcpy(to + i * window, from + i * step, M * sizeof(T));
    } else {
      for (Index i = 0; i < count; ++i) to[i * window] = from[i * step];
    }
  }

  /// Outputs of a line along the second axis of which all taps lie in x, one after the other: these windows
  /// are at equal distances.
  static Share inner(const WindowAxis& axis) {
    const Index fits = axis.dilation == 1 ? axis.size + axis.before - axis.taps : -1;
    const Index begin = min(ceil_div(axis.before, axis.stride), axis.outputs);
    return Share::of(begin, max(begin, min(axis.outputs, fits < 0 ? 0 : fits / axis.stride + 1)));
  }

  /// The rest of a line of outputs, or of the block, and those of it that are inner.
  struct Line {
    Index count, end, begin, stop;

    Line(const WindowAxis& axis, const Share& inner, Index first, Index left) {
      count = min(left, axis.outputs - first);
      end = first + count;
      begin = min(max(first, inner.begin), end);
      stop = max(begin, min(end, inner.end));
    }
  };

  /// A line from row i on; returns how many rows it has.
  Index find_line(const WindowPlace& place, Index i) {
    const WindowAxis& second = w_.axes[1];
    const auto [count, end, begin, stop] = Line(second, inner_, place.b, n_ - i);
    const Index step = second.stride * w_.channels;
    const T** const rows = rows_ + i - place.b;
    for (Index ta = 0; ta < w_.axes[0].taps; ++ta) {
      const T* const line = line_of(place, ta);
      point(rows + ta * n_ + begin, stop - begin,
            line ? line + (begin * second.stride - second.before) * w_.channels : zeros_, line ? step : 0);
    }
    join(place, place.b, begin, rows);
    join(place, stop, end, rows);
    return count;
  }

  void find_taps(const WindowPlace& place, Index i) {
    for_each_tap(w_, place, [&](Index tap, Index at) { rows_[tap * n_ + i] = at < 0 ? zeros_ : x_ + at; });
  }

  /// The same, with a copy of each window.
  Index copy_line(const WindowPlace& place, Index i) {
    const WindowAxis& second = w_.axes[1];
    const auto [count, end, begin, stop] = Line(second, inner_, place.b, n_ - i);
    const Index run = second.taps * w_.channels, window = w_.axes[0].taps * run;
    T* const first = copies_ + i * window;
    for (Index ta = 0; ta < w_.axes[0].taps; ++ta) {
      const T* const line = line_of(place, ta);
      T* to = first + ta * run;
      Index b = place.b;
      for (; b < begin; ++b, to += window) copy_taps(line, b, reading(second, b), to);
      const T* from = line ? line + (begin * second.stride - second.before) * w_.channels : zeros_;
      const Index step = line ? second.stride * w_.channels : 0;
      copy_runs(from, step, run, to, window, stop - b);
      to += (stop - b) * window;
      b = stop;
      for (; b < end; ++b, to += window) copy_taps(line, b, reading(second, b), to);
    }
    for (Index r = 0; r < count; ++r) rows_[i + r] = first + r * window;
    return count;
  }

  /// The line of x that a tap of the first axis reads; null: zeros.
  const T* line_of(const WindowPlace& place, Index tap) const {
    const Index a = source(w_.axes[0], place.a, tap);
    return a < 0 ? nullptr : x_ + (place.image * w_.axes[0].size + a) * w_.axes[1].size * w_.channels;
  }

  /// Outputs that are not inner: the numbers at the taps of the second axis, put together.
  void join(const WindowPlace& place, Index begin, Index end, const T** rows) {
    for (Index b = begin; b < end; ++b) {
      const Share taps = reading(w_.axes[1], b);
      for (Index ta = 0; ta < w_.axes[0].taps; ++ta) {
        const T* const line = line_of(place, ta);
        rows[ta * n_ + b] = line ? next_ : zeros_;
        if (!line) continue;
        copy_taps(line, b, taps, next_);
        next_ += w_.axes[1].taps * w_.channels;
      }
    }
  }

  /// `taps`: those that read.
  void copy_taps(const T* line, Index output, const Share& taps, T* to) const {
    const WindowAxis& axis = w_.axes[1];
    const Index all = axis.taps * w_.channels;
    if (!line) return copy_run(zeros_, all, to);
    if (axis.padding == Padding::zeros && axis.dilation == 1) { // one run between zeros
      const Index begin = taps.begin * w_.channels, end = taps.end * w_.channels;
      copy_run(zeros_, all, to);
      return copy_run(line + (output * axis.stride - axis.before) * w_.channels + begin, end - begin,
                      to + begin);
    }
    for (Index tb = 0; tb < axis.taps; ++tb, to += w_.channels) {
      const Index b = source(axis, output, tb);
      copy_run(b < 0 ? zeros_ : line + b * w_.channels, w_.channels, to);
    }
  }

  const Windows& w_;
  const T* const x_;
  const bool joined_, copied_;
  const Index columns_, runs_;
  const bool skips_;
  const Share inner_;
  Index n_ = 0;
  Share read_ = Share(0); // runs, but for those of zeros alone
  const T** rows_;
  T *zeros_, *copies_, *next_;
};

} // namespace rnncore::RNNCORE_LEVEL

// The largest number or the mean of each window and channel.
#pragma once

#include <limits>

#include "pointwise.hpp"
#include "windows.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// Taps of an output that fall on an axis, or on its padding as well.
RNNCORE_INLINE Index counted(const WindowAxis& axis, Index output, bool padded) {
  Index count = 0;
  for (Index tap = 0; tap < axis.taps; ++tap) {
    const Index at = output * axis.stride + tap * axis.dilation - axis.before;
    count += padded ? at < axis.size + axis.after : 0 <= at && at < axis.size;
  }
  return count;
}

RNNCORE_INLINE Index counted(const Windows& w, const WindowPlace& place, bool padded) {
  return counted(w.axes[0], place.a, padded) * counted(w.axes[1], place.b, padded);
}

/// The larger of two, NaN if one of them is.
template <class T>
RNNCORE_INLINE Vec<T> larger(Vec<T> a, Vec<T> b) {
  return select_le(a, a, select_le(b, a, a, b), a);
}

template <class T>
void pool(const Pooling<T>& p, Team team) {
  const Windows& w = p.windows;
  const Index channels = w.channels;
  const Share rows(team, outputs_of(w));
  const Vec<T> nothing(p.largest ? -std::numeric_limits<T>::infinity() : T(0));
  WindowPlace place(w, rows.begin);
  for (Index r = rows.begin; r < rows.end; ++r, place.next(w)) {
    T* y = p.y + r * channels;
    bool first = true;
    for_each_tap(w, place, [&](Index, Index at) {
      if (at < 0) return;
      const T* x = p.x + at;
      if (first)
        for_each_vector(y, channels, [](Vec<T> v) RNNCORE_HOT { return v; }, x);
      else if (p.largest)
        for_each_vector(y, channels, [](Vec<T> a, Vec<T> b) RNNCORE_HOT { return larger(a, b); }, y, x);
      else
        for_each_vector(y, channels, [](Vec<T> a, Vec<T> b) RNNCORE_HOT { return a + b; }, y, x);
      first = false;
    });
    if (first) // all of it padding
      for_each_vector(y, channels, [=](Vec<T>) RNNCORE_HOT { return nothing; }, y);
    if (p.largest) continue;
    const Vec<T> count(T(counted(w, place, p.padded)));
    for_each_vector(y, channels, [=](Vec<T> v) RNNCORE_HOT { return v / count; }, y);
  }
}

/// To the first of the largest numbers, or to all alike; an image belongs to one thread.
template <class T>
void pool_backward(const Pooling<T>& p, Team team) {
  const Windows& w = p.windows;
  const Index each = w.axes[0].outputs * w.axes[1].outputs, channels = w.channels;
  const Share images(team, w.images);
  WindowPlace place(w, images.begin * each);
  for (Index r = images.begin * each; r < images.end * each; ++r, place.next(w)) {
    const T count = T(p.largest ? 1 : counted(w, place, p.padded));
    const T *dy = p.dy + r * channels, *y = p.y + r * channels;
    for (Index c = 0; c < channels; ++c) {
      bool wanted = true;
      for_each_tap(w, place, [&](Index, Index at) {
        if (at < 0 || !wanted) return;
        const T x = p.largest ? p.x[at + c] : T(0);
        if (p.largest && x != y[c] && x == x) return;
        p.dx[at + c] += dy[c] / count;
        wanted = !p.largest;
      });
    }
  }
}

} // namespace rnncore::RNNCORE_LEVEL

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

template <class T>
void pool(const Pooling<T>& p, Team team) {
  const Windows& w = p.windows;
  const Index channels = w.channels;
  const Share rows = Share::of(p.begin, p.end).part(team);
  const Vec<T> nothing(p.largest ? -std::numeric_limits<T>::infinity() : T(0));
  if (rows.begin >= rows.end) return;
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

/// dx += dy at the first of the largest numbers of each channel.
template <class T>
void to_largest(const Pooling<T>& p, const WindowPlace& place, Index row) {
  constexpr Index most = 64; // channels at once
  const Index channels = p.windows.channels;
  for (Index c = 0; c < channels; c += most) {
    const Index n = min(most, channels - c);
    const T *dy = p.dy + row * channels + c, *y = p.y + row * channels + c;
    bool given[most] = {};
    for_each_tap(p.windows, place, [&](Index, Index at) {
      if (at < 0) return;
      const T* x = p.x + at + c;
      for (Index i = 0; i < n; ++i) {
        if (given[i] || !(x[i] == y[i] || x[i] != x[i])) continue;
        p.dx[at + c + i] += dy[i];
        given[i] = true;
      }
    });
  }
}

/// dx += dy / count at all taps.
template <class T>
void to_all(const Pooling<T>& p, const WindowPlace& place, Index row) {
  const Index channels = p.windows.channels;
  const Vec<T> count(T(counted(p.windows, place, p.padded)));
  for_each_tap(p.windows, place, [&](Index, Index at) {
    if (at < 0) return;
    T* dx = p.dx + at;
    for_each_vector(
        dx, channels, [=](Vec<T> a, Vec<T> d) RNNCORE_HOT { return a + d / count; },
        static_cast<const T*>(dx), p.dy + row * channels);
  });
}

template <class T>
void pool_backward(const Pooling<T>& p, Team team) {
  const Share rows = whole_images(p.windows, p.begin, p.end, team);
  if (rows.begin >= rows.end) return;
  WindowPlace place(p.windows, rows.begin);
  for (Index r = rows.begin; r < rows.end; ++r, place.next(p.windows))
    p.largest ? to_largest(p, place, r) : to_all(p, place, r);
}

} // namespace rnncore::RNNCORE_LEVEL

// Windows to test with: axes of all kinds, and what each tap reads, by walking the padded axis.
#pragma once

#include <memory>
#include <new>
#include <vector>

#include "kernels/windows.hpp"

namespace rnncore::RNNCORE_LEVEL {

inline WindowAxis axis_of(Index size, Index taps, Index stride = 1, Index dilation = 1, Index before = 0,
                          Index after = 0, Padding padding = Padding::zeros) {
  const Index room = size + before + after - dilation * (taps - 1) - 1;
  return {size, room < 0 ? 0 : room / stride + 1, taps, stride, dilation, before, after, padding};
}

/// An axis no window slides along.
inline WindowAxis still(Index size) { return axis_of(size, 1); }

inline std::vector<WindowAxis> axes_to_test() {
  return {still(1),
          still(5),
          axis_of(7, 3),
          axis_of(2, 3), // too short for a window
          axis_of(0, 2, 1, 1, 1, 1),
          axis_of(6, 2, 3),
          axis_of(6, 3, 2, 1, 1, 2),
          axis_of(6, 2, 1, 3, 2, 4),
          axis_of(3, 2, 1, 1, 5, 4),
          axis_of(5, 3, 1, 1, 2, 2, Padding::reflect),
          axis_of(4, 2, 2, 2, 3, 1, Padding::reflect),
          axis_of(3, 3, 1, 1, 4, 4, Padding::replicate)};
}

/// Where the taps of each output read along an axis, -1 for a zero: step by step over the padded axis.
inline std::vector<Index> places_of(const WindowAxis& axis) {
  std::vector<Index> line;
  for (Index i = axis.before; i > 0; --i)
    line.push_back(axis.padding == Padding::zeros ? -1 : axis.padding == Padding::reflect ? i : 0);
  for (Index i = 0; i < axis.size; ++i) line.push_back(i);
  for (Index i = 1; i <= axis.after; ++i)
    line.push_back(axis.padding == Padding::zeros     ? -1
                   : axis.padding == Padding::reflect ? axis.size - 1 - i
                                                      : axis.size - 1);
  std::vector<Index> places;
  for (Index output = 0; output < axis.outputs; ++output)
    for (Index tap = 0; tap < axis.taps; ++tap) {
      const std::size_t at = std::size_t(output * axis.stride + tap * axis.dilation);
      places.push_back(at < line.size() ? line[at] : -1);
    }
  return places;
}

/// Which number of x each tap of each output reads, or -1.
class Numbers {
public:
  explicit Numbers(const Windows& w) : taps_(taps_of(w)) {
    const WindowAxis &first = w.axes[0], &second = w.axes[1];
    const std::vector<Index> lines = places_of(first), places = places_of(second);
    for (Index image = 0; image < w.images; ++image)
      for (Index a = 0; a < first.outputs; ++a)
        for (Index b = 0; b < second.outputs; ++b)
          for (Index tap = 0; tap < taps_; ++tap) {
            const Index line = lines[a * first.taps + tap / second.taps];
            const Index place = places[b * second.taps + tap % second.taps];
            const bool inside = line >= 0 && place >= 0;
            at_.push_back(inside ? ((image * first.size + line) * second.size + place) * w.channels : -1);
          }
  }
  Index operator()(Index row, Index tap) const { return at_[row * taps_ + tap]; }

private:
  Index taps_;
  std::vector<Index> at_;
};

inline Index inputs_of(const Windows& w) { return w.images * w.axes[0].size * w.axes[1].size * w.channels; }

/// Memory as kernels want it, and not a byte more, so that a sanitizer sees what is beyond.
struct Freed {
  void operator()(char* space) const { ::operator delete(space, std::align_val_t(64)); }
};
inline std::unique_ptr<char, Freed> space_of(Index bytes) {
  const std::size_t whole = std::size_t(bytes + 63) / 64 * 64;
  return std::unique_ptr<char, Freed>(static_cast<char*>(::operator new(whole, std::align_val_t(64))));
}

/// The team's members one after the other: kernels that wait for nobody.
template <class F>
void as_team(Index size, F f) {
  for (Index rank = 0; rank < size; ++rank) f(Team{rank, size, [](void*) {}, nullptr});
}

} // namespace rnncore::RNNCORE_LEVEL

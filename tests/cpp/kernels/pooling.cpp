// Pooling against plain loops: ties, NaN, windows that reach beyond the ends, pieces and threads.
#include "kernels/pooling.hpp"

#include "../windows.hpp"
#include "check.hpp"
#include "numbers.hpp"

namespace rnncore::RNNCORE_LEVEL {
namespace {

template <class T>
struct Pooled {
  std::vector<T> y, dx;
};

template <class T>
Pooled<T> pooled(const Windows& w, bool largest, bool padded, const std::vector<T>& x,
                 const std::vector<T>& dy, Index piece, Index threads) {
  const Index rows = outputs_of(w);
  Pooled<T> to{std::vector<T>(std::size_t(rows * w.channels)), std::vector<T>(x.size(), T(1))};
  const auto in_pieces = [&](auto f) {
    for (Index begin = 0; begin < rows; begin += piece)
      as_team(threads, [&](const Team& team) {
        f(Pooling<T>{w, largest, padded, x.data(), to.y.data(), begin, min(begin + piece, rows), dy.data(),
                     to.dx.data()},
          team);
      });
  };
  in_pieces([](const Pooling<T>& p, const Team& team) { pool(p, team); });
  in_pieces([](const Pooling<T>& p, const Team& team) { pool_backward(p, team); });
  return to;
}

/// Whether a tap is on the padded axis.
bool counts(const WindowAxis& axis, Index output, Index tap) {
  return output * axis.stride + tap * axis.dilation < axis.before + axis.size + axis.after;
}

template <class T>
Pooled<T> expected(const Windows& w, bool largest, bool padded, const std::vector<T>& x,
                   const std::vector<T>& dy) {
  Pooled<T> to{{}, std::vector<T>(x.size(), T(1))};
  const Numbers number(w);
  const WindowAxis &first = w.axes[0], &second = w.axes[1];
  for (Index r = 0; r < outputs_of(w); ++r)
    for (Index c = 0; c < w.channels; ++c) {
      T all = largest ? -std::numeric_limits<T>::infinity() : T(0);
      Index best = -1, count = 0;
      for (Index tap = 0; tap < taps_of(w); ++tap) {
        const Index at = number(r, tap);
        count += padded ? counts(first, r / second.outputs % first.outputs, tap / second.taps) &&
                              counts(second, r % second.outputs, tap % second.taps)
                        : at >= 0;
        if (at < 0) continue;
        const T v = x[at + c];
        if (!largest)
          all += v;
        else if (best < 0 || v > all || (v != v && all == all))
          all = v, best = at + c;
      }
      const T d = dy[r * w.channels + c];
      to.y.push_back(largest ? all : all / T(count));
      if (largest && best >= 0) to.dx[best] += d;
      for (Index tap = 0; !largest && tap < taps_of(w); ++tap)
        if (const Index at = number(r, tap); at >= 0) to.dx[at + c] += d / T(count);
    }
  return to;
}

template <class T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {
  bool all = a.size() == b.size();
  for (std::size_t i = 0; all && i < a.size(); ++i) all = a[i] == b[i] || (a[i] != a[i] && b[i] != b[i]);
  return all;
}

template <class T>
void check(const Windows& w, bool largest, bool padded, bool nan) {
  std::vector<T> x = whole_numbers<T>(inputs_of(w), 1); // with many that are equal
  for (std::size_t i = 2; nan && i < x.size(); i += 7) x[i] = std::numeric_limits<T>::quiet_NaN();
  const std::vector<T> dy = whole_numbers<T>(outputs_of(w) * w.channels, 2);
  const Pooled<T> want = expected(w, largest, padded, x, dy);
  for (const auto& [piece, threads] :
       {std::pair(Index(1) << 30, Index(1)), std::pair(Index(5), Index(3))}) {
    const Pooled<T> got = pooled(w, largest, padded, x, dy, piece, threads);
    CHECK(same(got.y, want.y), "y of %td channels, largest %d, padded %d", w.channels, largest, padded);
    CHECK(same(got.dx, want.dx), "dx of %td channels, largest %d, padded %d", w.channels, largest, padded);
  }
}

template <class T>
void test() {
  for (const WindowAxis& first : axes_to_test())
    for (const WindowAxis& second : axes_to_test()) {
      if (first.padding != Padding::zeros || second.padding != Padding::zeros) continue;
      for (const Index channels : {1, 5})
        for (const bool nan : {false, true}) {
          check<T>({2, channels, {first, second}}, true, false, nan);
          check<T>({2, channels, {first, second}}, false, true, nan);
        }
    }
  WindowAxis cut = axis_of(7, 3, 2, 1, 1, 1);
  ++cut.outputs; // a last window that the end cuts short
  for (const Index channels : edge_sizes<T>())
    for (const bool padded : {false, true}) {
      check<T>({2, channels, {still(2), cut}}, true, padded, false);
      check<T>({2, channels, {cut, axis_of(5, 2, 2, 1, 1, 0)}}, false, padded, false);
    }
  check<T>({1, 150, {still(1), axis_of(9, 3)}}, true, false, true); // more than go back at once
}

} // namespace

void test_pooling() {
  test<float>();
  test<double>();
}

} // namespace rnncore::RNNCORE_LEVEL

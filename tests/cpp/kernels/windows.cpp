// Windows as runs of numbers: every kind of axis, width and group, in blocks that begin anywhere.
#include "../windows.hpp"

#include "check.hpp"
#include "numbers.hpp"

namespace rnncore::RNNCORE_LEVEL {
namespace {

void sources(const WindowAxis& axis) {
  const std::vector<Index> places = places_of(axis);
  for (Index output = 0; output < axis.outputs; ++output)
    for (Index tap = 0; tap < axis.taps; ++tap) {
      const Index got = source(axis, output, tap), want = places[output * axis.taps + tap];
      CHECK(got == want, "output %td, tap %td: %td, not %td", output, tap, got, want);
    }
}

void places(const Windows& w) {
  const Numbers number(w);
  Index row = 0;
  for (WindowPlace place(w, 0); row < outputs_of(w); ++row, place.next(w)) {
    const WindowPlace again(w, row);
    CHECK(place.image == again.image && place.a == again.a && place.b == again.b, "output %td", row);
    for_each_tap(w, place, [&](Index tap, Index at) {
      CHECK(at == number(row, tap), "output %td, tap %td: %td, not %td", row, tap, at, number(row, tap));
    });
  }
}

/// The numbers of all windows of a block, group by group.
template <class T>
void blocks(const Windows& w, Index groups, bool whole) {
  const std::vector<T> x = counted<T>(inputs_of(w));
  const Numbers number(w);
  const auto work = space_of(WindowBlock<T>::bytes(w));
  WindowBlock<T> block(w, groups, whole, x.data(), work.get());
  const Index each = w.channels / groups, columns = taps_of(w) * each;
  CHECK(block.runs() * block.columns() == columns, "%td runs of %td", block.runs(), block.columns());
  CHECK(!whole || block.runs() == 1, "%td runs", block.runs());
  for (Index first = 0; first < outputs_of(w); first += 5) {
    const Index n = min(row_block, outputs_of(w) - first);
    block.find(first, n);
    for (Index g = 0; g < groups; ++g) {
      if (g) block.advance(each);
      for (Index i = 0; i < n; ++i)
        for (Index k = 0; k < columns; ++k) {
          const Index at = number(first + i, k / each);
          const T want = at < 0 ? T(0) : x[at + g * each + k % each];
          const T got = block.run(k / block.columns())[i][k % block.columns()];
          CHECK(got == want, "%td channels, group %td, output %td, number %td: %g, not %g", w.channels, g,
                first + i, k, double(got), double(want));
        }
    }
  }
}

/// What a block leaves out of its windows are zeros, and along the first axis all of them.
template <class T>
void skips(const Windows& w, Index groups) {
  const std::vector<T> x = counted<T>(inputs_of(w));
  const Numbers number(w);
  const auto work = space_of(WindowBlock<T>::bytes(w));
  WindowBlock<T> block(w, groups, false, x.data(), work.get());
  const Index each = w.channels / groups, columns = taps_of(w) * each, lines = w.axes[1].taps * each;
  const bool whole = block.runs() == 1 && taps_of(w) > 1;
  for (Index first = 0, n; first < outputs_of(w); first += n) {
    n = block.reach(first, outputs_of(w));
    CHECK(1 <= n && n <= row_block, "%td outputs from %td on", n, first);
    block.find(first, n);
    const auto rows = block.template rows<Arithmetic<T, T>>(nullptr, n);
    const Index begin = block.skipped(), end = begin + rows.all_columns();
    for (Index i = 0; i < n; ++i)
      for (Index k = 0; k < columns; ++k)
        CHECK((begin <= k && k < end) || number(first + i, k / each) < 0, "output %td lacks number %td",
              first + i, k);
    const WindowPlace place(w, first);
    for (Index tap = 0; !whole && tap < w.axes[0].taps; ++tap)
      CHECK(source(w.axes[0], place.a, tap) >= 0 || tap * lines < begin || end <= tap * lines,
            "output %td: tap %td is not left out", first, tap);
  }
}

/// Each output falls to one thread, and each image.
void shares(const Windows& w, Index begin, Index end, Index threads) {
  const Index each = max(w.axes[0].outputs * w.axes[1].outputs, 1);
  Index next = begin, image = -1;
  as_team(threads, [&](const Team& team) {
    const Share share = whole_images(w, begin, end, team);
    if (share.begin >= share.end) return;
    CHECK(share.begin == next, "%td .. %td of %td threads: %td, not %td", begin, end, threads, share.begin,
          next);
    CHECK(share.begin / each > image, "an image falls to two threads");
    next = share.end;
    image = (share.end - 1) / each;
  });
  CHECK(next == end, "%td .. %td of %td threads end at %td", begin, end, threads, next);
}

template <class T>
void test() {
  const std::vector<WindowAxis> axes = axes_to_test();
  for (const WindowAxis& first : axes)
    for (const WindowAxis& second : axes)
      for (const Index channels : {1, 2, 3, 6, 16, 18}) {
        const Windows w{2, channels, {first, second}};
        for (const bool whole : {false, true}) blocks<T>(w, 1, whole);
        for (const Index groups : {1, 2, 3}) {
          if (channels % groups) continue;
          skips<T>(w, groups);
          if (groups > 1) blocks<T>(w, groups, false);
        }
      }
}

} // namespace

void test_windows() {
  for (const WindowAxis& first : axes_to_test()) {
    sources(first);
    for (const WindowAxis& second : axes_to_test()) places({3, 5, {first, second}});
  }
  const Windows w{5, 1, {axis_of(4, 2), axis_of(3, 1)}}; // 9 outputs an image
  for (Index begin = 0; begin <= 45; ++begin)
    for (Index end = begin; end <= 45; ++end)
      for (const Index threads : {1, 2, 3, 7}) shares(w, begin, end, threads);
  test<float>();
  test<double>();
}

} // namespace rnncore::RNNCORE_LEVEL

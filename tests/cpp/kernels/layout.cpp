// How things are divided: into parts, panels and shares, with nothing left out and nothing twice.
#include "kernels/layout.hpp"

#include "check.hpp"
#include "numbers.hpp"

namespace rnncore::RNNCORE_LEVEL {
namespace {

void one_after_the_other(const EqualParts& parts, Index n, Index most) {
  Index begin = 0;
  for (Index p = 0; p < parts.count; ++p) {
    CHECK(parts.begin(p) == begin, "part %td of %td in parts of %td", p, n, most);
    CHECK(parts.size(p) > 0 && parts.size(p) <= most, "part %td of %td: %td", p, n, parts.size(p));
    CHECK(parts.size(p) <= parts.size(0) && parts.size(p) + 1 >= parts.size(0), "%td in %td", n, most);
    begin += parts.size(p);
  }
  CHECK(begin == n, "%td of %td in parts of %td", begin, n, most);
}

void parts() {
  for (Index n = 0; n <= 40; ++n)
    for (Index most = 1; most <= 9; ++most) {
      const EqualParts fewest(n, most), even = EqualParts::even(n, most);
      one_after_the_other(fewest, n, most);
      one_after_the_other(even, n, most);
      CHECK((fewest.count - 1) * most < n || n == 0, "%td parts of %td", fewest.count, n);
      CHECK(even.count - fewest.count <= 1, "%td parts of %td", even.count, n);
      CHECK(n < 4 || even.count == n || even.count % 2 == 0, "%td parts of %td", even.count, n);
    }
}

void shares() {
  for (Index n = 0; n <= 20; ++n)
    for (Index size = 1; size <= 7; ++size) {
      Index end = 0;
      for (Index rank = 0; rank < size; ++rank) {
        const Share share(Team{rank, size, nullptr, nullptr}, n);
        CHECK(share.begin == end, "%td of %td, %td things", rank, size, n);
        CHECK((share.end - share.begin) * size <= n + size, "%td of %td, %td things", rank, size, n);
        end = share.end;
      }
      CHECK(end == n, "%td of %td things", end, n);
    }
}

template <class T>
void panels() {
  constexpr Index L = lanes<T>;
  for (Index columns = 1; columns <= 12 * L; ++columns)
    for (Index most = 1; most <= widest; ++most) {
      const Panels<T> panels(columns, most);
      Index before = 0, in_runs = 0;
      for (Index p = 0; p < panels.count(); ++p) {
        CHECK(panels.columns_before(p) == min(before, columns), "%td columns, panel %td", columns, p);
        before += panels.width(p) * L;
      }
      CHECK(before == panels.padded() && before >= columns && before - columns < L, "%td columns", columns);
      CHECK(panels.columns_before(panels.count()) == columns, "%td columns", columns);
      panels.for_each_run(0, panels.count(), [&](Index begin, Index end) {
        CHECK(begin == in_runs, "%td columns, a run from panel %td", columns, begin);
        for (Index p = begin; p < end; ++p) CHECK(panels.width(p) == panels.width(begin), "panel %td", p);
        in_runs = end;
      });
      CHECK(in_runs == panels.count(), "%td panels in runs", in_runs);
      Index valid = 0;
      for (Index v = 0; v < panels.vectors.n; ++v) valid += panels.valid(v);
      CHECK(valid == columns, "%td of %td columns in vectors", valid, columns);
      for (Index v = 0; v <= panels.vectors.n; ++v) {
        Index p = 0;
        while (p < panels.count() && panels.first(p) < v) ++p;
        CHECK(panels.from(v) == p, "the panel of vector %td", v);
      }
    }
}

} // namespace

void test_layout() {
  parts();
  shares();
  panels<float>();
  panels<double>();
}

} // namespace rnncore::RNNCORE_LEVEL

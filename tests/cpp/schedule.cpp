// Batches and forests as schedules, against going through each sequence and tree by itself.
#include "engine/schedule.hpp"

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "check.hpp"

namespace rnncore {
namespace {

using Lengths = std::vector<int64_t>;

/// Everybody is in one part; parts are equal in number, each with its longest first.
void splits(const Lengths& lengths, Index parts) {
  const Index batch = Index(lengths.size());
  const Split split(batch, lengths.data(), parts);
  std::vector<int> seen(batch);
  int64_t least = batch ? INT64_MAX : 0, most = 0, longest = 0;
  for (Index p = 0; p < parts; ++p) {
    CHECK(split.size(p) == (p + 1) * batch / parts - p * batch / parts, "part %td has %td", p,
          split.size(p));
    int64_t work = 0;
    for (Index i = 0; i < split.size(p); ++i) {
      const int32_t b = split.begin(p)[i];
      ++seen[b];
      work += lengths[b];
      longest = std::max(longest, lengths[b]);
      CHECK(i == 0 || lengths[split.begin(p)[i - 1]] >= lengths[b], "part %td, sequence %d", p, b);
    }
    least = std::min(least, work);
    most = std::max(most, work);
  }
  for (Index b = 0; b < batch; ++b) CHECK(seen[b] == 1, "sequence %td is in parts %d times", b, seen[b]);
  if (batch % std::max<Index>(parts, 1) == 0)
    CHECK(most - least <= 2 * longest, "parts of %lld and %lld", (long long)least, (long long)most);
}

/// `every`: rows of a number that is a multiple of it are those of steps at which sequences start anew; 0:
/// none are.
/// `apart`: sequence b continues state 2 b + 1, else b.
void sequences(const Lengths& lengths, Index time, bool batch_first, bool reversed, bool given, Index every,
               bool apart = false) {
  const Index batch = Index(lengths.size());
  const Grid grid{time, batch, batch_first};
  const auto length = [&](Index b) { return given ? Index(lengths[b]) : time; };
  std::vector<int32_t> members(batch); // the longest first
  for (Index b = 0; b < batch; ++b) members[b] = int32_t(b);
  std::stable_sort(members.begin(), members.end(),
                   [&](int32_t a, int32_t b) { return length(a) > length(b); });
  const std::unique_ptr<bool[]> resets(new bool[time * batch]);
  for (Index r = 0; r < time * batch; ++r) resets[r] = every && r % every == 0;
  const auto state = [&](Index b) { return apart ? 2 * b + 1 : b; };
  std::vector<int32_t> states(batch);
  for (Index b = 0; b < batch; ++b) states[b] = int32_t(state(b));
  const OwnSchedule own(grid, given ? lengths.data() : nullptr, reversed, members.data(), batch,
                        every ? resets.get() : nullptr, apart ? states.data() : nullptr);
  const Schedule s = own.view();
  Index nodes = 0;
  std::vector<Index> steps(batch);
  for (Index w = 0; w < s.waves; ++w) {
    CHECK(s.begin[w] == nodes && s.begin[w + 1] > nodes, "wave %td begins at %td", w, s.begin[w]);
    for (Index n = s.begin[w]; n < s.begin[w + 1]; ++n, ++nodes) {
      const Index b = apart ? s.sequence[n] / 2 : s.sequence[n], t = steps[b]++;
      CHECK(s.sequence[n] == state(b), "node %td of state %d", n, s.sequence[n]);
      CHECK(t == w && t < length(b), "step %td of sequence %td in wave %td", t, b, w);
      const auto row = [&](Index step) {
        const Index at = reversed ? length(b) - 1 - step : step;
        return batch_first ? b * time + at : at * batch + b;
      };
      CHECK(s.row[n] == row(t) && s.x_row[n] == row(t), "step %td of sequence %td at row %d", t, b,
            s.row[n]);
      const bool anew = reversed ? t && resets[row(t - 1)] : resets[row(t)];
      const int32_t prev = anew ? no_predecessor : int32_t(t ? row(t - 1) : ~state(b));
      CHECK(s.prev[n] == prev, "step %td of sequence %td continues %d", t, b, s.prev[n]);
    }
  }
  CHECK(nodes == s.nodes && nodes == s.begin[s.waves], "%td of %td nodes", nodes, s.nodes);
  for (Index b = 0; b < batch; ++b) CHECK(steps[b] == length(b), "%td steps of sequence %td", steps[b], b);
  Index ends = 0;
  own.for_each_last_row([&](Index to, Index row) {
    const Index b = apart ? to / 2 : to;
    const Index last = length(b) - 1, at = reversed ? 0 : last;
    CHECK(row == (last < 0 ? -1 : grid.row(at, b)), "sequence %td ends at row %td", b, row);
    ++ends;
  });
  CHECK(s.restarts == (every > 0), "every %td", every);
  CHECK(ends == batch && s.readers == nodes && !s.forest && s.leaves == 0, "%td ends", ends);
}

/// Two trees: ((0 1) 2) and, from row 5 on, a chain of three; waves of at most `most` nodes.
void forest(Index most, bool leaves_read) {
  const int64_t begin[] = {0, 5, 8};
  const int32_t wave[] = {0, 0, 1, 0, 2, 0, 1, 2}, N = no_predecessor;
  const int32_t prev[] = {N, N, 0, N, 2, N, 5, 6, /* and the second of each: */ N, N, 1, N, 3, N, N, N};
  const Forest f{2, 8, 2, begin, wave, prev, nullptr, leaves_read, false};
  for (const auto& [first, last, leaves_before] : {std::array<Index, 3>{0, 8, 0}, {0, 5, 0}, {5, 8, 3}}) {
    const OwnSchedule own(f, first, last, leaves_before, most);
    const Schedule s = own.view();
    std::vector<Index> place(8, -1);
    Index nodes = 0, leaves = 0;
    for (Index w = 0; w < s.waves; ++w) {
      CHECK(s.begin[w + 1] - s.begin[w] <= most, "%td nodes in wave %td", s.begin[w + 1] - s.begin[w], w);
      for (Index n = s.begin[w]; n < s.begin[w + 1]; ++n, ++nodes) {
        const Index r = s.row[n];
        CHECK(r >= first && r < last && place[r] < 0, "row %td in wave %td", r, w);
        CHECK(wave[r] == wave[s.row[s.begin[w]]], "row %td is in the wave of row %d", r, s.row[s.begin[w]]);
        for (Index k = 0; k < 2; ++k) {
          const int32_t before = prev[k * 8 + r];
          CHECK(s.prev[k * s.nodes + n] == before, "row %td continues %d", r, s.prev[k * s.nodes + n]);
          CHECK(before == N || place[before] < s.begin[w], "row %td comes before row %d", r, before);
        }
        if (wave[r] == 0) CHECK(s.x_row[n] == (leaves_read ? leaves_before + leaves : r), "leaf %td", r);
        leaves += wave[r] == 0;
        place[r] = n;
      }
    }
    CHECK(nodes == last - first && nodes == s.nodes, "%td nodes", nodes);
    CHECK(s.forest && s.leaves == leaves && s.readers == (leaves_read ? leaves : nodes) && s.given == 0,
          "%td leaves", leaves);
  }
}

} // namespace

void test_schedule() {
  const Lengths all[] = {{}, {1}, {0}, {4, 4, 4}, {3, 0, 4, 1, 1, 4, 2}, {2, 9, 9, 1, 5, 5, 5, 3}};
  for (const Lengths& lengths : all) {
    for (Index parts = 1; parts <= 4; ++parts) splits(lengths, parts);
    for (const Index time : {9, 12})
      for (const bool batch_first : {false, true})
        for (const bool reversed : {false, true})
          for (const bool given : {false, true})
            for (const Index every : {0, 1, 3, 7}) {
              sequences(lengths, time, batch_first, reversed, given, every);
              sequences(lengths, time, batch_first, reversed, given, every, true);
            }
  }
  for (const Index most : {1, 2, 100})
    for (const bool leaves_read : {false, true}) forest(most, leaves_read);
}

} // namespace rnncore

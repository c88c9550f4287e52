// Chunks of waves and shares of columns: all of them once, none larger than there is room for.
#include "kernels/walk.hpp"

#include <cstdint>

#include "check.hpp"
#include "numbers.hpp"

namespace rnncore::RNNCORE_LEVEL {
namespace {

/// As the gated cells have it: four gates, by one product of x and one of h.
constexpr Plan gated() {
  Plan plan{4, 4};
  plan.input[0] = plan.recurrent[0].window = {0, 4, {0, 1, 2, 3}};
  return plan;
}
constexpr Plan four_gates = gated();

/// Waves of these sizes, with `prevs` predecessors of each node if they are counted.
struct Waves {
  std::vector<Index> begin = {0};
  std::vector<int32_t> edges = {0};

  Waves(const std::vector<Index>& sizes, Index prevs) {
    for (const Index size : sizes) begin.push_back(begin.back() + size);
    for (Index n = 0; n < begin.back(); ++n) edges.push_back(int32_t(edges.back() + (n % 3) * prevs));
  }
  Schedule schedule(bool counted_edges, bool stepped) const {
    Schedule s{};
    s.waves = Index(begin.size()) - 1;
    s.nodes = begin.back();
    s.begin = begin.data();
    s.edges = counted_edges ? edges.data() : nullptr;
    s.stepped = stepped;
    return s;
  }
};

template <class T>
void chunks(const Layout<T>& at, const Schedule& s) {
  const Index nodes = chunk_nodes(at);
  CHECK(nodes >= least_chunk, "%td nodes", nodes);
  Index end = 0, most_edges = 0;
  while (end < s.waves) {
    const Chunk chunk = chunk_at(at, s, end);
    CHECK(chunk.wave == end && chunk.end > end, "waves %td .. %td after %td", chunk.wave, chunk.end, end);
    CHECK(chunk.node == s.begin[chunk.wave], "node %td of wave %td", chunk.node, chunk.wave);
    CHECK(chunk.node + chunk.rows == s.begin[chunk.end], "%td rows of wave %td", chunk.rows, chunk.wave);
    CHECK(chunk.rows <= chunk_rows(at, s), "%td rows, at most %td", chunk.rows, chunk_rows(at, s));
    if (s.edges) most_edges = max(most_edges, s.edges[chunk.node + chunk.rows] - s.edges[chunk.node]);
    for (Index w = chunk.wave; w < chunk.end; ++w) {
      const Chunk same = chunk_at(at, s, w);
      CHECK(same.wave == chunk.wave && same.end == chunk.end, "wave %td is in two chunks", w);
      // Waves are in one chunk if as many multiples of `nodes` lie before them.
      CHECK(s.stepped || s.begin[w] / nodes == chunk.node / nodes, "wave %td is in chunk %td", w,
            chunk.wave);
    }
    CHECK(!s.stepped || chunk.end == end + 1, "%td waves at a step", chunk.end - end);
    CHECK(s.stepped || chunk.end == s.waves || s.begin[chunk.end] / nodes != chunk.node / nodes,
          "a cut before wave %td", chunk.end);
    end = chunk.end;
  }
  CHECK(chunk_edges(at, s) == (s.edges ? most_edges : chunk_rows(at, s) * at.shape.arity), "%td edges",
        chunk_edges(at, s));
}

/// All columns of units, gates and states fall to one thread each; gates to the thread of their units.
template <class T>
void columns(Index hidden, Index output, Index size) {
  const Layout<T> at(four_gates, {3, hidden, output});
  Index units = 0, panels = 0, states = 0;
  for (Index rank = 0; rank < size; ++rank) {
    const Columns<T> mine(at, Team{rank, size, nullptr, nullptr});
    CHECK(mine.units.begin == units && mine.panels.begin == panels && mine.states.begin == states,
          "%td of %td, %td hidden units", rank, size, hidden);
    units = mine.units.end;
    panels = mine.panels.end;
    states = mine.states.end;
    CHECK(at.hidden.columns_before(panels) == at.units.columns_before(units),
          "%td of %td, %td hidden units", rank, size, hidden);
  }
  CHECK(units == at.units.count() && panels == at.hidden.count() && states == at.states.count(),
        "%td hidden units, %td threads", hidden, size);
}

template <class T>
void rows() {
  std::vector<T> y = counted<T>(20), first = counted<T>(20, 100);
  const Rows<T> of_y{y.data(), 5};
  const Rows<const T> of_first{first.data(), 4};
  CHECK(previous(of_y, of_first, 3) == y.data() + 15, "row %d", 3);
  CHECK(previous(of_y, of_first, 0) == y.data(), "row %d", 0);
  CHECK(previous(of_y, of_first, ~Index(2)) == first.data() + 8, "sequence %d", 2);
  CHECK(row_of(Rows<T>{nullptr, 5}, 3) == nullptr, "row %d of none", 3);
  const TapeView<T> tape{y.data(), 4, 2}; // of each of nodes 2 .. 5 one number, then three
  CHECK(tape.at(0, 1, 5) == y.data() + 3, "the last node's first region is at %td",
        tape.at(0, 1, 5) - y.data());
  CHECK(tape.at(1, 3, 3) == y.data() + 4 + 3, "node 3's second region is at %td",
        tape.at(1, 3, 3) - y.data());
}

void arena() {
  alignas(64) char room[1024];
  Arena measure(nullptr), own(room);
  char* before = room;
  for (const Index n : {0, 1, 15, 16, 17, 40}) {
    CHECK(measure.take<float>(n) == nullptr, "%td numbers are only measured", n);
    char* piece = reinterpret_cast<char*>(own.take<float>(n));
    CHECK(piece >= before && reinterpret_cast<std::uintptr_t>(piece) % 64 == 0, "%td numbers", n);
    before = piece + n * Index(sizeof(float));
    CHECK(measure.used() == own.used() && before <= room + own.used(), "%td numbers", n);
  }
}

template <class T>
void test() {
  const std::vector<std::vector<Index>> sizes = {
      {}, {1}, {5, 5, 3, 1}, std::vector<Index>(400, 1), std::vector<Index>(40, 60), {1000, 1, 999, 30, 2}};
  for (const auto& some : sizes)
    for (const Index hidden : {1, 70, 900})
      for (const bool counted_edges : {false, true})
        for (const bool stepped : {false, true})
          chunks(Layout<T>(four_gates, {3, hidden, hidden}),
                 Waves(some, 2).schedule(counted_edges, stepped));
  for (const Index hidden : edge_sizes<T>())
    for (Index size = 1; size <= 5; ++size) {
      columns<T>(hidden, hidden, size);
      columns<T>(hidden, (hidden + 2) / 3, size);
    }
  rows<T>();
}

} // namespace

void test_walk() {
  test<float>();
  test<double>();
  arena();
}

} // namespace rnncore::RNNCORE_LEVEL

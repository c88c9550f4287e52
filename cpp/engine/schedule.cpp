#include "schedule.hpp"

#include <algorithm>
#include <numeric>

namespace rnncore {

Split::Split(Index batch, const int64_t* lengths, Index parts) : parts_(parts), order_(batch) {
  std::iota(order_.begin(), order_.end(), 0);
  // Equal lengths stay in runs, so that threads do not write to the same cache lines.
  if (!lengths) return;
  std::stable_sort(order_.begin(), order_.end(),
                   [&](int32_t a, int32_t b) { return lengths[a] > lengths[b]; });
  if (parts == 1) return;
  // To and fro, so that nobody always gets the longer of two.
  const std::vector<int32_t> sorted = order_;
  std::vector<Index> taken(parts, 0);
  Index part = 0, step = 1;
  for (const int32_t sequence : sorted) {
    while (taken[part] == size(part)) part = (part + 1) % parts;
    order_[first(part) + taken[part]++] = sequence;
    if (part + step < 0 || part + step == parts)
      step = -step;
    else
      part += step;
  }
}

OwnSchedule::OwnSchedule(Grid grid, const int64_t* lengths, bool reversed, const int32_t* members,
                         Index count, const bool* resets, const int32_t* states)
    : count_(count) {
  const auto length = [&](Index i) { return lengths ? Index(lengths[members[i]]) : grid.time; };
  for (Index i = 0; i < count; ++i) nodes_ += length(i);
  const Index waves = count ? length(0) : 0;
  begin_.reserve(waves + 1);
  numbers_.resize(3 * nodes_ + 2 * count);
  int32_t *row = numbers_.data(), *sequence = row + nodes_, *prev = sequence + nodes_;
  int32_t *state = prev + nodes_, *last = state + count;
  for (Index i = 0; i < count; ++i) state[i] = states ? states[members[i]] : members[i];
  std::fill_n(last, count, -1);

  Index node = 0, running = count;
  for (Index wave = 0; wave < waves; ++wave) {
    begin_.push_back(node);
    while (running > 0 && length(running - 1) <= wave) --running;
    for (Index i = 0; i < running; ++i, ++node) {
      const int32_t b = members[i];
      row[node] = int32_t(grid.row(reversed ? length(i) - 1 - wave : wave, b));
      // Reversed, what starts anew is the step after which the sequence does so forward.
      const bool anew = resets && (reversed ? last[i] >= 0 && resets[last[i]] : resets[row[node]]);
      prev[node] = anew ? no_predecessor : last[i] < 0 ? ~state[i] : last[i];
      sequence[node] = state[i];
      last[i] = row[node];
    }
  }
  begin_.push_back(node);
  counts_.readers = nodes_;
  counts_.restarts = resets;
}

void OwnSchedule::become_step(Index count, const int32_t* states) {
  counts_ = {};
  counts_.readers = nodes_ = count_ = count;
  begin_.assign({0, count});
  numbers_.resize(5 * count);
  int32_t *row = numbers_.data(), *sequence = row + count, *prev = sequence + count, *state = prev + count;
  for (Index i = 0; i < count; ++i) {
    row[i] = int32_t(i);
    sequence[i] = state[i] = states ? states[i] : int32_t(i);
    prev[i] = ~sequence[i];
    state[count + i] = int32_t(i);
  }
}

OwnSchedule::OwnSchedule(const Forest& f, Index begin, Index end, Index leaves_before, Index most)
    : nodes_(end - begin), count_(0) {
  // Rows sorted by their waves, by counting; those of a wave stay in order.
  const auto last = std::max_element(f.wave + begin, f.wave + end);
  std::vector<Index> next(nodes_ ? *last + 2 : 1, 0);
  for (Index r = begin; r < end; ++r) ++next[f.wave[r] + 1];
  std::partial_sum(next.begin(), next.end(), next.begin());
  for (std::size_t w = 0; w + 1 < next.size(); ++w)
    for (Index node = next[w]; node < next[w + 1]; node += most) begin_.push_back(node);
  begin_.push_back(nodes_);

  const Index prevs = f.edges ? f.edges[end] - f.edges[begin] : f.arity * nodes_;
  numbers_.resize(3 * nodes_ + prevs + (f.edges ? nodes_ + 1 : 0));
  int32_t *row = numbers_.data(), *sequence = row + nodes_, *prev = sequence + nodes_;
  int32_t *x_row = prev + prevs, *edges = x_row + nodes_;
  const Index leaves = nodes_ ? next[1] : 0;
  for (Index r = begin; r < end; ++r) {
    const Index node = next[f.wave[r]]++;
    row[node] = sequence[node] = int32_t(r);
    x_row[node] = int32_t(f.leaves_read ? leaves_before + node : r);
    for (Index k = 0; !f.edges && k < f.arity; ++k) prev[k * nodes_ + node] = f.prev[k * f.rows + r];
  }
  if (f.edges) *edges = 0;
  for (Index node = 0; f.edges && node < nodes_; ++node) {
    const int32_t *from = f.prev + f.edges[row[node]], *to = f.prev + f.edges[row[node] + 1];
    edges[node + 1] = int32_t(std::copy(from, to, prev + edges[node]) - prev);
  }
  counts_.forest = true;
  counts_.leaves = leaves;
  counts_.readers = f.leaves_read ? leaves : nodes_;
  counts_.given = f.given ? leaves : 0;
  prevs_ = prevs;
  has_edges_ = f.edges;
}

Schedule OwnSchedule::view() const {
  Schedule s = counts_;
  s.waves = Index(begin_.size()) - 1;
  s.nodes = nodes_;
  s.begin = begin_.data();
  s.row = numbers_.data();
  s.sequence = s.row + nodes_;
  s.prev = s.sequence + nodes_;
  s.x_row = s.forest ? s.prev + prevs_ : s.row;
  if (has_edges_) s.edges = s.x_row + nodes_;
  return s;
}

} // namespace rnncore

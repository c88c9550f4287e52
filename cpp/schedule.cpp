#include "schedule.hpp"

#include <algorithm>
#include <numeric>

namespace rnncore {

Deal::Deal(Index batch, const int64_t* lengths, Index parts) : parts_(parts), order_(batch) {
  std::iota(order_.begin(), order_.end(), 0);
  // Equal lengths stay in runs, so that threads do not write to the same cache lines.
  if (!lengths) return;
  std::stable_sort(order_.begin(), order_.end(),
                   [&](int32_t a, int32_t b) { return lengths[a] > lengths[b]; });
  if (parts == 1) return;
  // To and fro, so that nobody always gets the longer of two.
  const std::vector<int32_t> sorted = order_;
  std::vector<Index> dealt(parts, 0);
  Index part = 0, step = 1;
  for (const int32_t sequence : sorted) {
    while (dealt[part] == size(part)) part = (part + 1) % parts;
    order_[first(part) + dealt[part]++] = sequence;
    if (part + step < 0 || part + step == parts)
      step = -step;
    else
      part += step;
  }
}

OwnSchedule::OwnSchedule(Grid grid, const int64_t* lengths, bool reversed, const int32_t* members,
                         Index count)
    : count_(count) {
  const auto length = [&](Index i) { return lengths ? Index(lengths[members[i]]) : grid.time; };
  for (Index i = 0; i < count; ++i) nodes_ += length(i);
  const Index waves = count ? length(0) : 0;
  begin_.reserve(waves + 1);
  numbers_.resize(3 * nodes_ + 2 * count);
  int32_t *row = numbers_.data(), *sequence = row + nodes_, *prev = sequence + nodes_;
  int32_t* last = std::copy_n(members, count, prev + nodes_);
  std::fill_n(last, count, -1);

  Index node = 0, running = count;
  for (Index wave = 0; wave < waves; ++wave) {
    begin_.push_back(node);
    while (running > 0 && length(running - 1) <= wave) --running;
    for (Index i = 0; i < running; ++i, ++node) {
      const int32_t b = members[i];
      row[node] = int32_t(grid.row(reversed ? length(i) - 1 - wave : wave, b));
      prev[node] = last[i] < 0 ? ~b : last[i];
      sequence[node] = b;
      last[i] = row[node];
    }
  }
  begin_.push_back(node);
}

OwnSchedule::OwnSchedule(const Forest& f, Index begin, Index end)
    : nodes_(end - begin), count_(0), arity_(f.arity), forest_(true) {
  // Rows sorted by their waves, by counting; those of a wave stay in order.
  const auto last = std::max_element(f.wave + begin, f.wave + end);
  begin_.assign(nodes_ ? *last + 2 : 1, 0);
  for (Index r = begin; r < end; ++r) ++begin_[f.wave[r] + 1];
  std::partial_sum(begin_.begin(), begin_.end(), begin_.begin());
  numbers_.resize((2 + arity_) * nodes_);
  int32_t *row = numbers_.data(), *sequence = row + nodes_, *prev = sequence + nodes_;
  std::vector<Index> next(begin_.begin(), begin_.end());
  for (Index r = begin; r < end; ++r) {
    const Index node = next[f.wave[r]]++;
    row[node] = sequence[node] = int32_t(r);
    for (Index k = 0; k < arity_; ++k) prev[k * nodes_ + node] = f.prev[k * f.rows + r];
  }
}

Schedule OwnSchedule::view() const {
  const int32_t* row = numbers_.data();
  return {Index(begin_.size()) - 1, nodes_, begin_.data(), row, row + 2 * nodes_, row + nodes_, forest_};
}

} // namespace rnncore

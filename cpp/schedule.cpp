#include "schedule.hpp"

#include <algorithm>
#include <numeric>

namespace rnncore {

SequenceSchedule::SequenceSchedule(Grid grid, const int64_t* lengths, bool reversed) {
  const auto length = [&](Index b) { return lengths ? Index(lengths[b]) : grid.time; };
  // Longest first, so that the sequences still running are always the first ones.
  std::vector<int32_t> order(grid.batch);
  std::iota(order.begin(), order.end(), 0);
  if (lengths)
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return lengths[a] > lengths[b]; });
  Index nodes = 0;
  for (Index b = 0; b < grid.batch; ++b) nodes += length(b);
  waves_ = grid.batch ? length(order[0]) : 0;

  begin_.reserve(waves_ + 1);
  row_.reserve(nodes);
  prev_.reserve(nodes);
  sequence_.reserve(nodes);
  last_.assign(grid.batch, -1);
  Index running = grid.batch;
  for (Index wave = 0; wave < waves_; ++wave) {
    begin_.push_back(Index(row_.size()));
    while (running > 0 && length(order[running - 1]) <= wave) --running;
    for (Index i = 0; i < running; ++i) {
      const int32_t b = order[i];
      const Index t = reversed ? length(b) - 1 - wave : wave;
      row_.push_back(int32_t(grid.row(t, b)));
      prev_.push_back(last_[b] < 0 ? ~b : last_[b]);
      sequence_.push_back(b);
      last_[b] = row_.back();
    }
  }
  begin_.push_back(nodes);
}

Schedule SequenceSchedule::view() const {
  return {waves_,      Index(row_.size()), Index(last_.size()), begin_.data(),
          row_.data(), prev_.data(),       sequence_.data()};
}

} // namespace rnncore

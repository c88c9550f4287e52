#include "schedule.hpp"

#include <algorithm>
#include <numeric>

namespace rnncore {

SequenceSchedule::SequenceSchedule(Grid grid, const int64_t* lengths, bool reversed,
                                   const std::vector<int32_t>& members)
    : members_(members), last_(members.size(), -1) {
  const auto length = [&](Index i) { return lengths ? Index(lengths[members_[i]]) : grid.time; };
  Index nodes = 0, running = Index(members_.size());
  for (Index i = 0; i < running; ++i) nodes += length(i);
  const Index waves = running ? length(0) : 0;
  begin_.reserve(waves + 1);
  row_.resize(nodes);
  prev_.resize(nodes);
  sequence_.resize(nodes);
  Index node = 0;
  for (Index wave = 0; wave < waves; ++wave) {
    begin_.push_back(node);
    while (running > 0 && length(running - 1) <= wave) --running;
    for (Index i = 0; i < running; ++i, ++node) {
      const int32_t b = members_[i];
      const Index t = reversed ? length(i) - 1 - wave : wave;
      row_[node] = int32_t(grid.row(t, b));
      prev_[node] = last_[i] < 0 ? ~b : last_[i];
      sequence_[node] = b;
      last_[i] = row_[node];
    }
  }
  begin_.push_back(node);
}

Schedule SequenceSchedule::view() const {
  return {Index(begin_.size()) - 1, Index(row_.size()), begin_.data(), row_.data(), prev_.data(),
          sequence_.data()};
}

std::vector<std::vector<int32_t>> deal(Index batch, const int64_t* lengths, Index parts) {
  std::vector<int32_t> order(batch);
  std::iota(order.begin(), order.end(), 0);
  if (lengths)
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return lengths[a] > lengths[b]; });
  std::vector<std::vector<int32_t>> hands(parts);
  for (std::vector<int32_t>& hand : hands) hand.reserve(batch / parts + 1);
  for (Index i = 0; i < batch; ++i) {
    // Equal lengths in runs, so that threads do not write to the same cache lines; others to and fro, so
    // that nobody always gets the longer of two.
    const Index round = i / parts, seat = i % parts;
    const Index hand = !lengths ? i * parts / batch : round % 2 ? parts - 1 - seat : seat;
    hands[hand].push_back(order[i]);
  }
  return hands;
}

} // namespace rnncore

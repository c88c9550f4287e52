// Batches of sequences as schedules.
#pragma once

#include <vector>

#include "api.hpp"

namespace rnncore {

/// How the rows of a (time, batch) array lie.
struct Grid {
  Index time, batch;
  bool batch_first;

  Index row(Index t, Index b) const { return batch_first ? b * time + t : t * batch + b; }
};

/// Sequences of given lengths, walked from the first step to the last or, reversed, from each one's own
/// last step to the first.
class SequenceSchedule {
public:
  SequenceSchedule() = default;
  /// `lengths` (batch), each 0..time, in any order; null: all of them `time`.
  SequenceSchedule(Grid grid, const int64_t* lengths, bool reversed);

  Schedule view() const;
  /// The row a sequence ends at, or -1 if it has no steps.
  Index last_row(Index sequence) const { return last_[sequence]; }

private:
  Index waves_ = 0;
  std::vector<Index> begin_;
  std::vector<int32_t> row_, prev_, sequence_, last_;
};

} // namespace rnncore

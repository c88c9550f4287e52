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

/// Some sequences of a batch, walked from the first step to the last or, reversed, from each one's own
/// last step to the first.
class SequenceSchedule {
public:
  /// `members`: which sequences, the longest first. `lengths` (batch): null if all have `time` steps.
  SequenceSchedule(Grid grid, const int64_t* lengths, bool reversed, const std::vector<int32_t>& members);

  Schedule view() const;
  /// The member sequences and the row each of them ends at, -1 if it has no steps.
  template <class F>
  void for_each_last_row(F f) const {
    for (std::size_t i = 0; i < members_.size(); ++i) f(Index(members_[i]), Index(last_[i]));
  }

private:
  std::vector<Index> begin_;
  std::vector<int32_t> row_, prev_, sequence_, members_, last_;
};

/// The sequences of a batch dealt out to `parts` groups of nearly the same work, each longest first.
std::vector<std::vector<int32_t>> deal(Index batch, const int64_t* lengths, Index parts);

} // namespace rnncore

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

/// Sequences of a batch in the order in which they are dealt to parts: part p of n has those from
/// p * batch / n to (p + 1) * batch / n, about the same work in each, the longest first.
class Deal {
public:
  Deal(Index batch, const int64_t* lengths, Index parts);

  const int32_t* begin(Index part) const { return order_.data() + first(part); }
  Index size(Index part) const { return first(part + 1) - first(part); }
  Index parts() const { return parts_; }

private:
  Index first(Index part) const { return part * Index(order_.size()) / parts_; }

  Index parts_;
  std::vector<int32_t> order_;
};

/// Some sequences of a batch, walked from the first step to the last or, reversed, from each one's own
/// last step to the first.
class SequenceSchedule {
public:
  /// `members`: `count` sequences, the longest first. `lengths` (batch): null if all have `time` steps.
  SequenceSchedule(Grid grid, const int64_t* lengths, bool reversed, const int32_t* members, Index count);

  Schedule view() const;
  /// f(sequence, row it ends at or -1 if it has no steps)
  template <class F>
  void for_each_last_row(F f) const {
    for (Index i = 0; i < count_; ++i) f(Index(members()[i]), Index(members()[count_ + i]));
  }

private:
  const int32_t* members() const { return numbers_.data() + 3 * nodes_; }

  Index nodes_ = 0, count_;
  std::vector<Index> begin_;
  std::vector<int32_t> numbers_; // row, prev, sequence of each node; the members; their last rows
};

} // namespace rnncore

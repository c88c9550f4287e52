// Batches of sequences as schedules.
#pragma once

#include <vector>

#include "api.hpp"

namespace rnncore {

/// How the rows of a batch lie: as (time, batch) or (batch, time); or packed, those of each step that there
/// are, one step after the other and the longest sequences first.
struct Grid {
  Index time, batch;
  bool batch_first;
  const int64_t* offsets = nullptr; // (time + 1) or null: the packed rows before each step

  Index rows() const { return offsets ? offsets[time] : time * batch; }
  Index row(Index t, Index b) const {
    return offsets ? offsets[t] + b : batch_first ? b * time + t : t * batch + b;
  }
};

/// Trees one after the other, or other graphs without cycles: each node stands at a row, after the rows
/// of the trees before its own, and in a wave later than those of the nodes it continues.
struct Forest {
  Index trees, rows, arity;
  const int64_t* begin; // (trees + 1)  rows of each tree
  const int32_t* wave;  // (rows)  0 for nodes that continue nothing: leaves
  const int32_t* prev;  // (arity, rows)  no_predecessor where there is none
  const int32_t* edges; // (rows + 1) or null; then row r continues prev[edges[r]] .. prev[edges[r + 1]]
  bool leaves_read;     // x has a row for each leaf, in their order; else one for each node
  bool given;           // the states of leaves are there already
};

/// Sequences of a batch in the order in which they are split into parts: part p of n has those from
/// p * batch / n to (p + 1) * batch / n, about the same work in each, the longest first.
class Split {
public:
  Split(Index batch, const int64_t* lengths, Index parts);

  const int32_t* begin(Index part) const { return order_.data() + first(part); }
  Index size(Index part) const { return first(part + 1) - first(part); }
  Index parts() const { return parts_; }

private:
  Index first(Index part) const { return part * Index(order_.size()) / parts_; }

  Index parts_;
  std::vector<int32_t> order_;
};

/// A schedule and the memory it lies in.
class OwnSchedule {
public:
  /// None yet.
  OwnSchedule() = default;
  /// Some sequences of a batch, walked from the first step to the last or, reversed, from each one's own
  /// last step to the first. `members`: `count` sequences, the longest first. `lengths` (batch): null if
  /// all have `time` steps. `resets` (rows): where they start anew, or null; reversed they do so before
  /// they come to the step ahead of that. `states` (batch): the rows of the states that they continue, or
  /// null: a row for each of them.
  OwnSchedule(Grid grid, const int64_t* lengths, bool reversed, const int32_t* members, Index count,
              const bool* resets = nullptr, const int32_t* states = nullptr);
  /// The rows of some trees, before which stand so many leaves; no wave has more than `most` nodes.
  OwnSchedule(const Forest& forest, Index begin, Index end, Index leaves_before, Index most);

  /// Becomes one step of `count` sequences, which continue the states in these rows, or null: a row for
  /// each of them. Takes memory only for more of them than before.
  void become_step(Index count, const int32_t* states);

  Schedule view() const;
  /// f(row of the state it continues, row it ends at or -1 if it has no steps)
  template <class F>
  void for_each_last_row(F f) const {
    for (Index i = 0; i < count_; ++i) f(Index(members()[i]), Index(members()[count_ + i]));
  }

private:
  const int32_t* members() const { return numbers_.data() + 3 * nodes_; }

  Schedule counts_{};                       // but for what `view` adds
  Index nodes_ = 0, count_ = 0, prevs_ = 0; // count_: sequences
  bool has_edges_ = false;
  std::vector<Index> begin_;
  std::vector<int32_t> numbers_; // row, sequence, prevs of each node; then for sequences the rows of their
                                 // states and their last rows, for a forest rows of x and edges
};

} // namespace rnncore

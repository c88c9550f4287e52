// Linear-chain CRFs over NumPy arrays.
#pragma once

#include "arrays.hpp"

namespace rnncore {

/// Emissions (T, B, K), or (B, T, K) if `batch_first`, their lengths (B), and the scores of a CRF:
/// transitions (K, K), start and end (K), and which of these are allowed (K + 2, K), None: all. Python has
/// checked them.
template <class T>
class CrfBatch {
public:
  CrfBatch(const py::object& emissions, bool batch_first, const py::object& lengths,
           const py::object& transitions, const py::object& start, const py::object& end,
           const py::object& allowed);

  /// Losses (B) in float64: - log of the probability of what agrees with the targets, of whole numbers (T,
  /// B) or booleans (T, B, K); or of none, log Z. Where `scales` (B) is 0, 0. And unless these are None the
  /// gradients of sum_b scale_b loss_b: of emissions, transitions, start and end.
  py::tuple loss(const py::object& targets, const py::object& scales) const;
  /// The `count` best sequences of tags (count, T, B) and their scores (count, B).
  py::tuple decode(Index count) const;

private:
  Index length(Index b) const { return lengths_.is_none() ? steps_ : Index(until_.data()[b]); }
  /// Where sequence b begins, and from step to step, in rows of K.
  Index first(Index b) const { return batch_first_ ? b * steps_ : b; }
  Index stride() const { return batch_first_ ? 1 : batch_; }
  Index side_by_side() const;
  double work() const { return double(steps_ * batch_) * double(tags_) * double(tags_ + 16); }
  template <class S>
  S sequence(Index b, void* space) const;

  const Array<T> emissions_;
  const bool batch_first_;
  const Index steps_, batch_, tags_;
  const py::object lengths_;
  Array<int64_t> until_;
  Buffer prepared_;
};

} // namespace rnncore

// Connectionist temporal classification over NumPy arrays.
#pragma once

#include "arrays.hpp"

namespace rnncore {

/// Logits (T, B, C), or (B, T, C) if `batch_first`; the frames (B) and labels (B) of each sequence, and all
/// labels one after the other. Python has checked them.
template <class T>
class CtcBatch {
public:
  CtcBatch(const py::object& logits, bool batch_first, const py::object& lengths, const py::object& labels,
           const py::object& counts, Index blank);

  /// The log-likelihoods (B) in float64. What backward needs of it is kept.
  Array<double> forward();
  /// The gradient of sum_b -scale_b log-likelihood_b with respect to the logits.
  Array<T> backward(const py::object& scales);

private:
  /// Operations of a forward pass, about.
  double work() const;
  /// Bytes of what a thread works in.
  Index space(bool backward);
  /// Sequence b as the kernels want it, without what only backward has.
  template <class S>
  S sequence(Index b, void* space);

  const Array<T> logits_;
  const bool batch_first_;
  const Index steps_, batch_, classes_, blank_;
  const Array<int64_t> lengths_, counts_, labels_;
  std::vector<Index> starts_; // where the labels of each sequence begin
  std::vector<Index> kept_;   // and what is kept of it
  std::vector<double> log_likelihoods_, log_sums_, states_;
};

} // namespace rnncore

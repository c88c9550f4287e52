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

  /// (log-likelihoods (B), log_sums (B, T)), in float64.
  py::tuple forward() const;
  /// The gradient of sum_b -scale_b log-likelihood_b with respect to the logits.
  Array<T> backward(const py::object& log_likelihoods, const py::object& log_sums,
                    const py::object& scales) const;

private:
  /// Operations of a forward pass, about.
  double work() const;
  /// Bytes of what a thread works in.
  Index space(bool backward) const;
  /// Sequence b as the kernels want it, without what only backward has.
  template <class S>
  S sequence(Index b, double* log_sums, void* space) const;

  const Array<T> logits_;
  const bool batch_first_;
  const Index steps_, batch_, classes_, blank_;
  const Array<int64_t> lengths_, counts_, labels_;
  std::vector<Index> starts_; // where the labels of each sequence begin
};

} // namespace rnncore

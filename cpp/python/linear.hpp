// y = x W^T + b over NumPy arrays.
#pragma once

#include "../engine/weights.hpp"
#include "parameters.hpp"

namespace rnncore {

template <class T>
class LinearLayer {
public:
  /// weight (outputs, inputs) and, or None, bias (outputs) are not copied: writing to them counts. `owned`:
  /// see `KeptArrays`. `weights`: the type of those of the products; if it is not T, they are taken now.
  LinearLayer(Index inputs, Index outputs, const py::object& weight, const py::object& bias, bool owned,
              const std::string& weights);

  /// (rows, inputs) -> (rows, outputs)
  py::object forward(const py::object& x);

  /// dx, or None where it is not wanted; adds to the gradients of weight and bias.
  py::object backward(const py::object& x, const py::object& dy, const py::object& weight_gradient,
                      const py::object& bias_gradient, bool want_dx);

  const Shape& shape() const { return shape_; }
  const Linear<T>& kernels() const { return kernels_; }

  /// Says that somebody has been given the parameters.
  void lend() { parameters_.lend(); }
  /// At the start of every use: throws where a parameter is no longer where it was, and has the weights
  /// looked at if they may have changed. Needs the GIL, `snapshot` does not.
  void check_parameters();
  std::shared_ptr<const Snapshot<T>> snapshot(bool transposed) { return weights_.snapshot(transposed); }

  /// Rows times these weights: on one thread, or as many as that is worth.
  void multiply(const Snapshot<T>& weights, Index rows, const T* x, T* y) const;

private:
  void go_back(LinearBackward<T> all);

  const Linear<T>& kernels_;
  const Shape shape_;
  KeptArrays parameters_;
  WatchedWeights<T> weights_;
  std::mutex adding_; // held while gradients are added to: calls share them
};

} // namespace rnncore

// Convolutions and pooling over NumPy arrays (images, size, size, channels).
#pragma once

#include <array>
#include <optional>

#include "../engine/weights.hpp"
#include "parameters.hpp"

namespace rnncore {

/// size, outputs, taps, stride, dilation, before, after, and what is there: 0 zeros, 1 reflected, 2 the
/// last.
using AxisNumbers = std::array<Index, 8>;
Windows windows_of(Index images, Index channels, const AxisNumbers& first, const AxisNumbers& second);

template <class T>
class ConvolutionLayer {
public:
  /// weight (outputs, inputs / groups, taps of all axes) and, or None, bias (outputs) are not copied:
  /// writing to them counts. `owned`: see `KeptArrays`. `weights`: the type of those of the products; if it
  /// is not T, there is one group, they come as (outputs, taps, inputs), and are taken now.
  ConvolutionLayer(Index inputs, Index outputs, Index groups, const std::array<Index, 2>& taps,
                   const py::object& weight, const py::object& bias, bool owned,
                   const std::string& weights);

  /// x (images, size, size, inputs) to y (images, outputs, outputs, outputs of the layer).
  Array<T> forward(const py::object& x, const Windows& windows);

  /// dx, or None where it is not wanted; adds to the gradients of weight and bias.
  py::object backward(const py::object& x, const py::object& dy, const Windows& windows,
                      const py::object& weight_gradient, const py::object& bias_gradient, bool want_dx);

  /// Back through the windows alone, from y to x, which starts from a bias (inputs) or None: what a
  /// transposed convolution computes.
  Array<T> spread(const py::object& y, const Windows& windows, const py::object& bias);

  void lend() { parameters_.lend(); }
  void check_parameters();
  std::shared_ptr<const Snapshot<T>> snapshot(bool transposed) { return weights_.snapshot(transposed); }
  const Filters& filters() const { return filters_; }
  void run(const Snapshot<T>& weights, const Windows& windows, const T* x, T* y,
           const Finish<T>& finish = {}) const;

private:
  double work(const Windows& windows) const; // of an output
  void go_back(const ConvolutionBackward<T>& all);
  void add_gradients(const std::vector<T>& sums, T* weight, T* bias);

  const Convolution<T>& kernels_;
  const Filters filters_;
  const std::vector<Index> shape_; // of weight
  const Packing<T> packing_;
  KeptArrays parameters_;
  WatchedWeights<T> weights_;
  std::mutex adding_; // held while gradients are added to: calls share them
};

/// The largest number of each window and channel, or the mean.
template <class T>
class PoolingLayer {
public:
  PoolingLayer(bool largest, bool padded) : largest_(largest), padded_(padded) {}
  Array<T> forward(const py::object& x, const Windows& windows) const;
  Array<T> backward(const py::object& x, const py::object& y, const py::object& dy,
                    const Windows& windows) const;
  void run(const Windows& windows, const T* x, T* y) const;

private:
  const bool largest_, padded_;
};

} // namespace rnncore

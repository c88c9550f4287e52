// Steps over arrays that stay where they are: what a graph of known shapes computes, without Python in
// between.
#pragma once

#include <functional>

#include "convolution.hpp"
#include "layer.hpp"
#include "linear.hpp"
#include "pointwise.hpp"

namespace rnncore {

enum class Reduction { sum, mean, max, min, norm };

/// Arrays of one shape that are walked alike; axes that lie one after the other are one.
template <class T>
class Loops {
public:
  static constexpr int most_arrays = 3;
  /// The first is written to. A stride of zero repeats a number.
  explicit Loops(const std::vector<py::array>& arrays);

  /// f(how many numbers, where they are in each array) along the last axis, whose strides are `step`.
  template <class F>
  void each(F f) const;
  Index step(int array) const { return strides_[array].empty() ? 1 : strides_[array].back(); }

private:
  std::vector<Index> sizes_, strides_[most_arrays];
  T* data_[most_arrays] = {};
  int count_;
};

template <class T>
class Program {
public:
  /// Each of these adds a step. Arrays are kept, and read and written where they are; `to` comes first.
  void copy(const py::array& to, const py::array& from);
  /// to = from[index], each a number of `from`, whose numbers lie one after the other.
  void gather(const py::array& to, const py::array& from, const Array<int64_t>& index);
  void activate(const py::array& to, const py::array& from, const std::string& name, double alpha,
                double beta);
  void apply(const py::array& to, const py::array& from, const std::string& function);
  void combine(const py::array& to, const py::array& a, const py::array& b, const std::string& operation);
  /// `from` has the axes of `to`, then those that are gone: "sum", "mean", "max", "min" or "norm".
  void reduce(const py::array& to, const py::array& from, const std::string& kind);
  /// Rows that lie one after the other.
  void pointwise(const py::array& to, const py::array& from, const py::object& layer);
  void linear(const py::array& to, const py::array& from, const py::object& layer);
  /// to = finish(layer(from)): plus `add` or None, then an activation or None, or times that if `gated`.
  void convolve(const py::array& to, const py::array& from, const py::object& layer, const Windows& windows,
                const py::object& add, const py::object& activation, bool gated);
  void pool(const py::array& to, const py::array& from, const py::object& layer, const Windows& windows);
  /// x (T, B, I) to y (T, B, D * P); h (D, B, P) and c (D, B, H) or None, initial states, become the final
  /// ones.
  void recur(const py::array& to, const py::array& from, const py::object& layer, const py::object& h,
             const py::object& c);

  /// Takes all steps.
  void run();

private:
  /// `parts` are kept alive.
  void add(std::function<void()> step, Index work, std::initializer_list<py::object> parts);

  std::vector<std::function<void()>> steps_;
  py::list kept_;
  Index work_ = 0;
};

} // namespace rnncore

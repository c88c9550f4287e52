#include "pointwise.hpp"

#include "denormals.hpp"
#include "dispatch.hpp"

namespace rnncore {

Chosen chosen(const std::string& name, double alpha, double beta) {
  constexpr const char* names[] = {
      "sigmoid",     "tanh",         "relu", "identity", "affine",   "leaky_relu", "thresholded_relu",
      "scaled_tanh", "hard_sigmoid", "elu",  "selu",     "softsign", "softplus",   "exponential"};
  for (std::size_t i = 0; i < std::size(names); ++i)
    if (name == names[i]) return {Activation(i), alpha, beta};
  throw std::invalid_argument("no activation named '" + name + "'");
}

template <class T>
py::object PointwiseLayer<T>::forward(const py::object& given, const py::object& out) const {
  check();
  const Array<T> x = contiguous<T>(given);
  const Index width = x.ndim() ? x.shape(x.ndim() - 1) : 1, size = x.size();
  if (this->width() && width != this->width()) throw py::value_error("x: unexpected shape");
  Array<T> y = results<T>(out, x.shape(), x.shape() + x.ndim());
  T* to = y.mutable_data();
  const bool beside = to == x.data() || apart(x.data(), size * sizeof(T), to, size * sizeof(T));
  const Array<T> copy =
      beside ? x : Array<T>(std::vector<Index>(x.shape(), x.shape() + x.ndim()), x.data());
  {
    const ReleaseGil release(size * 8);
    run(width ? size / width : 0, width, copy.data(), to);
  }
  return y;
}

/// Denormals stay: without fused operations the last of a sigmoid's digits are made of them.
template <class T>
void ActivationLayer<T>::run(Index rows, Index width, const T* x, T* y) const {
  kernels_of<T>().pointwise.activate(chosen_, x, y, rows * width);
}

template <class T>
void SoftmaxLayer<T>::run(Index rows, Index width, const T* x, T* y) const {
  const FlushDenormals flush;
  kernels_of<T>().pointwise.softmax(x, y, rows, width);
}

template <class T>
NormLayer<T>::NormLayer(const py::object& weight, const py::object& bias, double epsilon) {
  const Index width = py::cast<py::array>(weight).size();
  if (py::cast<py::array>(bias).size() != width) throw py::value_error("bias: unexpected shape");
  norm_ = {width, parameters_.keep<T>("weight", weight), parameters_.keep<T>("bias", bias), T(epsilon)};
}

template <class T>
void NormLayer<T>::run(Index rows, Index, const T* x, T* y) const {
  const FlushDenormals flush;
  kernels_of<T>().pointwise.layer_norm(norm_, x, y, rows);
}

#define RNNCORE_POINTWISE(T)                                                                               \
  template class PointwiseLayer<T>;                                                                        \
  template class ActivationLayer<T>;                                                                       \
  template class SoftmaxLayer<T>;                                                                          \
  template class NormLayer<T>;
RNNCORE_POINTWISE(float)
RNNCORE_POINTWISE(double)
#undef RNNCORE_POINTWISE

} // namespace rnncore

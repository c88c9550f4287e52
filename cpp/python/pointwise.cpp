#include "pointwise.hpp"

#include "../engine/denormals.hpp"
#include "../engine/dispatch.hpp"

namespace rnncore {

/// Operations of the slowest of them, about.
constexpr double element_work = 50;

constexpr const char* names[] = {
    "sigmoid",     "tanh",         "relu", "identity", "affine",   "leaky_relu", "thresholded_relu",
    "scaled_tanh", "hard_sigmoid", "elu",  "selu",     "softsign", "softplus",   "exponential"};

const char* name_of(ActivationKind kind) { return names[std::size_t(kind)]; }

Activation activation_of(const std::string& name, double alpha, double beta) {
  for (std::size_t i = 0; i < std::size(names); ++i)
    if (name == names[i]) return {ActivationKind(i), alpha, beta};
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
  const T* from = x.data();
  Array<T> copy = no_array<T>();
  if (to != from && !apart(from, size * sizeof(T), to, size * sizeof(T))) {
    copy = new_array<T>(x.shape(), x.shape() + x.ndim());
    from = std::copy_n(from, size, copy.mutable_data()) - size;
  }
  {
    const ReleaseGil release(size * 8);
    const Index rows = width ? size / width : 0;
    const auto piece = [&](Index begin, Index end) {
      run(end - begin, width, from + begin * width, to + begin * width);
    };
    if (out.is_none())
      in_pieces(rows, element_work * double(width), 1, piece);
    else // which must not be left half written
      piece(0, rows);
  }
  return y;
}

/// Denormals stay: without fused operations the last of a sigmoid's digits are made of them.
template <class T>
void ActivationLayer<T>::run(Index rows, Index width, const T* x, T* y) const {
  kernels_of<T>().pointwise.activate(activation_, x, y, rows * width);
}

template <class T>
Array<T> ActivationLayer<T>::backward(const py::object& y, const py::object& dy) const {
  const Array<T> value = contiguous<T>(y), gradient = contiguous<T>(dy);
  const Index size = value.size();
  if (gradient.size() != size) throw py::value_error("dy: unexpected shape");
  Array<T> dx = new_array<T>(value.shape(), value.shape() + value.ndim());
  T* to = dx.mutable_data();
  const T *from = value.data(), *d = gradient.data();
  {
    const ReleaseGil release(size * 8);
    in_pieces(size, element_work, 1, [&](Index begin, Index end) {
      kernels_of<T>().pointwise.activate_backward(activation_, from + begin, d + begin, to + begin,
                                                  end - begin);
    });
  }
  return dx;
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

template <class T>
SlopesLayer<T>::SlopesLayer(const py::object& weight)
    : count_(py::cast<py::array>(weight).size()), weight_(parameters_.keep<T>("weight", weight)) {}

template <class T>
void SlopesLayer<T>::run(Index rows, Index width, const T* x, T* y) const {
  kernels_of<T>().pointwise.slopes(weight_, count_, x, y, rows, width);
}

#define RNNCORE_POINTWISE(T)                                                                               \
  template class PointwiseLayer<T>;                                                                        \
  template class ActivationLayer<T>;                                                                       \
  template class SoftmaxLayer<T>;                                                                          \
  template class NormLayer<T>;                                                                             \
  template class SlopesLayer<T>;
RNNCORE_POINTWISE(float)
RNNCORE_POINTWISE(double)
#undef RNNCORE_POINTWISE

} // namespace rnncore

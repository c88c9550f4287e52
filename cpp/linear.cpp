#include "linear.hpp"

#include "dispatch.hpp"
#include "threads.hpp"

namespace rnncore {
namespace {

/// Fewer operations than this are done before another thread is awake.
constexpr Index least_work = 500'000;

Index threads_for(Index work) { return std::min(num_threads(), 1 + work / least_work); }

/// Where weight and bias or their gradients lie; `kept` keeps them. T may be const.
template <class T>
Weights<T> pointers(KeptArrays& kept, Shape shape, const py::object& weight, const py::object& bias) {
  using U = std::remove_const_t<T>;
  Weights<T> w{};
  w.input = kept.keep<U>("weight", weight, {shape.hidden, shape.input});
  w.input_bias = kept.keep<U>("bias", bias, {shape.hidden});
  return w;
}

} // namespace

template <class T>
LinearLayer<T>::LinearLayer(Index inputs, Index outputs, const py::object& weight, const py::object& bias,
                            bool owned)
    : shape_{inputs, outputs}, parameters_(owned),
      weights_(kernels_of<T>().linear.packing, shape_,
               {pointers<const T>(parameters_, shape_, weight, bias)}) {}

template <class T>
void LinearLayer<T>::check_parameters() {
  parameters_.check();
  if (parameters_.may_have_changed()) weights_.look_again();
}

template <class T>
py::object LinearLayer<T>::forward(const py::object& x_object) {
  check_parameters();
  const Array<T> x = contiguous<T>(x_object);
  if (x.ndim() != 2 || x.shape(1) != shape_.input) throw py::value_error("x: unexpected shape");
  Array<T> y = new_array<T>({x.shape(0), shape_.hidden});
  T* to = y.mutable_data();
  {
    const ReleaseGil release(x.size() * shape_.hidden);
    multiply(*weights_.snapshot(false), x.shape(0), x.data(), to);
  }
  return y;
}

template <class T>
void LinearLayer<T>::multiply(const Snapshot<T>& weights, Index rows, const T* x, T* y) const {
  const LinearForward<T> f{
      shape_, rows, weights.packed.template as<T>(), {x, shape_.input}, {y, shape_.hidden}};
  on_team(threads_for(rows * shape_.input * shape_.hidden),
          [&](const Team& team) { kernels_of<T>().linear.forward(f, team); });
}

template <class T>
py::object LinearLayer<T>::backward(const py::object& x_object, const py::object& dy_object,
                                    const py::object& weight_gradient, const py::object& bias_gradient,
                                    bool want_dx) {
  check_parameters();
  const Array<T> x = contiguous<T>(x_object);
  const Array<T> dy = of_shape<T>("dy", dy_object, {x.shape(0), shape_.hidden});
  Array<T> dx;
  if (want_dx) dx = new_array<T>({x.shape(0), shape_.input});
  KeptArrays kept;
  const Weights<T> gradients = pointers<T>(kept, shape_, weight_gradient, bias_gradient);
  LinearBackward<T> b{shape_,
                      x.shape(0),
                      nullptr,
                      {x.data(), shape_.input},
                      {dy.data(), shape_.hidden},
                      {want_dx ? dx.mutable_data() : nullptr, shape_.input},
                      gradients.input,
                      gradients.input_bias};
  const Index work = x.size() * shape_.hidden;
  {
    const ReleaseGil release(work);
    const auto snapshot = weights_.snapshot(true);
    b.packed_transposed = snapshot->transposed.template as<T>();
    const std::lock_guard lock(adding_);
    on_team(threads_for(work), [&](const Team& team) { kernels_of<T>().linear.backward(b, team); });
  }
  return or_none(dx, want_dx);
}

template class LinearLayer<float>;
template class LinearLayer<double>;

} // namespace rnncore

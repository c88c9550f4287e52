#include "linear.hpp"

#include "../engine/dispatch.hpp"
#include "../engine/threads.hpp"

namespace rnncore {
namespace {

/// Fewer operations than this are done before another thread is awake.
constexpr Index least_linear_work = 500'000;

Index threads_for(Index work) { return std::min(num_threads(), 1 + work / least_linear_work); }

/// Where weight and bias or their gradients lie; `kept` keeps them. T may be const.
template <class T>
Weights<T> pointers(KeptArrays& kept, Shape shape, const py::object& weight, const py::object& bias) {
  using U = std::remove_const_t<T>;
  Weights<T> w{};
  w.input = kept.keep<U>("weight", weight, {shape.hidden, shape.input});
  w.input_bias = kept.keep<U>("bias", bias, {shape.hidden});
  return w;
}
/// Rows come in multiples of this many: then those of a call are summed in the same order, pieces or none.
constexpr Index unit = 1024;

double row_work(Shape shape) { return 2.0 * double(shape.input) * double(shape.hidden); }

} // namespace

template <class T>
LinearLayer<T>::LinearLayer(Index inputs, Index outputs, const py::object& weight, const py::object& bias,
                            bool owned, const std::string& weights)
    : kernels_(kernels_of<T>(weights).linear), shape_{inputs, outputs}, parameters_(owned),
      weights_(kernels_.packing, shape_, {pointers<const T>(parameters_, shape_, weight, bias)}) {
  if (kernels_.backward) return;
  weights_.freeze();
  parameters_.clear();
}

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
  const Index I = shape_.input, H = shape_.hidden, threads = threads_for(rows * I * H);
  in_pieces(rows, row_work(shape_), unit, [&](Index begin, Index end) {
    // For all threads, and taken here: one of the pool that had no memory could not say so.
    const Index bytes = kernels_.work(shape_, end - begin);
    char* const space = static_cast<char*>(scratch(std::size_t(bytes * threads)));
    on_team(threads, [&](const Team& team) {
      void* const work = space + bytes * team.rank;
      kernels_.forward(
          {shape_, end - begin, weights.packed(), {x + begin * I, I}, {y + begin * H, H}, work}, team);
    });
  });
}

template <class T>
py::object LinearLayer<T>::backward(const py::object& x_object, const py::object& dy_object,
                                    const py::object& weight_gradient, const py::object& bias_gradient,
                                    bool want_dx) {
  check_trains(kernels_.backward);
  check_parameters();
  const Index I = shape_.input, H = shape_.hidden;
  const Array<T> x = contiguous<T>(x_object);
  const Array<T> dy = of_shape<T>("dy", dy_object, {x.shape(0), H});
  Array<T> dx;
  if (want_dx) dx = new_array<T>({x.shape(0), I});
  KeptArrays kept;
  const Weights<T> gradients = pointers<T>(kept, shape_, weight_gradient, bias_gradient);
  const LinearBackward<T> all{shape_,          x.shape(0),
                              nullptr,         {x.data(), I},
                              {dy.data(), H},  {want_dx ? dx.mutable_data() : nullptr, I},
                              gradients.input, gradients.input_bias};
  {
    const ReleaseGil release(x.size() * H);
    go_back(all);
  }
  return or_none(dx, want_dx);
}

/// A long call has sums of its own, which are added when it is through: one that is ended before adds
/// nothing.
template <class T>
void LinearLayer<T>::go_back(LinearBackward<T> all) {
  const Index I = shape_.input, H = shape_.hidden, threads = threads_for(all.rows * I * H);
  const auto snapshot = weights_.snapshot(true);
  all.transposed = snapshot->transposed.template as<void>();
  const auto piece = [&](const LinearBackward<T>& b) {
    on_team(threads, [&](const Team& team) { kernels_.backward(b, team); });
  };
  if (double(all.rows) * row_work(shape_) <= piece_work()) {
    const std::lock_guard lock(adding_);
    return piece(all);
  }
  std::vector<T> sums(std::size_t(I * H + H), T(0));
  in_pieces(all.rows, row_work(shape_), unit, [&](Index begin, Index end) {
    LinearBackward<T> b = all;
    b.rows = end - begin;
    b.x.base += begin * I;
    b.dy.base += begin * H;
    if (b.dx.base) b.dx.base += begin * I;
    if (b.weight) b.weight = sums.data();
    if (b.bias) b.bias = sums.data() + I * H;
    piece(b);
  });
  const std::lock_guard lock(adding_);
  for (Index i = 0; all.weight && i < I * H; ++i) all.weight[i] += sums[i];
  for (Index i = 0; all.bias && i < H; ++i) all.bias[i] += sums[I * H + i];
}

template class LinearLayer<float>;
template class LinearLayer<double>;

} // namespace rnncore

#include "convolution.hpp"

#include "../engine/denormals.hpp"
#include "../engine/dispatch.hpp"
#include "../engine/threads.hpp"

namespace rnncore {
namespace {

/// Fewer operations than this are done before another thread is awake.
constexpr double least_window_work = 500'000;

Index outputs_of(const Windows& w) { return w.axes[0].outputs * w.axes[1].outputs; }
Index inputs_of(const Windows& w) { return w.axes[0].size * w.axes[1].size * w.channels; }
Index taps_of(const Windows& w) { return w.axes[0].taps * w.axes[1].taps; }

template <class T>
Array<T> images_of(const char* name, const py::object& object, const Windows& w, bool outputs,
                   Index channels) {
  const Index first = outputs ? w.axes[0].outputs : w.axes[0].size;
  const Index second = outputs ? w.axes[1].outputs : w.axes[1].size;
  return of_shape<T>(name, object, {w.images, first, second, channels});
}

template <class T>
Array<T> cleared(Extents shape) {
  Array<T> array = new_array<T>(shape);
  std::fill_n(array.mutable_data(), array.size(), T(0));
  return array;
}

template <class T>
Weights<T> pointers(KeptArrays& kept, const Filters& f, const py::object& weight, const py::object& bias) {
  using U = std::remove_const_t<T>;
  Weights<T> w{};
  // Over time there is one axis of taps: what counts is how many there are.
  if (py::cast<py::array>(weight).size() != f.outputs * (f.inputs / f.groups) * f.taps[0] * f.taps[1])
    throw py::value_error("weight: unexpected shape");
  w.input = kept.keep<U>("weight", weight);
  w.input_bias = kept.keep<U>("bias", bias, {f.outputs});
  return w;
}

template <class T>
Packing<T> told(const Packing<T>& packing, const Filters& filters) {
  Packing<T> own = packing;
  own.cell = &filters;
  return own;
}

/// Some of the images.
Windows with_images(Windows w, Index images) {
  w.images = images;
  return w;
}

} // namespace

Windows windows_of(Index images, Index channels, const AxisNumbers& first, const AxisNumbers& second) {
  Windows w{images, channels, {}};
  const AxisNumbers* const numbers[] = {&first, &second};
  for (int axis = 0; axis < 2; ++axis) {
    const auto [size, outputs, taps, stride, dilation, before, after, padding] = *numbers[axis];
    w.axes[axis] = {size, outputs, taps, stride, dilation, before, after, Padding(padding)};
  }
  return w;
}

template <class T>
ConvolutionLayer<T>::ConvolutionLayer(Index inputs, Index outputs, Index groups,
                                      const std::array<Index, 2>& taps, const py::object& weight,
                                      const py::object& bias, bool owned)
    : filters_{inputs, outputs, groups, {taps[0], taps[1]}},
      packing_(told(kernels_of<T>().convolution.packing, filters_)), parameters_(owned),
      weights_(packing_, Shape{inputs / groups * taps[0] * taps[1], outputs},
               {pointers<const T>(parameters_, filters_, weight, bias)}) {}

template <class T>
void ConvolutionLayer<T>::check_parameters() {
  parameters_.check();
  if (parameters_.may_have_changed()) weights_.look_again();
}

template <class T>
double ConvolutionLayer<T>::work(const Windows& w) const {
  return 2.0 * double(outputs_of(w) * taps_of(w)) * double(filters_.outputs * w.channels / filters_.groups);
}

template <class T>
Index ConvolutionLayer<T>::threads(const Windows& w) const {
  return std::min(num_threads(), 1 + Index(work(w) * double(w.images) / least_window_work));
}

template <class T>
void ConvolutionLayer<T>::run(const Snapshot<T>& weights, const Windows& all, const T* x, T* y,
                              const Finish<T>& finish) const {
  const Convolution<T>& kernels = kernels_of<T>().convolution;
  in_pieces(all.images, work(all), 1, [&](Index begin, Index end) {
    const Windows w = with_images(all, end - begin);
    const Index count = threads(w), bytes = kernels.work(filters_, w);
    const Index first = begin * outputs_of(w) * filters_.outputs;
    Finish<T> own = finish;
    if (own.add) own.add += first;
    char* const space = static_cast<char*>(scratch(std::size_t(bytes * count)));
    on_team(count, [&](const Team& team) {
      kernels.forward({filters_, w, weights.packed(), x + begin * inputs_of(w), y + first, own,
                       space + bytes * team.rank},
                      team);
    });
  });
}

template <class T>
Array<T> ConvolutionLayer<T>::forward(const py::object& x_object, const Windows& w) {
  check_parameters();
  const Array<T> x = images_of<T>("x", x_object, w, false, filters_.inputs);
  Array<T> y = new_array<T>({w.images, w.axes[0].outputs, w.axes[1].outputs, filters_.outputs});
  T* const to = y.mutable_data();
  {
    const ReleaseGil release(Index(work(w)) * w.images);
    run(*weights_.snapshot(false), w, x.data(), to);
  }
  return y;
}

template <class T>
void ConvolutionLayer<T>::go_back(const ConvolutionBackward<T>& all, Index images) {
  const Convolution<T>& kernels = kernels_of<T>().convolution;
  in_pieces(images, 2 * work(all.windows), 1, [&](Index begin, Index end) {
    ConvolutionBackward<T> b = all;
    b.windows = with_images(all.windows, end - begin);
    b.x += b.x ? begin * inputs_of(b.windows) : 0;
    b.dx += b.dx ? begin * inputs_of(b.windows) : 0;
    b.dy += begin * outputs_of(b.windows) * filters_.outputs;
    const Index count = threads(b.windows), bytes = kernels.work(filters_, b.windows);
    char* const space = static_cast<char*>(scratch(std::size_t(bytes * count)));
    on_team(count, [&](const Team& team) {
      ConvolutionBackward<T> own = b;
      own.work = space + bytes * team.rank;
      kernels.backward(own, team);
    });
  });
}

template <class T>
void ConvolutionLayer<T>::add_gradients(const std::vector<T>& sums, T* weight, T* bias) {
  const Index inputs = filters_.inputs / filters_.groups, taps = filters_.taps[0] * filters_.taps[1];
  const Index outputs = filters_.outputs / filters_.groups;
  const std::lock_guard lock(adding_);
  const T* sum = sums.data();
  for (Index g = 0; g < filters_.groups; ++g)
    for (Index tap = 0; tap < taps; ++tap)
      for (Index i = 0; i < inputs; ++i)
        for (Index o = 0; o < outputs; ++o) weight[((g * outputs + o) * inputs + i) * taps + tap] += *sum++;
  for (Index o = 0; bias && o < filters_.outputs; ++o) bias[o] += sum[o];
}

template <class T>
py::object ConvolutionLayer<T>::backward(const py::object& x_object, const py::object& dy_object,
                                         const Windows& w, const py::object& weight_gradient,
                                         const py::object& bias_gradient, bool want_dx) {
  check_parameters();
  const Array<T> x = images_of<T>("x", x_object, w, false, filters_.inputs);
  const Array<T> dy = images_of<T>("dy", dy_object, w, true, filters_.outputs);
  Array<T> dx;
  if (want_dx) dx = cleared<T>({w.images, w.axes[0].size, w.axes[1].size, filters_.inputs});
  KeptArrays kept;
  const Weights<T> to = pointers<T>(kept, filters_, weight_gradient, bias_gradient);
  const Index weights = filters_.outputs * filters_.inputs / filters_.groups * taps_of(w);
  std::vector<T> sums(std::size_t(weights + filters_.outputs), T(0));
  T* const into = want_dx ? dx.mutable_data() : nullptr;
  {
    const ReleaseGil release(Index(work(w)) * w.images);
    const auto snapshot = weights_.snapshot(true);
    go_back({filters_, w, snapshot->transposed.template as<void>(), x.data(), dy.data(), into, sums.data(),
             to.input_bias ? sums.data() + weights : nullptr, nullptr},
            w.images);
    add_gradients(sums, to.input, to.input_bias);
  }
  return or_none(dx, want_dx);
}

template <class T>
Array<T> ConvolutionLayer<T>::spread(const py::object& y_object, const Windows& w) {
  check_parameters();
  const Array<T> y = images_of<T>("y", y_object, w, true, filters_.outputs);
  Array<T> x = cleared<T>({w.images, w.axes[0].size, w.axes[1].size, filters_.inputs});
  T* const to = x.mutable_data();
  {
    const ReleaseGil release(Index(work(w)) * w.images);
    const auto snapshot = weights_.snapshot(true);
    go_back({filters_, w, snapshot->transposed.template as<void>(), nullptr, y.data(), to, nullptr, nullptr,
             nullptr},
            w.images);
  }
  return x;
}

template <class T>
Array<T> PoolingLayer<T>::forward(const py::object& x_object, const Windows& w) const {
  const Array<T> x = images_of<T>("x", x_object, w, false, w.channels);
  Array<T> y = new_array<T>({w.images, w.axes[0].outputs, w.axes[1].outputs, w.channels});
  T* const to = y.mutable_data();
  {
    const FlushDenormals flush;
    kernels_of<T>().pool(call(w, x.data(), to), alone);
  }
  return y;
}

template <class T>
Array<T> PoolingLayer<T>::backward(const py::object& x_object, const py::object& y_object,
                                   const py::object& dy_object, const Windows& w) const {
  const Array<T> x = images_of<T>("x", x_object, w, false, w.channels);
  const Array<T> y = images_of<T>("y", y_object, w, true, w.channels);
  const Array<T> dy = images_of<T>("dy", dy_object, w, true, w.channels);
  Array<T> dx = cleared<T>({w.images, w.axes[0].size, w.axes[1].size, w.channels});
  Pooling<T> p = call(w, x.data(), const_cast<T*>(y.data()));
  p.dy = dy.data();
  p.dx = dx.mutable_data();
  kernels_of<T>().pool_backward(p, alone);
  return dx;
}

template class ConvolutionLayer<float>;
template class ConvolutionLayer<double>;
template class PoolingLayer<float>;
template class PoolingLayer<double>;

} // namespace rnncore

#include "convolution.hpp"

#include "../engine/dispatch.hpp"
#include "../engine/threads.hpp"

namespace rnncore {
namespace {

/// Fewer operations than this are done before another thread is awake.
constexpr double least_window_work = 500'000;
/// A block of the kernels. Convolutions go in pieces of whole ones: gradients are then summed in the same
/// order, pieces or none.
constexpr Index output_block = 128;

Index outputs_of(const Windows& w) { return w.images * w.axes[0].outputs * w.axes[1].outputs; }
Index taps_of(const Windows& w) { return w.axes[0].taps * w.axes[1].taps; }

Index threads_for(double work) { return std::min(num_threads(), 1 + Index(work / least_window_work)); }

/// f(begin, end, team, space) for all outputs, in pieces of a multiple of `unit`, on a few threads; `work`:
/// operations of each output, `bytes`: what a thread works in.
template <class F>
void over_outputs(const Windows& w, double work, Index unit, Index bytes, F f) {
  in_pieces(outputs_of(w), work, unit, [&](Index begin, Index end) {
    const Index threads = threads_for(work * double(end - begin));
    // For all threads, and taken here: one of the pool that had no memory could not say so.
    char* const space = static_cast<char*>(scratch(std::size_t(bytes * threads)));
    on_team(threads, [&](const Team& team) { f(begin, end, team, space + bytes * team.rank); });
  });
}

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

std::vector<Index> shape_of(const py::object& object) {
  const auto array = py::cast<py::array>(object);
  return {array.shape(), array.shape() + array.ndim()};
}

/// Where weight and bias or their gradients lie; over time a weight has one axis of taps.
template <class T>
Weights<T> pointers(KeptArrays& kept, const std::vector<Index>& shape, const py::object& weight,
                    const py::object& bias) {
  using U = std::remove_const_t<T>;
  Weights<T> w{};
  if (shape_of(weight) != shape)
    throw py::value_error("weight must have shape " + text_of(shape) + ", got " +
                          text_of(shape_of(weight)));
  w.input = kept.keep<U>("weight", weight);
  w.input_bias = kept.keep<U>("bias", bias, {shape[0]});
  return w;
}

template <class T>
Packing<T> told(const Packing<T>& packing, const Filters& filters) {
  Packing<T> own = packing;
  own.cell = &filters;
  return own;
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
                                      const py::object& bias, bool owned, const std::string& weights)
    : kernels_(kernels_of<T>(weights).convolution), filters_{inputs, outputs, groups, {taps[0], taps[1]}},
      shape_(shape_of(weight)), packing_(told(kernels_.packing, filters_)), parameters_(owned),
      weights_(packing_, Shape{inputs / groups * taps[0] * taps[1], outputs},
               {pointers<const T>(parameters_, shape_, weight, bias)}) {
  if (py::cast<py::array>(weight).size() != outputs * (inputs / groups) * taps[0] * taps[1])
    throw py::value_error("weight: unexpected shape");
  if (kernels_.backward) return;
  if (groups != 1) throw py::value_error("weights of fewer bits need one group");
  weights_.freeze();
  parameters_.clear();
}

template <class T>
void ConvolutionLayer<T>::check_parameters() {
  parameters_.check();
  if (parameters_.may_have_changed()) weights_.look_again();
}

template <class T>
double ConvolutionLayer<T>::work(const Windows& w) const {
  return 2.0 * double(taps_of(w)) * double(filters_.outputs) * double(filters_.inputs / filters_.groups);
}

template <class T>
void ConvolutionLayer<T>::run(const Snapshot<T>& weights, const Windows& w, const T* x, T* y,
                              const Finish<T>& finish) const {
  over_outputs(w, work(w), output_block, kernels_.work(filters_, w),
               [&](Index begin, Index end, const Team& team, void* space) {
                 kernels_.forward({filters_, w, weights.packed(), x, y, finish, begin, end, space}, team);
               });
}

template <class T>
Array<T> ConvolutionLayer<T>::forward(const py::object& x_object, const Windows& w) {
  check_parameters();
  const Array<T> x = images_of<T>("x", x_object, w, false, filters_.inputs);
  Array<T> y = new_array<T>({w.images, w.axes[0].outputs, w.axes[1].outputs, filters_.outputs});
  T* const to = y.mutable_data();
  {
    const ReleaseGil release(Index(work(w)) * outputs_of(w));
    run(*weights_.snapshot(false), w, x.data(), to);
  }
  return y;
}

template <class T>
void ConvolutionLayer<T>::go_back(const ConvolutionBackward<T>& all) {
  over_outputs(all.windows, 2 * work(all.windows), output_block, kernels_.work(filters_, all.windows),
               [&](Index begin, Index end, const Team& team, void* space) {
                 ConvolutionBackward<T> b = all;
                 b.begin = begin;
                 b.end = end;
                 b.work = space;
                 kernels_.backward(b, team);
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
  check_trains(kernels_.backward);
  check_parameters();
  const Array<T> x = images_of<T>("x", x_object, w, false, filters_.inputs);
  const Array<T> dy = images_of<T>("dy", dy_object, w, true, filters_.outputs);
  Array<T> dx;
  if (want_dx) dx = cleared<T>({w.images, w.axes[0].size, w.axes[1].size, filters_.inputs});
  KeptArrays kept;
  const Weights<T> to = pointers<T>(kept, shape_, weight_gradient, bias_gradient);
  const Index weights = filters_.outputs * filters_.inputs / filters_.groups * taps_of(w);
  std::vector<T> sums(std::size_t(weights + filters_.outputs), T(0));
  T* const into = want_dx ? dx.mutable_data() : nullptr;
  {
    const ReleaseGil release(Index(work(w)) * outputs_of(w));
    const auto snapshot = weights_.snapshot(true);
    go_back({filters_, w, snapshot->transposed.template as<void>(), x.data(), dy.data(), into, sums.data(),
             to.input_bias ? sums.data() + weights : nullptr, 0, 0, nullptr});
    add_gradients(sums, to.input, to.input_bias);
  }
  return or_none(dx, want_dx);
}

template <class T>
Array<T> ConvolutionLayer<T>::spread(const py::object& y_object, const Windows& w, const py::object& bias) {
  check_trains(kernels_.backward);
  check_parameters();
  const Array<T> y = images_of<T>("y", y_object, w, true, filters_.outputs);
  const T* const first = parameter<T>("bias", bias, {filters_.inputs});
  Array<T> x = cleared<T>({w.images, w.axes[0].size, w.axes[1].size, filters_.inputs});
  T* const to = x.mutable_data();
  for (Index i = 0; first && i < x.size(); i += filters_.inputs)
    std::copy_n(first, filters_.inputs, to + i);
  {
    const ReleaseGil release(Index(work(w)) * outputs_of(w));
    const auto snapshot = weights_.snapshot(true);
    go_back({filters_, w, snapshot->transposed.template as<void>(), nullptr, y.data(), to, nullptr, nullptr,
             0, 0, nullptr});
  }
  return x;
}

/// Operations of a tap of a channel, about.
constexpr double tap_work = 4;

template <class T>
void PoolingLayer<T>::run(const Windows& w, const T* x, T* y) const {
  over_outputs(w, tap_work * double(taps_of(w) * w.channels), 1, 0,
               [&](Index begin, Index end, const Team& team, void*) {
                 kernels_of<T>().pool({w, largest_, padded_, x, y, begin, end}, team);
               });
}

template <class T>
Array<T> PoolingLayer<T>::forward(const py::object& x_object, const Windows& w) const {
  const Array<T> x = images_of<T>("x", x_object, w, false, w.channels);
  Array<T> y = new_array<T>({w.images, w.axes[0].outputs, w.axes[1].outputs, w.channels});
  T* const to = y.mutable_data();
  {
    const ReleaseGil release(y.size() * taps_of(w));
    run(w, x.data(), to);
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
  Pooling<T> all{w, largest_, padded_,   x.data(),         const_cast<T*>(y.data()),
                 0, 0,        dy.data(), dx.mutable_data()};
  {
    const ReleaseGil release(y.size() * taps_of(w));
    over_outputs(w, tap_work * double(taps_of(w) * w.channels), 1, 0,
                 [&](Index begin, Index end, const Team& team, void*) {
                   Pooling<T> p = all;
                   p.begin = begin;
                   p.end = end;
                   kernels_of<T>().pool_backward(p, team);
                 });
  }
  return dx;
}

template class ConvolutionLayer<float>;
template class ConvolutionLayer<double>;
template class PoolingLayer<float>;
template class PoolingLayer<double>;

} // namespace rnncore

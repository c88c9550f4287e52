#include "program.hpp"

#include <cmath>
#include <numeric>

#include "../engine/dispatch.hpp"

namespace rnncore {
namespace {

/// Numbers of an axis that does not lie in one run are brought together, so many at once.
constexpr Index at_once = 256;

template <class Kind, std::size_t N>
Kind named(const std::pair<const char*, Kind> (&names)[N], const std::string& name) {
  for (const auto& [known, kind] : names)
    if (name == known) return kind;
  throw std::invalid_argument("no step named '" + name + "'");
}

constexpr std::pair<const char*, Function> functions[] = {{"negative", Function::negative},
                                                          {"absolute", Function::absolute},
                                                          {"square", Function::square},
                                                          {"square_root", Function::square_root},
                                                          {"reciprocal", Function::reciprocal}};
constexpr std::pair<const char*, Operation> operations[] = {
    {"add", Operation::add},       {"subtract", Operation::subtract}, {"multiply", Operation::multiply},
    {"divide", Operation::divide}, {"maximum", Operation::maximum},   {"minimum", Operation::minimum}};

constexpr std::pair<const char*, Reduction> reductions[] = {{"sum", Reduction::sum},
                                                            {"mean", Reduction::mean},
                                                            {"max", Reduction::max},
                                                            {"min", Reduction::min},
                                                            {"norm", Reduction::norm}};

template <class T>
T* whole(const char* name, const py::array& array, Index size) {
  if (array.size() != size) throw py::value_error(std::string(name) + ": unexpected shape");
  return in_place<T>(name, array).mutable_data();
}

/// A run of numbers at a stride: where they lie if that is one, else a copy.
template <class T>
const T* gathered(const T* from, Index step, Index n, T* buffer) {
  if (step == 1) return from;
  for (Index i = 0; i < n; ++i) buffer[i] = from[i * step];
  return buffer;
}

/// f(numbers, result, n) over all of some arrays, in runs. The arrays but the first are read.
template <class T, class F>
void in_runs(const Loops<T>& loops, int read, F f) {
  loops.each([&](Index n, T* const* at) {
    T buffers[Loops<T>::most_arrays][at_once];
    const Index step = loops.step(0);
    bool runs = step == 1;
    for (int i = 1; i <= read; ++i) runs = runs && loops.step(i) == 1;
    const Index most = runs ? n : at_once;
    for (Index begin = 0; begin < n; begin += most) {
      const Index count = std::min(most, n - begin);
      const T* from[Loops<T>::most_arrays] = {};
      for (int i = 1; i <= read; ++i)
        from[i] = gathered(at[i] + begin * loops.step(i), loops.step(i), count, buffers[i]);
      T* const to = step == 1 ? at[0] + begin : buffers[0];
      f(from + 1, to, count);
      for (Index i = 0; step != 1 && i < count; ++i) at[0][(begin + i) * step] = to[i];
    }
  });
}

/// Of what lies along some axes from one on. Sums are those of float64, however many numbers there are.
template <class T>
double reduced(Reduction kind, const std::vector<Index>& sizes, const std::vector<Index>& strides,
               const T* from, std::size_t axis) {
  if (axis == sizes.size()) return kind == Reduction::norm ? double(*from) * double(*from) : double(*from);
  const bool extreme = kind == Reduction::max || kind == Reduction::min;
  double all = 0;
  for (Index i = 0; i < sizes[axis]; ++i) {
    const double own = reduced(kind, sizes, strides, from + i * strides[axis], axis + 1);
    if (!extreme)
      all += own;
    else if (i == 0 || own != own || (kind == Reduction::max ? own > all : own < all))
      all = all != all ? all : own;
  }
  return all;
}

} // namespace

template <class T>
Loops<T>::Loops(const std::vector<py::array>& arrays) : count_(int(arrays.size())) {
  const py::array& to = arrays.at(0);
  const Index axes = to.ndim();
  for (int i = 0; i < count_; ++i) {
    if (!py::array_t<T>::check_(arrays[i]) || arrays[i].ndim() != axes ||
        !std::equal(to.shape(), to.shape() + axes, arrays[i].shape()))
      throw py::value_error("arrays of a step must be alike");
    data_[i] = static_cast<T*>(const_cast<void*>(arrays[i].data()));
  }
  if (!to.writeable()) throw py::value_error("a step must be able to write");
  std::vector<Index> order(std::size_t(axes), 0);
  std::iota(order.begin(), order.end(), Index(0));
  std::stable_sort(order.begin(), order.end(),
                   [&](Index a, Index b) { return std::abs(to.strides(a)) > std::abs(to.strides(b)); });
  for (const Index axis : order) {
    if (to.shape(axis) == 1) continue;
    bool joins = !sizes_.empty();
    for (int i = 0; joins && i < count_; ++i)
      joins = strides_[i].back() == to.shape(axis) * arrays[i].strides(axis) / Index(sizeof(T));
    if (!joins) sizes_.push_back(1);
    sizes_.back() *= to.shape(axis);
    for (int i = 0; i < count_; ++i) {
      if (!joins) strides_[i].push_back(0);
      strides_[i].back() = arrays[i].strides(axis) / Index(sizeof(T));
    }
  }
}

template <class T>
template <class F>
void Loops<T>::each(F f) const {
  const int outer = int(sizes_.size()) - 1;
  if (outer < 0) return f(1, data_);
  T* at[most_arrays];
  std::copy_n(data_, most_arrays, at);
  Index place[64] = {};
  for (const Index size : sizes_)
    if (size == 0) return;
  while (true) {
    f(sizes_.back(), at);
    int axis = outer - 1;
    for (; axis >= 0; --axis) {
      for (int i = 0; i < count_; ++i) at[i] += strides_[i][axis];
      if (++place[axis] < sizes_[axis]) break;
      place[axis] = 0;
      for (int i = 0; i < count_; ++i) at[i] -= strides_[i][axis] * sizes_[axis];
    }
    if (axis < 0) return;
  }
}

template <class T>
void Program<T>::add(std::function<void()> step, Index work, std::initializer_list<py::object> parts) {
  steps_.push_back(std::move(step));
  work_ += work;
  for (const py::object& part : parts) kept_.append(part);
}

template <class T>
void Program<T>::copy(const py::array& to, const py::array& from) {
  const Loops<T> loops({to, from});
  add(
      [loops] {
        loops.each([&](Index n, T* const* at) {
          const Index a = loops.step(0), b = loops.step(1);
          if (a == 1 && b == 1) return void(std::copy_n(at[1], n, at[0]));
          for (Index i = 0; i < n; ++i) at[0][i * a] = at[1][i * b];
        });
      },
      to.size(), {to, from});
}

template <class T>
void Program<T>::gather(const py::array& to, const py::array& from, const Array<int64_t>& index) {
  const Index n = index.size(), size = from.size();
  const int64_t* const at = index.data();
  for (Index i = 0; i < n; ++i)
    if (at[i] < 0 || at[i] >= size) throw py::value_error("index: out of range");
  T *const y = whole<T>("to", to, n), *const x = whole<T>("from", from, size);
  add(
      [=] {
        for (Index i = 0; i < n; ++i) y[i] = x[at[i]];
      },
      2 * n, {to, from, index});
}

template <class T>
void Program<T>::activate(const py::array& to, const py::array& from, const std::string& name, double alpha,
                          double beta) {
  const Activation activation = activation_of(name, alpha, beta);
  const Loops<T> loops({to, from});
  add(
      [=] {
        in_runs(loops, 1, [&](const T* const* x, T* y, Index n) {
          kernels_of<T>().pointwise.activate(activation, x[0], y, n);
        });
      },
      16 * to.size(), {to, from});
}

template <class T>
void Program<T>::apply(const py::array& to, const py::array& from, const std::string& name) {
  const Function function = named(functions, name);
  const Loops<T> loops({to, from});
  add(
      [=] {
        in_runs(loops, 1, [&](const T* const* x, T* y, Index n) {
          kernels_of<T>().pointwise.apply(function, x[0], y, n);
        });
      },
      2 * to.size(), {to, from});
}

template <class T>
void Program<T>::combine(const py::array& to, const py::array& a, const py::array& b,
                         const std::string& name) {
  const Operation operation = named(operations, name);
  const Loops<T> loops({to, a, b});
  add(
      [=] {
        in_runs(loops, 2, [&](const T* const* x, T* y, Index n) {
          kernels_of<T>().pointwise.combine(operation, x[0], x[1], y, n);
        });
      },
      2 * to.size(), {to, a, b});
}

template <class T>
void Program<T>::reduce(const py::array& to, const py::array& from, const std::string& name) {
  const Reduction kind = named(reductions, name);
  const Index kept = to.ndim(), gone = from.ndim() - kept;
  if (gone < 0 || !std::equal(to.shape(), to.shape() + kept, from.shape()))
    throw py::value_error("from: unexpected shape");
  std::vector<Index> sizes, strides;
  Index count = 1;
  for (Index axis = kept; axis < from.ndim(); ++axis) {
    sizes.push_back(from.shape(axis));
    strides.push_back(from.strides(axis) / Index(sizeof(T)));
    count *= from.shape(axis);
  }
  if (count == 0) throw py::value_error("from: nothing to reduce");
  const std::vector<Index> shape(from.shape(), from.shape() + kept);
  const std::vector<Index> steps(from.strides(), from.strides() + kept);
  const py::array first(from.dtype(), shape, steps, from.data(), from);
  const Loops<T> loops({to, first});
  add(
      [=] {
        loops.each([&](Index n, T* const* at) {
          for (Index i = 0; i < n; ++i) {
            const double all = reduced(kind, sizes, strides, at[1] + i * loops.step(1), 0);
            at[0][i * loops.step(0)] = T(kind == Reduction::mean   ? all / double(count)
                                         : kind == Reduction::norm ? std::sqrt(all)
                                                                   : all);
          }
        });
      },
      4 * from.size(), {to, from});
}

template <class T>
void Program<T>::pointwise(const py::array& to, const py::array& from, const py::object& object) {
  const auto& layer = object.cast<const PointwiseLayer<T>&>();
  const Index width = to.ndim() ? to.shape(to.ndim() - 1) : 1, rows = width ? to.size() / width : 0;
  if (layer.width() && layer.width() != width) throw py::value_error("from: unexpected width");
  T *const y = whole<T>("to", to, to.size()), *const x = whole<T>("from", from, to.size());
  add([=, &layer] { layer.run(rows, width, x, y); }, 16 * to.size(), {to, from, object});
}

template <class T>
void Program<T>::linear(const py::array& to, const py::array& from, const py::object& object) {
  auto& layer = object.cast<LinearLayer<T>&>();
  const Index inputs = layer.shape().input, rows = inputs ? from.size() / inputs : 0;
  T* const y = whole<T>("to", to, rows * layer.shape().hidden);
  T* const x = whole<T>("from", from, rows * inputs);
  layer.check_parameters();
  const auto weights = layer.snapshot(false);
  add([=, &layer] { layer.multiply(*weights, rows, x, y); }, rows * inputs * layer.shape().hidden,
      {to, from, object});
}

template <class T>
void Program<T>::convolve(const py::array& to, const py::array& from, const py::object& object,
                          const Windows& w, const py::object& add_object, const py::object& activation,
                          bool gated) {
  auto& layer = object.cast<ConvolutionLayer<T>&>();
  const Index pixels = w.images * w.axes[0].outputs * w.axes[1].outputs;
  T* const y = whole<T>("to", to, pixels * layer.filters().outputs);
  T* const x = whole<T>("from", from, w.images * w.axes[0].size * w.axes[1].size * layer.filters().inputs);
  T* const other = add_object.is_none() ? nullptr : whole<T>("add", add_object, to.size());
  Activation f{};
  const bool activates = !activation.is_none();
  if (activates) {
    const auto given = activation.cast<std::tuple<std::string, double, double>>();
    f = activation_of(std::get<0>(given), std::get<1>(given), std::get<2>(given));
  }
  layer.check_parameters();
  const auto weights = layer.snapshot(false);
  add([=, &layer] { layer.run(*weights, w, x, y, {other, activates ? &f : nullptr, gated}); },
      to.size() * layer.filters().inputs, {to, from, object, add_object});
}

template <class T>
void Program<T>::pool(const py::array& to, const py::array& from, const py::object& object,
                      const Windows& w) {
  const auto& layer = object.cast<const PoolingLayer<T>&>();
  T* const y = whole<T>("to", to, w.images * w.axes[0].outputs * w.axes[1].outputs * w.channels);
  T* const x = whole<T>("from", from, w.images * w.axes[0].size * w.axes[1].size * w.channels);
  add([=, &layer] { layer.run(w, x, y); }, 8 * to.size(), {to, from, object});
}

template <class T>
void Program<T>::recur(const py::array& to, const py::array& from, const py::object& object,
                       const py::object& h, const py::object& c) {
  auto& layer = object.cast<Layer<T>&>();
  const Index directions = layer.directions();
  const Shape& shape = layer.shape();
  if (from.ndim() != 3 || from.shape(2) != shape.input) throw py::value_error("from: unexpected shape");
  const Index time = from.shape(0), batch = from.shape(1);
  ForwardArrays<T> arrays{};
  arrays.grid = {time, batch, false};
  arrays.x = whole<T>("from", from, time * batch * shape.input);
  arrays.y = whole<T>("to", to, time * batch * directions * shape.output);
  arrays.h = whole<T>("h", h, directions * batch * shape.output);
  if (layer.has_cell_state()) arrays.running_c = whole<T>("c", c, directions * batch * shape.hidden);
  layer.check_parameters();
  const Pinned<T> weights = layer.weights();
  add([=, &layer] { layer.passes().forward(arrays, nullptr, 0, &weights); },
      time * batch * directions * layer.gates() * shape.hidden * (shape.input + shape.output),
      {to, from, object, h, c});
}

template <class T>
void Program<T>::run() {
  const ReleaseGil release(work_);
  for (const auto& step : steps_) step();
}

template class Program<float>;
template class Program<double>;

} // namespace rnncore

#include "layer.hpp"

#include <algorithm>
#include <cstring>

#include "denormals.hpp"
#include "dispatch.hpp"

namespace rnncore {
namespace {

template <class T>
const Cell<T>& find_cell(const std::string& name) {
  const Kernels<T>& all = kernels_of<T>();
  for (Index i = 0; i < all.count; ++i)
    if (name == all.cells[i].name) return all.cells[i];
  throw std::invalid_argument("no cell named '" + name + "'");
}

/// The array as rows the kernels can read, copied only if it is not contiguous.
template <class T>
Array<T> contiguous(const py::object& object) {
  if (Array<T>::check_(object)) return py::reinterpret_borrow<Array<T>>(object);
  if (!py::array_t<T>::check_(object)) throw py::type_error("array of another dtype than the layer's");
  return Array<T>::ensure(object);
}

template <class T>
Array<T> of_shape(const char* name, const py::object& object, const std::vector<Index>& shape) {
  Array<T> array = contiguous<T>(object);
  if (array.ndim() != Index(shape.size()) || !std::equal(shape.begin(), shape.end(), array.shape()))
    throw py::value_error(std::string(name) + ": unexpected shape");
  return array;
}

template <class T>
T* write(Array<T>& array) {
  return array.size() ? array.mutable_data() : nullptr;
}

/// A new array that starts as `from`, or as zeros.
template <class T>
Array<T> copy_or_zeros(const char* name, const py::object& from, const std::vector<Index>& shape) {
  Array<T> result(shape);
  if (from.is_none())
    std::fill_n(result.mutable_data(), result.size(), T(0));
  else
    std::copy_n(of_shape<T>(name, from, shape).data(), result.size(), result.mutable_data());
  return result;
}

template <class T>
using Four = std::array<py::object, 4>;

template <class T>
Weights<T> pointers(const std::array<py::object, 4>& arrays, const Cell<std::remove_const_t<T>>& cell,
                    Shape shape) {
  using U = std::remove_const_t<T>;
  const Index rows = cell.gates * shape.hidden;
  const auto matrix = [&](int i, std::vector<Index> expected) -> U* {
    if (arrays[i].is_none()) return nullptr;
    if (!Array<U>::check_(arrays[i])) throw py::type_error("parameters must be contiguous arrays");
    return of_shape<U>("parameter", arrays[i], expected).mutable_data();
  };
  return {matrix(0, {rows, shape.input}), matrix(1, {rows, shape.hidden}), matrix(2, {rows}),
          matrix(3, {rows})};
}

/// Scratch of this thread, kept from call to call.
void* work_space(Index bytes) {
  thread_local Buffer buffer;
  return buffer.reserve(std::size_t(bytes));
}

/// Calls shorter than a few microseconds keep the GIL: releasing it costs as much.
constexpr double least_work_without_gil = 2e5;

class ReleaseGil {
public:
  explicit ReleaseGil(double work) {
    if (work > least_work_without_gil) released_.emplace();
  }

private:
  std::optional<py::gil_scoped_release> released_;
};

template <class T>
void zero_padding(const Grid& grid, const int64_t* lengths, T* rows, Index width) {
  for (Index b = 0; b < grid.batch; ++b)
    for (Index t = lengths[b]; t < grid.time; ++t) std::fill_n(rows + grid.row(t, b) * width, width, T(0));
}

} // namespace

template <class T>
std::size_t Tape<T>::bytes() const {
  std::size_t sum = x.nbytes() + y.nbytes() + c.nbytes() + first_h.nbytes() + first_c.nbytes();
  for (const Direction& d : directions) sum += d.gates.bytes();
  return sum;
}

template <class T>
Layer<T>::Layer(const std::string& cell, Index input, Index hidden, bool batch_first,
                std::vector<std::array<py::object, 4>> params)
    : cell_(find_cell<T>(cell)), shape_{input, hidden}, batch_first_(batch_first),
      params_(std::move(params)) {
  for (const auto& direction : params_)
    weights_.push_back(
        std::make_unique<WatchedWeights<T>>(cell_, shape_, pointers<const T>(direction, cell_, shape_)));
}

template <class T>
Buffer Layer<T>::take_spare(std::size_t bytes) {
  const std::lock_guard lock(spare_mutex_);
  Buffer buffer;
  if (!spare_.empty()) {
    buffer = std::move(spare_.back());
    spare_.pop_back();
  }
  buffer.reserve(bytes);
  return buffer;
}

template <class T>
py::tuple Layer<T>::forward(const py::object& x_object, const py::object& h0, const py::object& c0,
                            const py::object& lengths_object, bool record, bool cell_states) {
  const Index D = Index(weights_.size()), H = shape_.hidden;
  const Array<T> x = contiguous<T>(x_object);
  if (x.ndim() != 3 || x.shape(2) != shape_.input) throw py::value_error("x: unexpected shape");
  const Grid grid{x.shape(batch_first_ ? 1 : 0), x.shape(batch_first_ ? 0 : 1), batch_first_};
  const int64_t* lengths = nullptr;
  Array<int64_t> lengths_array;
  if (!lengths_object.is_none()) {
    lengths_array = of_shape<int64_t>("lengths", lengths_object, {grid.batch});
    lengths = lengths_array.data();
  }

  const std::vector<Index> wide{x.shape(0), x.shape(1), D * H}, states{D, grid.batch, H};
  Array<T> y(wide), h_n = copy_or_zeros<T>("h0", h0, states), c_n, c;
  if (cell_.has_cell_state) c_n = copy_or_zeros<T>("c0", c0, states);
  const bool keeps_c = cell_.has_cell_state && (record || cell_states);
  if (keeps_c) c = Array<T>(wide);

  auto tape = record ? std::make_unique<Tape<T>>() : nullptr;
  if (tape) {
    tape->grid = grid;
    tape->ragged = lengths != nullptr;
    tape->x = x;
    tape->y = y;
    tape->c = c;
    tape->first_h = copy_or_zeros<T>("h0", h0, states);
    if (cell_.has_cell_state) tape->first_c = copy_or_zeros<T>("c0", c0, states);
    tape->directions.resize(D);
  }

  const T* x_data = x.data();
  T *y_data = write(y), *h_data = write(h_n);
  T *c_data = keeps_c ? write(c) : nullptr, *c_n_data = cell_.has_cell_state ? write(c_n) : nullptr;
  const double work = 2.0 * grid.time * grid.batch * cell_.gates * H * (shape_.input + H) * D;
  {
    const ReleaseGil release(work);
    const FlushDenormals flush;
    if (lengths) zero_padding(grid, lengths, y_data, D * H);
    if (lengths && keeps_c) zero_padding(grid, lengths, c_data, D * H);
    for (Index d = 0; d < D; ++d) {
      SequenceSchedule schedule(grid, lengths, d == 1);
      const auto weights = weights_[d]->snapshot(record);
      const Schedule view = schedule.view();
      const Rows<T> h_rows{h_data + d * grid.batch * H, H};
      Forward<T> pass{};
      pass.shape = shape_;
      pass.schedule = view;
      pass.packed = weights->packed.template as<T>();
      pass.x = {x_data, shape_.input};
      pass.y = {y_data + d * H, D * H};
      pass.first = {h_rows.base, H};
      if (c_n_data) pass.running_c = {c_n_data + d * grid.batch * H, H};
      if (c_data) pass.c = {c_data + d * H, D * H};
      if (tape) {
        auto& direction = tape->directions[d];
        direction.gates = take_spare(std::size_t(view.nodes * cell_.sizes(shape_).tape) * sizeof(T));
        pass.tape = direction.gates.template as<T>();
      }
      pass.work = work_space(cell_.forward_work(shape_, view));
      if (view.nodes) cell_.forward(pass);

      for (Index b = 0; b < grid.batch; ++b) {
        const Index last = schedule.last_row(b);
        if (last < 0) continue;
        std::copy_n(pass.y.base + last * D * H, H, h_rows.base + b * H);
        if (c_data) std::copy_n(pass.c.base + last * D * H, H, pass.running_c.base + b * H);
      }
      if (tape) {
        tape->directions[d].schedule = std::move(schedule);
        tape->directions[d].weights = weights;
      }
    }
  }
  const auto or_none = [](bool given, const py::object& object) { return given ? object : py::none(); };
  return py::make_tuple(y, h_n, or_none(cell_.has_cell_state, c_n), or_none(keeps_c, c),
                        tape ? py::cast(std::move(tape)) : py::none());
}

template <class T>
py::tuple Layer<T>::backward(Tape<T>& tape, const py::object& dy_object, const py::object& dh_object,
                             const py::object& dc_object,
                             const std::vector<std::array<py::object, 4>>& gradients, bool want_dx) {
  const Grid& grid = tape.grid;
  const Index D = Index(weights_.size()), H = shape_.hidden, I = shape_.input;
  const std::vector<Index> outer{tape.x.shape(0), tape.x.shape(1)}, states{D, grid.batch, H};
  if (Index(gradients.size()) != D) throw py::value_error("gradients: one group for each direction");

  Array<T> dy, dx, dc, dh = copy_or_zeros<T>("dh", dh_object, states);
  if (!dy_object.is_none()) dy = of_shape<T>("dy", dy_object, {outer[0], outer[1], D * H});
  if (cell_.has_cell_state) dc = copy_or_zeros<T>("dc", dc_object, states);
  if (want_dx) dx = Array<T>({outer[0], outer[1], I});

  std::vector<Weights<T>> sums;
  for (const auto& group : gradients) sums.push_back(pointers<T>(group, cell_, shape_));
  const T *x = tape.x.data(), *y = tape.y.data(), *c = tape.c.data();
  const T *first_h = tape.first_h.data(), *first_c = tape.first_c.data();
  const T* dy_data = dy_object.is_none() ? nullptr : dy.data();
  T *dx_data = want_dx ? write(dx) : nullptr, *dh_data = write(dh);
  T* dc_data = cell_.has_cell_state ? write(dc) : nullptr;
  const double work = 4.0 * grid.time * grid.batch * cell_.gates * H * (I + H) * D;
  {
    const ReleaseGil release(work);
    const FlushDenormals flush;
    if (dx_data && tape.ragged) std::fill_n(dx_data, grid.time * grid.batch * I, T(0));
    for (Index d = 0; d < D; ++d) {
      auto& direction = tape.directions[d];
      const Schedule view = direction.schedule.view();
      const Index state = d * grid.batch * H;
      Backward<T> pass{};
      pass.shape = shape_;
      pass.schedule = view;
      pass.packed_transposed = direction.weights->transposed.template as<T>();
      pass.x = {x, I};
      pass.y = {y + d * H, D * H};
      pass.first = {first_h + state, H};
      if (cell_.has_cell_state) {
        pass.first_c = {first_c + state, H};
        pass.c = {c + d * H, D * H};
        pass.dc = {dc_data + state, H};
      }
      pass.tape = direction.gates.template as<T>();
      if (dy_data) pass.dy = {dy_data + d * H, D * H};
      pass.dh = {dh_data + state, H};
      if (dx_data) pass.dx = {dx_data, I};
      pass.add_dx = d > 0;
      pass.gradients = sums[d];
      pass.work = work_space(cell_.backward_work(shape_, view));
      if (view.nodes) cell_.backward(pass);

      const std::lock_guard lock(spare_mutex_);
      if (Index(spare_.size()) < D) spare_.push_back(std::move(direction.gates));
      direction.gates = Buffer();
    }
  }
  const auto or_none = [](bool given, const py::object& object) { return given ? object : py::none(); };
  return py::make_tuple(or_none(want_dx, dx), dh, or_none(cell_.has_cell_state, dc));
}

template struct Tape<float>;
template struct Tape<double>;
template class Layer<float>;
template class Layer<double>;

} // namespace rnncore

#include "layer.hpp"

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

/// A new array that starts as `from`, or as zeros.
template <class T>
Array<T> copy_or_zeros(const char* name, const py::object& from, Extents shape) {
  Array<T> result = new_array<T>(shape);
  if (from.is_none())
    std::fill_n(result.mutable_data(), result.size(), T(0));
  else
    std::copy_n(of_shape<T>(name, from, shape).data(), result.size(), result.mutable_data());
  return result;
}

/// T may be const.
template <class T>
std::vector<Weights<T>> pointers(const std::vector<Parameters>& groups,
                                 const Cell<std::remove_const_t<T>>& cell, Shape shape) {
  using U = std::remove_const_t<T>;
  const Index rows = cell.packing.gates * shape.hidden;
  std::vector<Weights<T>> result;
  for (const Parameters& p : groups)
    result.push_back({parameter<U>(p[0], {rows, shape.input}), parameter<U>(p[1], {rows, shape.hidden}),
                      parameter<U>(p[2], {rows}), parameter<U>(p[3], {rows})});
  return result;
}

template <class T>
void zero_padding(const Grid& grid, const int64_t* lengths, T* rows, Index width) {
  for (Index b = 0; b < grid.batch; ++b)
    for (Index t = lengths[b]; t < grid.time; ++t) std::fill_n(rows + grid.row(t, b) * width, width, T(0));
}

} // namespace

template <class T>
std::size_t Tape<T>::bytes() const {
  return x.nbytes() + y.nbytes() + first_h.nbytes() + first_c.nbytes() + record.tape.bytes() +
         record.c.bytes();
}

template <class T>
Layer<T>::Layer(const std::string& cell, Index input, Index hidden, bool batch_first,
                std::vector<Parameters> parameters)
    : cell_(find_cell<T>(cell)), shape_{input, hidden}, batch_first_(batch_first),
      parameters_(std::move(parameters)),
      passes_(cell_, shape_, pointers<const T>(parameters_, cell_, shape_)) {}

template <class T>
py::tuple Layer<T>::forward(const py::object& x_object, const py::object& h0, const py::object& c0,
                            const py::object& lengths_object, bool record, bool cell_states) {
  const Array<T> x = contiguous<T>(x_object);
  if (x.ndim() != 3 || x.shape(2) != shape_.input) throw py::value_error("x: unexpected shape");
  const Grid grid{x.shape(batch_first_ ? 1 : 0), x.shape(batch_first_ ? 0 : 1), batch_first_};
  Array<int64_t> lengths;
  if (!lengths_object.is_none()) lengths = of_shape<int64_t>("lengths", lengths_object, {grid.batch});

  const Index D = Index(parameters_.size()), H = shape_.hidden;
  const bool has_c = cell_.has_cell_state, keeps_c = has_c && cell_states;
  const Extents wide{x.shape(0), x.shape(1), D * H}, states{D, grid.batch, H};
  Array<T> y = new_array<T>(wide), h = copy_or_zeros<T>("h0", h0, states), running_c, c;
  if (has_c) running_c = copy_or_zeros<T>("c0", c0, states);
  if (keeps_c) c = new_array<T>(wide);
  std::unique_ptr<Tape<T>> tape;
  if (record) {
    tape.reset(new Tape<T>{grid, !lengths_object.is_none(), x, y, {}, {}, {}});
    tape->first_h = copy_or_zeros<T>("h0", h0, states);
    if (has_c) tape->first_c = copy_or_zeros<T>("c0", c0, states);
  }

  const ForwardArrays<T> arrays{grid,
                                lengths_object.is_none() ? nullptr : lengths.data(),
                                x.data(),
                                y.mutable_data(),
                                h.mutable_data(),
                                has_c ? running_c.mutable_data() : nullptr,
                                keeps_c ? c.mutable_data() : nullptr};
  {
    const ReleaseGil release(y.size() * (shape_.input + H) * cell_.packing.gates);
    if (arrays.lengths) zero_padding(grid, arrays.lengths, arrays.y, D * H);
    if (arrays.lengths && keeps_c) zero_padding(grid, arrays.lengths, arrays.c, D * H);
    passes_.forward(arrays, tape ? &tape->record : nullptr);
  }
  return py::make_tuple(y, h, or_none(running_c, has_c), or_none(c, keeps_c),
                        tape ? py::cast(std::move(tape)) : py::none());
}

template <class T>
py::tuple Layer<T>::backward(Tape<T>& tape, const py::object& dy_object, const py::object& dh_object,
                             const py::object& dc_object, const std::vector<Parameters>& gradients,
                             bool want_dx) {
  if (gradients.size() != parameters_.size())
    throw py::value_error("gradients: a group for each direction");
  if (tape.record.parts.empty()) throw py::value_error("tape: has served already");
  const bool has_c = cell_.has_cell_state;
  const Extents states{tape.first_h.shape(0), tape.first_h.shape(1), tape.first_h.shape(2)};
  Array<T> dy, dx, dc, dh = copy_or_zeros<T>("dh", dh_object, states);
  if (!dy_object.is_none())
    dy = of_shape<T>("dy", dy_object, {tape.y.shape(0), tape.y.shape(1), tape.y.shape(2)});
  if (has_c) dc = copy_or_zeros<T>("dc", dc_object, states);
  if (want_dx) dx = new_array<T>({tape.x.shape(0), tape.x.shape(1), shape_.input});

  const BackwardArrays<T> arrays{tape.x.data(),
                                 tape.y.data(),
                                 tape.first_h.data(),
                                 has_c ? tape.first_c.data() : nullptr,
                                 dy_object.is_none() ? nullptr : dy.data(),
                                 dh.mutable_data(),
                                 has_c ? dc.mutable_data() : nullptr,
                                 want_dx ? dx.mutable_data() : nullptr,
                                 pointers<T>(gradients, cell_, shape_)};
  {
    const ReleaseGil release(tape.y.size() * (shape_.input + shape_.hidden) * cell_.packing.gates);
    if (want_dx && tape.ragged) std::fill_n(arrays.dx, dx.size(), T(0));
    passes_.backward(arrays, tape.grid, tape.record);
    tape.record = {};
  }
  return py::make_tuple(or_none(dx, want_dx), dh, or_none(dc, has_c));
}

template struct Tape<float>;
template struct Tape<double>;
template class Layer<float>;
template class Layer<double>;

} // namespace rnncore

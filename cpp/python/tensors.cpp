#include "tensors.hpp"

#include <functional>
#include <numeric>
#include <optional>

#include "dlpack.hpp"

namespace rnncore {
namespace {

/// The sequences of a call, and where their rows lie.
struct TensorRows {
  Grid grid;
  const int64_t* lengths = nullptr; // (B), or null if all have as many steps

  TensorRows(Index first, Index second, bool batch_first)
      : grid{batch_first ? second : first, batch_first ? first : second, batch_first} {}
  /// Packed: `batch_sizes` of them have each step.
  TensorRows(Index rows, const LentTensor<int64_t>& batch_sizes) : grid{} {
    const int64_t *begin = batch_sizes.data(), *end = begin + batch_sizes.size();
    const bool falls =
        batch_sizes.axes() == 1 && begin != end && std::is_sorted(begin, end, std::greater<>());
    if (!falls || end[-1] < 1 || std::accumulate(begin, end, int64_t(0)) != rows)
      throw py::value_error("batch_sizes must be positive, never grow, and add up to the " +
                            std::to_string(rows) + " rows of x");
    grid = {end - begin, Index(*begin), false};
    if (*begin == end[-1]) return; // the rows of a batch of one length
    offsets_.assign(grid.time + 1, 0);
    std::partial_sum(begin, end, offsets_.begin() + 1);
    own_.assign(grid.batch, 0);
    for (Index t = 0; t < grid.time; ++t) std::fill_n(own_.begin(), begin[t], t + 1);
    grid.offsets = offsets_.data();
    lengths = own_.data();
  }
  TensorRows(const TensorRows&) = delete;

private:
  std::vector<int64_t> offsets_, own_;
};

/// Fills a state with what is given, or with zeros.
template <class T>
void fill(T* to, const char* name, const py::object& from, Extents shape) {
  const LentTensor<T> given(name, from);
  if (given) given.expect(shape);
  const Index size = std::accumulate(shape.begin(), shape.end(), Index(1), std::multiplies<>());
  given ? void(std::copy_n(given.data(), size, to)) : void(std::fill_n(to, size, T(0)));
}

/// New tensors for the gradients of all parameters, in their order.
template <class T>
class ParameterGradients {
public:
  explicit ParameterGradients(const ParameterGroups& parameters) {
    for (const auto& transitions : parameters.groups) {
      std::vector<Weights<T>>& direction = directions_.emplace_back();
      for (const Parameters& p : transitions)
        direction.push_back({make(p[0]), make(p[1]), make(p[2]), make(p[3]), make(p[4]), make(p[5])});
    }
    for (const auto& direction : directions_) transitions_.push_back(direction.data());
  }
  void zero() {
    for (NewTensor<T>& tensor : tensors) std::fill_n(tensor.data(), tensor.size(), T(0));
  }
  const Weights<T>* const* data() const { return transitions_.data(); }

  std::vector<NewTensor<T>> tensors;

private:
  T* make(const Parameters::value_type& parameter) {
    if (parameter.second.is_none()) return nullptr;
    const auto array = py::reinterpret_borrow<py::array>(parameter.second);
    return tensors.emplace_back(array.shape(), array.shape() + array.ndim()).data();
  }

  std::vector<std::vector<Weights<T>>> directions_;
  std::vector<const Weights<T>*> transitions_; // of each direction the first
};

/// Whether the gradients of any parameters are wanted: those after x, h0 and c0.
inline bool wants_parameters(const std::vector<bool>& wanted, const ParameterGroups& parameters) {
  Index count = 0;
  for (const auto& transitions : parameters.groups)
    for (const auto& of_transition : transitions)
      for (const auto& parameter : of_transition) count += !parameter.second.is_none();
  if (Index(wanted.size()) != 3 + count)
    throw py::value_error("wanted must be of x, h0, c0 and " + std::to_string(count) + " parameters, got " +
                          std::to_string(wanted.size()) + " in all");
  return std::find(wanted.begin() + 3, wanted.end(), true) != wanted.end();
}

/// A new tensor like x, of rows of another width.
template <class T>
NewTensor<T> new_rows(const LentTensor<T>& x, Index width) {
  Index extents[3];
  std::copy(x.begin(), x.end(), extents);
  extents[x.axes() - 1] = width;
  return {extents, extents + x.axes()};
}

} // namespace

template <class T>
py::tuple forward_tensors(Layer<T>& layer, const py::object& batch_sizes, const py::object& x_object,
                          const py::object& h0, const py::object& c0, bool record) {
  layer.check_parameters();
  if (record) check_trains(layer.trains());
  const Shape& shape = layer.shape();
  const Index D = layer.directions(), P = shape.output, C = c_columns(shape);
  const bool has_c = layer.has_cell_state();
  const LentTensor<T> x("x", x_object);
  const LentTensor<int64_t> sizes("batch_sizes", batch_sizes);
  if (!x || x.axes() != (sizes ? 2 : 3) || x.extent(x.axes() - 1) != x_columns(shape))
    throw py::value_error("x: unexpected shape");
  check_rows("x", x.size() / std::max<Index>(1, x_columns(shape)));
  const TensorRows rows =
      sizes ? TensorRows(x.extent(0), sizes) : TensorRows(x.extent(0), x.extent(1), layer.batch_first());
  const Grid& grid = rows.grid;

  NewTensor<T> y = new_rows(x, D * P), h({D, grid.batch, P}), c({has_c ? D : 0, grid.batch, C});
  fill(h.data(), "h0", h0, {D, grid.batch, P});
  if (has_c) fill(c.data(), "c0", c0, {D, grid.batch, C});
  std::unique_ptr<TensorTape<T>> tape;
  if (record) {
    tape.reset(
        new TensorTape<T>{grid, grid.rows(), Buffer(std::size_t(h.size() + c.size()) * sizeof(T)), {}});
    tape->grid.offsets = nullptr; // the schedules know
    std::copy_n(h.data(), h.size(), tape->first.template as<T>());
    std::copy_n(c.data(), c.size(), tape->first.template as<T>() + h.size());
  }
  ForwardArrays<T> arrays{};
  arrays.grid = grid;
  arrays.lengths = rows.lengths;
  arrays.x = x.data();
  arrays.y = y.data();
  arrays.h = h.data();
  if (has_c) arrays.running_c = c.data();
  {
    const ReleaseGil release(y.size() * (shape.input + shape.hidden) * layer.gates());
    layer.passes().forward(arrays, tape ? &tape->record : nullptr);
  }
  return py::make_tuple(y.give(), h.give(), has_c ? c.give() : py::none(),
                        tape ? py::cast(std::move(tape)) : py::none());
}

template <class T>
py::list backward_tensors(Layer<T>& layer, TensorTape<T>& tape, const py::object& x_object,
                          const py::object& y_object, const py::tuple& upstream,
                          const ParameterGroups& parameters, const std::vector<bool>& wanted) {
  check_unused(tape.record);
  const Shape& shape = layer.shape();
  const Index D = layer.directions(), B = tape.grid.batch, P = shape.output, C = c_columns(shape);
  const bool has_c = layer.has_cell_state();
  const LentTensor<T> x("x", x_object), y("y", y_object), dy("dy", upstream[0]);
  if (!x || !y || x.size() != tape.rows * x_columns(shape) || y.size() != tape.rows * D * P ||
      (dy && dy.size() != y.size()))
    throw py::value_error("x, y and dy must have the shapes that x and y had in forward");

  std::optional<ParameterGradients<T>> gradients;
  if (wants_parameters(wanted, parameters)) gradients.emplace(parameters);
  NewTensor<T> dh({D, B, P}), dc({has_c ? D : 0, B, C});
  fill(dh.data(), "dh", upstream[1], {D, B, P});
  if (has_c) fill(dc.data(), "dc", upstream[2], {D, B, C});
  std::optional<NewTensor<T>> dx;
  if (wanted[0]) dx.emplace(x.begin(), x.end());

  T* const first = tape.first.template as<T>();
  BackwardArrays<T> arrays{};
  arrays.x = x.data();
  arrays.y = const_cast<T*>(y.data());
  arrays.first_h = first;
  if (has_c) arrays.first_c = first + dh.size();
  arrays.dy = dy.data();
  arrays.dh = dh.data();
  if (has_c) arrays.dc = dc.data();
  if (dx) arrays.dx = dx->data();
  if (gradients) arrays.weights = gradients->data();
  {
    const ReleaseGil release(y.size() * (shape.input + shape.hidden) * layer.gates());
    if (gradients) gradients->zero();
    layer.passes().backward(arrays, tape.grid, tape.record);
  }

  py::list found;
  const auto add = [&](NewTensor<T>& tensor) {
    found.append(wanted[found.size()] ? tensor.give() : py::none());
  };
  dx ? add(*dx) : found.append(py::none());
  add(dh);
  has_c ? add(dc) : found.append(py::none());
  for (std::size_t i = 3; i < wanted.size(); ++i)
    wanted[i] ? add(gradients->tensors[i - 3]) : found.append(py::none());
  return found;
}

#define RNNCORE_TENSORS(T)                                                                                 \
  template py::tuple forward_tensors(Layer<T>&, const py::object&, const py::object&, const py::object&,   \
                                     const py::object&, bool);                                             \
  template py::list backward_tensors(Layer<T>&, TensorTape<T>&, const py::object&, const py::object&,      \
                                     const py::tuple&, const ParameterGroups&, const std::vector<bool>&);
RNNCORE_TENSORS(float)
RNNCORE_TENSORS(double)
#undef RNNCORE_TENSORS

} // namespace rnncore

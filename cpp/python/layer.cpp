#include "layer.hpp"

#include <functional>
#include <numeric>

#include "../engine/dispatch.hpp"
#include "pointwise.hpp"

namespace rnncore {
namespace {

template <class T>
std::unique_ptr<const OwnKernels<T>> own_kernels(const Settings& settings) {
  const auto* own = std::get_if<std::shared_ptr<CellProgram>>(&settings.cell);
  if (!own) return nullptr;
  return std::make_unique<OwnKernels<T>>(*own, kernels_of<T>(settings.weights));
}

template <class T>
CellKernels<T> find_cell(const Settings& settings) {
  const Kernels<T>& all = kernels_of<T>(settings.weights);
  const std::string& name = std::get<std::string>(settings.cell);
  for (Index i = 0; i < all.count; ++i)
    if (const CellKernels<T> cell = all.cell(i); name == cell.name) return cell;
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

/// Where parameters or gradients lie; `kept` keeps them. T may be const.
template <class T>
std::vector<std::vector<Weights<T>>> pointers(KeptArrays& kept, const Groups& groups,
                                              const CellKernels<std::remove_const_t<T>>& cell,
                                              Shape shape) {
  const Sizes sizes = cell.packing.sizes(cell.packing.cell, shape);
  const Index rows = cell.packing.gates * shape.hidden;
  const Index recurrent = cell.packing.recurrent_gates * shape.hidden;
  const auto keep = [&](const Parameters::value_type& of, Extents extents) {
    return kept.keep<std::remove_const_t<T>>(of.first, of.second, extents);
  };
  std::vector<std::vector<Weights<T>>> result;
  for (const std::vector<Parameters>& transitions : groups) {
    result.emplace_back();
    for (const Parameters& p : transitions)
      result.back().push_back(
          {keep(p[0], {rows, result.back().empty() ? shape.input : shape.hidden}),
           sizes.matrices > 1 ? keep(p[1], {sizes.matrices, recurrent, sizes.recurrent_columns})
                              : keep(p[1], {recurrent, sizes.recurrent_columns}),
           keep(p[2], {rows}), keep(p[3], {recurrent}), keep(p[4], {cell.packing.units, shape.hidden}),
           keep(p[5], {shape.output, shape.hidden})});
  }
  return result;
}

/// The shape, with the transitions that the parameters show.
Shape with_transitions(Shape shape, const Groups& groups) {
  shape.depth = Index(groups.at(0).size());
  shape.shortcut = shape.depth > 1 && !groups[0].back()[0].second.is_none();
  return shape;
}

template <class T>
void check_unused(const Record<T>& record) {
  if (record.parts.empty()) throw std::runtime_error("this pullback has run already, or was interrupted");
}

/// The sequences of a call, and where their rows lie.
struct Sequences {
  Grid grid;
  const int64_t* lengths = nullptr; // (B), or null if all have as many steps
  bool padded = false;              // there are rows beyond them

  Sequences(const py::array& x, bool batch_first, const py::object& lengths_object)
      : grid{x.shape(batch_first ? 1 : 0), x.shape(batch_first ? 0 : 1), batch_first} {
    if (lengths_object.is_none()) return;
    given_ = of_shape<int64_t>("lengths", lengths_object, {grid.batch});
    lengths = given_.data();
    padded = true;
  }
  /// Packed: `batch_sizes` of them have each step.
  Sequences(const py::array& x, const py::object& batch_sizes) : grid{} {
    const auto sizes = contiguous<int64_t>(batch_sizes);
    const int64_t *begin = sizes.data(), *end = begin + sizes.size();
    const bool falls = sizes.ndim() == 1 && sizes.size() && std::is_sorted(begin, end, std::greater<>());
    if (!falls || end[-1] < 1 || std::accumulate(begin, end, int64_t(0)) != x.shape(0))
      throw py::value_error("batch_sizes must be positive, never grow, and add up to the " +
                            std::to_string(x.shape(0)) + " rows of x");
    grid = {sizes.size(), Index(*begin), false};
    if (*begin == end[-1]) return; // the rows of a batch of one length
    offsets_.assign(grid.time + 1, 0);
    std::partial_sum(begin, end, offsets_.begin() + 1);
    own_.assign(grid.batch, 0);
    for (Index t = 0; t < grid.time; ++t) std::fill_n(own_.begin(), begin[t], t + 1);
    grid.offsets = offsets_.data();
    lengths = own_.data();
  }
  Sequences(const Sequences&) = delete;

  template <class T>
  void zero_padding(T* rows, Index width) const {
    for (Index b = 0; padded && b < grid.batch; ++b)
      for (Index t = lengths[b]; t < grid.time; ++t)
        std::fill_n(rows + grid.row(t, b) * width, width, T(0));
  }

private:
  Array<int64_t> given_ = no_array<int64_t>();
  std::vector<int64_t> offsets_, own_;
};

/// The extents of an array like x, of rows of another width.
class Wide {
public:
  Wide(const py::array& x, Index width) : axes_(x.ndim()) {
    std::copy_n(x.shape(), axes_, extents_);
    extents_[axes_ - 1] = width;
  }
  const Index* begin() const { return extents_; }
  const Index* end() const { return extents_ + axes_; }

private:
  const Index axes_;
  Index extents_[3];
};

} // namespace

template <class T>
std::size_t Tape<T>::bytes() const {
  return x.nbytes() + y.nbytes() + first_h.nbytes() + first_c.nbytes() + record.tape.bytes() +
         record.c.bytes();
}

Settings::Settings(CellName name, Index input, Index hidden, Index output, Index arity, bool batch_first_,
                   const Activations& activations, double cell_clip, double gate_clip, bool plain_,
                   std::string weights_)
    : cell(std::move(name)), weights(std::move(weights_)), shape{input, hidden, output},
      batch_first(batch_first_), plain(plain_) {
  if (arity > 0) shape.arity = arity;
  if (const auto* own = std::get_if<std::shared_ptr<CellProgram>>(&cell)) {
    shape.cells = std::max<Index>((*own)->sizes().cells, 1);
    shape.scalars = (*own)->sizes().scalars;
    shape.vectors = (*own)->sizes().vectors;
  }
  const auto of = [&](std::size_t i) { return std::apply(activation_of, activations[i]); };
  options = {of(0), of(1), of(2), cell_clip, gate_clip};
}

template <class T>
Layer<T>::Layer(const Settings& settings, const ParameterGroups& parameters)
    : own_(own_kernels<T>(settings)), cell_(own_ ? own_->kernels() : find_cell<T>(settings)),
      settings_(settings), shape_(with_transitions(settings.shape, parameters.groups)),
      directions_(Index(parameters.groups.size())),
      passes_(cell_, shape_, settings.options, settings.plain,
              pointers<const T>(parameters_, parameters.groups, cell_, shape_)) {
  if (cell_.backward) return;
  passes_.freeze();
  parameters_.clear();
}

template <class T>
void Layer<T>::check_parameters() {
  parameters_.check();
  if (parameters_.may_have_changed()) passes_.look_again();
}

template <class T>
Pinned<T> Layer<T>::weights() {
  check_parameters();
  return passes_.weights();
}

template <class T>
MaskArrays<T> Layer<T>::mask_arrays(const py::object& masks, Index rows, Index columns, Index batch) const {
  MaskArrays<T> arrays{};
  if (masks.is_none()) return arrays;
  const auto given = masks.cast<py::tuple>();
  const Index D = directions_;
  const auto by_row = [&](const char* name, const py::object& mask) -> const T* {
    if (mask.is_none()) return nullptr;
    arrays.same_for_all_rows = py::cast<py::array>(mask).ndim() == 1;
    return arrays.same_for_all_rows ? parameter<T>(name, mask, {D * shape_.hidden})
                                    : parameter<T>(name, mask, {rows, columns, D * shape_.hidden});
  };
  arrays.state = parameter<T>("the mask of the state", given[0], {D, batch, shape_.output});
  arrays.update = by_row("the mask of the update", given[1]);
  arrays.keep_h = by_row("the mask of h", given[2]);
  arrays.keep_c = by_row("the mask of c", given[3]);
  return arrays;
}

template <class T>
Restarts<T> Layer<T>::restarts_of(const py::object& restarts, const py::array& x) const {
  if (restarts.is_none()) return {};
  const auto given = restarts.cast<py::tuple>(); // resets, h, c
  const auto rows =
      of_shape<bool>("resets", in_place<bool>("resets", given[0]), x.shape(), x.shape() + x.ndim() - 1);
  return {rows.data(), parameter<T>("h", given[1], {directions_, shape_.output}),
          parameter<T>("c", given[2], {directions_, c_columns(shape_)})};
}

template <class T>
py::tuple Layer<T>::forward(const py::object& x_object, const py::object& h0, const py::object& c0,
                            const py::object& lengths, const py::object& record, bool cell_states,
                            const py::object& masks, const py::object& batch_sizes, const py::object& out,
                            const py::object& restarts) {
  check_parameters();
  if (!record.is_none()) check_trains(cell_.backward);
  const bool packed = !batch_sizes.is_none();
  const Array<T> x = rows_of<T>(x_object, packed ? 2 : 3, x_columns(shape_));
  const Sequences sequences =
      packed ? Sequences(x, batch_sizes) : Sequences(x, settings_.batch_first, lengths);
  const Grid& grid = sequences.grid;

  const Index D = directions_, P = shape_.output, C = c_columns(shape_);
  const bool has_c = cell_.has_cell_state, keeps_c = has_c && cell_states, records = !record.is_none();
  const Wide outputs(x, D * P), states(x, D * C);
  Array<T> y = results<T>(out, outputs.begin(), outputs.end());
  Array<T> running_c = no_array<T>(), c = no_array<T>();
  Array<T> h = copy_or_zeros<T>("h0", h0, {D, grid.batch, P});
  if (has_c) running_c = copy_or_zeros<T>("c0", c0, {D, grid.batch, C});
  if (keeps_c) c = new_array<T>(states.begin(), states.end());
  std::unique_ptr<Tape<T>> tape;
  if (records) {
    tape.reset(new Tape<T>{grid, sequences.padded, x, y, {}, {}, masks, restarts, {}});
    tape->grid.offsets = nullptr; // the schedules know
    tape->first_h = copy_or_zeros<T>("h0", h0, {D, grid.batch, P});
    if (has_c) tape->first_c = copy_or_zeros<T>("c0", c0, {D, grid.batch, C});
  }

  const ForwardArrays<T> arrays{grid,
                                sequences.lengths,
                                x.data(),
                                y.mutable_data(),
                                h.mutable_data(),
                                has_c ? running_c.mutable_data() : nullptr,
                                keeps_c ? c.mutable_data() : nullptr,
                                nullptr,
                                nullptr,
                                mask_arrays(masks, x.shape(0), x.shape(1), grid.batch),
                                restarts_of(restarts, x)};
  const Index steps = records ? record.cast<Index>() : 0;
  {
    const ReleaseGil release(y.size() * (shape_.input + shape_.hidden) * cell_.packing.gates);
    sequences.zero_padding(arrays.y, D * P);
    if (keeps_c) sequences.zero_padding(arrays.c, D * C);
    passes_.forward(arrays, tape ? &tape->record : nullptr, steps);
  }
  if (records && out.is_none()) make_read_only(y); // backward reads it again
  return py::make_tuple(y, h, or_none(running_c, has_c), or_none(c, keeps_c),
                        tape ? py::cast(std::move(tape)) : py::none());
}

template <class T>
py::object Layer<T>::infer(const py::object& x, const py::object& state, const py::object& masks,
                           const py::object& resets) {
  const py::object none = py::none();
  py::object h = state, c = none;
  if (cell_.has_cell_state && !state.is_none()) {
    if (!PyTuple_CheckExact(state.ptr()) || PyTuple_GET_SIZE(state.ptr()) != 2) return none;
    h = py::reinterpret_borrow<py::object>(PyTuple_GET_ITEM(state.ptr(), 0));
    c = py::reinterpret_borrow<py::object>(PyTuple_GET_ITEM(state.ptr(), 1));
  }
  // A masked array, say, is no plain one.
  if (!is_plain_array(x) || py::detail::array_proxy(x.ptr())->nd != 3) return none;
  if (!(h.is_none() || is_plain_array(h)) || !(c.is_none() || is_plain_array(c))) return none;
  if (!(resets.is_none() || is_plain_array(resets))) return none;
  const py::object restarts = resets.is_none() ? none : py::make_tuple(resets, none, none);
  try {
    const py::tuple found = forward(x, h, c, none, none, false, masks, none, none, restarts);
    if (!cell_.has_cell_state) return py::make_tuple(found[0], found[1]);
    return py::make_tuple(found[0], py::make_tuple(found[1], found[2]));
  } catch (const py::type_error&) {
  } catch (const py::value_error&) {
  }
  return none; // whoever asks again is told what is wrong
}

template <class T>
py::tuple Layer<T>::backward(Tape<T>& tape, const py::object& dy_object, const py::object& dh_object,
                             const py::object& dc_object, const Targets<T>* gradients, bool want_dx,
                             const py::object& d_anew) {
  check_unused(tape.record);
  if (gradients) gradients->arrays.check();
  const bool has_c = cell_.has_cell_state;
  const Index D = directions_, B = tape.grid.batch, P = shape_.output;
  const Wide outputs(tape.y, D * P), inputs(tape.x, x_columns(shape_));
  Array<T> dy = no_array<T>(), dx = dy, dc = dy, dh = copy_or_zeros<T>("dh", dh_object, {D, B, P});
  if (!dy_object.is_none()) dy = of_shape<T>("dy", dy_object, outputs.begin(), outputs.end());
  if (has_c) dc = copy_or_zeros<T>("dc", dc_object, {D, B, c_columns(shape_)});
  if (want_dx) dx = new_array<T>(inputs.begin(), inputs.end());

  BackwardArrays<T> arrays{tape.x.data(),
                           const_cast<T*>(tape.y.data()), // nobody else may write to it
                           nullptr,
                           tape.first_h.mutable_data(),
                           has_c ? tape.first_c.mutable_data() : nullptr,
                           dy_object.is_none() ? nullptr : dy.data(),
                           dh.mutable_data(),
                           has_c ? dc.mutable_data() : nullptr,
                           want_dx ? dx.mutable_data() : nullptr,
                           nullptr,
                           nullptr,
                           gradients ? gradients->transitions.data() : nullptr,
                           mask_arrays(tape.masks, tape.x.shape(0), tape.x.shape(1), B),
                           restarts_of(tape.restarts, tape.x)};
  if (!d_anew.is_none()) {
    const auto given = d_anew.cast<py::tuple>();
    arrays.restarts.dh = parameter<T>("the gradient of h", given[0], {D, B, P});
    arrays.restarts.dc = parameter<T>("the gradient of c", given[1], {D, B, c_columns(shape_)});
  }
  {
    const ReleaseGil release(tape.y.size() * (shape_.input + shape_.hidden) * cell_.packing.gates);
    if (want_dx && tape.padded) std::fill_n(arrays.dx, dx.size(), T(0));
    passes_.backward(arrays, tape.grid, tape.record);
  }
  return py::make_tuple(or_none(dx, want_dx), dh, or_none(dc, has_c));
}

template <class T>
Targets<T> Layer<T>::targets(const ParameterGroups& gradients) const {
  if (Index(gradients.groups.size()) != directions_)
    throw py::value_error("gradients: a group for each direction");
  Targets<T> targets;
  targets.directions = pointers<T>(targets.arrays, gradients.groups, cell_, shape_);
  for (const auto& direction : targets.directions) targets.transitions.push_back(direction.data());
  return targets;
}

template <class T>
Targets<T> Layer<T>::targets_in(const ParameterGroups& parameters, const py::list& arrays) const {
  ParameterGroups gradients = parameters;
  std::size_t next = 0;
  for (auto& transitions : gradients.groups)
    for (auto& of_transition : transitions)
      for (auto& [name, array] : of_transition)
        if (!array.is_none()) {
          if (next == arrays.size()) throw py::value_error("arrays: one for each of the parameters");
          array = arrays[next++];
        }
  return targets(gradients);
}

template <class T>
py::tuple Layer<T>::forward_forest(const py::object& x_object, const py::tuple& order,
                                   const py::object& given, const py::object& masks, bool record) {
  check_parameters();
  if (record) check_trains(cell_.backward);
  const Array<T> x = rows_of<T>(x_object, 2, x_columns(shape_));
  const auto begin = contiguous<int64_t>(order[0]);
  const auto wave = contiguous<int32_t>(order[1]);
  const Index rows = wave.size(), H = shape_.hidden, C = c_columns(shape_);
  const bool has_c = cell_.has_cell_state, any = cell_.any_arity, leaves_read = order[4].cast<bool>();
  check_rows("wave", rows);
  const auto prev = contiguous<int32_t>(order[2]);
  Array<int32_t> edges;
  if (any) edges = of_shape<int32_t>("edges", order[3], {rows + 1});
  if (prev.size() != (any ? edges.at(rows) : shape_.arity * rows))
    throw py::value_error("prev: unexpected shape");
  const Index readers = leaves_read ? std::count(wave.data(), wave.data() + rows, 0) : rows;
  if (x.shape(0) != readers || (leaves_read && x_columns(shape_) > shape_.input))
    throw py::value_error("x: unexpected shape");

  const py::tuple states =
      given.is_none() ? py::make_tuple(py::none(), py::none()) : given.cast<py::tuple>();
  const auto state = [&](std::size_t i, Index columns) {
    return given.is_none() ? new_array<T>({rows, columns})
                           : of_shape<T>("given", states[i], {rows, columns});
  };
  Array<T> h = state(0, H), c, offer;
  if (has_c) c = state(1, C);
  if (cell_.offers) offer = new_array<T>({rows, H});
  std::unique_ptr<ForestTape<T>> tape;
  if (record) tape.reset(new ForestTape<T>{x, h, c, offer, masks, {}});

  const Forest forest{begin.size() - 1,
                      rows,
                      shape_.arity,
                      begin.data(),
                      wave.data(),
                      prev.data(),
                      any ? edges.data() : nullptr,
                      leaves_read,
                      !given.is_none()};
  ForwardArrays<T> arrays{};
  arrays.grid = {1, rows, false};
  arrays.x = x.data();
  arrays.y = h.mutable_data();
  if (has_c) arrays.c = c.mutable_data();
  if (cell_.offers) arrays.offer = offer.mutable_data();
  arrays.forest = &forest;
  arrays.masks = mask_arrays(masks, 1, rows, rows);
  if (rows > 0) {
    const ReleaseGil release(h.size() * (shape_.input + H) * cell_.packing.gates);
    passes_.forward(arrays, tape ? &tape->record : nullptr);
  }
  return py::make_tuple(h, or_none(c, has_c), tape ? py::cast(std::move(tape)) : py::none());
}

template <class T>
py::tuple Layer<T>::backward_forest(ForestTape<T>& tape, const py::object& dh_object,
                                    const py::object& dc_object, const Targets<T>& gradients) {
  gradients.arrays.check();
  const Index rows = tape.y.shape(0), H = shape_.hidden;
  const bool has_c = cell_.has_cell_state, offers = cell_.offers;
  Array<T> dx = new_array<T>({tape.x.shape(0), x_columns(shape_)}), dc, d_offer;
  Array<T> dh = copy_or_zeros<T>("dh", dh_object, {rows, H});
  if (has_c) dc = copy_or_zeros<T>("dc", dc_object, {rows, c_columns(shape_)});
  if (offers) d_offer = copy_or_zeros<T>("d_offer", py::none(), {rows, H});
  BackwardArrays<T> arrays{};
  arrays.x = tape.x.data();
  arrays.y = const_cast<T*>(tape.y.data());
  arrays.dh = dh.mutable_data();
  if (has_c) arrays.c = const_cast<T*>(tape.c.data());
  if (has_c) arrays.dc = dc.mutable_data();
  if (offers) arrays.offer = tape.offer.mutable_data();
  if (offers) arrays.d_offer = d_offer.mutable_data();
  arrays.dx = dx.mutable_data();
  arrays.weights = gradients.transitions.data();
  arrays.masks = mask_arrays(tape.masks, 1, rows, rows);
  if (rows > 0) {
    check_unused(tape.record);
    const ReleaseGil release(dh.size() * (shape_.input + H) * cell_.packing.gates);
    passes_.backward(arrays, Grid{1, rows, false}, tape.record);
  }
  return py::make_tuple(dx, dh, or_none(dc, has_c));
}

template struct Tape<float>;
template struct Tape<double>;
template class Layer<float>;
template class Layer<double>;

} // namespace rnncore

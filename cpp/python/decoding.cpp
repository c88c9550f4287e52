#include "decoding.hpp"

#include <atomic>

#include "decoding_steps.hpp"

namespace rnncore {
namespace {

/// Fewer operations than this are done before another thread is awake.
constexpr double least_decoding_work = 1e6;

Index padded(Index bytes) { return (bytes + 63) / 64 * 64; }

double work_of(const DecodingSizes& n) {
  return 8.0 * double(n.time * n.batch) * double(n.hidden) * double(n.input);
}

/// f(part, begin, end, work space of attention, work space of the layers) for all parts of a call, each on
/// one thread, and so many of their waves at a time.
template <class T, class F>
void for_each_part(Index parts, const DecodingSizes& n, Index attention_work, Index bytes, F f) {
  const double work = work_of(n);
  const Index threads = work < least_decoding_work ? 1 : std::min(parts, num_threads());
  const Index first = padded(attention_work * Index(sizeof(T))), space = first + padded(bytes);
  Buffer buffer(std::size_t(space * threads));
  const double attention = double(n.batch * attention_work) * double(n.query + n.value);
  in_pieces(n.time, work / double(std::max<Index>(n.time, 1)) + attention, 1, [&](Index begin, Index end) {
    std::atomic<Index> next{0};
    on_team(threads, [&](const Team& team) {
      char* const own = buffer.as<char>() + team.rank * space;
      for (Index p; (p = next.fetch_add(1, std::memory_order_relaxed)) < parts;)
        f(p, begin, end, reinterpret_cast<T*>(own), own + first);
    });
  });
}

template <class T>
Array<T> zeros(Extents shape) {
  Array<T> array = new_array<T>(shape);
  std::fill_n(array.mutable_data(), array.size(), T(0));
  return array;
}

template <class T>
Array<T> copy_of(const char* name, const py::object& object, Extents shape) {
  const Array<T> from = of_shape<T>(name, object, shape);
  Array<T> to = new_array<T>(shape);
  std::copy_n(from.data(), from.size(), to.mutable_data());
  return to;
}

/// Empties a list when it goes: steps that an exception ended do not serve again, either.
template <class T>
struct Emptied {
  std::list<SteppedPasses<T>>& walks;
  ~Emptied() { walks.clear(); }
};

template <class U>
U* pointer(const py::handle& object) {
  return object.is_none() ? nullptr : object.cast<U*>();
}

} // namespace

template <class T>
Decoding<T>::Decoding(const py::list& layers, const py::object& query, const py::object& position,
                      const py::object& combine)
    : keep_(py::make_tuple(layers, query, position, combine)), query_(pointer<LinearLayer<T>>(query)),
      position_(nullptr), point_(nullptr), combine_(pointer<LinearLayer<T>>(combine)) {
  for (const py::handle& layer : layers) {
    layers_.push_back(layer.cast<Layer<T>*>());
    const Shape& shape = layers_.back()->shape();
    if (shape.cells > 1 || x_columns(shape) > shape.input)
      throw py::value_error(
          "a decoder's layers have at most one state beyond h, and read no more of x than "
          "its features");
  }
  if (position.is_none()) return;
  const auto maps = position.cast<py::tuple>();
  position_ = maps[0].cast<LinearLayer<T>*>();
  point_ = maps[1].cast<LinearLayer<T>*>();
}

template <class T>
void Decoding<T>::check_parameters() const {
  for (Layer<T>* layer : layers_) layer->check_parameters();
  for (LinearLayer<T>* map : {query_, position_, point_, combine_})
    if (map) map->check_parameters();
}

template <class T>
void Decoding<T>::check(const DecodingSizes& n, const Memory<T>& memory) const {
  if (n.joined > n.input) throw py::value_error("x: unexpected shape");
  if (memory.sources() != n.batch || n.query != (query_ ? query_->shape().hidden : n.top) ||
      (query_ && query_->shape().input != n.top) || (position_ && position_->shape().input != n.top) ||
      (combine_ && combine_->shape().input != n.value + n.top))
    throw py::value_error("memory: unexpected shape");
}

template <class T>
py::tuple Decoding<T>::forward(const py::object& memory_object, const py::object& x, const py::object& h0,
                               const py::object& c0, const py::object& lengths_object,
                               const py::list& masks, bool record) {
  check_parameters();
  const auto& memory = memory_object.cast<const Memory<T>&>();
  std::unique_ptr<DecodingTape<T>> tape(new DecodingTape<T>);
  const Shape bottom = layers_[0]->shape();
  tape->x = rows_of<T>(x, 3, bottom.input);
  const Index time = tape->x.shape(0), batch = tape->x.shape(1), count = Index(layers_.size());
  const Index P = bottom.output, H = bottom.hidden, M = memory.value_size();
  const DecodingSizes n = tape->size = {time,
                                        batch,
                                        count,
                                        bottom.input,
                                        H,
                                        P,
                                        memory.key_size(),
                                        M,
                                        position_ ? position_->shape().hidden : 0,
                                        combine_ ? combine_->shape().hidden : M,
                                        combine_ != nullptr};
  check(n, memory);
  Array<int64_t> lengths;
  if (!lengths_object.is_none()) lengths = of_shape<int64_t>("lengths", lengths_object, {batch});
  tape->memory = memory_object;
  tape->lengths = lengths;
  tape->h0 = of_shape<T>("h0", h0, {count, batch, P});
  const bool has_c = layers_[0]->has_cell_state();
  Array<T> running;
  if (has_c) tape->c0 = of_shape<T>("c0", c0, {count, batch, H});
  if (has_c) running = copy_of<T>("c0", c0, {count, batch, H});
  tape->contexts = zeros<T>({time, batch, M + P});
  tape->weights = zeros<T>({time, batch, memory.steps()});
  if (query_) tape->query = zeros<T>({time, batch, n.query});
  if (position_) tape->position = zeros<T>({time, batch, n.position});
  if (position_) tape->centre = zeros<T>({time, batch, 1});
  if (combine_) tape->out = zeros<T>({time, batch, n.joined});

  const Index parts = layers_.back()->passes().parts({time, batch, false}, record);
  Index bytes = 0;
  for (Index l = 0; l < count; ++l) {
    const bool drops = l > 0 && !masks[std::size_t(l - 1)].is_none();
    tape->masks.emplace_back();
    if (drops) tape->masks[l] = of_shape<T>("mask", masks[std::size_t(l - 1)], {time, batch, P});
    tape->ys.push_back(zeros<T>({time, batch, P}));
    tape->inputs.push_back(l == 0 ? tape->x : drops ? zeros<T>({time, batch, P}) : tape->ys[l - 1]);
    ForwardArrays<T> arrays{};
    arrays.grid = {time, batch, false};
    arrays.lengths = lengths_object.is_none() ? nullptr : lengths.data();
    arrays.x = tape->inputs[l].data();
    arrays.y = tape->ys[l].mutable_data();
    arrays.h = const_cast<T*>(tape->h0.data()) + l * batch * P; // only read
    if (has_c) arrays.running_c = running.mutable_data() + l * batch * H;
    tape->walks.emplace_back(layers_[l]->passes(), arrays, parts, record);
    bytes = std::max(bytes, tape->walks.back().forward_work());
  }
  const AttentionForward<T> call = memory.common(batch);
  {
    const ReleaseGil release(Index(work_of(n)));
    const Maps<T> maps{{query_, record}, {position_, record}, {point_, record}, {combine_, record}};
    const DecodingForward<T> steps(*tape, maps, call);
    bytes = std::max(bytes, maps.work(batch));
    for_each_part<T>(parts, n, attention_of<T>().work(call, 1), bytes,
                     [&](Index part, Index begin, Index end, T* attention_work, void* work) {
                       DecodingForward<T>(steps).run(part, begin, end, attention_work, work);
                     });
  }
  const Array<T> y = tape->ys.back(), contexts = tape->contexts, weights = tape->weights, out = tape->out;
  return py::make_tuple(y, contexts, weights, or_none(out, n.feeds),
                        record ? py::cast(std::move(tape)) : py::none());
}

template <class T>
py::dict Decoding<T>::backward(DecodingTape<T>& tape, const py::object& dy, const py::object& dcontext,
                               const py::list& gradients, const py::object& dkeys,
                               const py::object& dvalues, const py::object& dv) {
  if (tape.walks.empty()) throw std::runtime_error("this pullback has run already, or was interrupted");
  check_parameters();
  const auto& memory = tape.memory.template cast<const Memory<T>&>();
  const DecodingSizes& n = tape.size;
  const Index time = n.time, batch = n.batch;
  const bool has_c = layers_[0]->has_cell_state();
  DecodingGradients<T> d;
  if (n.feeds) d.given = of_shape<T>("dy", dy, {time, batch, n.joined});
  d.y = n.feeds ? zeros<T>({time, batch, n.top}) : copy_of<T>("dy", dy, {time, batch, n.top});
  d.contexts = n.feeds ? zeros<T>({time, batch, n.value + n.top})
                       : copy_of<T>("dcontext", dcontext, {time, batch, n.value});
  d.h = zeros<T>({n.layers, batch, n.top});
  if (has_c) d.c = zeros<T>({n.layers, batch, n.hidden});
  d.query = zeros<T>({time, batch, n.query});
  if (position_) d.position = zeros<T>({time, batch, n.position});
  if (position_) d.point = zeros<T>({time, batch, 1});
  if (position_) d.centre = zeros<T>({time, batch, 1});
  if (combine_) d.sums = zeros<T>({time, batch, n.joined});
  if (position_ || query_) d.through = zeros<T>({time, batch, n.top});
  for (Index l = 0; l < n.layers; ++l) d.x.push_back(zeros<T>({time, batch, l == 0 ? n.input : n.top}));

  std::vector<const Weights<T>*> directions;
  for (Index l = 0; l < n.layers; ++l) {
    const auto& targets = gradients[std::size_t(l)].template cast<const Targets<T>&>();
    targets.arrays.check();
    directions.push_back(targets.transitions.front());
  }
  Index bytes = 0, l = 0;
  for (SteppedPasses<T>& walk : tape.walks) {
    BackwardArrays<T> arrays{};
    arrays.x = tape.inputs[l].data();
    arrays.y = tape.ys[l].mutable_data();
    arrays.first_h = const_cast<T*>(tape.h0.data()) + l * batch * n.top; // only read, as is first_c
    if (has_c) arrays.first_c = const_cast<T*>(tape.c0.data()) + l * batch * n.hidden;
    arrays.dy = l + 1 == n.layers ? d.y.data() : d.x[l + 1].data();
    arrays.dh = d.h.mutable_data() + l * batch * n.top;
    if (has_c) arrays.dc = d.c.mutable_data() + l * batch * n.hidden;
    arrays.dx = d.x[l].mutable_data();
    arrays.weights = directions.data() + l;
    walk.turn(arrays);
    bytes = std::max(bytes, walk.backward_work());
    ++l;
  }

  AttentionBackward<T> call{memory.common(batch), {}, {}, nullptr, nullptr, nullptr, nullptr};
  call.dkeys = parameter<T>("dkeys", dkeys, {memory.steps(), batch, n.query});
  call.dvalues = parameter<T>("dvalues", dvalues, {memory.steps(), batch, n.value});
  T* const dv_sum = parameter<T>("dv", dv, {n.query});
  if (memory.additive() != (dv_sum != nullptr)) throw py::value_error("dv: for additive scores alone");
  {
    const ReleaseGil release(Index(work_of(n)));
    const Maps<T> maps{{query_, true}, {position_, true}, {point_, true}, {combine_, true}};
    Buffer dv_rows(memory.additive() ? std::size_t(batch * n.query) * sizeof(T) : 0);
    call.dv = dv_rows.template as<T>();
    if (memory.additive()) std::fill_n(call.dv, batch * n.query, T(0));
    const DecodingBackward<T> steps(tape, maps, d, call);
    const Emptied<T> used{tape.walks}; // the tape is written over
    for_each_part<T>(tape.walks.front().count(), n, attention_of<T>().work(call, 1), bytes,
                     [&](Index part, Index begin, Index end, T* attention_work, void* work) {
                       DecodingBackward<T>(steps).run(part, time - end, time - begin, attention_work, work);
                     });
    for (SteppedPasses<T>& walk : tape.walks) walk.add_gradients();
    if (memory.additive()) add_rows_in_order(call.dv, batch, n.query, dv_sum);
  }
  py::dict found;
  found["x"] = d.x[0];
  found["h"] = d.h;
  if (has_c) found["c"] = d.c;
  if (query_) found["query"] = d.query;
  if (combine_) found["sums"] = d.sums;
  if (position_) found["position"] = d.position;
  if (position_) found["point"] = d.point;
  if (position_) found["inner"] = tape.position;
  return found;
}

template struct DecodingTape<float>;
template struct DecodingTape<double>;
template class Decoding<float>;
template class Decoding<double>;

} // namespace rnncore

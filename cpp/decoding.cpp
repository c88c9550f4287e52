#include "decoding.hpp"

#include <atomic>

#include "dispatch.hpp"

namespace rnncore {
namespace {

constexpr Team alone{0, 1, [](void*) {}, nullptr};

/// Fewer operations than this are done before another thread is awake.
constexpr double least_work = 1e6;

Index padded(Index bytes) { return (bytes + 63) / 64 * 64; }

/// f(part, work space) for each part, on one thread each.
template <class F>
void for_each_part(Index parts, double work, Index bytes, F f) {
  const Index threads = work < least_work ? 1 : std::min(parts, num_threads());
  Buffer buffer(std::size_t(padded(bytes) * threads));
  std::atomic<Index> next{0};
  on_team(threads, [&](const Team& team) {
    for (Index p; (p = next.fetch_add(1, std::memory_order_relaxed)) < parts;)
      f(p, buffer.as<char>() + team.rank * padded(bytes));
  });
}

/// A linear map of some rows, with the weights as they were when it was made.
template <class T>
class Map {
public:
  Map(LinearLayer<T>* layer, bool transposed) {
    if (!layer) return;
    shape_ = layer->shape();
    weights_ = layer->snapshot(transposed);
  }
  explicit operator bool() const { return weights_ != nullptr; }
  const Shape& shape() const { return shape_; }
  void forward(const int32_t* rows, Index n, Rows<const T> x, Rows<T> y) const {
    kernels_of<T>().linear.forward({shape_, n, weights_->packed.template as<T>(), x, y, rows}, alone);
  }
  void backward(const int32_t* rows, Index n, Rows<const T> dy, Rows<T> dx) const {
    kernels_of<T>().linear.backward(
        {shape_, n, weights_->transposed.template as<T>(), {nullptr, 0}, dy, dx, nullptr, nullptr, rows},
        alone);
  }

private:
  Shape shape_{};
  std::shared_ptr<const Snapshot<T>> weights_;
};

template <class T>
T* row_of(Rows<T> rows, Index row) {
  return rows.base + row * rows.stride;
}

template <class T>
Rows<T> lines(const Array<T>& array) {
  return {const_cast<T*>(array.data()), array.shape(array.ndim() - 1)};
}

template <class T>
Rows<const T> fixed(Rows<T> rows) {
  return {rows.base, rows.stride};
}

/// The nodes of a wave: their rows in arrays of steps and sequences.
struct Wave {
  const int32_t *rows, *sequences;
  Index n;

  Wave(const Schedule& s, Index w)
      : rows(s.row + s.begin[w]), sequences(s.sequence + s.begin[w]), n(s.begin[w + 1] - s.begin[w]) {}
};

template <class T>
const T* mask_of(const py::list& masks, Index layer, Extents shape) {
  return masks[std::size_t(layer - 1)].is_none() ? nullptr
                                                 : parameter<T>(masks[std::size_t(layer - 1)], shape);
}

template <class T>
Array<T> zeros(Extents shape) {
  Array<T> array = new_array<T>(shape);
  std::fill_n(array.mutable_data(), array.size(), T(0));
  return array;
}

/// Rows of the state before a wave: those of the initial state, or of the step before.
template <class T>
Rows<const T> before(Index wave, Rows<const T> first, Rows<const T> y, Index batch) {
  return wave == 0 ? first : Rows<const T>{y.base - batch * y.stride, y.stride};
}

} // namespace

template <class T>
Decoding<T>::Decoding(const py::list& layers, const py::object& query, const py::object& combine)
    : keep_(py::make_tuple(layers, query, combine)),
      query_(query.is_none() ? nullptr : query.cast<LinearLayer<T>*>()),
      combine_(combine.is_none() ? nullptr : combine.cast<LinearLayer<T>*>()) {
  for (const py::handle& layer : layers) layers_.push_back(layer.cast<Layer<T>*>());
}

template <class T>
py::tuple Decoding<T>::forward(const py::object& memory_object, const py::object& x_object,
                               const py::object& h0_object, const py::object& c0_object,
                               const py::object& lengths_object, const py::list& masks, bool record) {
  auto& memory = memory_object.cast<Memory<T>&>();
  std::unique_ptr<DecodingTape<T>> tape(new DecodingTape<T>);
  Array<T>& x = tape->x = contiguous<T>(x_object);
  const Grid grid = tape->grid = {x.shape(0), x.shape(1), false};
  const Index time = grid.time, batch = grid.batch, count = Index(layers_.size()), P = top();
  const Index M = memory.value_size(), A = memory.key_size(), wide = M + P;
  const Index fed = feeds() ? combine_->shape().hidden : M;
  if (x.ndim() != 3 || x.shape(2) != layers_[0]->shape().input || fed > x.shape(2))
    throw py::value_error("x: unexpected shape");
  if (memory.sources() != batch || (query_ ? query_->shape().hidden : P) != A ||
      (feeds() && combine_->shape().input != wide))
    throw py::value_error("memory: unexpected shape");
  Array<int64_t> lengths;
  if (!lengths_object.is_none()) lengths = of_shape<int64_t>("lengths", lengths_object, {batch});
  tape->memory = memory_object;
  tape->lengths = lengths_object;
  tape->masks = masks;
  tape->h0 = of_shape<T>("h0", h0_object, {count, batch, P});
  const bool has_c = layers_[0]->has_cell_state();
  const Index H = layers_[0]->shape().hidden;
  Array<T> running;
  if (has_c) {
    tape->c0 = of_shape<T>("c0", c0_object, {count, batch, H});
    running = new_array<T>({count, batch, H});
    std::copy_n(tape->c0.data(), running.size(), running.mutable_data());
  }
  tape->contexts = zeros<T>({time, batch, wide});
  tape->weights = zeros<T>({time, batch, memory.steps()});
  if (query_) tape->query = new_array<T>({time, batch, A});
  if (feeds()) tape->out = zeros<T>({time, batch, fed});
  const Index parts = layers_.back()->passes().parts(grid, record);
  std::vector<const T*> drops(std::size_t(count), nullptr);
  for (Index l = 0; l < count; ++l) {
    if (l > 0) drops[l] = mask_of<T>(masks, l, {time, batch, P});
    tape->ys.push_back(zeros<T>({time, batch, P}));
    tape->inputs.push_back(l == 0 ? x : drops[l] ? new_array<T>({time, batch, P}) : tape->ys[l - 1]);
    ForwardArrays<T> arrays{};
    arrays.grid = grid;
    arrays.lengths = lengths_object.is_none() ? nullptr : lengths.data();
    arrays.x = tape->inputs[l].data();
    arrays.y = tape->ys[l].mutable_data();
    arrays.h = tape->h0.mutable_data() + l * batch * P;
    if (has_c) arrays.running_c = running.mutable_data() + l * batch * H;
    tape->walks.emplace_back(layers_[l]->passes(), arrays, parts, record);
  }

  Look<T> look = memory.common(batch);
  look.weights = tape->weights.mutable_data();
  look.context = lines(tape->contexts);
  const Rows<T> y = lines(tape->ys.back()), joined{x.mutable_data() + x.shape(2) - fed, x.shape(2)};
  const Rows<const T> first{tape->h0.data() + (count - 1) * batch * P, P};
  Rows<T> query{nullptr, 0}, out{nullptr, 0};
  if (query_) query = lines(tape->query);
  if (feeds()) out = lines(tape->out);
  Index bytes = 0;
  for (const SteppedPasses<T>& walk : tape->walks) bytes = std::max(bytes, walk.forward_work());
  const Index space = padded(attention_of<T>().work(look, 1) * Index(sizeof(T)));
  const double work = double(y.stride * time * batch) * double(x.shape(2));
  {
    const ReleaseGil release(y.stride * time * batch * memory.steps());
    const Map<T> ask(query_, record), combine(combine_, record);
    for_each_part(parts, work, padded(bytes) + space, [&](Index part, char* own) {
      const Schedule s = tape->walks.front().schedule(part);
      Look<T> mine = look;
      const auto see = [&](const Wave& wave, Index w, Rows<const T> h) {
        mine.query = h;
        if (ask) ask.forward(wave.rows, wave.n, h, query);
        if (ask) mine.query = fixed(query);
        for (Index i = 0; i < wave.n; ++i)
          attention_of<T>().forward(mine, wave.sequences[i], w, w + 1,
                                    reinterpret_cast<T*>(own + padded(bytes)));
      };
      for (Index w = 0; w < s.waves; ++w) {
        const Wave wave(s, w);
        if (!feeds()) {
          see(wave, w, before(w, first, fixed(y), batch));
          for (Index i = 0; i < wave.n; ++i)
            std::copy_n(row_of(look.context, wave.rows[i]), M, row_of(joined, wave.rows[i]));
        }
        Index l = 0;
        for (const SteppedPasses<T>& walk : tape->walks) {
          for (Index i = 0; drops[l] && i < wave.n; ++i) {
            const Index at = wave.rows[i] * P;
            T* to = const_cast<T*>(tape->inputs[l].data()) + at;
            for (Index j = 0; j < P; ++j) to[j] = tape->ys[l - 1].data()[at + j] * drops[l][at + j];
          }
          walk.forward(part, w, own);
          ++l;
        }
        if (!feeds()) continue;
        see(wave, w, fixed(y));
        for (Index i = 0; i < wave.n; ++i)
          std::copy_n(row_of(y, wave.rows[i]), P, row_of(look.context, wave.rows[i]) + M);
        combine.forward(wave.rows, wave.n, fixed(look.context), out);
        const Index going = w + 1 < s.waves ? Wave(s, w + 1).n : 0; // the longest stand first
        for (Index i = 0; i < wave.n; ++i) {
          T* o = row_of(out, wave.rows[i]);
          kernels_of<T>().tanh(o, o, fed);
          if (i < going) std::copy_n(o, fed, row_of(joined, wave.rows[i] + batch));
        }
      }
    });
  }
  const py::tuple results =
      py::make_tuple(tape->ys.back(), tape->contexts, tape->weights, or_none(tape->out, feeds()));
  return py::make_tuple(results[0], results[1], results[2], results[3],
                        record ? py::cast(std::move(tape)) : py::none());
}

template <class T>
py::tuple Decoding<T>::backward(DecodingTape<T>& tape, const py::object& dy_object,
                                const py::object& dcontext_object, const py::list& gradients,
                                const py::object& dkeys, const py::object& dvalues, const py::object& dv) {
  if (tape.walks.empty()) throw py::value_error("tape: has served already");
  auto& memory = tape.memory.template cast<Memory<T>&>();
  const Index time = tape.grid.time, batch = tape.grid.batch, count = Index(layers_.size()), P = top();
  const Index M = memory.value_size(), A = memory.key_size(), wide = M + P, I = tape.x.shape(2);
  const Index fed = feeds() ? combine_->shape().hidden : M, H = layers_[0]->shape().hidden;
  const bool has_c = layers_[0]->has_cell_state();
  const Array<T> given = of_shape<T>("dy", dy_object, {time, batch, feeds() ? fed : P});
  Array<T> dcontexts = zeros<T>({time, batch, feeds() ? wide : M}), dtop = zeros<T>({time, batch, P});
  if (!feeds()) {
    const Array<T> direct = of_shape<T>("dcontext", dcontext_object, {time, batch, M});
    std::copy_n(direct.data(), direct.size(), dcontexts.mutable_data());
    std::copy_n(given.data(), given.size(), dtop.mutable_data());
  }
  Array<T> dh = zeros<T>({count, batch, P}), dc, dquery = zeros<T>({time, batch, A}), dsums, through;
  if (has_c) dc = zeros<T>({count, batch, H});
  if (feeds()) dsums = zeros<T>({time, batch, fed});
  if (query_) through = new_array<T>({time, batch, P});

  std::vector<std::vector<std::vector<Weights<T>>>> targets;
  for (Index l = 0; l < count; ++l)
    targets.push_back(layers_[l]->targets(gradients[std::size_t(l)].cast<const ParameterGroups&>()));
  std::vector<const Weights<T>*> directions;
  for (const auto& target : targets) directions.push_back(target.front().data());
  std::vector<Array<T>> dxs;
  std::vector<const T*> drops(std::size_t(count), nullptr);
  for (Index l = 0; l < count; ++l) {
    dxs.push_back(zeros<T>({time, batch, l == 0 ? I : P}));
    if (l > 0) drops[l] = mask_of<T>(tape.masks.template cast<py::list>(), l, {time, batch, P});
  }
  Index bytes = 0, at = 0;
  for (SteppedPasses<T>& walk : tape.walks) {
    BackwardArrays<T> arrays{};
    arrays.x = tape.inputs[at].data();
    arrays.y = tape.ys[at].mutable_data();
    arrays.first_h = tape.h0.mutable_data() + at * batch * P;
    if (has_c) arrays.first_c = tape.c0.mutable_data() + at * batch * H;
    arrays.dy = at + 1 == count ? dtop.data() : dxs[at + 1].data();
    arrays.dh = dh.mutable_data() + at * batch * P;
    if (has_c) arrays.dc = dc.mutable_data() + at * batch * H;
    arrays.dx = dxs[at].mutable_data();
    arrays.weights = directions.data() + at;
    walk.turn(arrays);
    bytes = std::max(bytes, walk.backward_work());
    ++at;
  }

  LookBack<T> look{memory.common(batch), {}, {}, nullptr, nullptr, nullptr, nullptr};
  look.weights = tape.weights.mutable_data();
  look.dcontext = fixed(lines(dcontexts));
  look.dquery = lines(dquery);
  look.dkeys = parameter<T>(dkeys, {memory.steps(), batch, A});
  look.dvalues = parameter<T>(dvalues, {memory.steps(), batch, M});
  T* const dv_sum = parameter<T>(dv, {A});
  if (memory.additive() != (dv_sum != nullptr)) throw py::value_error("dv: for additive scores alone");
  const Rows<T> y = lines(tape.ys.back()), dy = lines(dtop), dcontext = lines(dcontexts);
  const Rows<T> djoined{dxs[0].mutable_data() + I - fed, I};
  const Rows<const T> first{tape.h0.data() + (count - 1) * batch * P, P};
  const Rows<T> dfirst{dh.mutable_data() + (count - 1) * batch * P, P};
  const Index space = padded(attention_of<T>().work(look, 1) * Index(sizeof(T)));
  const double work = double(y.stride * time * batch) * double(I);
  {
    const ReleaseGil release(y.stride * time * batch * memory.steps());
    const Map<T> ask(query_, true), combine(combine_, true);
    Buffer dv_rows(memory.additive() ? std::size_t(batch * A) * sizeof(T) : 0);
    look.dv = dv_rows.template as<T>();
    if (memory.additive()) std::fill_n(look.dv, batch * A, T(0));
    for_each_part(tape.walks.front().count(), work, padded(bytes) + space, [&](Index part, char* own) {
      const Schedule s = tape.walks.front().schedule(part);
      LookBack<T> mine = look;
      // What the context of a wave gives to the h that asked: dh += W_q^T dquery.
      const auto unsee = [&](const Wave& wave, Index w, Rows<const T> h, auto add) {
        mine.query = query_ ? fixed(lines(tape.query)) : h;
        for (Index i = 0; i < wave.n; ++i)
          attention_of<T>().backward(mine, wave.sequences[i], w, w + 1,
                                     reinterpret_cast<T*>(own + padded(bytes)));
        if (ask) ask.backward(wave.rows, wave.n, fixed(look.dquery), lines(through));
        const Rows<T> from = query_ ? lines(through) : look.dquery;
        for (Index i = 0; i < wave.n; ++i) add(i, row_of(from, wave.rows[i]));
      };
      for (Index w = s.waves; w-- > 0;) {
        const Wave wave(s, w);
        if (feeds()) {
          const Index going = w + 1 < s.waves ? Wave(s, w + 1).n : 0;
          for (Index i = 0; i < wave.n; ++i) {
            const Index row = wave.rows[i];
            const T *o = tape.out.data() + row * fed, *d = given.data() + row * fed;
            const T* next = row_of(djoined, row + batch);
            T* to = dsums.mutable_data() + row * fed;
            for (Index j = 0; j < fed; ++j)
              to[j] = (i < going ? d[j] + next[j] : d[j]) * (T(1) - o[j] * o[j]);
          }
          combine.backward(wave.rows, wave.n, fixed(lines(dsums)), dcontext);
          unsee(wave, w, fixed(y), [&](Index i, const T* asked) {
            const T* direct = row_of(dcontext, wave.rows[i]) + M;
            T* to = row_of(dy, wave.rows[i]);
            for (Index j = 0; j < P; ++j) to[j] = direct[j] + asked[j];
          });
        }
        Index l = count;
        for (auto walk = tape.walks.rbegin(); walk != tape.walks.rend(); ++walk) {
          walk->backward(part, w, own);
          --l;
          for (Index i = 0; drops[l] && i < wave.n; ++i) {
            T* d = dxs[l].mutable_data() + wave.rows[i] * P;
            for (Index j = 0; j < P; ++j) d[j] *= drops[l][wave.rows[i] * P + j];
          }
        }
        if (feeds()) continue;
        for (Index i = 0; i < wave.n; ++i) {
          const T* d = row_of(djoined, wave.rows[i]);
          T* to = row_of(dcontext, wave.rows[i]);
          for (Index j = 0; j < M; ++j) to[j] += d[j];
        }
        unsee(wave, w, before(w, first, fixed(y), batch), [&](Index i, const T* asked) {
          T* to = w == 0 ? row_of(dfirst, wave.sequences[i]) : row_of(dy, wave.rows[i] - batch);
          for (Index j = 0; j < P; ++j) to[j] += asked[j];
        });
      }
    });
    for (SteppedPasses<T>& walk : tape.walks) walk.add_gradients();
    if (memory.additive()) add_rows_in_order(look.dv, batch, A, dv_sum);
    tape.walks.clear();
  }
  return py::make_tuple(dxs[0], dh, or_none(dc, has_c), dquery, or_none(dsums, feeds()));
}

template struct DecodingTape<float>;
template struct DecodingTape<double>;
template class Decoding<float>;
template class Decoding<double>;

} // namespace rnncore

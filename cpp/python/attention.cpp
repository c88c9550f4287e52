#include "attention.hpp"

#include <atomic>
#include <mutex>

#include "../engine/dispatch.hpp"

namespace rnncore {
namespace {

/// Fewer operations than this are done before another thread is awake.
constexpr double least_attention_work = 5e5;

/// f(row, steps, work space) for each row, on as many threads as the work is worth.
template <class T, class F>
void for_each_row(const AttentionForward<T>& call, Index steps, const int64_t* until, F f) {
  const double row = double(steps * call.length) * double(call.key_size + call.value_size);
  const Index threads = row * double(call.rows) < least_attention_work ? 1 : num_threads();
  const Index space = (attention_of<T>().work(call, steps) + 15) / 16 * 16;
  Buffer buffer(std::size_t(space * threads) * sizeof(T));
  const double operations = (call.v ? 16 : 2) * row; // additive scores have a tanh for each number
  in_pieces(call.rows, operations, threads, [&](Index begin, Index end) {
    std::atomic<Index> next{begin};
    on_team(threads, [&](const Team& team) {
      T* const mine = buffer.template as<T>() + team.rank * space;
      for (Index r; (r = next.fetch_add(1, std::memory_order_relaxed)) < end;)
        f(r, until ? Index(until[r]) : steps, mine);
    });
  });
}

/// (T, R, width) read in place if its rows lie at one stride, else copied; `kept` keeps it alive.
template <class T>
Rows<const T> rows_of(const char* name, const py::object& object, Extents shape, py::object& kept) {
  if (!py::array_t<T, 0>::check_(object))
    throw py::type_error(std::string(name) + ": an array of another dtype");
  const auto array = py::reinterpret_borrow<py::array_t<T, 0>>(object);
  constexpr int aligned = py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if (py::detail::check_flags(array.ptr(), aligned) && array.ndim() == 3 &&
      std::equal(shape.begin(), shape.end(), array.shape()) && array.shape(2) > 0 &&
      array.strides(2) == Index(sizeof(T)) && array.strides(0) == array.shape(1) * array.strides(1)) {
    kept = array;
    return {array.data(), array.strides(1) / Index(sizeof(T))};
  }
  const Array<T> copy = of_shape<T>(name, object, shape);
  kept = copy;
  return {copy.data(), copy.shape(2)};
}

} // namespace

template <class T>
Memory<T>::Memory(const py::object& keys, const py::object& values, const py::object& lengths,
                  const py::object& v, double window, bool causal)
    : keys_(contiguous<T>(keys)), values_(contiguous<T>(values)), lengths_(contiguous<int64_t>(lengths)),
      v_(v), window_(T(window)), causal_(causal) {
  if (keys_.ndim() != 3 || values_.ndim() != 3 || keys_.shape(0) != values_.shape(0) ||
      keys_.shape(1) != values_.shape(1) || lengths_.ndim() != 1 || lengths_.shape(0) != keys_.shape(1))
    throw py::value_error("keys, values and lengths: unexpected shapes");
  for (Index b = 0; b < lengths_.size(); ++b)
    if (lengths_.data()[b] < 0 || lengths_.data()[b] > keys_.shape(0))
      throw py::value_error("lengths: not of keys");
  parameter<T>("v", v_, {keys_.shape(2)});
}

template <class T>
AttentionForward<T> Memory<T>::common(Index rows) const {
  AttentionForward<T> call{};
  call.rows = rows;
  call.sources = sources();
  call.length = steps();
  call.key_size = key_size();
  call.value_size = value_size();
  call.lengths = lengths_.data();
  call.keys = keys_.data();
  call.values = values_.data();
  call.v = parameter<T>("v", v_, {key_size()});
  call.window = window_;
  call.causal = causal_;
  return call;
}

template <class T>
py::tuple Memory<T>::attend(const py::object& query_object, const py::object& source_object,
                            const py::object& steps_object, const py::object& centre_object,
                            Index room) const {
  const auto shape = py::cast<py::array>(query_object);
  if (shape.ndim() != 3) throw py::value_error("query: unexpected shape");
  const Index time = shape.shape(0), rows = shape.shape(1), wide = value_size() + room;
  AttentionForward<T> call = common(rows);
  py::object query;
  call.query = rows_of<T>("query", query_object, {time, rows, key_size()}, query);
  Array<int64_t> source, until;
  if (!source_object.is_none()) {
    source = of_shape<int64_t>("source", source_object, {rows});
    call.source = source.data();
    for (Index r = 0; r < rows; ++r)
      if (call.source[r] < 0 || call.source[r] >= sources()) throw py::value_error("source: there is none");
  } else if (rows != sources()) {
    throw py::value_error("query: a row for each source");
  }
  if (!steps_object.is_none()) until = of_shape<int64_t>("steps", steps_object, {rows});
  Array<T> centre, context = new_array<T>({time, rows, wide}),
                   weights = new_array<T>({time, rows, steps()});
  if (!centre_object.is_none()) centre = of_shape<T>("centre", centre_object, {time, rows});
  call.centre = centre_object.is_none() ? nullptr : centre.data();
  if (causal_ && (additive() || call.centre)) throw py::value_error("causal: for products alone");
  call.context = {context.mutable_data(), wide};
  call.weights = weights.mutable_data();
  {
    const ReleaseGil release(context.size() * steps());
    attend_rows(call, time, steps_object.is_none() ? nullptr : until.data());
  }
  return py::make_tuple(context, weights);
}

template <class T>
py::tuple Memory<T>::attend_backward(const py::object& dcontext_object, const py::object& weights_object,
                                     const py::object& query_object, const py::object& steps_object,
                                     const py::object& centre_object, const py::object& dkeys,
                                     const py::object& dvalues, const py::object& dv) const {
  const Index rows = sources(), time = py::cast<py::array>(query_object).shape(0), A = key_size();
  AttentionBackward<T> call{common(rows), {}, {}, nullptr, nullptr, nullptr, nullptr};
  py::object query, dcontext;
  call.query = rows_of<T>("query", query_object, {time, rows, A}, query);
  call.dcontext = rows_of<T>("dcontext", dcontext_object, {time, rows, value_size()}, dcontext);
  Array<T> weights = of_shape<T>("weights", weights_object, {time, rows, steps()});
  call.weights = weights.mutable_data();
  Array<int64_t> until;
  if (!steps_object.is_none()) until = of_shape<int64_t>("steps", steps_object, {rows});
  Array<T> dquery = new_array<T>({time, rows, A}), centre, dcentre;
  const bool centred = !centre_object.is_none();
  if (centred) {
    centre = of_shape<T>("centre", centre_object, {time, rows});
    dcentre = new_array<T>({time, rows});
    call.centre = centre.data();
    call.dcentre = dcentre.mutable_data();
    std::fill_n(call.dcentre, dcentre.size(), T(0));
  }
  call.dquery = {dquery.mutable_data(), A};
  call.dkeys = parameter<T>("dkeys", dkeys, {steps(), rows, A});
  call.dvalues = parameter<T>("dvalues", dvalues, {steps(), rows, value_size()});
  T* const dv_sum = parameter<T>("dv", dv, {A});
  if (additive() != (dv_sum != nullptr)) throw py::value_error("dv: for additive scores alone");
  {
    const ReleaseGil release(dquery.size() * steps());
    Buffer dv_rows(additive() ? std::size_t(rows * A) * sizeof(T) : 0);
    call.dv = dv_rows.template as<T>();
    if (additive()) std::fill_n(call.dv, rows * A, T(0));
    for_each_row<T>(call, time, steps_object.is_none() ? nullptr : until.data(),
                    [&](Index r, Index steps, T* work) {
                      attention_of<T>().backward(call, r, 0, std::min(steps, time), work);
                      for (Index t = steps; t < time; ++t)
                        std::fill_n(call.dquery.base + (t * rows + r) * A, A, T(0));
                    });
    if (additive()) add_rows_in_order(call.dv, rows, A, dv_sum);
  }
  return py::make_tuple(dquery, or_none(dcentre, centred));
}

template <class T>
void attend_rows(const AttentionForward<T>& call, Index time, const int64_t* until) {
  const Rows<T> context = call.context;
  std::fill_n(call.weights, time * call.rows * call.length, T(0));
  for_each_row(call, time, until, [&](Index r, Index steps, T* work) {
    attention_of<T>().forward(call, r, 0, std::min(steps, time), work);
    for (Index t = 0; t < time; ++t) {
      const Index filled = t < steps ? call.value_size : 0;
      std::fill_n(context.base + (t * call.rows + r) * context.stride + filled, context.stride - filled,
                  T(0));
    }
  });
}

template <class T>
void add_rows_in_order(const T* rows, Index count, Index width, T* sum) {
  static std::mutex adding; // calls share the sum
  const std::lock_guard lock(adding);
  for (Index r = 0; r < count; ++r)
    for (Index k = 0; k < width; ++k) sum[k] += rows[r * width + k];
}

template class Memory<float>;
template class Memory<double>;
template void attend_rows(const AttentionForward<float>&, Index, const int64_t*);
template void attend_rows(const AttentionForward<double>&, Index, const int64_t*);
template void add_rows_in_order(const float*, Index, Index, float*);
template void add_rows_in_order(const double*, Index, Index, double*);

} // namespace rnncore

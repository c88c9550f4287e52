#include "stream.hpp"

#include <numeric>
#include <type_traits>

namespace rnncore {
namespace {

/// Operations of a call that is shorter than the copying of states matters.
constexpr Index long_work = 1'000'000;

} // namespace

/// Keeps other threads out of a stream.
template <class T>
class Stream<T>::Use {
public:
  explicit Use(Stream& stream) : used_(stream.used_) {
    if (used_.test_and_set(std::memory_order_acquire))
      throw std::runtime_error("this stream is in use by another thread: each needs one of its own");
  }
  Use(const Use&) = delete;
  ~Use() { used_.clear(std::memory_order_release); }

private:
  std::atomic_flag& used_;
};

template <class T>
Stream<T>::Stream(const py::list& layers, Index batch, Index width, const py::object& check,
                  const Stream* other)
    : batch_(batch), inputs_(width), layers_(layers), check_(check), outputs_(width) {
  check_rows("batch", batch);
  stages_ = stages_of<T>(layers, batch, width, other ? &other->stages_ : nullptr);
  for (const auto& stage : stages_) {
    outputs_ = stage->width();
    work_ += stage->work();
  }
  const py::object first = layers[0].cast<py::tuple>()[0];
  if (py::isinstance<EmbeddingLayer<T>>(first)) table_ = &first.cast<const EmbeddingLayer<T>&>();
}

template <class T>
bool Stream<T>::fits(const py::object& x, Index count) const {
  // Subclasses go through Python, which refuses masked arrays.
  if (!is_plain_array(x)) return false;
  if (table_) {
    if (!Array<int64_t>::check_(x)) return false;
    const auto numbers = py::reinterpret_borrow<Array<int64_t>>(x);
    return numbers.ndim() <= 1 && numbers.size() == count && table_->holds(numbers.data(), count);
  }
  if (!Array<T>::check_(x)) return false;
  const auto array = py::reinterpret_borrow<Array<T>>(x);
  return array.ndim() == 2 ? array.shape(0) == count && array.shape(1) == inputs_
                           : array.ndim() == 1 && count == 1 && array.shape(0) == inputs_;
}

template <class T>
void Stream<T>::check() const {
  for (const auto& stage : stages_) stage->check();
}

/// Notes the rows of a call. Returns whether there are such, each of them once.
template <class T>
bool Stream<T>::choose(const int64_t* rows, Index count) {
  if (count > batch_) return false;
  seen_.resize(std::size_t(batch_));
  if (++calls_ == 0) { // after four thousand million calls
    std::fill(seen_.begin(), seen_.end(), 0);
    calls_ = 1;
  }
  rows_.resize(std::size_t(count));
  for (Index i = 0; i < count; ++i) {
    if (rows[i] < 0 || rows[i] >= batch_ || seen_[rows[i]] == calls_) return false;
    seen_[rows[i]] = calls_;
    rows_[i] = int32_t(rows[i]);
  }
  return true;
}

/// The same of anything; raises what is wrong with it. Returns how many they are.
template <class T>
Index Stream<T>::choose(const py::object& given) {
  Array<int64_t> rows = no_array<int64_t>();
  const auto fit = [&](const py::object& object) {
    if (!is_plain_array(object) || !Array<int64_t>::check_(object)) return false;
    rows = py::reinterpret_borrow<Array<int64_t>>(object);
    return rows.ndim() == 1 && choose(rows.data(), rows.size());
  };
  if (!fit(given) && !fit(check_.attr("rows")(given))) throw py::value_error("rows: unexpected numbers");
  return rows.size();
}

template <class T>
py::object Stream<T>::step(const py::object& x, const py::object& out) {
  const Use use(*this);
  return step_of(batch_, x, out, nullptr, nullptr);
}

template <class T>
py::object Stream<T>::step_rows(const py::object& x, const py::object& out, const py::object& resets,
                                const py::object& rows) {
  const Use use(*this);
  const Index count = rows.is_none() ? batch_ : choose(rows);
  Array<bool> anew = no_array<bool>();
  if (!resets.is_none()) {
    if (is_plain_array(resets) && Array<bool>::check_(resets))
      anew = py::reinterpret_borrow<Array<bool>>(resets);
    if (!anew || anew.ndim() != 1 || anew.size() != count)
      anew = of_shape<bool>("resets", check_.attr("resets")(resets, count), {count});
  }
  return step_of(count, x, out, anew ? anew.data() : nullptr, rows.is_none() ? nullptr : rows_.data());
}

/// `states`: null for all rows.
template <class T>
py::object Stream<T>::step_of(Index count, const py::object& given, const py::object& out,
                              const bool* resets, const int32_t* states) {
  py::object object = given;
  if (!fits(given, count) && !fits(object = check_(given, count), count))
    throw py::value_error("x: unexpected shape");
  const auto x = py::reinterpret_borrow<py::array>(object);
  const Index shape[] = {count, outputs_};
  Array<T> y = results<T>(out, shape + (x.ndim() == (table_ ? 0 : 1)), shape + 2);
  T* to = y.mutable_data();
  check();
  const Frames<T> frames = frames_of(x.data(), {1, count, false}, resets, states);
  const ReleaseGil release(count * work_);
  go(frames, to);
  return y;
}

template <class T>
Frames<T> Stream<T>::frames_of(const void* x, Grid grid, const bool* resets, const int32_t* states) const {
  return {grid,
          table_ ? nullptr : static_cast<const T*>(x),
          table_ ? static_cast<const int64_t*>(x) : nullptr,
          resets,
          nullptr,
          states};
}

template <class T>
py::object Stream<T>::run(const py::object& given, const py::object& resets, const py::object& rows,
                          const py::object& lengths) {
  const Use use(*this);
  const Index count = rows.is_none() ? batch_ : choose(rows);
  const py::array x =
      table_ ? py::array(contiguous<int64_t>(given)) : py::array(rows_of<T>(given, 3, inputs_));
  const Index time = x.ndim() < 2 ? 0 : x.shape(0);
  if (x.ndim() < 2 || x.shape(1) != count) throw py::value_error("x: unexpected shape");
  Array<T> y = new_array<T>({time, count, outputs_});
  T* to = y.mutable_data();
  Array<bool> anew = no_array<bool>();
  if (!resets.is_none()) anew = of_shape<bool>("resets", resets, {time, count});
  Array<int64_t> ends = no_array<int64_t>();
  if (!lengths.is_none()) ends = of_shape<int64_t>("lengths", lengths, {count});
  check();
  const Frames<T> frames = frames_of(x.data(), {time, count, false}, anew ? anew.data() : nullptr,
                                     rows.is_none() ? nullptr : rows_.data());
  const ReleaseGil release(time * count * work_);
  if (!ends) {
    go(frames, to);
  } else {
    const Frames<T> own = packed(frames, ends.data());
    go(own, static_cast<T*>(packed_y_.reserve(std::size_t(own.count() * outputs_) * sizeof(T))));
    unpack(own, frames.grid, to);
  }
  return y;
}

/// The frames that there are, step by step and the longest sequences first.
template <class T>
Frames<T> Stream<T>::packed(const Frames<T>& x, const int64_t* lengths) {
  const Index count = x.grid.batch;
  order_.resize(std::size_t(count));
  std::iota(order_.begin(), order_.end(), Index(0));
  std::sort(order_.begin(), order_.end(),
            [&](Index a, Index b) { return lengths[a] != lengths[b] ? lengths[a] > lengths[b] : a < b; });
  lengths_.resize(std::size_t(count));
  states_.resize(std::size_t(count));
  for (Index i = 0; i < count; ++i) {
    lengths_[i] = std::clamp<int64_t>(lengths[order_[i]], 0, x.grid.time);
    states_[i] = x.states ? x.states[order_[i]] : int32_t(order_[i]);
  }
  const Index time = count ? Index(lengths_[0]) : 0;
  offsets_.assign(1, 0);
  for (Index t = 0, running = count; t < time; ++t) {
    while (lengths_[running - 1] <= t) --running;
    offsets_.push_back(offsets_.back() + running);
  }
  Frames<T> own{
      {time, count, false, offsets_.data()}, nullptr, nullptr, nullptr, lengths_.data(), states_.data()};
  const auto gather = [&](const auto* from, Index width, Buffer& memory) {
    using Number = std::remove_const_t<std::remove_pointer_t<decltype(from)>>;
    Number* to = static_cast<Number*>(memory.reserve(std::size_t(own.count() * width) * sizeof(Number)));
    const Number* const all = to;
    for (Index t = 0; t < time; ++t)
      for (Index i = 0; i < offsets_[t + 1] - offsets_[t]; ++i)
        to = std::copy_n(from + x.grid.row(t, order_[i]) * width, width, to);
    return all;
  };
  if (table_)
    own.numbers = gather(x.numbers, 1, packed_x_);
  else
    own.rows = gather(x.rows, inputs_, packed_x_);
  if (x.resets) own.resets = gather(x.resets, 1, packed_resets_);
  return own;
}

/// Outputs to where their frames were, and zeros where there were none.
template <class T>
void Stream<T>::unpack(const Frames<T>& packed, Grid grid, T* y) const {
  std::fill_n(y, grid.rows() * outputs_, T(0));
  const T* from = packed_y_.template as<T>();
  for (Index t = 0; t < packed.grid.time; ++t)
    for (Index i = 0; i < offsets_[t + 1] - offsets_[t]; ++i, from += outputs_)
      std::copy_n(from, outputs_, y + grid.row(t, order_[i]) * outputs_);
}

template <class T>
void Stream<T>::repeat(const py::object& given, Index times) {
  const Use use(*this);
  if (!fits(given, batch_)) throw py::value_error("x: unexpected shape");
  const auto x = py::reinterpret_borrow<py::array>(given);
  check();
  const Frames<T> frames = frames_of(x.data(), {1, batch_, false}, nullptr, nullptr);
  Buffer y(std::size_t(batch_ * outputs_) * sizeof(T));
  for (Index i = 0; i < times; ++i) {
    if (i % 1024 == 1023 && PyErr_CheckSignals() != 0) throw py::error_already_set();
    go(frames, y.template as<T>());
  }
}

/// They have been checked. What may be interrupted, or need much memory, can be taken back.
template <class T>
void Stream<T>::go(const Frames<T>& frames, T* y) {
  if (frames.count() * work_ < long_work) return walk(frames, y);
  for (const auto& stage : stages_) stage->save(frames);
  try {
    walk(frames, y);
  } catch (...) {
    for (const auto& stage : stages_) stage->restore(frames);
    throw;
  }
}

template <class T>
void Stream<T>::walk(Frames<T> frames, T* y) {
  const void* read = table_ ? static_cast<const void*>(frames.numbers) : frames.rows;
  std::size_t bytes = std::size_t(frames.count()) * (table_ ? sizeof(int64_t) : inputs_ * sizeof(T));
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    const Index size = frames.count() * stages_[i]->width();
    const std::size_t given = std::size_t(size) * sizeof(T);
    const bool last = i + 1 == stages_.size(), direct = last && apart(read, bytes, y, given);
    T* to = direct ? y : static_cast<T*>(between_[i % 2].reserve(given));
    if (i > 0 && frames.grid.time > 1) Watch::pause();
    stages_[i]->run(frames, to);
    if (last && !direct) std::copy_n(to, size, y);
    frames = frames.after(to);
    read = to;
    bytes = given;
  }
}

template <class T>
void Stream<T>::refresh(const py::list& layers) {
  const Use use(*this);
  refresh_all(stages_, stages_of<T>(layers, 1, inputs_, nullptr));
}

template class Stream<float>;
template class Stream<double>;

} // namespace rnncore

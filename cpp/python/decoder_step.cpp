#include "decoder_step.hpp"

namespace rnncore {
namespace {

template <class T>
T* room(Buffer& buffer, Index size) {
  return static_cast<T*>(buffer.reserve(std::size_t(size) * sizeof(T)));
}

template <class T>
void copy_columns(Index rows, Index width, Rows<const T> from, Rows<T> to) {
  for (Index r = 0; r < rows; ++r) std::copy_n(from.base + r * from.stride, width, to.base + r * to.stride);
}

/// (rows, any width) as it is, or no columns where there is none.
template <class T>
Array<T> columns_of(const char* name, const py::object& object, Index rows) {
  if (object.is_none()) return new_array<T>({rows, 0});
  const Array<T> array = contiguous<T>(object);
  if (array.ndim() != 2 || array.shape(0) != rows)
    throw py::value_error(std::string(name) + ": unexpected shape");
  return array;
}

} // namespace

template <class T>
const T* RowStages<T>::run(Index rows, const T* x, const int64_t* numbers) {
  Frames<T> frames{{rows, 1, false}, x, numbers};
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    T* const y = room<T>(outputs_[i], rows * stages_[i]->width());
    stages_[i]->run(frames, y);
    frames = frames.after(y);
  }
  return frames.rows;
}

template <class T>
OwnRows<T>::OwnRows(Index width, Index rows, const T* from) : width_(width) {
  std::copy_n(from, rows * width, room<T>(now_, rows * width));
}

template <class T>
void OwnRows<T>::take(const std::vector<Index>& rows) {
  const Index count = Index(rows.size());
  bool stay = true;
  for (Index r = 0; r < count; ++r) stay = stay && rows[r] == r;
  if (stay) return;
  T* const to = room<T>(next_, count * width_);
  for (Index r = 0; r < count; ++r) std::copy_n(data() + rows[r] * width_, width_, to + r * width_);
  std::swap(now_, next_);
}

template <class T>
DecoderStep<T>::DecoderStep(const py::object& parts)
    : parts_(parts), memory_(parts.attr("memory").cast<const Memory<T>*>()),
      before_(parts.attr("before").cast<bool>()), feeds_(parts.attr("feeds").cast<bool>()),
      sources_(parts.attr("sources").cast<Index>()), layers_(layers_of(parts)),
      hidden_(layers_.at(0).layer.shape().output), embedding_(parts.attr("embedding"), 0),
      query_(parts.attr("query"), hidden_), centre_(parts.attr("centre"), hidden_),
      merge_(parts.attr("merge"), hidden_ + (memory_ ? memory_->value_size() : 0)),
      head_(parts.attr("head"), merge_.width()),
      context_(columns_of<T>("context", parts.attr("context"), sources_)), feed_(feed_of(parts)) {
  check();
  if (memory_) call_ = memory_->common(sources_);
}

template <class T>
OwnRows<T> DecoderStep<T>::feed_of(const py::object& parts) const {
  if (!feeds_) return OwnRows<T>(0, sources_, nullptr);
  const auto first = of_shape<T>("feed", parts.attr("feed"), {sources_, merge_.width()});
  return OwnRows<T>(merge_.width(), sources_, first.data());
}

template <class T>
auto DecoderStep<T>::layers_of(const py::object& parts) const -> std::vector<Recurrent> {
  const py::list given = parts.attr("layers");
  const py::object h = parts.attr("h"), c = parts.attr("c");
  std::vector<Recurrent> layers;
  for (const auto& entry : given) {
    const auto stage = entry.cast<py::tuple>();
    auto& layer = stage[0].cast<Layer<T>&>();
    const Index count = Index(given.size()), at = Index(layers.size()), P = layer.shape().output,
                H = layer.has_cell_state() ? c_columns(layer.shape()) : 0;
    const Array<T> all_h = of_shape<T>("h", h, {count, sources_, P});
    Array<T> all_c = new_array<T>({count, sources_, 0});
    if (H) all_c = of_shape<T>("c", c, {count, sources_, H});
    layers.push_back({layer, layer.weights(), layer.mask_arrays(stage[3], 0, 0, sources_),
                      OwnRows<T>(P, sources_, all_h.data() + at * sources_ * P),
                      OwnRows<T>(H, sources_, all_c.data() + at * sources_ * H), Buffer()});
  }
  return layers;
}

/// Python has checked them; parameters may have been moved since.
template <class T>
void DecoderStep<T>::check() const {
  for (const RowStages<T>* stages : {&embedding_, &query_, &centre_, &merge_, &head_}) stages->check();
  bool fits = embedding_.width() + context_.shape(1) + joined() == input();
  for (const Recurrent& r : layers_)
    fits = fits && r.layer.directions() == 1 && (&r == &layers_[0] || r.layer.shape().input == hidden_);
  if (memory_)
    fits = fits && memory_->sources() == sources_ && query_.width() == memory_->key_size() &&
           (!centre_ || centre_.width() == 1);
  if (!fits || (!memory_ && (before_ || feeds_)))
    throw py::value_error("the parts of a decoder: unexpected shapes");
}

template <class T>
const T* DecoderStep<T>::Recurrent::run(Index rows, const T* x) {
  ForwardArrays<T> arrays{};
  arrays.grid = {1, rows, false};
  arrays.x = x;
  arrays.y = room<T>(y, rows * h.width());
  arrays.h = h.data();
  arrays.running_c = c.data();
  arrays.masks = masks;
  layer.passes().forward(arrays, nullptr, 0, &weights);
  return arrays.y;
}

template <class T>
const T* DecoderStep<T>::run(Index rows, const int64_t* tokens, const int64_t* sources, T* weights) {
  const Index I = input(), J = joined(), M = memory_ ? memory_->value_size() : 0, wide = M + hidden_;
  T* const x = inputs(rows, tokens, sources);
  T* contexts = nullptr;
  if (before_) contexts = attend(rows, sources, layers_.back().h.data(), weights);
  if (before_) copy_columns<T>(rows, J, {contexts, wide}, {x + I - J, I});
  if (feeds_) copy_columns<T>(rows, J, {feed_.data(), J}, {x + I - J, I});
  const T* h = x;
  for (Recurrent& layer : layers_) h = layer.run(rows, h);
  if (memory_ && !before_) contexts = attend(rows, sources, h, weights);
  if (memory_) copy_columns<T>(rows, hidden_, {h, hidden_}, {contexts + M, wide});
  const T* const made = merge_.run(rows, memory_ ? contexts : h);
  if (feeds_) std::copy_n(made, rows * J, feed_.data());
  return head_.run(rows, made);
}

template <class T>
T* DecoderStep<T>::inputs(Index rows, const int64_t* tokens, const int64_t* sources) {
  const Index E = embedding_.width(), C = context_.shape(1), I = input();
  T* const x = room<T>(x_, rows * I);
  copy_columns<T>(rows, E, {embedding_.run(rows, nullptr, tokens), E}, {x, I});
  for (Index r = 0; r < rows; ++r) std::copy_n(context_.data() + sources[r] * C, C, x + r * I + E);
  return x;
}

template <class T>
T* DecoderStep<T>::attend(Index rows, const int64_t* sources, const T* h, T* weights) {
  call_.rows = rows;
  call_.source = sources;
  call_.query = {query_.run(rows, h), call_.key_size};
  call_.context = {room<T>(contexts_, rows * (call_.value_size + hidden_)), call_.value_size + hidden_};
  call_.weights = weights;
  if (centre_) { // p = length * share
    const T* const share = centre_.run(rows, h);
    T* const p = room<T>(centres_, rows);
    for (Index r = 0; r < rows; ++r) p[r] = share[r] * T(call_.lengths[sources[r]]);
    call_.centre = p;
  }
  attend_rows(call_, 1, nullptr);
  return call_.context.base;
}

template <class T>
void DecoderStep<T>::take(const std::vector<Index>& rows) {
  for (Recurrent& layer : layers_) {
    layer.h.take(rows);
    layer.c.take(rows);
  }
  feed_.take(rows);
}

template class RowStages<float>;
template class RowStages<double>;
template class OwnRows<float>;
template class OwnRows<double>;
template class DecoderStep<float>;
template class DecoderStep<double>;

} // namespace rnncore

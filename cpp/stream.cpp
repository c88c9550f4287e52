#include "stream.hpp"

namespace rnncore {
namespace {

template <class T>
class RecurrentStage final : public Stage<T> {
public:
  RecurrentStage(Layer<T>& layer, Index batch, const py::object& h, const py::object& c,
                 const py::object& masks, const RecurrentStage* other)
      : passes_(layer.passes()), gates_(layer.gates()) {
    if (!layer.one_way()) throw py::value_error("a stream runs in one direction");
    arrays_.grid = {1, batch, false};
    arrays_.h = parameter<T>(h, {batch, shape().output});
    if (layer.has_cell_state()) arrays_.running_c = parameter<T>(c, {batch, shape().hidden});
    arrays_.masks = layer.mask_arrays(masks, 0, 0, batch);
    weights_ = other ? other->weights_ : passes_.weights();
  }

  Shape shape() const override { return passes_.shape(); }
  Index width() const override { return shape().output; }
  Index work() const override { return gates_ * shape().hidden * (shape().input + shape().output); }
  void run(Index time, const T* x, T* y) override {
    arrays_.grid.time = time;
    arrays_.x = x;
    arrays_.y = y;
    passes_.forward(arrays_, nullptr, 0, &weights_);
  }
  void refresh() override { weights_ = passes_.weights(); }

private:
  Passes<T>& passes_;
  const Index gates_;
  ForwardArrays<T> arrays_{};
  Pinned<T> weights_;
};

template <class T>
class LinearStage final : public Stage<T> {
public:
  LinearStage(LinearLayer<T>& layer, Index batch, const LinearStage* other)
      : layer_(layer), batch_(batch), weights_(other ? other->weights_ : layer.snapshot(false)) {}

  Shape shape() const override { return layer_.shape(); }
  Index width() const override { return shape().hidden; }
  Index work() const override { return shape().hidden * shape().input; }
  void run(Index time, const T* x, T* y) override { layer_.multiply(*weights_, time * batch_, x, y); }
  void refresh() override { weights_ = layer_.snapshot(false); }

private:
  LinearLayer<T>& layer_;
  const Index batch_;
  std::shared_ptr<const Snapshot<T>> weights_;
};

template <class T>
std::unique_ptr<Stage<T>> stage_of(const py::tuple& given, Index batch, const Stage<T>* other) {
  if (py::isinstance<LinearLayer<T>>(given[0]))
    return std::make_unique<LinearStage<T>>(given[0].cast<LinearLayer<T>&>(), batch,
                                            dynamic_cast<const LinearStage<T>*>(other));
  return std::make_unique<RecurrentStage<T>>(given[0].cast<Layer<T>&>(), batch, given[1], given[2],
                                             given[3], dynamic_cast<const RecurrentStage<T>*>(other));
}

/// Where results of this shape go: `out`, if it is given and fits.
template <class T>
Array<T> results(const py::object& out, const Index* begin, const Index* end) {
  if (out.is_none()) return new_array<T>(begin, end);
  if (Array<T>::check_(out)) {
    const auto array = py::reinterpret_borrow<Array<T>>(out);
    if (array.writeable() && std::equal(begin, end, array.shape(), array.shape() + array.ndim()))
      return array;
  }
  std::string shape;
  for (const Index* n = begin; n < end; ++n) shape += (n > begin ? ", " : "") + std::to_string(*n);
  throw py::value_error("out must be a contiguous array to write to, of " +
                        py::str(py::dtype::of<T>()).template cast<std::string>() + " and shape (" + shape +
                        (end - begin == 1 ? ",)" : ")"));
}

template <class T>
bool apart(const T* a, Index n, const T* b, Index m) {
  return a + n <= b || b + m <= a;
}

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
Stream<T>::Stream(const py::list& layers, Index batch, const py::object& check, const Stream* other)
    : batch_(batch), layers_(layers), check_(check) {
  check_rows("batch", batch);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const Stage<T>* known = other ? other->stages_.at(i).get() : nullptr;
    stages_.push_back(stage_of<T>(layers[i].cast<py::tuple>(), batch, known));
    const Index takes = stages_[i]->shape().input, gets = i ? stages_[i - 1]->width() : takes;
    if (takes != gets)
      throw py::value_error("layers do not fit: one gives " + std::to_string(gets) +
                            " features, the next takes " + std::to_string(takes));
    work_ += stages_.back()->work();
  }
  inputs_ = stages_.at(0)->shape().input;
  outputs_ = stages_.back()->width();
}

template <class T>
bool Stream<T>::fits(const py::object& x) const {
  if (!Array<T>::check_(x)) return false;
  const auto array = py::reinterpret_borrow<Array<T>>(x);
  return array.ndim() == 2 ? array.shape(0) == batch_ && array.shape(1) == inputs_
                           : array.ndim() == 1 && batch_ == 1 && array.shape(0) == inputs_;
}

template <class T>
py::object Stream<T>::step(const py::object& given, const py::object& out) {
  const py::object object = fits(given) ? given : check_(given);
  if (!fits(object)) throw py::value_error("x: unexpected shape");
  const auto x = py::reinterpret_borrow<Array<T>>(object);
  const Index shape[] = {batch_, outputs_};
  Array<T> y = results<T>(out, shape + (x.ndim() == 1), shape + 2);
  T* to = y.mutable_data();
  const Use use(*this);
  const ReleaseGil release(batch_ * work_);
  go(1, x.data(), to);
  return y;
}

template <class T>
py::object Stream<T>::run(const py::object& given) {
  const Array<T> x = rows_of<T>(given, 3, inputs_);
  if (x.shape(1) != batch_) throw py::value_error("x: unexpected shape");
  Array<T> y = new_array<T>({x.shape(0), batch_, outputs_});
  T* to = y.mutable_data();
  const Use use(*this);
  const ReleaseGil release(x.shape(0) * batch_ * work_);
  go(x.shape(0), x.data(), to);
  return y;
}

template <class T>
void Stream<T>::repeat(const py::object& given, Index times) {
  if (!fits(given)) throw py::value_error("x: unexpected shape");
  const auto x = py::reinterpret_borrow<Array<T>>(given);
  const Use use(*this);
  Buffer y(std::size_t(batch_ * outputs_) * sizeof(T));
  for (Index i = 0; i < times; ++i) go(1, x.data(), y.template as<T>());
}

template <class T>
void Stream<T>::go(Index time, const T* x, T* y) {
  const Index rows = time * batch_;
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    const Index width = stages_[i]->width(), last = i + 1 == stages_.size();
    const bool direct = last && apart<T>(x, rows * stages_[i]->shape().input, y, rows * width);
    T* to = direct ? y : static_cast<T*>(between_[i % 2].reserve(std::size_t(rows * width) * sizeof(T)));
    stages_[i]->run(time, x, to);
    if (last && !direct) std::copy_n(to, rows * width, y);
    x = to;
  }
}

template <class T>
void Stream<T>::refresh() {
  const Use use(*this);
  for (const auto& stage : stages_) stage->refresh();
}

template class Stream<float>;
template class Stream<double>;

} // namespace rnncore

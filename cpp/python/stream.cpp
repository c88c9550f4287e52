#include "stream.hpp"

#include "branches.hpp"

namespace rnncore {
namespace {

/// Operations of a call that is shorter than the copying of states matters.
constexpr Index long_work = 1'000'000;

template <class T>
class RecurrentStage final : public Stage<T> {
public:
  RecurrentStage(Layer<T>& layer, Index batch, const py::object& h, const py::object& c,
                 const py::object& masks, const RecurrentStage* other)
      : layer_(layer), passes_(layer.passes()) {
    if (layer.directions() != 1) throw py::value_error("a stream runs in one direction");
    arrays_.grid = {1, batch, false};
    arrays_.h = parameter<T>("h", h, {batch, shape().output});
    if (layer.has_cell_state()) arrays_.running_c = parameter<T>("c", c, {batch, c_columns(shape())});
    arrays_.masks = layer.mask_arrays(masks, 0, 0, batch);
    if (other) {
      refresh(*other);
      return;
    }
    weights_ = layer.weights();
    const auto first = [](const T* states, Index width) { return std::vector<T>(states, states + width); };
    anew_h_ = first(arrays_.h, shape().output);
    if (arrays_.running_c) anew_c_ = first(arrays_.running_c, c_columns(shape()));
  }

  Index inputs() const override { return x_columns(shape()); }
  Index width() const override { return shape().output; }
  Index work() const override { return layer_.gates() * shape().hidden * (shape().input + shape().output); }
  void run(Index time, Frames<T> x, T* y) override {
    arrays_.grid.time = time;
    arrays_.x = x.rows;
    arrays_.y = y;
    arrays_.restarts = {x.resets, anew_h_.data(), anew_c_.data()};
    passes_.forward(arrays_, nullptr, 0, &weights_);
  }
  void refresh(const Stage<T>& now) override {
    const auto& from = static_cast<const RecurrentStage&>(now);
    weights_ = from.weights_;
    anew_h_ = from.anew_h_;
    anew_c_ = from.anew_c_;
  }
  void save() override {
    T* const to = static_cast<T*>(saved_.reserve(std::size_t(h_size() + c_size()) * sizeof(T)));
    std::copy_n(arrays_.h, h_size(), to);
    std::copy_n(arrays_.running_c, c_size(), to + h_size());
  }
  void restore() override {
    const T* const from = saved_.template as<T>();
    std::copy_n(from, h_size(), arrays_.h);
    std::copy_n(from + h_size(), c_size(), arrays_.running_c);
  }

private:
  Shape shape() const { return passes_.shape(); }
  Index h_size() const { return arrays_.grid.batch * shape().output; }
  Index c_size() const { return arrays_.running_c ? arrays_.grid.batch * c_columns(shape()) : 0; }

  Layer<T>& layer_;
  Passes<T>& passes_;
  ForwardArrays<T> arrays_{};
  Pinned<T> weights_;
  std::vector<T> anew_h_, anew_c_; // what rows start anew from
  Buffer saved_;
};

template <class T>
class LinearStage final : public Stage<T> {
public:
  LinearStage(LinearLayer<T>& layer, Index batch, const LinearStage* other)
      : layer_(layer), batch_(batch), weights_(other ? other->weights_ : now(layer)) {}

  Index inputs() const override { return layer_.shape().input; }
  Index width() const override { return layer_.shape().hidden; }
  Index work() const override { return width() * inputs(); }
  void run(Index time, Frames<T> x, T* y) override { layer_.multiply(*weights_, time * batch_, x.rows, y); }
  void refresh(const Stage<T>& now) override { weights_ = static_cast<const LinearStage&>(now).weights_; }

private:
  static std::shared_ptr<const Snapshot<T>> now(LinearLayer<T>& layer) {
    layer.check_parameters();
    return layer.snapshot(false);
  }

  LinearLayer<T>& layer_;
  const Index batch_;
  std::shared_ptr<const Snapshot<T>> weights_;
};

template <class T>
class PointwiseStage final : public Stage<T> {
public:
  PointwiseStage(const PointwiseLayer<T>& layer, Index batch, Index width)
      : layer_(layer), batch_(batch), width_(layer.width() ? layer.width() : width) {}

  Index inputs() const override { return width_; }
  Index width() const override { return width_; }
  Index work() const override { return 8 * width_; }
  void check() const override { layer_.check(); }
  void run(Index time, Frames<T> x, T* y) override { layer_.run(time * batch_, width_, x.rows, y); }

private:
  const PointwiseLayer<T>& layer_;
  const Index batch_, width_;
};

template <class T>
class EmbeddingStage final : public Stage<T> {
public:
  EmbeddingStage(const EmbeddingLayer<T>& layer, Index batch) : layer_(layer), batch_(batch) {}

  Index inputs() const override { return 0; }
  Index width() const override { return layer_.width(); }
  Index work() const override { return width(); }
  void check() const override { layer_.check(); }
  void run(Index time, Frames<T> x, T* y) override { layer_.look_up(x.numbers, time * batch_, y); }

private:
  const EmbeddingLayer<T>& layer_;
  const Index batch_;
};

template <class T>
std::unique_ptr<Stage<T>> stage_of(const py::tuple& given, Index batch, Index width, const Stage<T>* other);

/// Layers that hand on more than their outputs: with each output its input, with the outputs of all what
/// the first one saw.
template <class T>
class DeepStage final : public Stage<T> {
public:
  DeepStage(const py::tuple& given, Index batch, const DeepStage* other)
      : batch_(batch), residual_(given[1].cast<bool>()), skip_(given[2].cast<bool>()) {
    for (const auto& layer : given[0].cast<py::list>()) {
      const Stage<T>* known = other ? other->layers_.at(layers_.size()).get() : nullptr;
      layers_.push_back(stage_of<T>(layer.cast<py::tuple>(), batch, 0, known));
    }
  }

  Index inputs() const override { return layers_.at(0)->inputs(); }
  Index width() const override { return skip_ ? own() * Index(layers_.size()) : own(); }
  Index work() const override {
    Index sum = 0;
    for (const auto& layer : layers_) sum += layer->work();
    return sum;
  }
  void check() const override {
    for (const auto& layer : layers_) layer->check();
  }
  void run(Index time, Frames<T> x, T* y) override {
    const Index rows = time * batch_;
    T* before = nullptr;
    for (std::size_t n = 0; n < layers_.size(); ++n) {
      T* const to = room(outputs_[n % 2], rows * own());
      layers_[n]->run(time, n == 0 ? x : x.after(skip_ ? joined(rows, before, x.rows) : before), to);
      for (Index i = 0; n > 0 && residual_ && i < rows * own(); ++i) to[i] += before[i];
      if (skip_) columns(rows, to, own(), y + Index(n) * own(), width());
      before = to;
    }
    if (!skip_) std::copy_n(before, rows * own(), y);
  }
  void refresh(const Stage<T>& now) override {
    refresh_all(layers_, static_cast<const DeepStage&>(now).layers_);
  }
  void save() override {
    for (const auto& layer : layers_) layer->save();
  }
  void restore() override {
    for (const auto& layer : layers_) layer->restore();
  }

private:
  Index own() const { return layers_.at(0)->width(); }
  static T* room(Buffer& buffer, Index size) {
    return static_cast<T*>(buffer.reserve(std::size_t(size) * sizeof(T)));
  }
  static void columns(Index rows, const T* from, Index width, T* to, Index stride) {
    for (Index r = 0; r < rows; ++r) std::copy_n(from + r * width, width, to + r * stride);
  }
  /// Both, side by side.
  const T* joined(Index rows, const T* before, const T* seen) {
    const Index both = own() + inputs();
    T* const to = room(joined_, rows * both);
    columns(rows, before, own(), to, both);
    columns(rows, seen, inputs(), to + own(), both);
    return to;
  }

  const Index batch_;
  const bool residual_, skip_;
  StageList<T> layers_;
  Buffer outputs_[2], joined_;
};

/// `width`: of what it takes, if the layer does not say.
template <class T>
std::unique_ptr<Stage<T>> stage_of(const py::tuple& given, Index batch, Index width,
                                   const Stage<T>* other) {
  const py::object layer = given[0];
  if (py::isinstance<py::list>(layer))
    return std::make_unique<DeepStage<T>>(given, batch, dynamic_cast<const DeepStage<T>*>(other));
  if (py::isinstance<py::tuple>(layer))
    return std::make_unique<BranchStage<T>>(given, batch, width,
                                            dynamic_cast<const BranchStage<T>*>(other));
  if (py::isinstance<PointwiseLayer<T>>(layer))
    return std::make_unique<PointwiseStage<T>>(layer.cast<const PointwiseLayer<T>&>(), batch, width);
  if (py::isinstance<EmbeddingLayer<T>>(layer))
    return std::make_unique<EmbeddingStage<T>>(layer.cast<const EmbeddingLayer<T>&>(), batch);
  if (py::isinstance<LinearLayer<T>>(layer))
    return std::make_unique<LinearStage<T>>(layer.cast<LinearLayer<T>&>(), batch,
                                            dynamic_cast<const LinearStage<T>*>(other));
  return std::make_unique<RecurrentStage<T>>(layer.cast<Layer<T>&>(), batch, given[1], given[2], given[3],
                                             dynamic_cast<const RecurrentStage<T>*>(other));
}

} // namespace

template <class T>
StageList<T> stages_of(const py::list& layers, Index batch, Index width, const StageList<T>* other) {
  StageList<T> stages;
  for (const auto& layer : layers) {
    const Stage<T>* known = other ? other->at(stages.size()).get() : nullptr;
    stages.push_back(stage_of<T>(layer.cast<py::tuple>(), batch, width, known));
    if (stages.back()->inputs() != width)
      throw py::value_error("layers do not fit: one gives " + std::to_string(width) +
                            " features, the next takes " + std::to_string(stages.back()->inputs()));
    width = stages.back()->width();
  }
  return stages;
}

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
bool Stream<T>::fits(const py::object& x) const {
  // Subclasses go through Python, which refuses masked arrays.
  if (!is_plain_array(x)) return false;
  if (table_) {
    if (!Array<int64_t>::check_(x)) return false;
    const auto numbers = py::reinterpret_borrow<Array<int64_t>>(x);
    return numbers.ndim() <= 1 && numbers.size() == batch_ && table_->holds(numbers.data(), batch_);
  }
  if (!Array<T>::check_(x)) return false;
  const auto array = py::reinterpret_borrow<Array<T>>(x);
  return array.ndim() == 2 ? array.shape(0) == batch_ && array.shape(1) == inputs_
                           : array.ndim() == 1 && batch_ == 1 && array.shape(0) == inputs_;
}

template <class T>
void Stream<T>::check() const {
  for (const auto& stage : stages_) stage->check();
}

template <class T>
py::object Stream<T>::step_anew(const py::object& x, const py::object& out, const py::object& resets) {
  if (resets.is_none()) return step(x, out);
  Array<bool> anew = no_array<bool>();
  if (is_plain_array(resets) && Array<bool>::check_(resets))
    anew = py::reinterpret_borrow<Array<bool>>(resets);
  if (!anew || anew.ndim() != 1 || anew.size() != batch_)
    anew = of_shape<bool>("resets", check_.attr("resets")(resets), {batch_});
  return step_from(x, out, anew.data());
}

template <class T>
py::object Stream<T>::step_from(const py::object& given, const py::object& out, const bool* resets) {
  py::object object = given;
  if (!fits(given) && !fits(object = check_(given))) throw py::value_error("x: unexpected shape");
  const auto x = py::reinterpret_borrow<py::array>(object);
  const Index shape[] = {batch_, outputs_};
  Array<T> y = results<T>(out, shape + (x.ndim() == (table_ ? 0 : 1)), shape + 2);
  T* to = y.mutable_data();
  const Use use(*this);
  check();
  const ReleaseGil release(batch_ * work_);
  go(1, x, resets, to);
  return y;
}

template <class T>
py::object Stream<T>::run(const py::object& given, const py::object& resets) {
  const py::array x =
      table_ ? py::array(contiguous<int64_t>(given)) : py::array(rows_of<T>(given, 3, inputs_));
  const Index time = x.ndim() < 2 ? 0 : x.shape(0);
  if (x.ndim() < 2 || x.shape(1) != batch_) throw py::value_error("x: unexpected shape");
  Array<T> y = new_array<T>({time, batch_, outputs_});
  T* to = y.mutable_data();
  Array<bool> anew = no_array<bool>();
  if (!resets.is_none()) anew = of_shape<bool>("resets", resets, {time, batch_});
  const Use use(*this);
  check();
  const ReleaseGil release(time * batch_ * work_);
  go(time, x, resets.is_none() ? nullptr : anew.data(), to);
  return y;
}

template <class T>
void Stream<T>::repeat(const py::object& given, Index times) {
  if (!fits(given)) throw py::value_error("x: unexpected shape");
  const auto x = py::reinterpret_borrow<py::array>(given);
  const Use use(*this);
  check();
  Buffer y(std::size_t(batch_ * outputs_) * sizeof(T));
  for (Index i = 0; i < times; ++i) {
    if (i % 1024 == 1023 && PyErr_CheckSignals() != 0) throw py::error_already_set();
    go(1, x, nullptr, y.template as<T>());
  }
}

/// x has been checked. What may be interrupted, or need much memory, can be taken back.
template <class T>
void Stream<T>::go(Index time, const py::array& x, const bool* resets, T* y) {
  const void* read = x.data();
  const std::size_t bytes = std::size_t(x.size()) * (table_ ? sizeof(int64_t) : sizeof(T)); // needs no GIL
  const Frames<T> frames{table_ ? nullptr : static_cast<const T*>(read),
                         table_ ? static_cast<const int64_t*>(read) : nullptr, resets};
  if (time * batch_ * work_ < long_work) return walk(time, frames, bytes, y);
  for (const auto& stage : stages_) stage->save();
  try {
    walk(time, frames, bytes, y);
  } catch (...) {
    for (const auto& stage : stages_) stage->restore();
    throw;
  }
}

template <class T>
void Stream<T>::walk(Index time, Frames<T> frames, std::size_t bytes, T* y) {
  const void* read = table_ ? static_cast<const void*>(frames.numbers) : frames.rows;
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    const Index size = time * batch_ * stages_[i]->width();
    const std::size_t given = std::size_t(size) * sizeof(T);
    const bool last = i + 1 == stages_.size(), direct = last && apart(read, bytes, y, given);
    T* to = direct ? y : static_cast<T*>(between_[i % 2].reserve(given));
    if (i > 0 && time > 1) Watch::pause();
    stages_[i]->run(time, frames, to);
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

template StageList<float> stages_of(const py::list&, Index, Index, const StageList<float>*);
template StageList<double> stages_of(const py::list&, Index, Index, const StageList<double>*);
template class Stream<float>;
template class Stream<double>;

} // namespace rnncore

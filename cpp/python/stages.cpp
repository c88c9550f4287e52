#include "stages.hpp"

#include "branches.hpp"

namespace rnncore {
namespace {

template <class T>
class RecurrentStage final : public Stage<T> {
public:
  RecurrentStage(Layer<T>& layer, Index batch, const py::object& h, const py::object& c,
                 const py::object& masks, const RecurrentStage* other)
      : layer_(layer), passes_(layer.passes()), batch_(batch) {
    if (layer.directions() != 1) throw py::value_error("a stream runs in one direction");
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
  void run(const Frames<T>& x, T* y) override {
    arrays_.grid = x.grid;
    arrays_.lengths = x.lengths;
    arrays_.states = x.states;
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
  void save(const Frames<T>& x) override {
    const std::size_t numbers = std::size_t(x.grid.batch * (shape().output + c_width()));
    T* to = static_cast<T*>(saved_.reserve(numbers * sizeof(T)));
    for_each_state(x, [&](T* state, Index width) { to = std::copy_n(state, width, to); });
  }
  void restore(const Frames<T>& x) override {
    const T* from = saved_.template as<T>();
    for_each_state(x, [&](T* state, Index width) {
      std::copy_n(from, width, state);
      from += width;
    });
  }

private:
  Shape shape() const { return passes_.shape(); }
  Index c_width() const { return arrays_.running_c ? c_columns(shape()) : 0; }
  /// f(state, its width) for those that these frames change.
  template <class F>
  void for_each_state(const Frames<T>& x, F f) const {
    const Index P = shape().output, C = c_width();
    for (Index b = 0; b < x.grid.batch; ++b) {
      const Index row = x.states ? x.states[b] : b;
      f(arrays_.h + row * P, P);
      if (C) f(arrays_.running_c + row * C, C);
    }
  }

  Layer<T>& layer_;
  Passes<T>& passes_;
  const Index batch_; // rows of the states
  ForwardArrays<T> arrays_{};
  Pinned<T> weights_;
  std::vector<T> anew_h_, anew_c_; // what rows start anew from
  Buffer saved_;
};

template <class T>
class LinearStage final : public Stage<T> {
public:
  LinearStage(LinearLayer<T>& layer, const LinearStage* other)
      : layer_(layer), weights_(other ? other->weights_ : now(layer)) {}

  Index inputs() const override { return layer_.shape().input; }
  Index width() const override { return layer_.shape().hidden; }
  Index work() const override { return width() * inputs(); }
  void run(const Frames<T>& x, T* y) override { layer_.multiply(*weights_, x.count(), x.rows, y); }
  void refresh(const Stage<T>& now) override { weights_ = static_cast<const LinearStage&>(now).weights_; }

private:
  static std::shared_ptr<const Snapshot<T>> now(LinearLayer<T>& layer) {
    layer.check_parameters();
    return layer.snapshot(false);
  }

  LinearLayer<T>& layer_;
  std::shared_ptr<const Snapshot<T>> weights_;
};

template <class T>
class PointwiseStage final : public Stage<T> {
public:
  PointwiseStage(const PointwiseLayer<T>& layer, Index width)
      : layer_(layer), width_(layer.width() ? layer.width() : width) {}

  Index inputs() const override { return width_; }
  Index width() const override { return width_; }
  Index work() const override { return 8 * width_; }
  void check() const override { layer_.check(); }
  void run(const Frames<T>& x, T* y) override { layer_.run(x.count(), width_, x.rows, y); }

private:
  const PointwiseLayer<T>& layer_;
  const Index width_;
};

template <class T>
class EmbeddingStage final : public Stage<T> {
public:
  explicit EmbeddingStage(const EmbeddingLayer<T>& layer) : layer_(layer) {}

  Index inputs() const override { return 0; }
  Index width() const override { return layer_.width(); }
  Index work() const override { return width(); }
  void check() const override { layer_.check(); }
  void run(const Frames<T>& x, T* y) override { layer_.look_up(x.numbers, x.count(), y); }

private:
  const EmbeddingLayer<T>& layer_;
};

template <class T>
std::unique_ptr<Stage<T>> stage_of(const py::tuple& given, Index batch, Index width, const Stage<T>* other);

/// Layers that hand on more than their outputs: with each output its input, with the outputs of all what
/// the first one saw.
template <class T>
class DeepStage final : public Stage<T> {
public:
  DeepStage(const py::tuple& given, Index batch, const DeepStage* other)
      : residual_(given[1].cast<bool>()), skip_(given[2].cast<bool>()) {
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
  void run(const Frames<T>& x, T* y) override {
    const Index rows = x.count();
    T* before = nullptr;
    for (std::size_t n = 0; n < layers_.size(); ++n) {
      T* const to = room(outputs_[n % 2], rows * own());
      layers_[n]->run(n == 0 ? x : x.after(skip_ ? joined(rows, before, x.rows) : before), to);
      for (Index i = 0; n > 0 && residual_ && i < rows * own(); ++i) to[i] += before[i];
      if (skip_) columns(rows, to, own(), y + Index(n) * own(), width());
      before = to;
    }
    if (!skip_) std::copy_n(before, rows * own(), y);
  }
  void refresh(const Stage<T>& now) override {
    refresh_all(layers_, static_cast<const DeepStage&>(now).layers_);
  }
  void save(const Frames<T>& x) override {
    for (const auto& layer : layers_) layer->save(x);
  }
  void restore(const Frames<T>& x) override {
    for (const auto& layer : layers_) layer->restore(x);
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
    return std::make_unique<PointwiseStage<T>>(layer.cast<const PointwiseLayer<T>&>(), width);
  if (py::isinstance<EmbeddingLayer<T>>(layer))
    return std::make_unique<EmbeddingStage<T>>(layer.cast<const EmbeddingLayer<T>&>());
  if (py::isinstance<LinearLayer<T>>(layer))
    return std::make_unique<LinearStage<T>>(layer.cast<LinearLayer<T>&>(),
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

template StageList<float> stages_of(const py::list&, Index, Index, const StageList<float>*);
template StageList<double> stages_of(const py::list&, Index, Index, const StageList<double>*);

} // namespace rnncore

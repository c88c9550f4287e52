// Layers beside one another in a stream, whose outputs become one.
#pragma once

#include "stages.hpp"

namespace rnncore {

enum class Merge { concat, sum, mean, mul };

inline Merge merge_of(const std::string& name) {
  if (name == "concat") return Merge::concat;
  if (name == "sum") return Merge::sum;
  if (name == "mean") return Merge::mean;
  if (name == "mul") return Merge::mul;
  throw py::value_error("no merge named '" + name + "'");
}

/// Stages one after the other; without any, what comes goes on.
template <class T>
class Branch {
public:
  Branch(StageList<T> stages, Index width) : stages_(std::move(stages)), width_(width) {
    for (const auto& stage : stages_) {
      width_ = stage->width();
      work_ += stage->work();
    }
  }

  Index width() const { return width_; }
  Index work() const { return work_; }
  StageList<T>& stages() { return stages_; }
  const StageList<T>& stages() const { return stages_; }
  /// Outputs that stay until the next call, or x.
  const T* run(Frames<T> x) {
    for (std::size_t i = 0; i < stages_.size(); ++i) {
      const std::size_t bytes = std::size_t(x.count() * stages_[i]->width()) * sizeof(T);
      T* const to = static_cast<T*>(between_[i % 2].reserve(bytes));
      stages_[i]->run(x, to);
      x = x.after(to);
    }
    return x.rows;
  }

private:
  StageList<T> stages_;
  Index width_, work_ = 0;
  Buffer between_[2];
};

template <class T>
class BranchStage final : public Stage<T> {
public:
  /// `given`: for each branch a list of stages, and how their outputs are merged. `width`: of x.
  BranchStage(const py::tuple& given, Index batch, Index width, const BranchStage* other)
      : inputs_(width), merge_(merge_of(given[1].cast<std::string>())) {
    for (const auto& branch : given[0].cast<py::tuple>()) {
      const StageList<T>* known = other ? &other->branches_.at(branches_.size()).stages() : nullptr;
      branches_.emplace_back(stages_of<T>(branch.cast<py::list>(), batch, width, known), width);
      width_ = merge_ == Merge::concat ? width_ + branches_.back().width() : branches_.back().width();
      if (merge_ != Merge::concat && width_ != branches_[0].width())
        throw py::value_error("branches do not fit: one gives " + std::to_string(branches_[0].width()) +
                              " features, another " + std::to_string(width_));
    }
  }

  Index inputs() const override { return inputs_; }
  Index width() const override { return width_; }
  Index work() const override {
    Index sum = width_;
    for (const auto& branch : branches_) sum += branch.work();
    return sum;
  }
  void check() const override {
    for (const auto& branch : branches_)
      for (const auto& stage : branch.stages()) stage->check();
  }
  void run(const Frames<T>& x, T* y) override {
    const Index rows = x.count(), size = rows * width_;
    T* column = y;
    for (std::size_t n = 0; n < branches_.size(); ++n) {
      const T* const from = branches_[n].run(x);
      const Index own = branches_[n].width();
      if (merge_ == Merge::concat) {
        for (Index r = 0; r < rows; ++r) std::copy_n(from + r * own, own, column + r * width_);
        column += own;
      } else if (n == 0)
        std::copy_n(from, size, y);
      else if (merge_ == Merge::mul)
        for (Index i = 0; i < size; ++i) y[i] *= from[i];
      else
        for (Index i = 0; i < size; ++i) y[i] += from[i];
    }
    if (merge_ == Merge::mean)
      for (Index i = 0; i < size; ++i) y[i] /= T(branches_.size());
  }
  void refresh(const Stage<T>& now) override {
    for (std::size_t n = 0; n < branches_.size(); ++n)
      refresh_all(branches_[n].stages(), static_cast<const BranchStage&>(now).branches_[n].stages());
  }
  void save(const Frames<T>& x) override { each(&Stage<T>::save, x); }
  void restore(const Frames<T>& x) override { each(&Stage<T>::restore, x); }

private:
  void each(void (Stage<T>::*what)(const Frames<T>&), const Frames<T>& x) {
    for (auto& branch : branches_)
      for (auto& stage : branch.stages()) (stage.get()->*what)(x);
  }

  const Index inputs_;
  const Merge merge_;
  std::vector<Branch<T>> branches_;
  Index width_ = 0;
};

} // namespace rnncore

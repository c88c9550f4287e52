// Rows that take one step after the other: states that stay, weights as they were, and a step prepared.
#pragma once

#include <atomic>

#include "layer.hpp"
#include "linear.hpp"
#include "pointwise.hpp"

namespace rnncore {

/// What a stage reads: rows, or numbers of the rows of a table.
template <class T>
struct Frames {
  const T* rows;
  const int64_t* numbers = nullptr;
  const bool* resets = nullptr; // (time, B) where rows start anew, or null

  /// What a stage made of them, in their place.
  Frames after(const T* outputs) const { return {outputs, nullptr, resets}; }
};

/// One of the layers that a stream goes through.
template <class T>
class Stage {
public:
  virtual ~Stage() = default;
  virtual Index inputs() const = 0; // features that it takes
  virtual Index width() const = 0;  // and that it gives
  virtual Index work() const = 0;   // products of a row
  /// Throws where parameters that it reads in place are no longer there.
  virtual void check() const {}
  /// x (time, B, I) to y (time, B, O), which are apart.
  virtual void run(Index time, Frames<T> x, T* y) = 0;
  /// Takes the weights, and what rows start anew from, of a stage of the same layer.
  virtual void refresh(const Stage&) {}
  /// Remembers the states, and puts them back.
  virtual void save() {}
  virtual void restore() {}
};

template <class T>
using StageList = std::vector<std::unique_ptr<Stage<T>>>;

template <class T>
void refresh_all(StageList<T>& stages, const StageList<T>& now) {
  for (std::size_t i = 0; i < stages.size(); ++i) stages[i]->refresh(*now[i]);
}

/// `layers`: for each stage a compiled layer in one direction, its states h (B, P) and c (B, H) or None,
/// which are read and written where they are, and its masks; or another layer and three Nones; or a list
/// of such, whether each but the first adds its input to its output, whether each sees the first one's
/// input as well and the outputs of all go on, and None; or a tuple of lists of stages, which all see the
/// same, and how their outputs are merged. `width`: of what the first takes, that is not said by layers for
/// any width; 0 where it is a table, and takes numbers. `other`: null, or stages of the same layers whose
/// weights these take.
template <class T>
StageList<T> stages_of(const py::list& layers, Index batch, Index width, const StageList<T>* other);

template <class T>
class Stream {
public:
  /// `layers`: see `stages_of`; `width`: of x. `check` makes of anything an array (B, I) or, if B is one,
  /// (I), or raises; of numbers (B) or (). `other`: a stream of the same layers whose weights this one
  /// takes; None for those of now. `check.resets` makes an array (B) of what a step is given.
  Stream(const py::list& layers, Index batch, Index width, const py::object& check, const Stream* other);

  /// x (B, I), or (I) if B is one, to y (B, O) or (O): `out`, or a new array.
  py::object step(const py::object& x, const py::object& out) { return step_from(x, out, nullptr); }
  /// The same; `resets`: None, or for each row whether it starts anew with this frame.
  py::object step_anew(const py::object& x, const py::object& out, const py::object& resets);
  /// x (time, B, I) to y (time, B, O). States are as they were before if it is interrupted. `resets`: None,
  /// or an array (time, B).
  py::object run(const py::object& x, const py::object& resets);
  /// The same step again and again, without Python in between: for measuring.
  void repeat(const py::object& x, Index times);
  /// Takes the weights as they are now, and the first states from `layers`, made anew.
  void refresh(const py::list& layers);

private:
  class Use;
  bool fits(const py::object& x) const;
  void check() const;
  py::object step_from(const py::object& x, const py::object& out, const bool* resets);
  void go(Index time, const py::array& x, const bool* resets, T* y);
  void walk(Index time, Frames<T> frames, std::size_t bytes, T* y);

  const Index batch_, inputs_;
  const py::list layers_; // kept alive
  const py::object check_;
  const EmbeddingLayer<T>* table_ = nullptr; // where x are numbers
  StageList<T> stages_;
  Index outputs_, work_ = 0;
  Buffer between_[2]; // what one stage hands to the next
  std::atomic_flag used_ = ATOMIC_FLAG_INIT;
};

} // namespace rnncore

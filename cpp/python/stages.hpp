// What a stream goes through: layers that take rows, some of them with states that stay.
#pragma once

#include "layer.hpp"
#include "linear.hpp"
#include "pointwise.hpp"

namespace rnncore {

/// What a stage reads: rows, or numbers of the rows of a table.
template <class T>
struct Frames {
  Grid grid; // (time, sequences), or packed
  const T* rows;
  const int64_t* numbers = nullptr;
  const bool* resets = nullptr;     // for each of them whether its sequence starts anew, or null
  const int64_t* lengths = nullptr; // of the sequences, where they are packed
  const int32_t* states = nullptr;  // the rows of the states that sequences continue, or null: all in order

  Index count() const { return grid.rows(); }
  /// What a stage made of them, in their place.
  Frames after(const T* outputs) const { return {grid, outputs, nullptr, resets, lengths, states}; }
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
  /// x (count, I) to y (count, O), which are apart.
  virtual void run(const Frames<T>& x, T* y) = 0;
  /// Takes the weights, and what rows start anew from, of a stage of the same layer.
  virtual void refresh(const Stage&) {}
  /// Remembers the states that these frames change, and puts them back.
  virtual void save(const Frames<T>&) {}
  virtual void restore(const Frames<T>&) {}
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

} // namespace rnncore

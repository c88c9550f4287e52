// Rows that take one step after the other: states that stay, weights as they were, and a step prepared.
#pragma once

#include <atomic>

#include "stages.hpp"

namespace rnncore {

template <class T>
class Stream {
public:
  /// `layers`: see `stages_of`; `width`: of x. `check` makes of anything an array (B, I) or, if B is one,
  /// (I), or raises; of numbers (B) or (). `other`: a stream of the same layers whose weights this one
  /// takes; None for those of now. `check.resets` makes an array (B) of what a step is given.
  Stream(const py::list& layers, Index batch, Index width, const py::object& check, const Stream* other);

  /// x (B, I), or (I) if B is one, to y (B, O) or (O): `out`, or a new array.
  py::object step(const py::object& x, const py::object& out);
  /// The same. `resets`: None, or for each row of x whether it starts anew with this frame. `rows`: None,
  /// or the numbers of the R rows that x (R, I) is about.
  py::object step_rows(const py::object& x, const py::object& out, const py::object& resets,
                       const py::object& rows);
  /// x (time, R, I) to y (time, R, O). States are as they were before if it is interrupted. `resets`: None,
  /// or an array (time, R). `rows`: None for all rows, or an array (R) of numbers. `lengths`: None, or an
  /// array (R), 0 .. time: how many frames a row takes; y is zero past them.
  py::object run(const py::object& x, const py::object& resets, const py::object& rows,
                 const py::object& lengths);
  /// The same step again and again, without Python in between: for measuring.
  void repeat(const py::object& x, Index times);
  /// Takes the weights as they are now, and the first states from `layers`, made anew.
  void refresh(const py::list& layers);

private:
  class Use;
  bool fits(const py::object& x, Index count) const;
  void check() const;
  bool choose(const int64_t* rows, Index count);
  Index choose(const py::object& rows);
  py::object step_of(Index count, const py::object& x, const py::object& out, const bool* resets,
                     const int32_t* states);
  Frames<T> frames_of(const void* x, Grid grid, const bool* resets, const int32_t* states) const;
  Frames<T> packed(const Frames<T>& frames, const int64_t* lengths);
  void unpack(const Frames<T>& packed, Grid grid, T* y) const;
  void go(const Frames<T>& frames, T* y);
  void walk(Frames<T> frames, T* y);

  const Index batch_, inputs_;
  const py::list layers_; // kept alive
  const py::object check_;
  const EmbeddingLayer<T>* table_ = nullptr; // where x are numbers
  StageList<T> stages_;
  Index outputs_, work_ = 0;
  Buffer between_[2];          // what one stage hands to the next
  std::vector<int32_t> rows_;  // that a call is about
  std::vector<uint32_t> seen_; // for each row, the last call of `choose` that it was given to
  uint32_t calls_ = 0;
  // Of sequences of unequal lengths, the longest first.
  std::vector<Index> order_;
  std::vector<int64_t> lengths_, offsets_;
  std::vector<int32_t> states_;
  Buffer packed_x_, packed_resets_, packed_y_;
  std::atomic_flag used_ = ATOMIC_FLAG_INIT;
};

} // namespace rnncore

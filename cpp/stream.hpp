// Rows that take one step after the other: states that stay, weights as they were, and a step prepared.
#pragma once

#include <atomic>

#include "layer.hpp"
#include "linear.hpp"

namespace rnncore {

/// One of the layers that a stream goes through.
template <class T>
class Stage {
public:
  virtual ~Stage() = default;
  virtual Shape shape() const = 0;
  virtual Index width() const = 0; // of y
  virtual Index work() const = 0;  // products of a row
  /// x (time, B, I) to y (time, B, O).
  virtual void run(Index time, const T* x, T* y) = 0;
  virtual void refresh() = 0;
};

template <class T>
class Stream {
public:
  /// `layers`: for each stage a compiled layer in one direction, its states h (B, P) and c (B, H) or None,
  /// which are read and written where they are, and its masks; or a linear layer and three Nones.
  /// `check` makes of anything an array (B, I) or, if B is one, (I), or raises. `other`: a stream of the
  /// same layers whose weights this one takes; None for those of now.
  Stream(const py::list& layers, Index batch, const py::object& check, const Stream* other);

  /// x (B, I), or (I) if B is one, to y (B, O) or (O): `out`, or a new array.
  py::object step(const py::object& x, const py::object& out);
  /// x (time, B, I) to y (time, B, O).
  py::object run(const py::object& x);
  /// The same step again and again, without Python in between: for measuring.
  void repeat(const py::object& x, Index times);
  /// Takes the weights as they are now.
  void refresh();

private:
  class Use;
  bool fits(const py::object& x) const;
  void go(Index time, const T* x, T* y);

  const Index batch_;
  const py::list layers_; // kept alive
  const py::object check_;
  std::vector<std::unique_ptr<Stage<T>>> stages_;
  Index inputs_, outputs_, work_ = 0;
  Buffer between_[2]; // what one stage hands to the next
  std::atomic_flag used_ = ATOMIC_FLAG_INIT;
};

} // namespace rnncore

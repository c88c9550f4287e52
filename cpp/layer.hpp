// One recurrent layer over NumPy arrays: one direction, or two whose outputs lie side by side.
#pragma once

#include <pybind11/numpy.h>

#include <array>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "memory.hpp"
#include "schedule.hpp"
#include "weights.hpp"

namespace rnncore {

namespace py = pybind11;

template <class T>
using Array = py::array_t<T, py::array::c_style>;

/// What backward needs of one call of forward. Keeps the arrays it refers to alive.
template <class T>
struct Tape {
  Grid grid;
  Array<T> x, y, c;          // (rows, I), (rows, D * H), the same or empty
  Array<T> first_h, first_c; // (D, B, H), the same or empty
  bool ragged;
  struct Direction {
    SequenceSchedule schedule;
    std::shared_ptr<const Snapshot<T>> weights;
    Buffer gates;
  };
  std::vector<Direction> directions;

  std::size_t bytes() const;
};

template <class T>
class Layer {
public:
  /// `params`: for each direction weight_ih, weight_hh and, or None, bias_ih, bias_hh. They are not
  /// copied: writing to them changes the layer.
  Layer(const std::string& cell, Index input, Index hidden, bool batch_first,
        std::vector<std::array<py::object, 4>> params);

  /// (y, h_n, c_n or None, all cell states or None, tape or None)
  py::tuple forward(const py::object& x, const py::object& h0, const py::object& c0,
                    const py::object& lengths, bool record, bool cell_states);

  /// (dx or None, dh0, dc0 or None); adds to `gradients`, which are laid out as the parameters. The
  /// tape's gates are overwritten: it serves once.
  py::tuple backward(Tape<T>& tape, const py::object& dy, const py::object& dh, const py::object& dc,
                     const std::vector<std::array<py::object, 4>>& gradients, bool want_dx);

private:
  Buffer take_spare(std::size_t bytes);

  const Cell<T>& cell_;
  const Shape shape_;
  const bool batch_first_;
  const std::vector<std::array<py::object, 4>> params_;
  std::vector<std::unique_ptr<WatchedWeights<T>>> weights_;
  std::mutex spare_mutex_;
  std::vector<Buffer> spare_; // tapes of earlier calls, to be used again
};

} // namespace rnncore

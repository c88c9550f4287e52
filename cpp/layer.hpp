// One recurrent layer over NumPy arrays: one direction, or two whose outputs lie side by side.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "passes.hpp"

namespace rnncore {

/// weight_ih, weight_hh and, or None, bias_ih, bias_hh of one direction, or their gradients.
using Parameters = std::array<py::object, 4>;

/// What backward needs of one call of forward. Keeps the arrays it refers to alive.
template <class T>
struct Tape {
  Grid grid;
  bool ragged;
  Array<T> x, y;             // (rows, I), (rows, D * H)
  Array<T> first_h, first_c; // (D, B, H), the same or empty
  Record<T> record;

  std::size_t bytes() const;
};

template <class T>
class Layer {
public:
  /// The parameters, a group for each direction, are not copied: writing to them changes the layer.
  Layer(const std::string& cell, Index input, Index hidden, bool batch_first,
        std::vector<Parameters> parameters);

  /// (y, h_n, c_n or None, all cell states or None, tape or None)
  py::tuple forward(const py::object& x, const py::object& h0, const py::object& c0,
                    const py::object& lengths, bool record, bool cell_states);

  /// (dx or None, dh0, dc0 or None); adds to `gradients`. A tape serves once.
  py::tuple backward(Tape<T>& tape, const py::object& dy, const py::object& dh, const py::object& dc,
                     const std::vector<Parameters>& gradients, bool want_dx);

private:
  const Cell<T>& cell_;
  const Shape shape_;
  const bool batch_first_;
  const std::vector<Parameters> parameters_; // kept alive
  Passes<T> passes_;
};

} // namespace rnncore

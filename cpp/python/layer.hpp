// One recurrent layer over NumPy arrays: one direction, or two whose outputs lie side by side.
#pragma once

#include <array>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

#include "../engine/cell_program.hpp"
#include "../engine/passes.hpp"
#include "parameters.hpp"

namespace rnncore {

/// weight_ih, weight_hh, bias_ih, bias_hh, units and projection of one transition, or their gradients: each
/// by the name that its module gives it, with None where there is none.
using Parameters = std::array<std::pair<std::string, py::object>, 6>;
/// Of each direction its transitions.
using Groups = std::vector<std::vector<Parameters>>;
/// The same as an object of Python's, made once: lists would be read anew with every call.
struct ParameterGroups {
  Groups groups;
};

/// Where the gradients of a layer's parameters are added.
template <class T>
struct Targets {
  KeptArrays arrays;
  std::vector<std::vector<Weights<T>>> directions;
  std::vector<const Weights<T>*> transitions; // of each direction the first
};

/// What the layer's cell is told to do.
struct Settings {
  /// Of one that is compiled, or a user's own.
  using CellName = std::variant<std::shared_ptr<CellProgram>, std::string>;
  CellName cell;
  std::string weights; // the type of the weights of its products
  Shape shape;
  bool batch_first;
  CellOptions options;
  bool plain; // the options are the cell's own

  /// `activations`: of gates, candidate and cell state, each a name, alpha and beta.
  using Activations = std::array<std::tuple<std::string, double, double>, 3>;
  /// `arity`: of the nodes of a forest; 0 for sequences.
  Settings(CellName cell, Index input, Index hidden, Index output, Index arity, bool batch_first,
           const Activations& activations, double cell_clip, double gate_clip, bool plain,
           std::string weights);
};

/// What backward needs of one call of forward. Keeps the arrays it refers to alive.
template <class T>
struct Tape {
  Grid grid;
  bool padded;               // some rows of x belong to no sequence
  Array<T> x, y;             // (rows, I), (rows, D * P)
  Array<T> first_h, first_c; // (D, B, P), (D, B, C)
  py::object masks, restarts;
  Record<T> record;

  std::size_t bytes() const;
};

/// The same of a forest.
template <class T>
struct ForestTape {
  Array<T> x, y, c, offer; // (rows, I), (rows, H), the same or empty
  py::object masks;
  Record<T> record;
};

template <class T>
void check_unused(const Record<T>& record) {
  if (record.parts.empty()) throw std::runtime_error("this pullback has run already, or was interrupted");
}

template <class T>
class Layer {
public:
  /// The parameters are not copied: writing to them changes the layer, unless its weights are of another
  /// type than T.
  Layer(const Settings& settings, const ParameterGroups& parameters);

  /// (y, h_n, c_n or None, all cell states or None, tape or None). `masks`: None, or those of the state,
  /// the update, and the shares of h and c that stay, each of them or None. `record`: None, or 0 to
  /// remember all gates, or the number of steps after which to forget them; then y is read-only.
  /// `restarts`: None, or booleans for the rows of x, true where a sequence starts anew, and h (D, P) and c
  /// (D, C) from which it does, None for zero.
  py::tuple forward(const py::object& x, const py::object& h0, const py::object& c0,
                    const py::object& lengths, const py::object& record, bool cell_states,
                    const py::object& masks, const py::object& restarts);

  /// (y, state) of arrays that fit as they are, None of anything else: the shortest way, for single steps.
  /// `resets`: None, or where sequences start anew from zero.
  py::object infer(const py::object& x, const py::object& state, const py::object& masks,
                   const py::object& resets);

  /// (dx or None, dh0, dc0 or None); adds to `gradients`, which may be null. A tape serves once. `d_anew`:
  /// h (D, B, P) and c (D, B, C) or None, to which the gradients of what sequences start anew from are
  /// added.
  py::tuple backward(Tape<T>& tape, const py::object& dy, const py::object& dh, const py::object& dc,
                     const Targets<T>* gradients, bool want_dx, const py::object& d_anew);

  /// (h, c or None, tape or None) of all nodes. `order`: begin, wave, prev, edges or None, and whether x
  /// has rows for leaves alone; see `Forest`. `given`: None, or h and c (or None), arrays for all nodes
  /// that hold those of the leaves; they are filled.
  py::tuple forward_forest(const py::object& x, const py::tuple& order, const py::object& given,
                           const py::object& masks, bool record);

  /// (dx, and the gradients of h and of c or None, all paths through later nodes included, before those of
  /// the nodes' own time steps); adds to `gradients`.
  py::tuple backward_forest(ForestTape<T>& tape, const py::object& dh, const py::object& dc,
                            const Targets<T>& gradients);

  /// Shapes of gradients are looked at once, not with every call.
  Targets<T> targets(const ParameterGroups& gradients) const;

  /// Says that somebody has been given the parameters.
  void lend() { parameters_.lend(); }
  /// At the start of every use: throws where a parameter is no longer where it was, and has the weights
  /// looked at if they may have changed.
  void check_parameters();
  /// The weights as they are now.
  Pinned<T> weights();

  Index directions() const { return directions_; }
  Index gates() const { return cell_.packing.gates; }
  /// Those of an input of (rows, columns) steps.
  MaskArrays<T> mask_arrays(const py::object& masks, Index rows, Index columns, Index batch) const;
  /// Those of an input x, which are kept by whoever gives them.
  Restarts<T> restarts_of(const py::object& restarts, const py::array& x) const;

  const Shape& shape() const { return shape_; }
  bool batch_first() const { return settings_.batch_first; }
  bool trains() const { return cell_.backward; }
  bool has_cell_state() const { return cell_.has_cell_state; }
  Passes<T>& passes() { return passes_; }

private:
  const std::unique_ptr<const OwnKernels<T>> own_; // or null
  const CellKernels<T> cell_;
  const Settings settings_;
  const Shape shape_;
  const Index directions_;
  KeptArrays parameters_{true};
  Passes<T> passes_;
};

} // namespace rnncore

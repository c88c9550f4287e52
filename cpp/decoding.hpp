// Decoders whose steps depend on what they saw: attention inside the walk over time.
//
//   before the step   context = look(h_(t-1))              x_t = [...; context]    h_t = layers(x_t)
//   input feeding     x_t = [...; o_(t-1)]  h_t = layers(x_t)  o_t = tanh(W_c [look(h_t); h_t])
#pragma once

#include <list>

#include "attention.hpp"
#include "linear.hpp"
#include "stepped.hpp"

namespace rnncore {

/// What the way back needs of a call. Serves once.
template <class T>
struct DecodingTape {
  Grid grid;
  py::object memory, lengths, masks;
  Array<T> x, h0, c0, contexts, weights, query, out;
  std::vector<Array<T>> inputs, ys; // of each layer
  std::list<SteppedPasses<T>> walks;
};

template <class T>
class Decoding {
public:
  /// `layers`: one above the other, in one direction and time-major. `query`: the map from h to queries, or
  /// None where h asks itself. `combine`: W_c if its outputs are fed back; None: the context is joined to
  /// the input before each step.
  Decoding(const py::list& layers, const py::object& query, const py::object& combine);

  /// x (T, B, I): its last columns are filled with what is joined, contexts or outputs. h0, c0 (L, B, H).
  /// lengths (B) or None; masks: for each layer but the first what its input (T, B, H) is multiplied by, or
  /// None. Returns (y of the last layer, contexts (T, B, M + H), weights (T, B, S), outputs or None, tape
  /// or None). The contexts have h beside them where outputs are fed back, else room for it.
  py::tuple forward(const py::object& memory, const py::object& x, const py::object& h0,
                    const py::object& c0, const py::object& lengths, const py::list& masks, bool record);

  /// From the gradients of the outputs, or of y and the contexts (T, B, M), to (dx, dh0, dc0 or None, those
  /// of the queries (T, B, A), those of the sums W_c [...] or None). Adds to `gradients` (of each layer),
  /// dkeys, dvalues and dv.
  py::tuple backward(DecodingTape<T>& tape, const py::object& dy, const py::object& dcontext,
                     const py::list& gradients, const py::object& dkeys, const py::object& dvalues,
                     const py::object& dv);

private:
  bool feeds() const { return combine_ != nullptr; }
  Index top() const { return layers_.back()->shape().output; }
  py::object keep_; // what the pointers point to
  std::vector<Layer<T>*> layers_;
  LinearLayer<T>*query_, *combine_;
};

} // namespace rnncore

// Decoders whose steps depend on what they saw: attention inside the walk over time.
//
//   before the step   context = attend(h_(t-1))              x_t = [...; context]    h_t = layers(x_t)
//   input feeding     x_t = [...; o_(t-1)]   h_t = layers(x_t)   o_t = tanh(W_c [attend(h_t); h_t])
#pragma once

#include <list>

#include "attention.hpp"
#include "linear.hpp"
#include "stepped.hpp"

namespace rnncore {

/// Widths of everything that a decoder's call has rows of.
struct DecodingSizes {
  Index time, batch, layers;
  Index input, hidden, top;     // x, c, and h of every layer
  Index query, value, position; // of keys; of values; inside the map to centres
  Index joined;                 // columns of x that the loop fills
  bool feeds;
};

/// What one call leaves for its backward. Serves once.
template <class T>
struct DecodingTape {
  DecodingSizes size;
  py::object memory, lengths;
  Array<T> x, h0, c0;                    // (T, B, I), (L, B, P), (L, B, H)
  Array<T> contexts, weights;            // (T, B, M + P), (T, B, S)
  Array<T> query, position, centre, out; // (T, B, width), each only where there is one
  std::vector<Array<T>> inputs, ys;      // of each layer
  std::vector<Array<T>> masks;           // (T, B, P), of the inputs; empty for none
  std::list<SteppedPasses<T>> walks;     // of each layer
};

template <class T>
class Decoding {
public:
  /// `layers`: one above the other, in one direction and time-major. `query`: the map from h to queries, or
  /// None where h asks itself. `position`: the two maps from h to the centre of a window, or None.
  /// `combine`: W_c if its outputs are fed back; None: the context is joined to the input before each step.
  Decoding(const py::list& layers, const py::object& query, const py::object& position,
           const py::object& combine);

  /// x (T, B, I): its last columns are filled with what is joined, contexts or outputs. h0, c0 (L, B, H).
  /// lengths (B) or None; masks: for each layer but the first what its input (T, B, H) is multiplied by, or
  /// None. Returns (y of the last layer, contexts (T, B, M + H), weights (T, B, S), outputs or None, tape
  /// or None). The contexts have h beside them where outputs are fed back, else room for it.
  py::tuple forward(const py::object& memory, const py::object& x, const py::object& h0,
                    const py::object& c0, const py::object& lengths, const py::list& masks, bool record);

  /// From the gradients of the outputs, or of y and the contexts (T, B, M), to those by name: x, h, c; of
  /// what the maps made, query, point, position, and sums of W_c; and what they made it of, inner. Adds to
  /// `gradients` (of each layer), dkeys, dvalues and dv.
  py::dict backward(DecodingTape<T>& tape, const py::object& dy, const py::object& dcontext,
                    const py::list& gradients, const py::object& dkeys, const py::object& dvalues,
                    const py::object& dv);

private:
  void check_parameters() const;
  void check(const DecodingSizes& size, const Memory<T>& memory) const;

  const py::object keep_; // what the pointers point to
  std::vector<Layer<T>*> layers_;
  LinearLayer<T>*query_, *position_, *point_, *combine_; // or null
};

} // namespace rnncore

// Where everything lies: hidden units in panels of vectors, gates in slots, weights packed to match.
//
//   gates   [panel][row][slot][vector of the panel][lane]
//   weights [panel][k][slot of the window][vector][lane]
//
// so that the gates of a hidden unit are computed together and every product reads straight ahead.
#pragma once

#include "simd.hpp"

namespace rnncore::RNNCORE_LEVEL {

RNNCORE_INLINE constexpr Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }
RNNCORE_INLINE constexpr Index min(Index a, Index b) { return a < b ? a : b; }
RNNCORE_INLINE constexpr Index max(Index a, Index b) { return a > b ? a : b; }

/// n things in the fewest parts of at most `most`, as equal as can be.
struct Parts {
  Index n, count;

  RNNCORE_INLINE constexpr Parts(Index n_, Index most) : n(n_), count(ceil_div(n_, most)) {}
  /// The same in an even number of parts where there are enough of them to share between threads.
  static RNNCORE_INLINE constexpr Parts even(Index n, Index most) {
    Parts parts(n, most);
    if (n >= 4 && parts.count < n) parts.count += parts.count % 2;
    return parts;
  }
  RNNCORE_INLINE constexpr Index begin(Index part) const {
    return part * (n / count) + min(part, n % count);
  }
  RNNCORE_INLINE constexpr Index size(Index part) const { return n / count + (part < n % count); }
};

/// The columns of a matrix as vectors, in panels of at most `most` of them.
template <class T>
struct Panels {
  Index columns;
  Parts vectors;

  RNNCORE_INLINE constexpr Panels(Index columns_, Index most)
      : columns(columns_), vectors(Parts::even(ceil_div(columns_, lanes<T>), most)) {}
  RNNCORE_INLINE Index count() const { return vectors.count; }
  RNNCORE_INLINE Index first(Index panel) const { return vectors.begin(panel); } // vectors before it
  RNNCORE_INLINE Index width(Index panel) const { return vectors.size(panel); }  // its vectors
  /// f(begin, end) for each run of panels of the same width among some of them.
  template <class F>
  RNNCORE_INLINE void for_each_run(Index begin, Index end, F f) const {
    const Index wider = vectors.n % vectors.count; // the first ones
    if (begin < min(end, wider)) f(begin, min(end, wider));
    if (max(begin, wider) < end) f(max(begin, wider), end);
  }
  /// The first panel that holds vector v or a later one.
  RNNCORE_INLINE Index from(Index v) const {
    Index panel = 0;
    while (panel < count() && first(panel) < v) ++panel;
    return panel;
  }
  RNNCORE_INLINE Index padded() const { return vectors.n * lanes<T>; }
  /// Lanes of vector v that hold a column.
  RNNCORE_INLINE Index valid(Index v) const { return min(lanes<T>, columns - v * lanes<T>); }
};

/// What falls to one thread of n things: an equal run of them.
struct Share {
  Index begin, end;

  RNNCORE_INLINE Share(const Team& team, Index n)
      : begin(n * team.rank / team.size), end(n * (team.rank + 1) / team.size) {}
};

constexpr Index widest = 4; // vectors of sums side by side

/// A run of slots that one product fills, and which of torch's gates each of them is.
struct Window {
  Index begin, count;
  Index gate[4];
};

/// All offsets that follow from a cell and its sizes, in elements.
template <class C, class T>
struct Layout {
  static constexpr Index stages = sizeof(C::recurrent) / sizeof(Window);
  static constexpr Index slots = C::slots;
  static constexpr Index most = slots == 1 ? widest : 1; // vectors of a panel

  Shape shape;
  Panels<T> hidden;         // the gates'
  Panels<T> inputs, states; // of the products back to x and h

  RNNCORE_INLINE explicit Layout(Shape s)
      : shape(s), hidden(s.hidden, most), inputs(s.input, widest), states(s.hidden, widest) {}

  RNNCORE_INLINE Index node() const { return slots * hidden.padded(); } // gates of one node
  RNNCORE_INLINE Index gates(Index panel, Index rows) const {
    return rows * slots * hidden.first(panel) * lanes<T>;
  }
  RNNCORE_INLINE Index row(Index panel) const { return slots * hidden.width(panel) * lanes<T>; }
  /// Columns of a window within a panel: what a product computes at once.
  RNNCORE_INLINE Index columns(Window w, Index panel) const {
    return w.count * hidden.width(panel) * lanes<T>;
  }
  RNNCORE_INLINE Index window(Window w, Index panel) const {
    return w.begin * hidden.width(panel) * lanes<T>;
  }
  /// Columns of a window before a panel.
  RNNCORE_INLINE Index before(Window w, Index panel) const {
    return w.count * hidden.first(panel) * lanes<T>;
  }
  RNNCORE_INLINE Index all(Window w) const { return w.count * hidden.padded(); }

  // Packed for forward: bias, input weights, recurrent weights of each stage.
  RNNCORE_INLINE Index bias() const { return 0; }
  RNNCORE_INLINE Index input() const { return node(); }
  RNNCORE_INLINE Index recurrent(Index stage) const {
    Index at = input() + shape.input * all(C::input);
    for (Index s = 0; s < stage; ++s) at += shape.hidden * all(C::recurrent[s]);
    return at;
  }
  RNNCORE_INLINE Index packed() const { return recurrent(stages); }

  // Packed for backward: the same matrices transposed, [panel of outputs][gate column][vector][lane].
  RNNCORE_INLINE Index input_transposed() const { return 0; }
  RNNCORE_INLINE Index recurrent_transposed(Index stage) const {
    Index at = inputs.padded() * all(C::input);
    for (Index s = 0; s < stage; ++s) at += states.padded() * all(C::recurrent[s]);
    return at;
  }
  RNNCORE_INLINE Index packed_transposed() const { return recurrent_transposed(stages); }

  /// Between two stages of an instant there is one row of H numbers a node.
  static constexpr bool has_middle = stages > 1;
  static_assert(stages <= 2);
  RNNCORE_INLINE Index tape() const { return node() + (has_middle ? shape.hidden : 0); }
};

} // namespace rnncore::RNNCORE_LEVEL

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

// Not the standard library's, which levels would share.
template <class T>
RNNCORE_INLINE void fill(T* to, Index n, T value) {
  for (Index i = 0; i < n; ++i) to[i] = value;
}
template <class T>
RNNCORE_INLINE void copy(const T* from, Index n, T* to) {
  std::memcpy(to, from, std::size_t(n) * sizeof(T));
}

/// n things in the fewest parts of at most `most`, as equal as can be: `larger` of size `least` + 1, the
/// others of size `least`.
struct EqualParts {
  Index n, count, least = 0, larger = 0;

  RNNCORE_INLINE constexpr EqualParts(Index n_, Index most) : n(n_), count(ceil_div(n_, most)) { split(); }
  /// The same in an even number of parts where there are enough of them to share between threads.
  static RNNCORE_INLINE constexpr EqualParts even(Index n, Index most) {
    EqualParts parts(n, most);
    if (n < 4 || parts.count >= n || parts.count % 2 == 0) return parts;
    ++parts.count;
    parts.split();
    return parts;
  }
  RNNCORE_INLINE constexpr Index begin(Index part) const { return part * least + min(part, larger); }
  RNNCORE_INLINE constexpr Index size(Index part) const { return least + (part < larger); }

private:
  RNNCORE_INLINE constexpr void split() {
    if (count == 0) return;
    least = n / count;
    larger = n - least * count;
  }
};

/// Pointers at equal distances, a vector of them at a time: a line of windows has many.
template <class T>
RNNCORE_INLINE void point(T** to, Index count, T* from, Index step) {
  using Addresses = typename VectorOf<uintptr_t, sizeof(Vec<float>)>::Type;
  constexpr Index L = Index(sizeof(Addresses) / sizeof(T*));
  Index i = 0;
  if (count >= L) {
    Addresses at;
    for (Index lane = 0; lane < L; ++lane) at[lane] = reinterpret_cast<uintptr_t>(from + lane * step);
    for (const uintptr_t on = uintptr_t(L * step) * sizeof(T); i + L <= count; i += L, at += on)
      std::memcpy(to + i, &at, sizeof(at));
  }
  for (; i < count; ++i) to[i] = from + i * step;
}

/// The columns of a matrix as vectors, in panels of at most `most` of them.
template <class T>
struct Panels {
  Index columns;
  EqualParts vectors;

  RNNCORE_INLINE constexpr Panels(Index columns_, Index most)
      : columns(columns_), vectors(EqualParts::even(ceil_div(columns_, lanes<T>), most)) {}
  /// As few as there can be: for what threads do not share by columns.
  static RNNCORE_INLINE constexpr Panels few(Index columns, Index most) {
    Panels panels(columns, most);
    panels.vectors = EqualParts(panels.vectors.n, most);
    return panels;
  }
  RNNCORE_INLINE Index count() const { return vectors.count; }
  RNNCORE_INLINE Index first(Index panel) const { return vectors.begin(panel); } // vectors before it
  RNNCORE_INLINE Index width(Index panel) const { return vectors.size(panel); }  // its vectors
  /// Columns before a panel, or all of them.
  RNNCORE_INLINE Index columns_before(Index panel) const {
    return panel < count() ? min(first(panel) * lanes<T>, columns) : columns;
  }
  /// f(begin, end) for each run of panels of the same width among some of them.
  template <class F>
  RNNCORE_INLINE void for_each_run(Index begin, Index end, F f) const {
    const Index wider = vectors.larger;
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

  RNNCORE_INLINE explicit Share(Index n) : begin(0), end(n) {} // all
  RNNCORE_INLINE Share(const Team& team, Index n) : Share(Share(n).part(team)) {}
  static RNNCORE_INLINE Share of(Index begin, Index end) {
    Share share(end);
    share.begin = begin;
    return share;
  }
  RNNCORE_INLINE Share part(const Team& team) const {
    const Index n = end - begin;
    return of(begin + n * team.rank / team.size, begin + n * (team.rank + 1) / team.size);
  }
};

constexpr Index widest = 4; // vectors of sums side by side

/// A run of slots that is normalised, over all hidden units, before a phase of the cell.
struct Norm {
  Index phase, begin, count;
};

/// What the recurrent products of a node read: each predecessor's h, through a matrix of its own; the sum
/// of them all; or, one after the other, their entries and the products of any two of these.
enum class RecurrentInput { each, sum, pairs };

/// What the engine knows of a cell: its gates in slots, and which products fill them. A time step goes in
/// one phase or two; each has recurrent products of its own, or none.
struct Plan {
  Index slots, gates, recurrent_gates = gates, phases = 1, units = 0;
  Window input[2] = {};
  bool leaves_skip = false; // the second of these: what continues nothing has nothing to forget
  Recurrence recurrent[2] = {};
  bool has_cell_state = false;
  Index branches = 0; // predecessors whose cell states a time step takes one by one
  RecurrentInput recurrent_input = RecurrentInput::each;
  bool sums_cells = false; // time steps see the sum of all predecessors' cell states
  Window offer = {};       // the gate that each predecessor offers a part of, its own h times some weights
  bool normalises_offer = false; // and normalises over all hidden units
  bool sees_h = false;           // time steps read the old h, not only products do
  bool direct = false;           // the old h reaches the new one past the product, too
  Index norms = 0;
  Norm norm[13] = {};
  const OwnCell* own = nullptr; // whose program the time steps are

  /// One over each standard deviation, those of the slots first.
  RNNCORE_INLINE constexpr Index scales() const { return norms + normalises_offer; }
  /// Whether a phase has a product.
  RNNCORE_INLINE constexpr bool multiplies(Index phase) const {
    for (const Recurrence& product : recurrent)
      if (product.window.count && product.phase == phase) return true;
    return false;
  }
};

/// All offsets that follow from a cell and its sizes, in elements.
template <class T>
struct Layout {
  const Plan& plan;
  Shape shape;
  Panels<T> hidden;           // the gates'
  Panels<T> units;            // hidden units in wide panels
  Panels<T> inputs, states;   // of the products back to x and h
  Panels<T> recurrent_inputs; // and to what the recurrent products read

  RNNCORE_INLINE Layout(const Plan& p, Shape s)
      : plan(p), shape(s), hidden(s.hidden, p.slots == 1 ? widest : 1), units(s.hidden, widest),
        inputs(s.input, widest), states(projects() ? Panels<T>(s.output, widest) : units),
        recurrent_inputs(pairs() ? Panels<T>(recurrent_columns(), widest) : states) {}

  RNNCORE_INLINE bool projects() const { return shape.output != shape.hidden; }
  /// Whether a product follows a time step: to h, or to what it offers to those that continue it.
  RNNCORE_INLINE bool emits() const { return projects() || plan.offer.count; }
  RNNCORE_INLINE bool pairs() const { return plan.recurrent_input == RecurrentInput::pairs; }
  /// Recurrent matrices, and the columns of what is multiplied by each.
  RNNCORE_INLINE Index matrices() const {
    return plan.recurrent_input == RecurrentInput::each ? shape.arity : 1;
  }
  RNNCORE_INLINE Index recurrent_columns() const {
    const Index all = shape.arity * shape.output;
    return pairs() ? all + all * all : shape.output;
  }
  RNNCORE_INLINE bool last(Index level) const { return level + 1 == shape.depth; }
  /// Of a row of cell states.
  RNNCORE_INLINE Index cell_columns() const { return plan.has_cell_state ? shape.cells * shape.hidden : 0; }
  /// Columns of what a transition sees beside the state.
  RNNCORE_INLINE Index input_columns(Index level) const {
    return level == 0 ? shape.input : shape.shortcut && last(level) ? shape.hidden : 0;
  }

  RNNCORE_INLINE Index node() const { return plan.slots * hidden.padded(); } // gates of one node
  RNNCORE_INLINE Index gates(Index panel, Index rows) const {
    return rows * plan.slots * hidden.first(panel) * lanes<T>;
  }
  RNNCORE_INLINE Index row(Index panel) const { return plan.slots * hidden.width(panel) * lanes<T>; }
  /// Columns of a window within a panel: what a product computes at once.
  RNNCORE_INLINE Index columns(const Window& w, Index panel) const {
    return w.count * hidden.width(panel) * lanes<T>;
  }
  RNNCORE_INLINE Index window(const Window& w, Index panel) const {
    return w.begin * hidden.width(panel) * lanes<T>;
  }
  /// Columns of a window before a panel.
  RNNCORE_INLINE Index before(const Window& w, Index panel) const {
    return w.count * hidden.first(panel) * lanes<T>;
  }
  RNNCORE_INLINE Index all(const Window& w) const { return w.count * hidden.padded(); }

  // Numbers, transition by transition: biases, then each hidden unit's own.
  RNNCORE_INLINE Index bias(Index level) const { return level * (node() + plan.units * hidden.padded()); }
  RNNCORE_INLINE Index unit(Index level) const { return bias(level) + node(); }
  RNNCORE_INLINE Index numbers() const { return bias(shape.depth); }

  // Weights of the products of backward: those of forward (`WeightOffsets`) transposed, [panel of
  // outputs][gate column][vector][lane].
  RNNCORE_INLINE Index input_transposed(Index level) const {
    return level == 0 ? 0 : inner_transposed(inputs.padded()) + (level - 1) * inner_transposed(0);
  }
  RNNCORE_INLINE Index input_transposed(Index level, Index window) const {
    const Index wide = level == 0 ? inputs.padded() : input_columns(level) ? states.padded() : 0;
    return input_transposed(level) + wide * (window == 0   ? 0
                                             : window == 1 ? all(plan.input[0])
                                                           : all_inputs());
  }
  RNNCORE_INLINE Index recurrent_transposed(Index level, Index k, Index product) const {
    return input_transposed(level, 2) + k * recurrent_size(recurrent_inputs.padded()) +
           (product ? recurrent_inputs.padded() * all(plan.recurrent[0].window) : 0);
  }
  RNNCORE_INLINE Index emission_transposed() const {
    return recurrent_transposed(shape.depth - 1, matrices(), 0);
  }
  RNNCORE_INLINE Index transposed() const {
    return emission_transposed() + (emits() ? shape.output * units.padded() : 0);
  }

  // Remembered of every node, region by region: of each transition its gates, what passes between its
  // phases, one over each standard deviation, and the state it hands on; at the end what is projected.
  RNNCORE_INLINE Index tape_gates(Index level) const { return level * tape_level(); }
  RNNCORE_INLINE Index tape_middle(Index level) const { return tape_gates(level) + node(); }
  RNNCORE_INLINE Index tape_scales(Index level) const {
    return tape_middle(level) + (has_middle() ? shape.hidden : 0);
  }
  RNNCORE_INLINE Index tape_h(Index level) const { return tape_scales(level) + plan.scales(); }
  RNNCORE_INLINE Index tape_c(Index level) const { return tape_h(level) + shape.hidden; }
  RNNCORE_INLINE Index tape_unprojected() const { return tape_h(shape.depth - 1); }
  RNNCORE_INLINE Index tape() const { return tape_unprojected() + (projects() ? shape.hidden : 0); }
  RNNCORE_INLINE bool has_middle() const { return plan.recurrent[1].phase > 0; }

  /// Columns of gates that x is multiplied into.
  RNNCORE_INLINE Index all_inputs() const { return all(plan.input[0]) + all(plan.input[1]); }

private:
  /// Of one predecessor's weights with rows of this many columns.
  RNNCORE_INLINE Index recurrent_size(Index columns) const {
    return columns * (all(plan.recurrent[0].window) + all(plan.recurrent[1].window));
  }
  RNNCORE_INLINE Index inner_transposed(Index inputs) const {
    return inputs * all_inputs() + matrices() * recurrent_size(recurrent_inputs.padded());
  }
  RNNCORE_INLINE Index tape_level() const {
    return node() + (has_middle() ? shape.hidden : 0) + plan.scales() + shape.hidden + cell_columns();
  }
};

/// Where the weights of the products of forward lie, transition by transition: of the input by window, of
/// the states by matrix and product; at the end those of what is emitted, [panel of outputs][hidden
/// unit][output]. `depth(K)`: how many W the weights of a column are, to which K numbers come.
template <class T, Index (*depth)(Index)>
struct WeightOffsets {
  const Layout<T>& at;

  RNNCORE_INLINE Index input(Index level) const {
    return level == 0 ? 0 : inner(at.shape.input) + (level - 1) * inner(0);
  }
  RNNCORE_INLINE Index input(Index level, Index window) const {
    return input(level) + (window ? depth(at.input_columns(level)) * at.all(at.plan.input[0]) : 0);
  }
  RNNCORE_INLINE Index recurrent(Index level, Index k, Index product) const {
    return input(level) + depth(at.input_columns(level)) * at.all_inputs() + k * matrix() +
           (product ? depth(at.recurrent_columns()) * at.all(at.plan.recurrent[0].window) : 0);
  }
  RNNCORE_INLINE Index emission() const { return recurrent(at.shape.depth - 1, at.matrices(), 0); }
  RNNCORE_INLINE Index all() const {
    return emission() + (at.emits() ? depth(at.shape.hidden) * at.states.padded() : 0);
  }

private:
  /// Of one predecessor.
  RNNCORE_INLINE Index matrix() const {
    return depth(at.recurrent_columns()) *
           (at.all(at.plan.recurrent[0].window) + at.all(at.plan.recurrent[1].window));
  }
  RNNCORE_INLINE Index inner(Index inputs) const {
    return depth(inputs) * at.all_inputs() + at.matrices() * matrix();
  }
};

} // namespace rnncore::RNNCORE_LEVEL

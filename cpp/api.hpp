// What crosses the wall between the kernels and everything else: plain data and a table of functions.
//
// Each instruction set compiles the kernels once; this header is the only one both sides see. It holds
// no code, so that no function compiled for one processor can be linked into the path of another.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rnncore {

using Index = std::ptrdiff_t;

/// Rows of a matrix: row r starts at base + r * stride, its columns are contiguous.
template <class T>
struct Rows {
  T* base;
  Index stride;
};

struct Shape {
  Index input, hidden;
};

/// Nodes in the order they are computed, grouped in waves whose nodes do not depend on each other.
/// A sequence is a chain of nodes, one a wave; a batch of sequences has one node of each in a wave.
struct Schedule {
  Index waves, nodes;
  const Index* begin;      // (waves + 1)  wave w holds nodes begin[w] .. begin[w + 1]
  const int32_t* row;      // (nodes)  the row of x and y at which the node stands
  const int32_t* prev;     // (nodes)  the row it continues, or ~b for the initial state b
  const int32_t* sequence; // (nodes)  the chain it belongs to
};

/// One direction of one layer, in torch's layout, G gates in torch's order. Null: absent.
template <class T>
struct Weights {
  T* input;          // (G * H, I)
  T* recurrent;      // (G * H, H)
  T* input_bias;     // (G * H)
  T* recurrent_bias; // (G * H)
};

/// The threads that work on one call: each is handed the same arguments and its own rank.
struct Team {
  Index rank, size;
  void (*wait)(void* barrier); // until all of the team are here
  void* barrier;
};

/// Numbers of elements, for the caller to allocate (64-byte aligned).
struct Sizes {
  Index packed;            // weights as forward reads them
  Index packed_transposed; // weights as backward reads them
  Index tape;              // remembered for one node
};

template <class T>
struct Forward {
  Shape shape;
  Schedule schedule;
  const T* packed;
  Rows<const T> x;     // (rows, I)
  Rows<T> y;           // (rows, H)  out
  Rows<const T> first; // (sequences, H)  initial hidden states
  // Cell states: all of them by row if `c` is given, else the running ones, updated in place. Before
  // the call `running_c` holds the initial ones.
  Rows<T> running_c; // (sequences, H)
  Rows<T> c;         // (rows, H) or null
  T* tape;           // (nodes * Sizes.tape) or null: nothing is recorded
  void* work;
};

template <class T>
struct Backward {
  Shape shape;
  Schedule schedule;
  const T* packed_transposed;
  Rows<const T> x, y, first, first_c, c; // as forward saw and left them
  T* tape;                               // overwritten by the gates' gradients
  Rows<const T> dy;                      // (rows, H) or null: zero
  Rows<T> dh, dc; // (sequences, H)  in: of the final states; out: of the initial ones
  Rows<T> dx;     // (rows, I) or null: not wanted
  bool add_dx;    // add to dx instead of writing it
  T* gradients;   // (Sizes.packed)  out: of the weights, in packed order
  void* work;
};

/// How weights become what the kernels read: matrices of `gates` * H rows.
template <class T>
struct Packing {
  Index gates;
  Sizes (*sizes)(Shape);
  void (*pack)(Shape, Weights<const T>, T* packed);
  void (*pack_transposed)(Shape, Weights<const T>, T* packed);
};

/// The kernels of one cell in one precision.
template <class T>
struct Cell {
  const char* name;
  bool has_cell_state;
  Packing<T> packing;
  void (*add_gradients)(Shape, T* packed, Index passes, Index stride, Weights<T>, Team);
  Index (*forward_work)(Shape, Schedule); // bytes of `work`
  Index (*backward_work)(Shape, Schedule);
  Index (*shares)(Shape); // the most threads one call can use
  void (*forward)(const Forward<T>&, Team);
  void (*backward)(const Backward<T>&, Team);
};

/// y = x W^T + b for rows; H is the width of y.
template <class T>
struct LinearForward {
  Shape shape;
  Index rows;
  const T* packed;
  const T* x; // (rows, I)
  T* y;       // (rows, H)  out
};

template <class T>
struct LinearBackward {
  Shape shape;
  Index rows;
  const T* packed_transposed;
  const T *x, *dy;
  T* dx;                // or null: not wanted
  Weights<T> gradients; // added to
};

template <class T>
struct Linear {
  Packing<T> packing;
  void (*forward)(const LinearForward<T>&, Team);
  void (*backward)(const LinearBackward<T>&, Team);
};

/// The kernels of one precision, and the activations by themselves for tests and measurements.
template <class T>
struct Kernels {
  Index count;
  const Cell<T>* cells;
  Linear<T> linear;
  void (*sigmoid)(const T* x, T* y, Index n);
  void (*tanh)(const T* x, T* y, Index n);
};

struct Bytes {
  const void* data;
  std::size_t size; // a multiple of four
};

/// Everything that one instruction set offers.
struct Table {
  const char* level;
  const char* macros; // the level that the compiler's macros prove
  Index vector_bytes;
  const Kernels<float>* float32;
  const Kernels<double>* float64;
  uint64_t (*fingerprint)(const Bytes* blocks, Index count); // changes when one of the blocks does
};

} // namespace rnncore

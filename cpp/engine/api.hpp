// What crosses the wall between the kernels and everything else: plain data and a table of functions.
//
// Each instruction set compiles the kernels once; this header is the only one both sides see. It holds no
// function that files share, so that none compiled for one processor can be linked into the path of
// another.
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

/// Widths of a layer, and how many transitions, one after the other, make one of its steps.
struct Shape {
  Index input, hidden;
  Index output = 0;      // of h: as many as `hidden`, or fewer where h is projected
  Index depth = 1;       // transitions of a step; only the first sees x
  bool shortcut = false; // the last one sees h(t-1) as well
  Index arity = 1;       // predecessors of a node
  Index cells = 1; // cell states of a hidden unit: a row of c is that of the first, of the second, ...
  // What time steps read of a row of x behind its `input` columns: numbers, and rows of `hidden` numbers.
  Index scalars = 0, vectors = 0;
};

/// Nodes in the order they are computed, grouped in waves whose nodes do not depend on each other.
/// A sequence is a chain of nodes, one a wave; a batch of sequences has one node of each in a wave. In a
/// forest a wave holds nodes of one height, and a node has as many predecessors as its layer has places
/// for them, some of which may be empty, or any number of them.
struct Schedule {
  Index waves, nodes;
  const Index* begin;   // (waves + 1)  wave w holds nodes begin[w] .. begin[w + 1]
  const int32_t* row;   // (nodes)  the row of y at which the node stands
  const int32_t* x_row; // (nodes)  and that of x
  const int32_t* prev;  // (arity, nodes)  the row it continues, or ~b for the initial state b; or
                        // no_predecessor: of a sequence, that it starts anew
  const int32_t* edges; // (nodes + 1) or null; then node n continues prev[edges[n]] .. prev[edges[n + 1]]
  const int32_t* sequence; // (nodes)  the chain it belongs to; in a forest its row
  bool forest;             // there may be no predecessor, and one may have several successors
  // Of a forest the first nodes: those that continue nothing, those that see an input, those whose states
  // are given. Of sequences 0, all, 0.
  Index leaves, readers, given;
  bool restarts;        // some sequences may start anew, from `Call.anew_h`
  bool stepped = false; // each wave is a chunk of its own: what one reads may depend on the one before
};

constexpr Index most_arity = 8;
constexpr int32_t no_predecessor = INT32_MIN;

/// One transition of one direction of a layer, in torch's layout, G gates in torch's order. Null: absent.
template <class T>
struct Weights {
  T* input;          // (G * H, I), of a shortcut (G * H, H)
  T* recurrent;      // (matrices, R * H, recurrent_columns), see `Sizes`; R = G unless forgetting is by
                     // predecessor
  T* input_bias;     // (G * H)
  T* recurrent_bias; // (R * H)
  T* units;          // (U, H)  numbers of each hidden unit's own: peepholes, gains
  T* projection;     // (P, H)
};

/// Activations by their names in ONNX and Keras; each has its slope in terms of its value.
enum class ActivationKind : int32_t {
  sigmoid,
  tanh,
  relu,
  identity,
  affine,
  leaky_relu,
  thresholded_relu,
  scaled_tanh,
  hard_sigmoid,
  elu,
  selu,
  softsign,
  softplus,
  exponential
};

struct Activation {
  ActivationKind kind;
  double alpha, beta;
};

/// What a cell is told to do otherwise than its papers do.
struct CellOptions {
  Activation gate, candidate, output; // of the gates, of the candidate, of the cell state
  double cell_clip;                   // cell states stay within +- this; 0: wherever they like
  double gate_clip;                   // so do the sums that gates and candidate are made from
};

/// A run of slots that one product fills, and which of torch's gates each of them is.
struct Window {
  Index begin = 0, count = 0;
  Index gate[4] = {};
};

/// A product with the states that the nodes continue, or with what an earlier phase made of them.
struct Recurrence {
  Index phase = 0;
  Window window;
};

/// Operations of a cell's program: name, what `to` is, what a, b, c and d are, and where there is one: in
/// `forward`, in `backward` or in `both`; in the code for `each` predecessor, or `each_back` in that of
/// backward alone; in `backs`, both codes of backward; in `any`. r: a register, a vector of hidden units;
/// s: a slot; c: a cell state; u: a number of each hidden unit's own; e, v: a scalar or vector of x; k: a
/// constant; a: an activation; -: nothing.
// clang-format off
#define RNNCORE_CELL_OPERATIONS(line)                                                             \
  line(slot, 'r', "s", any)       line(h, 'r', "", any)            line(state, 'r', "c", any)  \
  line(unit, 'r', "u", any)       line(scalar, 'r', "e", both)      line(vector, 'r', "v", both) \
  line(constant, 'r', "k", any)   line(keep_h, 'r', "", both)       line(keep_state, 'r', "", both) \
  line(dh, 'r', "", backward)      line(dstate, 'r', "c", backward)  line(dmiddle, 'r', "", backward) \
  line(offer, 'r', "", each)       line(add_slot, 's', "r", each)    line(d_offer, '-', "r", each_back)     \
  line(set_slot, 's', "r", both)   line(keep_slot, 's', "r", forward)                             \
  line(new_h, '-', "r", forward)   line(new_state, 'c', "r", forward) line(middle, '-', "r", forward) \
  line(d_old_h, '-', "r", backs) line(d_old_state, 'c', "r", backs)                         \
  line(d_unit, 'u', "r", backs) line(d_scalar, 'e', "r", backward) line(d_vector, 'v', "r", backward) \
  line(add, 'r', "rr", any)       line(subtract, 'r', "rr", any)   line(multiply, 'r', "rr", any) \
  line(divide, 'r', "rr", any)    line(maximum, 'r', "rr", any)    line(minimum, 'r', "rr", any) \
  line(negative, 'r', "r", any)   line(absolute, 'r', "r", any)    line(reciprocal, 'r', "r", any) \
  line(fma, 'r', "rrr", any)      line(fnma, 'r', "rrr", any)                                   \
  line(sqrt, 'r', "r", any)       line(exp, 'r', "r", any)         line(log, 'r', "r", any)    \
  line(sin, 'r', "r", any)        line(cos, 'r', "r", any)                                      \
  line(sigmoid, 'r', "r", any)    line(tanh, 'r', "r", any)                                     \
  line(softplus, 'r', "r", any)   line(relu, 'r', "r", any)                                     \
  line(sigmoid_slope, 'r', "r", any) line(tanh_slope, 'r', "r", any) line(relu_slope, 'r', "r", any) \
  line(sigmoid_back, 'r', "rr", any) line(tanh_back, 'r', "rr", any)                            \
  line(select_le, 'r', "rrrr", any) line(select_lt, 'r', "rrrr", any)                           \
  line(activation, 'r', "rakk", any) line(activation_slope, 'r', "rakk", any)
// clang-format on

enum class CellOperation : int32_t {
#define RNNCORE_NAME(name, ...) name,
  RNNCORE_CELL_OPERATIONS(RNNCORE_NAME)
#undef RNNCORE_NAME
};

struct Instruction {
  CellOperation operation;
  int32_t to, a, b, c, d;
};

struct Code {
  const Instruction* begin;
  const Instruction* end;
};

constexpr Index most_registers = 64;

/// A cell whose time step is a program, the code of each of its phases being straight. All of it has been
/// checked.
struct OwnCell {
  Index slots, gates, recurrent_gates, phases, units, cells;
  Window input[2];
  Recurrence recurrent[2];
  bool direct; // the old h reaches the new one past the product, too
  bool sums;   // of any number of predecessors it sees the sums of their states
  // The gate that each predecessor has a part of; the slot of what they all make of it, and then of its
  // gradient, behind which is one for that of the gate; the code for one predecessor, forward and backward.
  Window offer;
  Index total;
  Code each[2];
  Code forward[2], backward[2];
  const double* constants;
};

/// The threads that work on one call: each is handed the same arguments and its own rank.
struct Team {
  Index rank, size;
  void (*wait)(void* barrier); // until all of the team are here
  void* barrier;
};

/// The team of one thread. Each file has its own, so that no two levels share it.
constexpr Team alone{0, 1, [](void*) {}, nullptr};

/// For the caller to allocate (64-byte aligned), in numbers of T where nothing else is said.
struct Sizes {
  Index numbers;          // biases, and numbers of each hidden unit's own
  Index gradients;        // those of numbers and weights
  Index weight_bytes;     // of the weights of the products of forward, whatever their type
  Index transposed_bytes; // and of backward; 0: there is none
  Index tape = 0;         // remembered for one node
  Index matrices = 0, recurrent_columns = 0; // of the recurrent weights
};

/// What the kernels read of the weights, in their own order. T is the type of states and sums here and
/// below; what the weights of products are only the kernels know.
template <class T>
struct Packed {
  const T* numbers;
  const void* weights;
  bool operator==(const Packed&) const = default;
};

/// Numbers that regularisers multiply by. A base of null: none; a stride of 0: the same for all rows.
template <class T>
struct Masks {
  Rows<const T> state;          // (sequences, P)  h on its way into the recurrent products
  Rows<const T> update;         // (rows, H)  the candidate
  Rows<const T> keep_h, keep_c; // (rows, H)  the share of the old state that stays
};

/// What forward and backward are given of a schedule.
template <class T>
struct Call {
  Shape shape;
  Schedule schedule;
  Index wave, end;            // the waves that this call is about: whole chunks
  const CellOptions* options; // or null
  Masks<T> masks;             // only with options
  Packed<T> packed;
  Rows<const T> x;     // (rows, I), and what time steps read behind that
  Rows<T> y;           // (rows, P)  written by forward
  Rows<const T> first; // (sequences, P)  initial hidden states
  Rows<T> c;           // (rows, cells * H)  cell states, likewise
  Rows<T> offer;       // (rows, H)  likewise: what each node adds to a gate of those that continue it
  T* tape;             // (nodes of these waves * Sizes.tape)  backward overwrites it
  void* work;
  // What sequences that start anew continue, (P) and (cells * H). Null: zero.
  const T *anew_h, *anew_c;
};

/// `c` may be null: then the cell states are updated in place. `tape` may be: then nothing is recorded.
template <class T>
struct Forward : Call<T> {
  Rows<T> running_c; // (sequences, cells * H)  in: the initial ones
};

template <class T>
struct Backward : Call<T> {
  const void* transposed;
  Rows<const T> first_c; // (sequences, cells * H)
  Rows<const T> dy;      // (rows, P) or null: zero
  Rows<T> dh, dc;        // (sequences, P or cells * H)  in: of the final states; out: of the initial ones.
                         // In a forest (rows, H): added to
  Rows<T> d_offer;       // (rows, H)  added to
  Rows<T> dx;            // as x, or null: not wanted
  bool add_dx;           // add to dx instead of writing it
  bool wants_gradients;  // else what is below is scratch
  T* gradients;          // (Sizes.gradients)  out: of numbers and weights, in packed order
  // Those of what sequences start anew from, (sequences, P or cells * H): added to. Null: not wanted.
  Rows<T> d_anew_h, d_anew_c;
};

/// How the weights of all transitions become what the kernels read.
template <class T>
struct Packing {
  const void* cell; // what its functions are to be told first: the cell's recipe, or nothing
  Index gates, recurrent_gates, units; // H rows for each gate; numbers of each hidden unit's own
  Sizes (*sizes)(const void* cell, Shape);
  void (*pack)(const void* cell, Shape, const Weights<const T>*, T* numbers, void* weights);
  void (*pack_transposed)(const void* cell, Shape, const Weights<const T>*, void* transposed);
};

/// The kernels of one cell with one type of weights, and what the cell is. Backward may be null. The
/// functions are the same for all cells, and told first which one it is: `packing.cell`.
template <class T>
struct CellKernels {
  const char* name;
  bool has_cell_state, has_recurrent_weights;
  bool any_arity;        // nodes have any number of predecessors,
  bool offers;           // each of which computes a part of a gate for those that continue it
  bool multiplies_pairs; // recurrent weights see the products of any two entries of the states, too
  bool normalises;       // sums go through layer normalisation
  ActivationKind gate, candidate; // of the papers; the cell state's is the candidate's
  Packing<T> packing;
  void (*add_gradients)(const void* cell, Shape, T* gradients, Index passes, Index stride,
                        const Weights<T>*, Team);
  Index (*forward_work)(const void* cell, const Forward<T>&); // bytes of `work`
  Index (*backward_work)(const void* cell, const Backward<T>&);
  // Chunks end where so many nodes lie before them, or a multiple of it.
  Index (*chunk_nodes)(const void* cell, Shape);
  Index (*shares)(const void* cell, Shape); // the most threads one call can use
  void (*forward)(const void* cell, const Forward<T>&, Team);
  void (*backward)(const void* cell, const Backward<T>&, Team);
  // Forward of one chunk for one thread, prepared once in `pass_bytes` of memory and run again and again.
  // The call stays where it is; between runs only the places of its arrays may change.
  Index pass_bytes;
  void (*make_pass)(const void* cell, const Forward<T>&, void* pass);
  void (*run_pass)(void* pass);
};

/// y = x W^T + b for rows; H is the width of y. `index`: which rows, of x and y alike, or null for the
/// first.
template <class T>
struct LinearForward {
  Shape shape;
  Index rows;
  Packed<T> packed;
  Rows<const T> x; // (rows, I)
  Rows<T> y;       // (rows, H)  out
  void* work;      // this thread's `Linear.work` bytes
  const int32_t* index = nullptr;
};

/// With an index only for dx.
template <class T>
struct LinearBackward {
  Shape shape;
  Index rows;
  const void* transposed;
  Rows<const T> x, dy;
  Rows<T> dx;       // base null: not wanted
  T *weight, *bias; // their gradients, added to; either may be null
  const int32_t* index = nullptr;
};

/// Backward may be null.
template <class T>
struct Linear {
  Packing<T> packing;
  Index (*work)(Shape, Index rows);
  void (*forward)(const LinearForward<T>&, Team);
  void (*backward)(const LinearBackward<T>&, Team);
};

/// What windows that reach beyond the ends of an axis find there.
enum class Padding : int32_t { zeros, reflect, replicate };

/// Windows along one axis: tap k of output o reads what is at o * stride + k * dilation - before. The axis
/// is as if padded by so many numbers before and after it.
struct WindowAxis {
  Index size, outputs, taps, stride, dilation, before, after;
  Padding padding;
};

/// Windows over two axes of x (images, size, size, channels), for y (images, outputs, outputs, ...).
struct Windows {
  Index images, channels;
  WindowAxis axes[2];
};

/// What the weights (outputs, inputs / groups, taps of both axes) of a convolution are.
struct Filters {
  Index inputs, outputs, groups;
  Index taps[2];
};

/// What becomes of the sums y of a product before they are handed on: y + add, then its activation, or y
/// times that.
template <class T>
struct Finish {
  const T* add = nullptr; // as y, or null
  const Activation* activation = nullptr;
  bool gated = false;
};

template <class T>
struct ConvolutionForward {
  Filters filters;
  Windows windows;
  Packed<T> packed;
  const T* x;
  T* y;
  Finish<T> finish;
  Index begin, end; // outputs, of those of all images
  void* work;       // this thread's
};

/// dx is added to, from dy; so are the gradients of the weights, [group][tap][input][output], in blocks of
/// outputs: the same bits for pieces of a multiple of them.
template <class T>
struct ConvolutionBackward {
  Filters filters;
  Windows windows;
  const void* transposed;
  const T *x, *dy;
  T *dx, *weight, *bias; // null: not wanted
  Index begin, end;      // outputs
  void* work;
};

/// For dx an image belongs to one thread. Backward may be null.
template <class T>
struct Convolution {
  Packing<T> packing; // told its Filters first
  Index (*work)(const Filters&, const Windows&);
  void (*forward)(const ConvolutionForward<T>&, Team);
  void (*backward)(const ConvolutionBackward<T>&, Team);
};

/// The largest number of each window and channel, or their mean: over the taps that read x or, if `padded`
/// counts, the padding as well.
template <class T>
struct Pooling {
  Windows windows;
  bool largest, padded;
  const T* x;
  T* y;
  Index begin, end; // outputs
  const T* dy = nullptr;
  T* dx = nullptr; // added to
};

/// Rows that attend to a source each, at several steps: the query of row r at step t is row t * R + r of
/// all.
///
///   scores e_s = query . key_s, or v . tanh(query + key_s)    a = softmax(e)    context = sum_s a_s
///   value_s
///
/// over the source's own steps. With centres only over those within `window` of the centre p, and the
/// weights are a_s exp(-(s - p)^2 / (2 (window / 2)^2)). Causal: step t of a row sees the steps s <= t.
template <class T>
struct AttentionForward {
  Index rows, sources;        // R, B
  Index length;               // S: steps of the longest source
  Index key_size, value_size; // A, M
  const int64_t* lengths;     // (B)
  const int64_t* source;      // (R)  which one a row attends to, or null: its own
  const T *keys, *values;     // (S, B, A), (S, B, M)
  const T* v;                 // (A) or null
  const T* centre;            // (T, R) or null
  T window;
  bool causal;         // with neither v nor centre
  Rows<const T> query; // (T, R, A)
  Rows<T> context;     // (T, R, M)  out
  T* weights;          // (T, R, S)  out, zero at first; of backward in
};

template <class T>
struct AttentionBackward : AttentionForward<T> {
  Rows<const T> dcontext;
  Rows<T> dquery;     // out
  T* dcentre;         // (T, R)  out
  T *dkeys, *dvalues; // added to
  T* dv;              // (R, A)  added to: of each row by itself
};

/// Of one row from step `begin` to `end`. `work`: so many numbers.
template <class T>
struct Attention {
  Index (*work)(const AttentionForward<T>&, Index steps);
  void (*forward)(const AttentionForward<T>&, Index row, Index begin, Index end, T* work);
  void (*backward)(const AttentionBackward<T>&, Index row, Index begin, Index end, T* work);
};

/// y = (x - mean) / sqrt(variance + epsilon) * weight + bias, mean and variance being the row's.
template <class T>
struct LayerNorm {
  Index width;
  const T *weight, *bias; // (width)
  T epsilon;
};

/// Functions of one number, or of two, beside the activations.
enum class Function : int32_t { negative, absolute, square, square_root, reciprocal };
enum class Operation : int32_t { add, subtract, multiply, divide, maximum, minimum };

/// What sees one number, or one row of `width`, at a time; y may be x.
template <class T>
struct Pointwise {
  void (*apply)(Function, const T* x, T* y, Index n);
  void (*combine)(Operation, const T* a, const T* b, T* y, Index n);
  void (*activate)(const Activation&, const T* x, T* y, Index n);
  /// dx = dy times the slope where the value is y.
  void (*activate_backward)(const Activation&, const T* y, const T* dy, T* dx, Index n);
  void (*softmax)(const T* x, T* y, Index rows, Index width);
  void (*layer_norm)(const LayerNorm<T>&, const T* x, T* y, Index rows);
  /// y = x where it is positive, else a x, with a slope a for each number of a row, or one for all.
  void (*slopes)(const T* a, Index count, const T* x, T* y, Index rows, Index width);
};

/// The kernels of one type of numbers and one of weights.
template <class T>
struct Kernels {
  Index count;
  CellKernels<T> (*cell)(Index); // by its number
  // Those of a cell that stays where it is, made in so many bytes of memory that stay as well.
  Index own_bytes;
  void (*make_own)(const OwnCell&, void* memory, CellKernels<T>* made);
  Linear<T> linear;
  Pointwise<T> pointwise;
  Convolution<T> convolution;
  void (*pool)(const Pooling<T>&, Team);
  void (*pool_backward)(const Pooling<T>&, Team);
};

template <class T>
struct Alignment; // see alignment.hpp

struct Bytes {
  const void* data;
  std::size_t size; // a multiple of four
};

/// Everything that one instruction set offers.
struct KernelTable {
  const char* level;
  const char* macros; // the level that the compiler's macros prove
  Index vector_bytes;
  const Kernels<float>* float32;
  const Kernels<double>* float64;
  // By the type of the weights; forward only.
  const Kernels<float>*bfloat16, *bfloat16_dot, *int8;
  const Attention<float>* attention32;
  const Attention<double>* attention64;
  const Alignment<float>* alignment32;
  const Alignment<double>* alignment64;
  uint64_t (*fingerprint)(const Bytes* blocks, Index count); // changes when one of the blocks does
};

} // namespace rnncore

// Convolutions, forward and backward: products over windows that are found through pointers.
#pragma once

#include "pointwise.hpp"
#include "windows.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// Numbers: the biases, group by group. Weights of forward: [group][panel of outputs][k][output], k being
/// tap and input; of backward: [group][panel of k][output][k].
template <class T>
struct FilterLayout {
  const Filters& filters;
  Index inputs, taps, columns; // of a group: inputs, and numbers of a window
  Panels<T> outputs, windows;

  explicit FilterLayout(const Filters& f)
      : filters(f), inputs(f.inputs / f.groups), taps(f.taps[0] * f.taps[1]), columns(taps * inputs),
        outputs(Panels<T>::few(f.outputs / f.groups, widest)), windows(columns, widest) {}
  Index numbers() const { return filters.groups * outputs.padded(); }
  template <class W>
  Index weights() const { // of a group
    return Arithmetic<T, W>::depth(columns) * outputs.padded();
  }
  Index transposed() const { return outputs.columns * windows.padded(); }
  /// Of torch's weights: of output o of a group and number k of its window.
  const T* at(const T* weight, Index group, Index o) const {
    return weight + (group * outputs.columns + o) * columns;
  }
  Index place(Index k) const { return k % inputs * taps + k / inputs; }
};

template <class T, class W>
Sizes convolution_sizes(const void* filters, Shape) {
  const FilterLayout<T> at(*static_cast<const Filters*>(filters));
  const Index groups = at.filters.groups, weights = groups * at.template weights<W>();
  const Index transposed = trains<T, W> ? groups * at.transposed() : 0;
  return {at.numbers(), 0, weights * Index(sizeof(W)), transposed * Index(sizeof(T))};
}

/// `panels` of columns beside each other, `depth` of them below each other: f(depth, column) or, beyond the
/// last column, zero.
template <class T, class F>
T* pack_panels(const Panels<T>& panels, Index depth, T* packed, F f) {
  for (Index p = 0; p < panels.count(); ++p) {
    const Index begin = panels.first(p) * lanes<T>, width = panels.width(p) * lanes<T>;
    for (Index d = 0; d < depth; ++d, packed += width)
      for (Index i = 0; i < width; ++i) packed[i] = begin + i < panels.columns ? f(d, begin + i) : T(0);
  }
  return packed;
}

/// Weights of another type than T come as (outputs, taps, inputs), in one group.
template <class T, class W>
void convolution_pack(const void* filters, Shape, const Weights<const T>* from, T* numbers, void* weights) {
  const FilterLayout<T> at(*static_cast<const Filters*>(filters));
  const Index outputs = at.outputs.columns, padded = at.outputs.padded();
  for (Index g = 0; g < at.filters.groups; ++g) {
    W* const packed = static_cast<W*>(weights) + g * at.template weights<W>();
    for (Index o = 0; o < padded; ++o)
      numbers[g * padded + o] = from->input_bias && o < outputs ? from->input_bias[g * outputs + o] : T(0);
    if constexpr (trains<T, W>)
      pack_panels(at.outputs, at.columns, packed,
                  [&](Index k, Index o) { return at.at(from->input, g, o)[at.place(k)]; });
    else
      pack_window(at.outputs, plain, at.at(from->input, g, 0), at.columns, packed);
  }
}

template <class T>
void convolution_pack_transposed(const void* filters, Shape, const Weights<const T>* from,
                                 void* transposed) {
  const FilterLayout<T> at(*static_cast<const Filters*>(filters));
  T* packed = static_cast<T*>(transposed);
  for (Index g = 0; g < at.filters.groups; ++g)
    packed = pack_panels(at.windows, at.outputs.columns, packed,
                         [&](Index o, Index k) { return at.at(from->input, g, o)[at.place(k)]; });
}

/// Bytes that each thread works in: the windows of a block, and what they are made into, or, for backward,
/// what comes back to them.
template <class T, class W>
Index convolution_work(const Filters& filters, const Windows& w) {
  const FilterLayout<T> at(filters);
  const Index rows = min(row_block, outputs_of(w));
  const Index made = Arithmetic<T, W>::Rows::bytes(rows, at.columns);
  return WindowBlock<T>::bytes(w) + max(made, rows * at.windows.padded() * Index(sizeof(T)));
}

template <class T>
void finish_rows(const Finish<T>& finish, T* y, Index begin, Index n) {
  y += begin;
  if (finish.add)
    for_each_vector(y, n, [](Vec<T> a, Vec<T> b) RNNCORE_HOT { return a + b; }, y, finish.add + begin);
  if (!finish.activation) return;
  const Activation& f = *finish.activation;
  if (!finish.gated) return activate(f, y, y, n);
  if (f.kind == ActivationKind::sigmoid)
    return for_each_vector(y, n, [](Vec<T> v) RNNCORE_HOT { return v * sigmoid(v); }, y);
  for_each_vector(y, n, [&](Vec<T> v) RNNCORE_HOT { return v * value_of(f, v); }, y);
}

template <class T, class W>
void convolution_forward(const ConvolutionForward<T>& f, Team team) {
  using Own = Arithmetic<T, W>;
  const FilterLayout<T> at(f.filters);
  const Index outputs = f.filters.outputs, groups = f.filters.groups;
  const Index most = min(row_block, outputs_of(f.windows));
  void* const made = static_cast<char*>(f.work) + WindowBlock<T>::bytes(f.windows);
  WindowBlock<T> block(f.windows, groups, !trains<T, W>, f.x, f.work);
  const Share rows = Share::of(f.begin, f.end).part(team);
  for (Index r = rows.begin, n; r < rows.end; r += n) {
    n = block.reach(r, rows.end);
    block.find(r, n);
    const Target<T> y{f.y + r * outputs, outputs, nullptr, 0};
    const W* weights = static_cast<const W*>(f.packed.weights);
    const T* bias = f.packed.numbers;
    for (Index g = 0; g < groups; ++g, weights += at.template weights<W>(), bias += at.outputs.padded()) {
      if (g) block.advance(at.inputs);
      const auto rows = block.template rows<Own>(made, most);
      multiply_block(rows, n, at.columns, at.outputs, weights, bias, y.from_column(g * at.outputs.columns),
                     block.skipped());
    }
    finish_rows(f.finish, f.y, r * outputs, n * outputs);
  }
}

/// dx: each row of dy times the weights, added to where its window was read.
template <class T>
void convolution_input(const ConvolutionBackward<T>& b, Team team) {
  const FilterLayout<T> at(b.filters);
  const Windows& w = b.windows;
  const Index width = at.windows.padded();
  const Share rows = whole_images(w, b.begin, b.end, team);
  T* const windows = static_cast<T*>(b.work);
  for (Index r = rows.begin; r < rows.end; r += row_block) {
    const Index n = min(row_block, rows.end - r);
    const T* weights = static_cast<const T*>(b.transposed);
    for (Index g = 0; g < b.filters.groups; ++g, weights += at.transposed()) {
      const RowBlock<const T> dy({b.dy + g * at.outputs.columns, b.filters.outputs}, nullptr, r, n);
      multiply_block(Gathered<T>{dy.rows, at.outputs.columns}, n, at.outputs.columns, at.windows, weights,
                     static_cast<const T*>(nullptr), {windows, width, nullptr, 0});
      WindowPlace place(w, r);
      for (Index i = 0; i < n; ++i, place.next(w))
        for_each_tap(w, place, [&](Index tap, Index from) {
          if (from < 0) return;
          T* dx = b.dx + from + g * at.inputs;
          const T* own = windows + i * width + tap * at.inputs;
          for_each_vector(
              dx, at.inputs, [](Vec<T> a, Vec<T> c) RNNCORE_HOT { return a + c; },
              static_cast<const T*>(dx), own);
        });
    }
  }
}

/// Gradients of some panels of outputs, over all rows in their order.
template <class T>
void convolution_weights(const ConvolutionBackward<T>& b, Team team) {
  const FilterLayout<T> at(b.filters);
  const Index outputs = b.filters.outputs, own = at.outputs.columns;
  const Panels<T> columns(own, widest);
  WindowBlock<T> block(b.windows, b.filters.groups, false, b.x, b.work);
  const Share panels(team, columns.count());
  for (Index r = b.begin; r < b.end; r += row_block) {
    const Index n = min(row_block, b.end - r);
    block.find(r, n);
    for (Index g = 0; g < b.filters.groups; ++g) {
      if (g) block.advance(at.inputs);
      const T* dy = b.dy + r * outputs + g * own;
      for (Index p = panels.begin; p < panels.end; ++p) {
        const Index column = columns.first(p) * lanes<T>, width = columns.width(p);
        const Index tail = columns.valid(columns.first(p) + width - 1);
        const EqualParts tiles(block.columns(), tile_rows(int(width)));
        T* to = b.weight + g * at.columns * own + column;
        for (Index run = 0; run < block.runs(); ++run, to += block.columns() * own)
          outer<T>({{block.run(run), tiles},
                    Share(tiles.count),
                    n,
                    dy + column,
                    outputs,
                    width,
                    tail,
                    to,
                    own,
                    true});
        for (Index v = 0; b.bias && v < width; ++v) {
          const Index valid = columns.valid(columns.first(p) + v), from = column + v * lanes<T>;
          T* total = b.bias + g * own + from;
          Vec<T> sum(T(0));
          for (Index i = 0; i < n; ++i) sum = sum + load(dy + i * outputs + from, valid);
          store(total, load(total, valid) + sum, valid);
        }
      }
    }
  }
}

template <class T>
void convolution_backward(const ConvolutionBackward<T>& b, Team team) {
  if (b.dx) convolution_input(b, team);
  if (b.weight) convolution_weights(b, team);
}

template <class T, class W>
constexpr Convolution<T> convolution_of() {
  Convolution<T> convolution{{nullptr, 1, 1, 0, convolution_sizes<T, W>, convolution_pack<T, W>, nullptr},
                             convolution_work<T, W>,
                             convolution_forward<T, W>,
                             nullptr};
  if constexpr (trains<T, W>) {
    convolution.packing.pack_transposed = convolution_pack_transposed<T>;
    convolution.backward = convolution_backward<T>;
  }
  return convolution;
}

} // namespace rnncore::RNNCORE_LEVEL

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
        outputs(f.outputs / f.groups, widest), windows(columns, widest) {}
  Index numbers() const { return filters.groups * outputs.padded(); }
  Index weights() const { return columns * outputs.padded(); } // of a group
  Index transposed() const { return outputs.columns * windows.padded(); }
  /// Of torch's weights: of output o of a group and number k of its window.
  const T* at(const T* weight, Index group, Index o) const {
    return weight + (group * outputs.columns + o) * columns;
  }
  Index place(Index k) const { return k % inputs * taps + k / inputs; }
};

template <class T>
Sizes convolution_sizes(const void* filters, Shape) {
  const FilterLayout<T> at(*static_cast<const Filters*>(filters));
  const Index groups = at.filters.groups, bytes = Index(sizeof(T));
  return {at.numbers(), 0, groups * at.weights() * bytes, groups * at.transposed() * bytes};
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

template <class T>
void convolution_pack(const void* filters, Shape, const Weights<const T>* from, T* numbers, void* weights) {
  const FilterLayout<T> at(*static_cast<const Filters*>(filters));
  const Index outputs = at.outputs.columns, padded = at.outputs.padded();
  T* packed = static_cast<T*>(weights);
  for (Index g = 0; g < at.filters.groups; ++g) {
    for (Index o = 0; o < padded; ++o)
      numbers[g * padded + o] = from->input_bias && o < outputs ? from->input_bias[g * outputs + o] : T(0);
    packed = pack_panels(at.outputs, at.columns, packed,
                         [&](Index k, Index o) { return at.at(from->input, g, o)[at.place(k)]; });
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

/// Whether sums run in strands.
template <class T>
bool narrow(const FilterLayout<T>& at) {
  return strands(at.outputs.vectors.n) > 1;
}

/// Bytes that each thread works in: the windows of a block, and, for backward, what comes back to them.
template <class T>
Index convolution_work(const Filters& filters, const Windows& w) {
  const FilterLayout<T> at(filters);
  return WindowBlock<T>::bytes(w) + min(row_block, outputs_of(w)) * at.windows.padded() * Index(sizeof(T));
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

template <class T>
void convolution_forward(const ConvolutionForward<T>& f, Team team) {
  const FilterLayout<T> at(f.filters);
  const Index outputs = f.filters.outputs, groups = f.filters.groups;
  WindowBlock<T> block(f.windows, groups, narrow(at), f.x, f.work);
  const Share rows(team, outputs_of(f.windows));
  for (Index r = rows.begin; r < rows.end; r += row_block) {
    const Index n = min(row_block, rows.end - r);
    block.find(r, n);
    const RowBlock<T> y({f.y, outputs}, nullptr, r, n);
    const T *weights = static_cast<const T*>(f.packed.weights), *bias = f.packed.numbers;
    for (Index g = 0; g < groups; ++g, weights += at.weights(), bias += at.outputs.padded()) {
      if (g) block.advance(at.inputs);
      multiply_block(block.rows(), n, at.columns, at.outputs, weights, bias, y.rows,
                     g * at.outputs.columns);
    }
    finish_rows(f.finish, f.y, r * outputs, n * outputs);
  }
}

/// dx of some images: each row of dy times the weights, added to where its window was read.
template <class T>
void convolution_input(const ConvolutionBackward<T>& b, Team team) {
  const FilterLayout<T> at(b.filters);
  const Windows& w = b.windows;
  const Index each = w.axes[0].outputs * w.axes[1].outputs, width = at.windows.padded();
  const Share images(team, w.images);
  T* const windows = static_cast<T*>(b.work);
  const Index end = images.end * each;
  for (Index r = images.begin * each; r < end; r += row_block) {
    const Index n = min(row_block, end - r);
    const T* weights = static_cast<const T*>(b.transposed);
    const RowBlock<T> to({windows, width}, nullptr, 0, n);
    for (Index g = 0; g < b.filters.groups; ++g, weights += at.transposed()) {
      const RowBlock<const T> dy({b.dy + g * at.outputs.columns, b.filters.outputs}, nullptr, r, n);
      multiply_block(Gathered<T>{dy.rows, at.outputs.columns}, n, at.outputs.columns, at.windows, weights,
                     static_cast<const T*>(nullptr), to.rows);
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
  const Index rows = outputs_of(b.windows), outputs = b.filters.outputs, own = at.outputs.columns;
  WindowBlock<T> block(b.windows, b.filters.groups, narrow(at), b.x, b.work);
  const Share panels(team, at.outputs.count());
  for (Index r = 0; r < rows; r += row_block) {
    const Index n = min(row_block, rows - r);
    block.find(r, n);
    for (Index g = 0; g < b.filters.groups; ++g) {
      if (g) block.advance(at.inputs);
      const T* dy = b.dy + r * outputs + g * own;
      for (Index p = panels.begin; p < panels.end; ++p) {
        const Index column = at.outputs.first(p) * lanes<T>, width = at.outputs.width(p);
        const Index tail = at.outputs.valid(at.outputs.first(p) + width - 1);
        const EqualParts tiles(block.columns(), tile_rows(int(width)));
        T* to = b.weight + g * at.columns * own + column;
        for (Index run = 0; run < block.runs(); ++run, to += block.columns() * own)
          outer<T, GatheredTiles<T>>({{block.run(run), tiles},
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
          const Index valid = at.outputs.valid(at.outputs.first(p) + v), from = column + v * lanes<T>;
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

template <class T>
constexpr Convolution<T> convolution{
    {nullptr, 1, 1, 0, convolution_sizes<T>, convolution_pack<T>, convolution_pack_transposed<T>},
    convolution_work<T>,
    convolution_forward<T>,
    convolution_backward<T>};

} // namespace rnncore::RNNCORE_LEVEL

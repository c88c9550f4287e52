// Rows times a weight matrix, and the way back, without time: y = x W^T + b.
#pragma once

#include "pack.hpp"
#include "products.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// Packed for forward: bias, then W as [panel of outputs][input][output]; for backward: W as
/// [panel of inputs][output][input].
template <class T>
struct LinearLayout {
  Panels<T> inputs, outputs;

  explicit LinearLayout(Shape s) : inputs(s.input, widest), outputs(s.hidden, widest) {}
  Index weight() const { return outputs.padded(); }
  Index packed() const { return weight() + inputs.columns * outputs.padded(); }
  Index packed_transposed() const { return outputs.columns * inputs.padded(); }
};

template <class T>
Sizes linear_sizes(Shape shape) {
  const LinearLayout<T> at(shape);
  return {at.packed(), at.packed_transposed(), 0, 0, 0};
}

template <class T>
void linear_pack(Shape shape, const Weights<const T>* weights, T* packed) {
  const LinearLayout<T> at(shape);
  const T* bias = weights->input_bias;
  for (Index o = 0; o < at.outputs.padded(); ++o) packed[o] = bias && o < shape.hidden ? bias[o] : T(0);
  pack_window(at.outputs, plain, weights->input, shape.input, packed + at.weight());
}

template <class T>
void linear_pack_transposed(Shape shape, const Weights<const T>* weights, T* packed) {
  pack_rows(weights->input, shape.hidden, LinearLayout<T>(shape).inputs, packed);
}

constexpr Index row_block = 128;

/// Pointers to some consecutive rows, as the products want them.
template <class T>
struct RowBlock {
  const T* rows[row_block];

  RowBlock(const T* base, Index stride, Index n) {
    for (Index r = 0; r < n; ++r) rows[r] = base + r * stride;
  }
};

/// to (rows, columns of `panels`) = from (rows, K) times packed [panel][k][column], plus a bias or nothing.
template <class T>
void multiply_all(Share rows, const T* from, Index K, const Panels<T>& panels, const T* packed,
                  const T* bias, T* to) {
  for (Index r = rows.begin; r < rows.end; r += row_block) {
    const Index n = min(row_block, rows.end - r);
    const RowBlock<T> block(from + r * K, K, n);
    panels.for_each_run(0, panels.count(), [&](Index p, Index end) {
      const Index column = panels.first(p) * lanes<T>, width = panels.width(p) * lanes<T>;
      multiply(Product<T, Gathered<T>>{{block.rows, K},
                                       n,
                                       packed + column * K,
                                       panels.width(p),
                                       end - p,
                                       width * K,
                                       {to + r * panels.columns + column, panels.columns, nullptr, 0},
                                       width,
                                       panels.valid(panels.first(end) - 1),
                                       bias ? Start::bias : Start::zero,
                                       bias ? bias + column : nullptr,
                                       width});
    });
  }
}

template <class T>
void linear_forward(const LinearForward<T>& f, Team team) {
  const LinearLayout<T> at(f.shape);
  multiply_all(Share(team, f.rows), f.x, f.shape.input, at.outputs, f.packed + at.weight(), f.packed, f.y);
}

template <class T>
void linear_backward(const LinearBackward<T>& b, Team team) {
  const LinearLayout<T> at(b.shape);
  const Index I = b.shape.input, O = b.shape.hidden;
  if (b.dx) multiply_all<T>(Share(team, b.rows), b.dy, O, at.inputs, b.packed_transposed, nullptr, b.dx);

  const Share panels(team, at.inputs.count()), vectors(team, at.outputs.vectors.n);
  for (Index r = 0; r < b.rows; r += row_block) {
    const Index n = min(row_block, b.rows - r);
    const RowBlock<T> block(b.dy + r * O, O, n);
    for (Index p = panels.begin; p < panels.end; ++p) {
      const Index column = at.inputs.first(p) * lanes<T>, width = at.inputs.width(p);
      const Parts tiles(O, tile_rows(int(width)));
      outer<T, GatheredTiles<T>>({{block.rows, tiles},
                                  Share(tiles.count),
                                  n,
                                  b.x + r * I + column,
                                  I,
                                  width,
                                  at.inputs.valid(at.inputs.first(p) + width - 1),
                                  b.weight + column,
                                  I,
                                  true});
    }
    for (Index v = vectors.begin; b.bias && v < vectors.end; ++v) {
      const Index column = v * lanes<T>, valid = at.outputs.valid(v);
      Vec<T> sum(T(0));
      for (Index i = 0; i < n; ++i) sum = sum + load(block.rows[i] + column, valid);
      T* total = b.bias + column;
      store(total, load(total, valid) + sum, valid);
    }
  }
}

} // namespace rnncore::RNNCORE_LEVEL

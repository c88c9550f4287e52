// Rows times a weight matrix, forward and backward, without time: y = x W^T + b.
#pragma once

#include "pack.hpp"
#include "products.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// Numbers: the bias. Weights of forward: [panel of outputs][input][output], if they are of T; of backward:
/// [panel of inputs][output][input].
template <class T>
struct LinearLayout {
  Panels<T> inputs, outputs;

  explicit LinearLayout(Shape s) : inputs(s.input, widest), outputs(s.hidden, widest) {}
  Index numbers() const { return outputs.padded(); }
  Index transposed() const { return outputs.columns * inputs.padded(); }
};

template <class T, class W>
Sizes linear_sizes(const void*, Shape shape) {
  const LinearLayout<T> at(shape);
  const Index weights = Arithmetic<T, W>::depth(shape.input) * at.outputs.padded() * Index(sizeof(W));
  return {at.numbers(), 0, weights, trains<T, W> ? at.transposed() * Index(sizeof(T)) : 0};
}

template <class T, class W>
void linear_pack(const void*, Shape shape, const Weights<const T>* from, T* numbers, void* weights) {
  const LinearLayout<T> at(shape);
  const T* bias = from->input_bias;
  for (Index o = 0; o < at.numbers(); ++o) numbers[o] = bias && o < shape.hidden ? bias[o] : T(0);
  pack_window(at.outputs, plain, from->input, shape.input, static_cast<W*>(weights));
}

template <class T>
void linear_pack_transposed(const void*, Shape shape, const Weights<const T>* from, void* transposed) {
  pack_rows(from->input, shape.hidden, LinearLayout<T>(shape).inputs, static_cast<T*>(transposed));
}

constexpr Index row_block = 128;

/// Pointers to some rows, from row `first` or from that place in the index, as the products want them.
template <class T>
struct RowBlock {
  T* rows[row_block];

  RowBlock(Rows<T> from, const int32_t* index, Index first, Index n) {
    if (index)
      for (Index r = 0; r < n; ++r) rows[r] = from.base + index[first + r] * from.stride;
    else
      point(rows, n, from.base + first * from.stride, from.stride);
  }
};

/// c (n rows, columns of `panels`) = a (n, K) times packed [panel][k][column], plus a bias or nothing.
/// `skipped`: so many k come before those that a has.
template <class T, class W, class A>
void multiply_block(const A& a, Index n, Index K, const Panels<T>& panels, const W* packed, const T* bias,
                    Target<T> c, Index skipped = 0) {
  using Own = Arithmetic<T, W>;
  panels.for_each_run(0, panels.count(), [&](Index p, Index end) {
    const Index column = panels.first(p) * lanes<T>, width = panels.width(p) * lanes<T>;
    multiply(Product<T, A, W>{a, n, packed + Own::depth(K) * column + skipped * width, panels.width(p),
                              end - p, panels.vectors.n, Own::depth(K) * width, c.from_column(column),
                              width, panels.valid(panels.first(end) - 1), bias ? Start::bias : Start::zero,
                              bias ? bias + column : nullptr, width});
  });
}

/// to (rows, columns of `panels`) = from (rows, K) times packed [panel][k][column], plus a bias or nothing.
/// `work`: for a block of rows as the products want them.
template <class T, class W>
void multiply_all(Share rows, Rows<const T> from, Index K, const Panels<T>& panels, const W* packed,
                  const T* bias, Rows<T> to, const int32_t* index, void* work) {
  using Own = Arithmetic<T, W>;
  const Index most = min(row_block, rows.end - rows.begin);
  for (Index r = rows.begin; r < rows.end; r += row_block) {
    const Index n = min(row_block, rows.end - r);
    const RowBlock<const T> a(from, index, r, n);
    const RowBlock<T> c(to, index, r, n);
    const auto factors = Own::Rows::of(a.rows, K, work, most);
    for (Index i = 0; i < n; ++i) factors.prepare(i);
    multiply_block(factors, n, K, panels, packed, bias, {nullptr, 0, c.rows, 0});
  }
}

/// Bytes that each thread of forward works in.
template <class T, class W>
Index linear_work(Shape shape, Index rows) {
  return ceil_div(Arithmetic<T, W>::Rows::bytes(min(row_block, rows), shape.input), 64) * 64;
}

template <class T, class W>
void linear_forward(const LinearForward<T>& f, Team team) {
  const LinearLayout<T> at(f.shape);
  multiply_all(Share(team, f.rows), f.x, f.shape.input, at.outputs, static_cast<const W*>(f.packed.weights),
               f.packed.numbers, f.y, f.index, f.work);
}

template <class T>
void linear_weights(const LinearBackward<T>& b, Team team) {
  const LinearLayout<T> at(b.shape);
  const Index I = b.shape.input, O = b.shape.hidden;
  const Share panels(team, at.inputs.count()), vectors(team, at.outputs.vectors.n);
  for (Index r = 0; r < b.rows; r += row_block) {
    const Index n = min(row_block, b.rows - r);
    const RowBlock<const T> block(b.dy, nullptr, r, n);
    for (Index p = panels.begin; p < panels.end; ++p) {
      const Index column = at.inputs.first(p) * lanes<T>, width = at.inputs.width(p);
      const EqualParts tiles(O, tile_rows(int(width)));
      outer<T>({{block.rows, tiles},
                Share(tiles.count),
                n,
                b.x.base + r * b.x.stride + column,
                b.x.stride,
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

template <class T>
void linear_backward(const LinearBackward<T>& b, Team team) {
  const LinearLayout<T> at(b.shape);
  if (b.dx.base)
    multiply_all<T, T>(Share(team, b.rows), b.dy, b.shape.hidden, at.inputs,
                       static_cast<const T*>(b.transposed), nullptr, b.dx, b.index, nullptr);
  if (b.weight) linear_weights(b, team);
}

} // namespace rnncore::RNNCORE_LEVEL

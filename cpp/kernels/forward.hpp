// The engine forward: any cell over any schedule. The engine owns time; a cell owns one instant.
//
// For a chunk of waves the product with the inputs is one large product; wave by wave remain the product
// with the previous state and the cell's own arithmetic.
#pragma once

#include "cells/instant.hpp"
#include "products.hpp"
#include "walk.hpp"

namespace rnncore::RNNCORE_LEVEL {

constexpr Index group_bytes = 8 * 1024;

template <class C, class T>
class ForwardPass {
public:
  using V = Vec<T>;
  static constexpr Index L = lanes<T>, stages = Layout<C, T>::stages;

  ForwardPass(const Forward<T>& pass, const Team& team)
      : f_(pass), at_(pass.shape), team_(team), mine_(at_, team), arena_(pass.work) {
    const Index rows = chunk_rows(at_, f_.schedule);
    x_ = arena_.template take<const T*>(rows);
    h_prev_ = arena_.template take<const T*>(rows);
    h_ = arena_.template take<T*>(rows);
    c_prev_ = arena_.template take<const T*>(rows);
    c_ = arena_.template take<T*>(rows);
    middle_rows_ = arena_.template take<const T*>(at_.has_middle ? rows : 0);
    if (!f_.tape) {
      work_gates_ = arena_.template take<T>(rows * at_.node());
      work_middle_ = arena_.template take<T>(at_.has_middle ? rows * f_.shape.hidden : 0);
    }
  }

  Index work() const { return arena_.used(); }

  void run() {
    const Schedule& s = f_.schedule;
    for (Index wave = 0; wave < s.waves; wave = chunk_.end) {
      chunk_ = chunk_at(at_, s, wave);
      gather();
      wait();
      project_inputs();
      for (Index w = wave; w < chunk_.end; ++w)
        step<0>(s.begin[w] - chunk_.node, s.begin[w + 1] - s.begin[w]);
    }
  }

private:
  void wait() { team_.wait(team_.barrier); }

  void gather() {
    gates_ = f_.tape ? f_.tape + chunk_.node * at_.node() : work_gates_;
    middle_ =
        f_.tape ? f_.tape + f_.schedule.nodes * at_.node() + chunk_.node * f_.shape.hidden : work_middle_;
    const Share rows(team_, chunk_.rows);
    for (Index r = rows.begin; r < rows.end; ++r) {
      const Index node = chunk_.node + r;
      const Index row = f_.schedule.row[node], prev = f_.schedule.prev[node];
      const Index sequence = f_.schedule.sequence[node];
      x_[r] = row_of(f_.x, row);
      h_[r] = row_of(f_.y, row);
      h_prev_[r] = previous(f_.y, f_.first, prev);
      if constexpr (C::has_cell_state) {
        const Rows<const T> running{f_.running_c.base, f_.running_c.stride};
        c_prev_[r] = f_.c.base ? previous(f_.c, running, prev) : row_of(running, sequence);
        c_[r] = f_.c.base ? row_of(f_.c, row) : row_of(f_.running_c, sequence);
      }
      if constexpr (Layout<C, T>::has_middle) middle_rows_[r] = middle_ + r * f_.shape.hidden;
    }
  }

  /// Every slot starts from its bias; those of the input window have the input's product added.
  void project_inputs() {
    constexpr Window window = C::input;
    at_.hidden.for_each_run(mine_.panels.begin, mine_.panels.end, [&](Index p, Index end) {
      const T* weights = f_.packed + at_.input();
      auto product = product_of(window, p, end, 0, chunk_.rows, x_, f_.shape.input, weights);
      product.start = Start::bias;
      product.bias = f_.packed + at_.bias() + at_.gates(p, 1) + at_.window(window, p);
      product.bias_step = at_.row(p);
      multiply(product);
    });
    for (Index p = mine_.panels.begin; p < mine_.panels.end; ++p) fill_other_slots(p);
  }

  void fill_other_slots(Index p) {
    const Index begin = at_.window(C::input, p), end = begin + at_.columns(C::input, p);
    if (begin == 0 && end == at_.row(p)) return;
    const T* bias = f_.packed + at_.bias() + at_.gates(p, 1);
    T* gates = gates_ + at_.gates(p, chunk_.rows);
    for (Index r = 0; r < chunk_.rows; ++r, gates += at_.row(p)) {
      for (Index j = 0; j < begin; j += L) store(gates + j, load(bias + j));
      for (Index j = end; j < at_.row(p); j += L) store(gates + j, load(bias + j));
    }
  }

  /// One wave: `rows` nodes from row `first` of the chunk. Panels go in groups whose gates fit the nearest
  /// cache: first all products of a group, then the cell, whose long chains of operations then overlap.
  template <Index S>
  void step(Index first, Index rows) {
    const Index group = max(1, group_bytes / (rows * at_.row(0) * Index(sizeof(T))));
    const T* const* states = (S == 0 ? h_prev_ : middle_rows_) + first;
    for (Index g = mine_.panels.begin; g < mine_.panels.end; g += group) {
      const Index group_end = min(g + group, mine_.panels.end);
      at_.hidden.for_each_run(g, group_end, [&](Index p, Index end) {
        const T* weights = f_.packed + at_.recurrent(S);
        multiply(product_of(C::recurrent[S], p, end, first, rows, states, f_.shape.hidden, weights));
      });
      for (Index p = g; p < group_end; ++p) {
        T* gates = gates_ + at_.gates(p, chunk_.rows) + first * at_.row(p);
        for (Index r = 0; r < rows; ++r, gates += at_.row(p)) instant<S>(p, first + r, gates);
      }
    }
    wait(); // the next stage or wave reads whole rows
    if constexpr (S + 1 < stages) step<S + 1>(first, rows);
  }

  /// Rows times packed weights, added to a window of the gates of some panels of equal width.
  Product<T, Gathered<T>> product_of(Window window, Index p, Index end, Index first, Index rows,
                                     const T* const* a, Index columns, const T* weights) const {
    T* gates = gates_ + at_.gates(p, chunk_.rows) + first * at_.row(p) + at_.window(window, p);
    return {{a, columns},
            rows,
            weights + columns * at_.before(window, p),
            at_.columns(window, p) / L,
            end - p,
            columns * at_.columns(window, p),
            {gates, at_.row(p), nullptr, 0},
            chunk_.rows * at_.row(p),
            L};
  }

  template <Index S>
  RNNCORE_INLINE void instant(Index p, Index r, T* gates) {
    const Index width = at_.hidden.width(p);
    for (Index u = 0; u < width; ++u) {
      const Index v = at_.hidden.first(p) + u, column = v * L, valid = at_.hidden.valid(v);
      V s[C::slots];
      for (Index j = 0; j < C::slots; ++j) s[j] = load(gates + (j * width + u) * L);
      Instant<V> t;
      t.h_prev = load(h_prev_[r] + column, valid);
      if constexpr (C::has_cell_state) t.c_prev = load(c_prev_[r] + column, valid);
      C::forward(Stage<S>{}, s, t);
      if (f_.tape || S + 1 < stages)
        for (Index j = 0; j < C::slots; ++j) store(gates + (j * width + u) * L, s[j]);
      if constexpr (S + 1 < stages) {
        store(middle_ + r * f_.shape.hidden + column, t.middle, valid);
      } else {
        store(h_[r] + column, t.h, valid);
        if constexpr (C::has_cell_state) store(c_[r] + column, t.c, valid);
      }
    }
  }

  const Forward<T>& f_;
  const Layout<C, T> at_;
  const Team team_;
  const Columns<C, T> mine_;
  Arena arena_;
  Chunk chunk_{};
  const T **x_, **h_prev_, **c_prev_, **middle_rows_; // a pointer for each row of the chunk
  T **h_, **c_;
  T *gates_ = nullptr, *middle_ = nullptr;
  T *work_gates_ = nullptr, *work_middle_ = nullptr;
};

} // namespace rnncore::RNNCORE_LEVEL

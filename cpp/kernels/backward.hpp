// The engine backward: the chunks and waves of forward, last to first.
//
// Wave by wave the gates on the tape are overwritten by their gradients and one product carries them to
// the previous states. A finished chunk gives the gradients of inputs and weights in large products.
#pragma once

#include "cells/instant.hpp"
#include "pack.hpp"
#include "products.hpp"
#include "walk.hpp"

namespace rnncore::RNNCORE_LEVEL {

constexpr Index block_bytes = 128 * 1024;

template <class C, class T>
class BackwardPass {
public:
  using V = Vec<T>;
  static constexpr Index L = lanes<T>, stages = Layout<C, T>::stages;

  BackwardPass(const Backward<T>& pass, const Team& team)
      : b_(pass), at_(pass.shape), team_(team), mine_(at_, team), arena_(pass.work) {
    const Index rows = chunk_rows(at_, b_.schedule);
    x_ = arena_.template take<const T*>(rows);
    h_prev_ = arena_.template take<const T*>(rows);
    c_prev_ = arena_.template take<const T*>(rows);
    c_ = arena_.template take<const T*>(rows);
    dy_ = arena_.template take<const T*>(rows);
    dh_ = arena_.template take<T*>(rows);
    dc_ = arena_.template take<T*>(rows);
    dx_ = arena_.template take<T*>(rows);
    middle_ = arena_.template take<const T*>(at_.has_middle ? rows : 0);
    d_middle_ = arena_.template take<T>(at_.has_middle ? rows * b_.shape.hidden : 0);
  }

  Index work() const { return arena_.used(); }

  void run() {
    const Schedule& s = b_.schedule;
    for (Index i = 0; s.waves == 0 && i < at_.packed(); ++i) b_.gradients[i] = T(0);
    for (Index end = s.waves; end > 0; end = chunk_.wave) {
      chunk_ = chunk_at(at_, s, end - 1);
      wait(); // until nobody needs the last chunk's pointers
      gather();
      wait();
      for (Index w = chunk_.end; w-- > chunk_.wave;)
        step<stages - 1>(s.begin[w] - chunk_.node, s.begin[w + 1] - s.begin[w]);
      if (b_.dx.base) input_gradients();
      weight_gradients();
    }
  }

private:
  void wait() { team_.wait(team_.barrier); }

  void gather() {
    gates_ = b_.tape + chunk_.node * at_.node();
    const T* middle = b_.tape + b_.schedule.nodes * at_.node() + chunk_.node * b_.shape.hidden;
    const Share rows(team_, chunk_.rows);
    for (Index r = rows.begin; r < rows.end; ++r) {
      const Index node = chunk_.node + r;
      const Index row = b_.schedule.row[node], prev = b_.schedule.prev[node];
      const Index sequence = b_.schedule.sequence[node];
      x_[r] = row_of(b_.x, row);
      h_prev_[r] = previous(b_.y, b_.first, prev);
      dy_[r] = row_of(b_.dy, row);
      dx_[r] = row_of(b_.dx, row);
      dh_[r] = row_of(b_.dh, sequence);
      if constexpr (C::has_cell_state) {
        c_prev_[r] = previous(b_.c, b_.first_c, prev);
        c_[r] = row_of(b_.c, row);
        dc_[r] = row_of(b_.dc, sequence);
      }
      if constexpr (Layout<C, T>::has_middle) middle_[r] = middle + r * b_.shape.hidden;
    }
  }

  /// One wave: `rows` nodes from row `first` of the chunk.
  template <Index S>
  void step(Index first, Index rows) {
    for (Index p = mine_.panels.begin; p < mine_.panels.end; ++p) {
      T* gates = gates_ + at_.gates(p, chunk_.rows) + first * at_.row(p);
      for (Index r = 0; r < rows; ++r, gates += at_.row(p)) instant<S>(p, first + r, gates);
    }
    wait(); // the product reads the gradients of all gates
    const Target<T> target =
        S == 0 ? Target<T>{nullptr, 0, dh_ + first, 0}
               : Target<T>{d_middle_ + first * b_.shape.hidden, b_.shape.hidden, nullptr, 0};
    multiply_back(C::recurrent[S], first, rows, at_.states, mine_.states,
                  b_.packed_transposed + at_.recurrent_transposed(S), target,
                  S == 0 && C::direct ? Start::keep : Start::zero);
    if constexpr (S > 0) step<S - 1>(first, rows);
  }

  template <Index S>
  RNNCORE_INLINE void instant(Index p, Index r, T* gates) {
    const Index width = at_.hidden.width(p);
    for (Index u = 0; u < width; ++u) {
      const Index v = at_.hidden.first(p) + u, column = v * L, valid = at_.hidden.valid(v);
      V s[C::slots];
      for (Index j = 0; j < C::slots; ++j) s[j] = load(gates + (j * width + u) * L);
      Instant<V> t;
      Gradient<V> d;
      t.h_prev = load(h_prev_[r] + column, valid);
      d.h = load(dh_[r] + column, valid);
      if (S + 1 == stages && b_.dy.base) d.h = d.h + load(dy_[r] + column, valid);
      if constexpr (C::has_cell_state) {
        t.c_prev = load(c_prev_[r] + column, valid);
        t.c = load(c_[r] + column, valid);
        d.c = load(dc_[r] + column, valid);
      }
      if constexpr (S + 1 < stages) d.middle = load(d_middle_ + r * b_.shape.hidden + column, valid);
      C::backward(Stage<S>{}, s, t, d);
      // Of an earlier stage only its own window: the others' slots may still be read by other threads.
      constexpr Window changed = S + 1 == stages ? Window{0, C::slots, {}} : C::recurrent[S];
      for (Index j = changed.begin; j < changed.begin + changed.count; ++j)
        store(gates + (j * width + u) * L, s[j]);
      if constexpr (C::direct) store(dh_[r] + column, d.h, valid);
      if constexpr (C::has_cell_state) store(dc_[r] + column, d.c, valid);
    }
  }

  void input_gradients() {
    multiply_back(C::input, 0, chunk_.rows, at_.inputs, Share(team_, at_.inputs.count()),
                  b_.packed_transposed + at_.input_transposed(), {nullptr, 0, dx_, 0},
                  b_.add_dx ? Start::keep : Start::zero);
  }

  /// Gradients of a window of gates times transposed weights, to some panels of `outputs`. The weights of a
  /// panel are taken in blocks that stay in the core's own cache while all rows pass.
  void multiply_back(Window window, Index first, Index rows, const Panels<T>& outputs, Share panels,
                     const T* weights, const Target<T>& target, Start start) const {
    const Index block = max(1, block_bytes / (at_.columns(window, 0) * widest * L * Index(sizeof(T))));
    outputs.for_each_run(panels.begin, panels.end, [&](Index q, Index end) {
      const Index column = outputs.first(q) * L, width = outputs.width(q);
      Target<T> c = target;
      if (c.rows)
        c.offset = column;
      else
        c.base += column;
      for (Index p = 0; p < at_.hidden.count(); p += block) {
        const Index p_end = min(p + block, at_.hidden.count());
        multiply(
            Product<T, GateRows<T>>{{at_.hidden, window, C::slots, gates_, chunk_.rows, first, p, p_end},
                                    rows,
                                    weights + column * at_.all(window) + at_.before(window, p) * width * L,
                                    width,
                                    end - q,
                                    width * L * at_.all(window),
                                    c,
                                    width * L,
                                    outputs.valid(outputs.first(end) - 1),
                                    p == 0 ? start : Start::keep});
      }
    });
  }

  void weight_gradients() {
    for (Index p = mine_.panels.begin; p < mine_.panels.end; ++p) {
      outer_of(C::input, p, x_, b_.shape.input, at_.input());
      for (Index s = 0; s < stages; ++s)
        outer_of(C::recurrent[s], p, s == 0 ? h_prev_ : middle_, b_.shape.hidden, at_.recurrent(s));
      add_rows(gates_ + at_.gates(p, chunk_.rows), chunk_.rows, at_.row(p),
               b_.gradients + at_.bias() + at_.gates(p, 1), !last_chunk());
    }
  }

  /// The first one on the way back: nothing to add to yet.
  bool last_chunk() const { return chunk_.end == b_.schedule.waves; }

  void outer_of(Window w, Index p, const T* const* a, Index columns, Index matrix) {
    const Index width = at_.columns(w, p);
    outer<T>({a, chunk_.rows, gates_ + at_.gates(p, chunk_.rows) + at_.window(w, p), at_.row(p), width / L,
              L, b_.gradients + matrix + columns * at_.before(w, p), width, columns, !last_chunk()});
  }

  const Backward<T>& b_;
  const Layout<C, T> at_;
  const Team team_;
  const Columns<C, T> mine_;
  Arena arena_;
  Chunk chunk_{};
  const T **x_, **h_prev_, **c_prev_, **c_, **dy_, **middle_; // a pointer for each row of the chunk
  T **dh_, **dc_, **dx_;
  T *gates_ = nullptr, *d_middle_;
};

} // namespace rnncore::RNNCORE_LEVEL

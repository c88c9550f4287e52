// The engine forward: any cell over any schedule. The engine owns time; a cell owns one instant.
//
// For a chunk of waves the product with the inputs is one large product; wave by wave remain the products
// with the states and the cell's own arithmetic.
#pragma once

#include "pass.hpp"

namespace rnncore::RNNCORE_LEVEL {

constexpr Index group_bytes = 8 * 1024;

template <class T>
class ForwardPass : public Pass<T> {
  using Base = Pass<T>;
  using Base::L, Base::at_, Base::c_prev_, Base::chunk_, Base::h_, Base::mine_, Base::plan_, Base::rows_,
      Base::tape_, Base::take, Base::team_, Base::wait, Base::x_;

public:
  ForwardPass(const Recipe<T>& recipe, const Forward<T>& pass, const Team& team)
      : Base(recipe.plan, pass, team), f_(pass), instants_(recipe.forward[pass.choices != nullptr]) {
    take(y_, at_.projects() ? rows_ : 0);
    take(work_tape_, f_.tape ? 0 : rows_ * at_.tape());
  }

  void run() {
    const Schedule& s = f_.schedule;
    for (Index wave = f_.wave; wave < f_.end; wave = chunk_.end) {
      chunk_ = chunk_at(at_, s, wave);
      tape_ = f_.tape ? TapeView<T>{f_.tape, s.begin[f_.end] - s.begin[f_.wave], s.begin[f_.wave]}
                      : TapeView<T>{work_tape_, chunk_.rows, chunk_.node};
      gather();
      wait();
      at_level_ = -1;
      for (Index level = 0; level < f_.shape.depth; ++level) start_gates(level);
      for (Index w = wave; w < chunk_.end; ++w) {
        const Index first = s.begin[w] - chunk_.node, rows = s.begin[w + 1] - s.begin[w];
        if (this->masked()) feed(first, rows);
        for (Index level = 0; level < f_.shape.depth; ++level)
          for (Index stage = 0; stage < plan_.stages; ++stage) step(level, stage, first, rows);
        if (at_.projects()) project(first, rows);
      }
    }
  }

private:
  void gather() {
    const Share rows(team_, chunk_.rows);
    const Rows<const T> running{f_.running_c.base, f_.running_c.stride};
    for (Index r = rows.begin; r < rows.end; ++r) {
      const auto n = this->node(r);
      Base::gather(r, n);
      if (at_.projects()) y_[r] = row_of(f_.y, n.row);
      if (!plan_.has_cell_state) continue;
      c_prev_[r] = f_.c.base ? previous(f_.c, running, n.prev) : row_of(running, n.sequence);
      this->last_c()[r] = f_.c.base ? row_of(f_.c, n.row) : row_of(f_.running_c, n.sequence);
    }
  }

  /// What a transition's products and instants are given, once the rows of a chunk are gathered.
  struct Transition {
    Span<T> span;
    const T* input_weights; // null where there is no input
    const T* weights[2];    // of each stage
    const T* const* states[2];
  };

  void enter(Index level) {
    if (level == at_level_) return;
    at_level_ = level;
    now_.span = this->span_of(level);
    now_.input_weights = at_.input_columns(level) ? f_.packed + at_.input(level) : nullptr;
    for (Index stage = 0; stage < plan_.stages; ++stage) {
      now_.weights[stage] = f_.packed + at_.recurrent(level, stage);
      now_.states[stage] = stage == 0 ? this->before(level) : this->middle(level);
    }
  }

  /// Every slot starts from its bias; those of the input window have the input's product added.
  void start_gates(Index level) {
    enter(level);
    const Window window = level == 0 ? plan_.input : Window{};
    const Extent all{chunk_.rows, 0, chunk_.rows, mine_.panels};
    if (level == 0)
      at_.hidden.for_each_run(mine_.panels.begin, mine_.panels.end, [&](Index p, Index end) {
        auto product = product_of(window, p, end, all, x_, f_.shape.input, now_.input_weights);
        product.start = Start::bias;
        product.bias = f_.packed + at_.bias(level) + at_.gates(p, 1) + at_.window(window, p);
        product.bias_step = at_.row(p);
        multiply(product);
      });
    for (Index p = mine_.panels.begin; p < mine_.panels.end; ++p) fill_other_slots(level, p, window);
  }

  void fill_other_slots(Index level, Index p, const Window& window) {
    const Index begin = at_.window(window, p), end = begin + at_.columns(window, p);
    if (begin == 0 && end == at_.row(p)) return;
    const T* bias = f_.packed + at_.bias(level) + at_.gates(p, 1);
    T* to = now_.span.gates + at_.gates(p, chunk_.rows);
    for (Index r = 0; r < chunk_.rows; ++r, to += at_.row(p)) {
      for (Index j = 0; j < begin; j += L) store(to + j, load(bias + j));
      for (Index j = end; j < at_.row(p); j += L) store(to + j, load(bias + j));
    }
  }

  void feed(Index first, Index rows) {
    const auto [begin, end] = this->my_states();
    for (Index r = first; r < first + rows; ++r) Base::feed(r, begin, end);
    wait();
  }

  /// One stage of one wave: `rows` nodes from row `first` of the chunk. Panels go in groups whose gates fit
  /// the nearest cache: first all products of a group, then the cell, whose long chains of operations then
  /// overlap. A cell that normalises needs all of them at once.
  void step(Index level, Index stage, Index first, Index rows) {
    enter(level);
    if (rows != group_rows_) {
      group_rows_ = rows;
      group_ =
          plan_.norms ? at_.hidden.count() : max(1, group_bytes / (rows * at_.row(0) * Index(sizeof(T))));
    }
    Extent extent{chunk_.rows, first, rows, mine_.panels};
    for (Index g = mine_.panels.begin; g < mine_.panels.end; g += group_) {
      extent.panels.begin = g;
      extent.panels.end = min(g + group_, mine_.panels.end);
      products(stage, extent);
      instants_[stage](at_, now_.span, extent);
    }
    wait(); // the next stage or wave reads whole rows
  }

  void products(Index stage, const Extent& extent) {
    const Window& window = plan_.recurrent[stage];
    at_.hidden.for_each_run(extent.panels.begin, extent.panels.end, [&](Index p, Index end) {
      if (at_level_ > 0 && stage == 0 && now_.input_weights)
        multiply(product_of(plan_.input, p, end, extent, this->fed(), f_.shape.hidden, now_.input_weights));
      if (window.count)
        multiply(
            product_of(window, p, end, extent, now_.states[stage], f_.shape.output, now_.weights[stage]));
    });
  }

  /// Rows times packed weights, added to a window of the gates of some panels of equal width.
  Product<T, Gathered<T>> product_of(const Window& window, Index p, Index end, const Extent& extent,
                                     const T* const* a, Index columns, const T* weights) const {
    const Index row = at_.row(p), width = at_.columns(window, p), first = at_.hidden.first(p) * L;
    T* gates = now_.span.gates + plan_.slots * chunk_.rows * first + extent.first * row;
    return {{a + extent.first, columns},
            extent.rows,
            weights + columns * window.count * first,
            width / L,
            end - p,
            columns * width,
            {gates + at_.window(window, p), row, nullptr, 0},
            chunk_.rows * row,
            L};
  }

  void project(Index first, Index rows) {
    const Index H = f_.shape.hidden;
    at_.states.for_each_run(mine_.states.begin, mine_.states.end, [&](Index q, Index end) {
      const Index column = at_.states.first(q) * L, width = at_.states.width(q) * L;
      multiply(Product<T, Gathered<T>>{{h_ + first, H},
                                       rows,
                                       f_.packed + at_.projection() + H * column,
                                       at_.states.width(q),
                                       end - q,
                                       H * width,
                                       {nullptr, 0, y_ + first, column},
                                       width,
                                       at_.states.valid(at_.states.first(end) - 1),
                                       Start::zero});
    });
    wait();
  }

  const Forward<T>& f_;
  const Instants<T>* const instants_; // by stage
  Transition now_;                    // the one at hand,
  Index at_level_ = -1;               // and which it is
  Index group_ = 0, group_rows_ = -1; // panels of a group, for so many rows
  T** y_;                             // where projected states go
  T* work_tape_;
};

} // namespace rnncore::RNNCORE_LEVEL

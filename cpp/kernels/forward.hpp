// The engine forward: any cell over any schedule. The engine owns time; a cell owns one time step.
//
// For a chunk of waves the product with the inputs is one large product; wave by wave remain the products
// with the states and the cell's own arithmetic.
#pragma once

#include "chain_steps.hpp"
#include "pass.hpp"

namespace rnncore::RNNCORE_LEVEL {

constexpr Index group_bytes = 8 * 1024;

/// W: the type of the weights.
template <class T, class W>
class ForwardPass : public Pass<T> {
  using Base = Pass<T>;
  using Own = Arithmetic<T, W>;
  using Factors = typename Own::Rows;
  using Base::L, Base::at_, Base::c_prev_, Base::chunk_, Base::h_, Base::mine_, Base::plan_, Base::rows_,
      Base::tape_, Base::take, Base::team_, Base::wait, Base::x_;

public:
  ForwardPass(const Recipe<T>& recipe, const Forward<T>& pass, const Team& team)
      : Base(recipe, pass, team), f_(pass), steps_(recipe.steps[pass.options != nullptr]->forward),
        leaf_(recipe.leaf[pass.options != nullptr]), chain_(chain_of(recipe)) {
    take(work_tape_, f_.tape ? 0 : rows_ * at_.tape());
    for (Index i = 0; i < terms() + 2; ++i) take(space_[i], Factors::bytes(rows_, columns_of(i)));
  }

  void run() {
    this->clear();
    for (Index wave = f_.wave; wave < f_.end; wave = chunk_.end) {
      open(wave);
      walk();
    }
  }

  /// Makes the chunk of this wave the one at hand.
  void open(Index wave) {
    const Schedule& s = f_.schedule;
    chunk_ = chunk_at(at_, s, wave);
    tape_ = f_.tape ? TapeView<T>{f_.tape, s.begin[f_.end] - s.begin[f_.wave], s.begin[f_.wave]}
                    : TapeView<T>{work_tape_, chunk_.rows, chunk_.node};
    at_level_ = -1;
  }

  /// Goes through the chunk at hand; again, if the call's arrays are others meanwhile.
  void walk() {
    const Schedule& s = f_.schedule;
    gather();
    wait();
    for (Index level = 0; level < f_.shape.depth; ++level) start_gates(level);
    if (chain_ && chunk_.rows == chunk_.end - chunk_.wave)
      return chain_(at_, span_, terms_[0].weights, chunk_.rows);
    for (Index w = chunk_.wave; w < chunk_.end; ++w) {
      const Index first = s.begin[w] - chunk_.node, rows = s.begin[w + 1] - s.begin[w];
      if (this->makes_inputs()) make_inputs(first, rows);
      for (Index level = 0; level < f_.shape.depth && s.begin[w] >= s.given; ++level)
        for (Index phase = 0; phase < plan_.phases; ++phase)
          step(level, phase, first, rows, continues(w, phase));
      if (at_.emits()) emit(first, rows);
    }
  }

private:
  /// What waves of one row go by where hidden units are few, so that what lies between products counts, and
  /// there is nothing but a product and a time step. Null: they go as others do.
  ChainFunction<T> chain_of(const Recipe<T>& recipe) const {
    if constexpr (chain_kind<T, W> < 0)
      return nullptr;
    else
      return !f_.options && f_.shape.depth == 1 && f_.shape.arity == 1 && !this->forest() &&
                     !this->makes_inputs() && !at_.emits() && team_.size == 1 &&
                     f_.shape.hidden <= chain_columns
                 ? recipe.chain[chain_kind<T, W>]
                 : nullptr;
  }

  /// Whether a phase's products have something to read: leaves continue nothing, but what a user's cell
  /// makes of that for its second phase need not be zero.
  bool continues(Index wave, Index phase) const {
    return !this->forest() || f_.schedule.begin[wave] >= f_.schedule.leaves || (phase > 0 && plan_.own);
  }

  void gather() {
    const Share rows(team_, chunk_.rows);
    const Rows<const T> running{f_.running_c.base, f_.running_c.stride};
    for (Index r = rows.begin; r < rows.end; ++r) {
      const auto n = this->node(r);
      Base::gather(r, n);
      if (!plan_.has_cell_state) continue;
      this->for_each_prev(r, [&](Index at, Index prev) {
        c_prev_[at] = prev == no_predecessor ? this->anew_c()
                      : f_.c.base            ? previous(f_.c, running, prev)
                                             : row_of(running, n.sequence);
      });
      this->last_c()[r] = f_.c.base ? row_of(f_.c, n.row) : row_of(f_.running_c, n.sequence);
    }
  }

  /// One of the products that a phase adds up.
  struct Term {
    Index phase;
    const Window* window;
    Factors factors;
    const W* weights;
  };

  /// The most terms of a transition; after them come the product with x, and the one that is emitted.
  Index terms() const { return 1 + 2 * at_.matrices(); }
  /// Columns of what is multiplied in each of them.
  Index columns_of(Index i) const {
    return i == 0         ? f_.shape.hidden
           : i < terms()  ? at_.recurrent_columns()
           : i == terms() ? f_.shape.input
           : at_.emits()  ? f_.shape.hidden
                          : 0;
  }
  /// Rows of the chunk as products want them, once they are `prepared`.
  Factors factors_of(const T* const* rows, Index i) const {
    return Factors::of(rows, columns_of(i), space_[i], rows_);
  }
  void prepare(const Factors& factors, Share rows) const {
    if constexpr (Factors::prepares) {
      const Share mine = rows.part(team_);
      for (Index r = mine.begin; r < mine.end; ++r) factors.prepare(r);
    }
  }
  void wait_for_prepared() {
    if constexpr (Factors::prepares) wait();
  }
  const W* weights() const { return static_cast<const W*>(f_.packed.weights); }

  /// Makes a transition the one at hand, once the rows of a chunk are gathered.
  void enter(Index level) {
    if (level == at_level_) return;
    at_level_ = level;
    span_ = this->span_of(level);
    count_ = 0;
    if (level > 0 && at_.input_columns(level))
      terms_[count_++] = {0, plan_.input, factors_of(this->recurrent_inputs(), 0),
                          weights() + offsets_.input(level)};
    for (Index k = 0; k < at_.matrices(); ++k)
      for (Index i = 0; i < 2; ++i) {
        const Recurrence& product = plan_.recurrent[i];
        if (!product.window.count) continue;
        const T* const* rows = product.phase > 0 ? this->middle(level) : this->before(level) + k * rows_;
        terms_[count_++] = {product.phase, &product.window, factors_of(rows, 1 + 2 * k + i),
                            weights() + offsets_.recurrent(level, k, i)};
      }
  }

  /// Every slot starts from its bias; those of the input windows have the input's product added.
  void start_gates(Index level) {
    enter(level);
    Window filled = plan_.input[0];
    filled.count = level == 0 ? plan_.input[0].count + plan_.input[1].count : 0; // one after the other
    const Index readers = this->readers();
    const Factors inputs = factors_of(x_, terms());
    if (level == 0 && readers) {
      prepare(inputs, Share(readers));
      wait_for_prepared();
    }
    for (Index i = 0; level == 0 && readers && i < 2; ++i) {
      const Share rows = this->readers(i);
      const Extent all{chunk_.rows, rows.begin, rows.end - rows.begin, mine_.panels};
      const Term term{0, plan_.input + i, inputs, weights() + offsets_.input(level, i)};
      at_.hidden.for_each_run(mine_.panels.begin, mine_.panels.end, [&](Index p, Index end) {
        auto product = product_of(term, p, end, all);
        product.start = Start::bias;
        product.bias = f_.packed.numbers + at_.bias(level) + at_.gates(p, 1) + at_.window(*term.window, p);
        product.bias_step = at_.row(p);
        if (term.window->count && all.rows) multiply(product);
      });
    }
    for (Index p = mine_.panels.begin; p < mine_.panels.end; ++p) {
      fill_other_slots(level, p, filled, 0, readers);
      fill_other_slots(level, p, {}, readers, chunk_.rows);
    }
  }

  void fill_other_slots(Index level, Index p, const Window& window, Index first, Index rows_end) {
    const Index begin = at_.window(window, p), end = begin + at_.columns(window, p);
    if (begin == 0 && end == at_.row(p)) return;
    const T* bias = f_.packed.numbers + at_.bias(level) + at_.gates(p, 1);
    T* to = span_.gates + at_.gates(p, chunk_.rows) + first * at_.row(p);
    for (Index r = first; r < rows_end; ++r, to += at_.row(p)) {
      for (Index j = 0; j < begin; j += L) store(to + j, load(bias + j));
      for (Index j = end; j < at_.row(p); j += L) store(to + j, load(bias + j));
    }
  }

  void make_inputs(Index first, Index rows) {
    const Share mine = Share::of(first, first + rows).part(team_);
    for (Index r = mine.begin; r < mine.end; ++r) Base::make_input(r);
    wait();
  }

  /// One phase of one wave: `rows` nodes from row `first` of the chunk. Panels go in groups whose gates fit
  /// the nearest cache: first all products of a group, then the cell, whose long chains of operations then
  /// overlap. A cell that normalises needs all of them at once.
  void step(Index level, Index phase, Index first, Index rows, bool continues) {
    enter(level);
    if (rows != group_rows_) {
      group_rows_ = rows;
      group_ =
          plan_.norms ? at_.hidden.count() : max(1, group_bytes / (rows * at_.row(0) * Index(sizeof(T))));
    }
    Extent extent{chunk_.rows, first, rows, mine_.panels};
    if (continues && plan_.multiplies(phase)) {
      for (Index i = 0; i < count_; ++i)
        if (terms_[i].phase == phase) prepare(terms_[i].factors, Share::of(first, first + rows));
      wait_for_prepared();
    }
    for (Index g = mine_.panels.begin; g < mine_.panels.end; g += group_) {
      extent.panels.begin = g;
      extent.panels.end = min(g + group_, mine_.panels.end);
      if (continues) products(phase, extent);
      (continues || !leaf_ ? steps_[phase] : leaf_->forward[0])(at_, span_, extent);
    }
    wait(); // the next phase or wave reads whole rows
  }

  void products(Index phase, const Extent& extent) {
    at_.hidden.for_each_run(extent.panels.begin, extent.panels.end, [&](Index p, Index end) {
      for (const Term* term = terms_; term < terms_ + count_; ++term)
        if (term->phase == phase) multiply(product_of(*term, p, end, extent));
    });
  }

  /// Rows times packed weights, added to a window of the gates of some panels of equal width.
  Product<T, Factors, W> product_of(const Term& term, Index p, Index end, const Extent& extent) const {
    const Window& window = *term.window;
    const Index row = at_.row(p), width = at_.columns(window, p), first = at_.hidden.first(p) * L;
    T* gates = span_.gates + plan_.slots * chunk_.rows * first + extent.first * row;
    const Index depth = Own::depth(term.factors.columns);
    return {term.factors.from(extent.first),
            extent.rows,
            term.weights + depth * window.count * first,
            width / L,
            end - p,
            window.count * at_.hidden.vectors.n,
            depth * width,
            {gates + at_.window(window, p), row, nullptr, 0},
            chunk_.rows * row,
            L};
  }

  /// h of a cell that projects, or what nodes offer to those that continue them.
  void emit(Index first, Index rows) {
    const Index H = f_.shape.hidden, depth = Own::depth(H);
    const Factors states = factors_of(h_, terms() + 1);
    prepare(states, Share::of(first, first + rows));
    wait_for_prepared();
    at_.states.for_each_run(mine_.states.begin, mine_.states.end, [&](Index q, Index end) {
      const Index column = at_.states.first(q) * L, width = at_.states.width(q) * L;
      multiply(Product<T, Factors, W>{states.from(first),
                                      rows,
                                      weights() + offsets_.emission() + depth * column,
                                      at_.states.width(q),
                                      end - q,
                                      at_.states.vectors.n,
                                      depth * width,
                                      {nullptr, 0, this->emitted_ + first, column},
                                      width,
                                      at_.states.valid(at_.states.first(end) - 1),
                                      Start::zero});
    });
    wait();
    if (!plan_.normalises_offer) return;
    const Share mine = Share::of(first, first + rows).part(team_);
    for (Index r = mine.begin; r < mine.end; ++r)
      this->scales(0, r)[plan_.norms] = normalise(this->emitted_[r], H);
    wait();
  }

  const Forward<T>& f_;
  const OffsetsOf<T, W> offsets_{at_};
  const StepFunction<T>* const steps_; // by phase
  const Steps<T>* const leaf_;         // or null: the same
  const ChainFunction<T> chain_;       // or null
  Index at_level_ = -1;                // the transition at hand,
  Span<T> span_;                       // what its time steps are given,
  Term terms_[2 * most_arity + 1];     // and its products
  Index count_ = 0;
  Index group_ = 0, group_rows_ = -1; // panels of a group, for so many rows
  T* work_tape_;
  char* space_[2 * most_arity + 3]; // for rows as products want them
};

} // namespace rnncore::RNNCORE_LEVEL

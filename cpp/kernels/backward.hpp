// The engine backward: the chunks and waves of forward, last to first.
//
// Wave by wave the gates on the tape are overwritten by their gradients and one product carries them to
// the previous states. A finished chunk gives the gradients of inputs and weights in large products.
#pragma once

#include "pack.hpp"
#include "pass.hpp"

namespace rnncore::RNNCORE_LEVEL {

// What makes copying tiles worth while: vectors of gates, and bytes of rows that no near cache would keep.
constexpr Index least_vectors = 8, least_bytes = 64 * 1024;

template <class T>
class BackwardPass : public Pass<T> {
  using Base = Pass<T>;
  using Base::L, Base::at_, Base::c_prev_, Base::chunk_, Base::gates, Base::h_, Base::masked, Base::mine_,
      Base::plan_, Base::rows_, Base::tape_, Base::take, Base::team_, Base::wait, Base::x_;

  static constexpr Index tiles_numbers = 256 * 1024 / Index(sizeof(T)); // of a block of copied tiles

  /// Columns of gates whose weights to a panel make 128 KB.
  static constexpr Index block_columns = 128 * 1024 / (widest * L * Index(sizeof(T)));

public:
  BackwardPass(const Recipe<T>& recipe, const Backward<T>& pass, const Team& team)
      : Base(recipe, pass, team), b_(pass), steps_(recipe.steps[pass.options != nullptr]->backward),
        leaf_(recipe.leaf[pass.options != nullptr]) {
    const Index H = b_.shape.hidden, P = b_.shape.output, emitted = at_.emits() ? rows_ : 0;
    const bool apart = masked() || this->forest(); // gradients of recurrent inputs from those of h
    take(dy_, rows_);
    take(dh_, rows_);
    take(dc_, rows_);
    take(dx_, rows_);
    take(tiles_, copies(plan_.slots, rows_, most_columns()) ? tiles_size() : 0);
    take(d_middle_, at_.has_middle() ? rows_ * H : 0);
    take(dc_prev_, this->edges_);
    take(d_prev_, this->edges_);
    take(d_offer_prev_, this->offers() ? this->edges_ : 0);
    take(d_recurrent_, apart ? rows_ * at_.recurrent_columns() : 0);
    take(trash_, this->forest() ? this->most_state() : 0);
    take(d_scalars_, scalars() ? rows_ : 0);
    take(d_scalar_sums_, rows_ * scalars() * at_.hidden.vectors.n);
    take(d_emitted_rows_, emitted);
    take(d_emitted_, emitted * P);
    take(d_unprojected_rows_, at_.projects() ? rows_ : 0);
    take(d_unprojected_, at_.projects() ? rows_ * H : 0);
  }

  void run() {
    const Schedule& s = b_.schedule;
    this->clear();
    if (first_call()) start_sums();
    tape_ = {b_.tape, s.begin[b_.end] - s.begin[b_.wave], s.begin[b_.wave]};
    for (Index end = b_.end; end > b_.wave; end = chunk_.wave) {
      chunk_ = chunk_at(at_, s, end - 1);
      wait(); // until nobody needs the last chunk's pointers
      gather();
      wait();
      at_level_ = -1;
      for (Index w = chunk_.end; w-- > chunk_.wave;)
        wave(s.begin[w] - chunk_.node, s.begin[w + 1] - s.begin[w]);
      wait(); // until all gates are gradients
      if (scalars()) scalar_gradients();
      if (b_.dx.base && this->readers()) input_gradients();
      if (b_.wants_gradients) weight_gradients();
    }
  }

private:
  /// Whether tiles are copied for so many slots of gates.
  bool copies(Index slots, Index rows, Index columns) const {
    return slots * at_.hidden.vectors.n >= least_vectors && rows * columns * Index(sizeof(T)) > least_bytes;
  }
  /// The most columns of what weights are multiplied by.
  Index most_columns() const { return max(b_.shape.input, at_.recurrent_columns()); }
  /// Room for a block of tiles of the rows of a chunk, one tile at least.
  Index tiles_size() const {
    return max(CopiedTiles<T>::step(rows_, min(tallest, most_columns())), tiles_numbers);
  }

  /// Of several calls that go back over a schedule piece by piece, the first.
  bool first_call() const { return b_.end == b_.schedule.waves; }
  /// The first chunk of backward: its sums have nothing to add to yet.
  bool first_chunk() const { return chunk_.end == b_.schedule.waves; }

  /// The sums that are added to time step by time step start from zero; all do where there is nothing to
  /// sum.
  void start_sums() {
    const bool all = b_.schedule.waves == 0;
    for (Index i = 0; all && i < at_.numbers() + sums_.all(); ++i) b_.gradients[i] = T(0);
    for (Index level = 0; level < b_.shape.depth; ++level)
      for (Index u = 0; u < plan_.units; ++u)
        for (Index p = mine_.panels.begin; p < mine_.panels.end; ++p) {
          T* sums = b_.gradients + at_.unit(level) + u * at_.hidden.padded() + at_.hidden.first(p) * L;
          for (Index j = 0; j < at_.hidden.width(p); ++j) store(sums + j * L, Vec<T>(T(0)));
        }
  }

  void gather() {
    const Share rows(team_, chunk_.rows);
    for (Index r = rows.begin; r < rows.end; ++r) {
      const auto n = this->node(r);
      Base::gather(r, n);
      dy_[r] = row_of(b_.dy, n.row);
      dx_[r] = row_of(b_.dx, b_.schedule.x_row[n.node]);
      if (scalars()) clear_scalars(r);
      dh_[r] = row_of(b_.dh, n.sequence);
      if (plan_.has_cell_state) {
        this->last_c()[r] = row_of(b_.c, n.row);
        dc_[r] = row_of(b_.dc, n.sequence);
      }
      this->for_each_prev(r, [&](Index at, Index prev) { gather_prev(at, prev, n.sequence); });
      if (this->makes_inputs()) this->make_input(r);
      if (at_.emits()) d_emitted_rows_[r] = d_emitted_ + r * b_.shape.output;
      if (at_.projects()) d_unprojected_rows_[r] = d_unprojected_ + r * b_.shape.hidden;
    }
  }

  /// Where the state before lies, and its gradient goes: in a chain to the one place that it has for all
  /// of its nodes.
  void gather_prev(Index at, Index prev, Index sequence) {
    const bool anew = prev == no_predecessor, none = anew && this->forest();
    const Index owner = this->forest() ? prev : sequence;
    d_prev_[at] = none ? trash_ : row_of(b_.dh, owner);
    if (this->offers()) d_offer_prev_[at] = row_of(b_.d_offer, owner);
    if (!plan_.has_cell_state) return;
    c_prev_[at] = anew ? this->anew_c() : previous(b_.c, b_.first_c, prev);
    dc_prev_[at] = none ? trash_ : row_of(b_.dc, owner);
  }

  /// Scalars of x whose gradients are wanted.
  Index scalars() const { return b_.dx.base ? b_.shape.scalars : 0; }
  void clear_scalars(Index r) {
    const Index size = scalars() * at_.hidden.vectors.n;
    d_scalars_[r] = d_scalar_sums_ + r * size;
    fill(d_scalars_[r], size, T(0));
  }
  /// Each the sum over all hidden units, whichever threads they were shared between.
  void scalar_gradients() {
    const Share rows(team_, chunk_.rows);
    for (Index r = rows.begin; r < rows.end; ++r)
      for (Index e = 0; e < scalars(); ++e) {
        const T* from = d_scalars_[r] + e * at_.hidden.vectors.n;
        T sum = from[0];
        for (Index v = 1; v < at_.hidden.vectors.n; ++v) sum += from[v];
        T& to = dx_[r][b_.shape.input + e];
        to = b_.add_dx ? to + sum : sum;
      }
  }

  /// One wave: `rows` nodes from row `first` of the chunk.
  void wave(Index first, Index rows) {
    if (at_.emits()) unemit(first, rows);
    if (chunk_.node + first < b_.schedule.given) return clear_gates(first, rows);
    for (Index level = b_.shape.depth; level-- > 0;)
      for (Index phase = plan_.phases; phase-- > 0;) step(level, phase, first, rows);
    if (b_.schedule.restarts) restart(first, rows);
  }

  /// Where sequences start anew, the gradient of the state before goes to what they started from, and what
  /// stands ahead of that has none of it.
  void restart(Index first, Index rows) {
    const auto move = [](T* from, T* to, Index begin, Index end) {
      if (to) add_to(to + begin, from + begin, end - begin);
      for (Index j = begin; j < end; ++j) from[j] = T(0);
    };
    const auto states = this->my_states();
    const Index begin = at_.units.columns_before(mine_.units.begin);
    const Index end = at_.units.columns_before(mine_.units.end);
    for (Index r = first; r < first + rows; ++r) {
      const auto n = this->node(r);
      if (b_.schedule.prev[n.node] != no_predecessor) continue;
      move(dh_[r], row_of(b_.d_anew_h, n.sequence), states.begin, states.end);
      for (Index c = 0; c < at_.cell_columns(); c += b_.shape.hidden)
        move(dc_[r], row_of(b_.d_anew_c, n.sequence), c + begin, c + end);
    }
  }

  /// A product that carries the gradients of gates back to a state.
  struct Term {
    Index phase, matrix;
    const Window* window;
    T* gates;
    const T* weights;
  };

  /// Makes a transition the one at hand, once the rows of a chunk are gathered.
  void enter(Index level) {
    if (level == at_level_) return;
    at_level_ = level;
    span_ = span_of(level);
    count_ = 0;
    for_each_recurrence(at_, [&](const Window& window, Index k, Index i, Index) {
      terms_[count_++] = {plan_.recurrent[i].phase, k, &window, span_.gates,
                          transposed() + at_.recurrent_transposed(level, k, i)};
    });
    const Index last = b_.shape.depth - 1; // which sees h(t-1), too
    if (level == 0 && b_.shape.shortcut)
      terms_[count_++] = {0, 0, plan_.input, gates(last), transposed() + at_.input_transposed(last)};
  }

  void step(Index level, Index phase, Index first, Index rows) {
    enter(level);
    const bool leaves = this->forest() && first < this->among(b_.schedule.leaves);
    span_.adds = this->forest() && !leaves;
    (leaves && leaf_ ? leaf_->backward[0] : steps_[phase])(at_, span_,
                                                           {chunk_.rows, first, rows, mine_.panels});
    if (!plan_.multiplies(phase)) return;
    wait(); // the products read the gradients of all gates
    if (phase > 0) {
      const Target<T> middle{d_middle_ + first * b_.shape.hidden, b_.shape.hidden, nullptr, 0};
      products_back(phase, 0, first, rows, middle, Start::zero);
    } else if (this->forest()) {
      if (!leaves) scatter(first, rows);
    } else if (level == 0 && masked()) {
      products_back(phase, 0, first, rows, recurrent_target(first), Start::zero);
      unmask(first, rows);
    } else {
      products_back(phase, 0, first, rows, {nullptr, 0, dh_ + first, 0},
                    direct() ? Start::keep : Start::zero);
    }
  }

  T* d_recurrent(Index row) const { return d_recurrent_ + row * at_.recurrent_columns(); }
  Target<T> recurrent_target(Index first) const {
    return {d_recurrent(first), at_.recurrent_columns(), nullptr, 0};
  }

  /// Gradients of the gates of a phase to the input of one of the recurrent matrices.
  void products_back(Index phase, Index k, Index first, Index rows, const Target<T>& target, Start start) {
    for (const Term* term = terms_; term < terms_ + count_; ++term) {
      if (term->phase != phase || term->matrix != k) continue;
      multiply_back(*term, first, rows, at_.recurrent_inputs,
                    at_.pairs() ? Share(team_, at_.recurrent_inputs.count()) : mine_.states, target, start);
      start = Start::keep;
    }
  }

  /// The same added to wherever the predecessors are: several nodes may continue one.
  void scatter(Index first, Index rows) {
    const auto states = this->my_states();
    const Index begin = states.begin, end = states.end; // Clang before 16 captures no bindings
    for (Index k = 0; k < at_.matrices(); ++k) {
      products_back(0, k, first, rows, recurrent_target(first), Start::zero);
      if (at_.pairs()) wait(); // each column comes from all of them
      for (Index r = first; r < first + rows; ++r) {
        T* d = d_recurrent(r);
        if (masked()) mask_to(d + begin, this->state_mask(r) + begin, d + begin, end - begin);
        if (at_.pairs())
          unpair_to(r, begin, end);
        else if (plan_.recurrent_input == RecurrentInput::each)
          add_to(d_prev_[k * rows_ + r] + begin, d + begin, end - begin);
        else
          this->for_each_edge(r, [&](Index at) { add_to(d_prev_[at] + begin, d + begin, end - begin); });
      }
    }
  }

  /// Some columns of the gradients of each predecessor.
  void unpair_to(Index r, Index begin, Index end) const {
    const Index P = b_.shape.output, all = b_.shape.arity * P;
    for (Index k = 0; k < b_.shape.arity; ++k)
      unpair(this->recurrent_inputs()[r], d_recurrent(r), all, k * P + begin, k * P + end,
             d_prev_[k * rows_ + r] + begin);
  }

  /// Given states have no gates to learn from.
  void clear_gates(Index first, Index rows) {
    for (Index p = mine_.panels.begin; p < mine_.panels.end; ++p) {
      T* to = gates(0) + at_.gates(p, chunk_.rows) + first * at_.row(p);
      for (Index j = 0; j < rows * at_.row(p); j += L) store(to + j, Vec<T>(T(0)));
    }
  }

  /// Whether the gradient of the old h has a part that went through no product.
  bool direct() const { return plan_.direct || b_.masks.keep_h.base; }

  /// dh (+)= mask d(mask h)
  void unmask(Index first, Index rows) {
    const auto [begin, end] = this->my_states();
    for (Index r = first; r < first + rows; ++r)
      for (Index j = begin; j < end; ++j) {
        const T d = d_recurrent_[r * b_.shape.output + j] * this->state_mask(r)[j];
        dh_[r][j] = direct() ? dh_[r][j] + d : d;
      }
  }

  Span<T> span_of(Index level) const {
    Span<T> span = Base::span_of(level);
    if (at_.last(level) && b_.dy.base && !at_.projects()) span.dy = dy_;
    span.dh = at_.projects() ? d_unprojected_rows_ : dh_;
    span.direct = d_prev_;
    span.dc = dc_;
    span.dc_prev = dc_prev_;
    span.d_offer = d_offer_prev_;
    span.d_middle = {d_middle_, b_.shape.hidden};
    span.d_units = b_.gradients + at_.unit(level);
    if (b_.dx.base) span.dx = dx_;
    if (scalars()) span.d_scalars = d_scalars_;
    span.adds_x = b_.add_dx || !at_.last(level);
    return span;
  }

  /// The gradient of what was emitted, and through the product that made it that of what the time steps
  /// computed: h before its projection, or h itself.
  void unemit(Index first, Index rows) {
    const Index P = b_.shape.output, H = b_.shape.hidden;
    const auto [begin, end] = this->my_states();
    for (Index r = first; r < first + rows; ++r) {
      const T* from = at_.projects() ? dh_[r] : row_of(b_.d_offer, this->node(r).row);
      for (Index j = begin; j < end; ++j)
        d_emitted_[r * P + j] = from[j] + (at_.projects() && b_.dy.base ? dy_[r][j] : T(0));
    }
    const Target<T> made = at_.projects() ? Target<T>{d_unprojected_ + first * H, H, nullptr, 0}
                                          : Target<T>{nullptr, 0, dh_ + first, 0};
    wait();
    if (plan_.normalises_offer) unnormalise_offers(Share::of(first, first + rows).part(team_));
    at_.units.for_each_run(mine_.units.begin, mine_.units.end, [&](Index q, Index run_end) {
      const Index column = at_.units.first(q) * L, width = at_.units.width(q) * L;
      multiply(Product<T, Gathered<T>>{{d_emitted_rows_ + first, P},
                                       rows,
                                       transposed() + at_.emission_transposed() + P * column,
                                       at_.units.width(q),
                                       run_end - q,
                                       at_.units.vectors.n,
                                       P * width,
                                       made.from_column(column),
                                       width,
                                       at_.units.valid(at_.units.first(run_end) - 1),
                                       at_.projects() ? Start::zero : Start::keep});
    });
  }

  void unnormalise_offers(Share rows) {
    for (Index r = rows.begin; r < rows.end; ++r)
      unnormalise(d_emitted_rows_[r], this->emitted_[r], b_.shape.hidden, this->scales(0, r)[plan_.norms]);
    wait();
  }

  void input_gradients() {
    Start start = b_.add_dx ? Start::keep : Start::zero;
    for_each_input(at_, 0, [&](const Window& window, Index i) {
      const Term term{0, 0, &window, gates(0), transposed() + at_.input_transposed(0, i)};
      const Share rows = this->readers(i);
      if (rows.begin < rows.end)
        multiply_back(term, rows.begin, rows.end - rows.begin, at_.inputs, Share(team_, at_.inputs.count()),
                      {nullptr, 0, dx_ + rows.begin, 0}, start);
      start = Start::keep;
    });
  }

  /// Gradients of a window of gates times transposed weights, to some panels of `outputs`. The weights of a
  /// panel are taken in blocks that stay in the core's own cache while all rows pass.
  void multiply_back(const Term& term, Index first, Index rows, const Panels<T>& outputs, Share panels,
                     const Target<T>& target, Start start) const {
    const Window& window = *term.window;
    const Index all = at_.all(window), block = all <= block_columns ? at_.hidden.count() : block_of(window);
    outputs.for_each_run(panels.begin, panels.end, [&](Index q, Index end) {
      const Index column = outputs.first(q) * L, width = outputs.width(q);
      const Target<T> c = target.from_column(column);
      for (Index p = 0; p < at_.hidden.count(); p += block) {
        const Index p_end = min(p + block, at_.hidden.count());
        const GateRows<T> from{at_.hidden, window, plan_.slots, term.gates, chunk_.rows, first, p, p_end};
        multiply(Product<T, SegmentedRows<T>>{
            SegmentedRows<T>::of(from), rows,
            term.weights + column * all + at_.before(window, p) * width * L, width, end - q,
            outputs.vectors.n, width * L * all, c, width * L, outputs.valid(outputs.first(end) - 1),
            p == 0 ? start : Start::keep});
      }
    });
  }

  /// Panels of gates whose weights make a block.
  Index block_of(const Window& window) const { return max(1, block_columns / at_.columns(window, 0)); }

  void weight_gradients() {
    const Share all(chunk_.rows);
    const Share followers = Share::of(this->among(b_.schedule.leaves), chunk_.rows);
    for (Index level = 0; level < b_.shape.depth; ++level) {
      for_each_input(at_, level, [&](const Window& window, Index i) {
        outer_of(level, window, level == 0 ? x_ : this->recurrent_inputs(),
                 level == 0 ? this->readers(i) : all, at_.input_columns(level), sums_.input(level, i));
      });
      for_each_recurrence(at_, [&](const Window& window, Index k, Index i, Index) {
        const T* const* rows =
            plan_.recurrent[i].phase > 0 ? this->middle(level) : this->before(level) + k * rows_;
        outer_of(level, window, rows, plan_.recurrent[i].phase > 0 && plan_.own ? all : followers,
                 at_.recurrent_columns(), sums_.recurrent(level, k, i));
      });
      bias_gradient(level);
    }
    if (at_.emits()) emission_gradient();
  }

  /// What leaves skip is theirs neither.
  void bias_gradient(Index level) {
    const Index first = plan_.leaves_skip ? this->among(b_.schedule.leaves) : 0;
    for (Index p = mine_.panels.begin; p < mine_.panels.end; ++p) {
      const Index row = at_.row(p), all = first ? at_.columns(plan_.input[0], p) : row;
      const T* from = gates(level) + at_.gates(p, chunk_.rows);
      T* to = b_.gradients + at_.bias(level) + at_.gates(p, 1);
      add_rows(from, chunk_.rows, row, all, to, !first_chunk());
      if (first)
        add_rows(from + first * row + all, chunk_.rows - first, row, row - all, to + all, !first_chunk());
    }
  }

  /// Rows are copied tile by tile where many panels read them, in blocks that stay in the core's own cache.
  void outer_of(Index level, const Window& w, const T* const* a, Share rows, Index columns, Index matrix) {
    const Index count = rows.end - rows.begin;
    if (count == 0 && !first_chunk()) return;
    a += rows.begin;
    const EqualParts tiles(columns, tile_rows(int(at_.columns(w, 0) / L)));
    if (!copies(w.count, count, columns)) {
      outer_panels(level, w, {a, tiles}, Share(tiles.count), rows, columns, matrix);
      return;
    }
    const Index block = max(1, tiles_numbers / CopiedTiles<T>::step(count, tiles.size(0)));
    for (Index begin = 0; begin < tiles.count; begin += block) {
      const Share all = Share::of(begin, min(begin + block, tiles.count));
      const CopiedTiles<T> copied{tiles_, count, begin, tiles};
      copied.copy(a, all.part(team_));
      wait();
      outer_panels(level, w, SourceTiles<T>::of(copied), all, rows, columns, matrix);
      wait();
    }
  }

  void outer_panels(Index level, const Window& w, const SourceTiles<T>& a, Share tiles, Share rows,
                    Index columns, Index matrix) {
    for (Index p = mine_.panels.begin; p < mine_.panels.end; ++p) {
      const Index width = at_.columns(w, p), row = at_.row(p);
      const T* b = gates(level) + at_.gates(p, chunk_.rows) + rows.begin * row + at_.window(w, p);
      outer<T>({a, tiles, rows.end - rows.begin, b, row, width / L, L,
                b_.gradients + at_.numbers() + matrix + columns * at_.before(w, p), width, !first_chunk()});
    }
  }

  void emission_gradient() {
    const Index P = b_.shape.output, H = b_.shape.hidden;
    const EqualParts tiles(H, tile_rows(int(at_.states.width(0))));
    for (Index q = mine_.states.begin; q < mine_.states.end; ++q) {
      const Index column = at_.states.first(q) * L, width = at_.states.width(q);
      outer<T>({{h_, tiles},
                Share(tiles.count),
                chunk_.rows,
                d_emitted_ + column,
                P,
                width,
                at_.states.valid(at_.states.first(q) + width - 1),
                b_.gradients + at_.numbers() + sums_.emission() + H * column,
                width * L,
                !first_chunk()});
    }
  }

  const T* transposed() const { return static_cast<const T*>(b_.transposed); }

  const Backward<T>& b_;
  const GradientOffsets<T> sums_{at_};
  const StepFunction<T>* const steps_; // by phase
  const Steps<T>* const leaf_;         // or null: the same
  Index at_level_ = -1;                // the transition at hand,
  Span<T> span_;                       // what its time steps are given,
  Term terms_[2 * most_arity + 1];     // and the products after them
  Index count_ = 0;
  // A pointer for each row of the chunk, and the rows that some of them point to.
  const T **dy_, **d_unprojected_rows_;
  T **d_emitted_rows_, **dh_, **dc_, **dx_, **d_prev_, **dc_prev_, **d_offer_prev_, **d_scalars_;
  T *d_scalar_sums_, *tiles_, *trash_, *d_middle_, *d_recurrent_, *d_emitted_, *d_unprojected_;
};

} // namespace rnncore::RNNCORE_LEVEL

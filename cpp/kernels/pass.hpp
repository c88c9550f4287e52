// What forward and backward share: the chunk at hand, and where everything of its nodes lies.
#pragma once

#include "normalise.hpp"
#include "products.hpp"
#include "recurrent_input.hpp"
#include "time_steps.hpp"
#include "walk.hpp"

namespace rnncore::RNNCORE_LEVEL {

template <class T>
class Pass {
public:
  Index work() const { return arena_.used(); }

protected:
  static constexpr Index L = lanes<T>;

  Pass(const Recipe<T>& recipe, const Call<T>& call, const Team& team)
      : call_(call), plan_(recipe.plan), options_(call.options ? *call.options : recipe.paper),
        at_(recipe.plan, call.shape), team_(team), mine_(at_, team), arena_(call.work),
        rows_(chunk_rows(at_, call.schedule)), edges_(chunk_edges(at_, call.schedule)) {
    const Index depth = call.shape.depth, masks = call.options ? rows_ : 0;
    const Index inputs = makes_inputs() ? rows_ * at_.matrices() : 0;
    take(x_, rows_);
    take(h_prev_, edges_);
    take(c_prev_, edges_);
    take(offer_prev_, offers() ? edges_ : 0);
    take(emitted_, at_.emits() ? rows_ : 0);
    take(zeros_, has_zeros() ? most_state() : 0);
    take(h_, rows_ * depth);
    take(c_, rows_ * depth);
    take(middle_, at_.has_middle() ? rows_ * depth : 0);
    for (const T**& rows : masks_) take(rows, masks);
    take(recurrent_inputs_, inputs);
    take(recurrent_rows_, inputs * at_.recurrent_columns());
    take(sums_, sums_apart() ? rows_ : 0);
    take(sum_rows_, sums_apart() ? rows_ * call.shape.output : 0);
    take(c_sums_, plan_.sums_cells ? rows_ : 0);
    take(c_sum_rows_, plan_.sums_cells ? rows_ * at_.cell_columns() : 0);
  }

  template <class U>
  void take(U*& to, Index n) {
    to = arena_.template take<U>(n);
  }
  void wait() { team_.wait(team_.barrier); }

  /// Before the first wait.
  void clear() {
    for (Index j = 0; has_zeros() && team_.rank == 0 && j < most_state(); ++j) zeros_[j] = T(0);
  }
  bool forest() const { return call_.schedule.forest; }
  bool has_zeros() const { return forest() || call_.schedule.restarts; }
  /// The state of a node without a predecessor.
  const T* anew_h() const { return call_.anew_h ? call_.anew_h : zeros_; }
  const T* anew_c() const { return call_.anew_c ? call_.anew_c : zeros_; }
  /// Columns of the widest state.
  Index most_state() const { return max(max(call_.shape.hidden, call_.shape.output), at_.cell_columns()); }
  bool offers() const { return plan_.offer.count; }
  bool masked() const { return call_.masks.state.base; }
  /// Whether the recurrent products and shortcuts read something else than h(t-1) as it is.
  bool makes_inputs() const { return masked() || plan_.recurrent_input != RecurrentInput::each; }
  const T* const* recurrent_inputs() const { return makes_inputs() ? recurrent_inputs_ : h_prev_; }
  /// Whether time steps see another sum of states than the products do.
  bool sums_apart() const { return masked() && plan_.recurrent_input == RecurrentInput::sum; }
  /// The state that a transition starts from.
  const T* const* before(Index level) const {
    return level > 0 ? h_ + (level - 1) * rows_ : recurrent_inputs();
  }
  const T* const* middle(Index level) const { return middle_ + level * rows_; }
  /// Of the chunk's row r, one over each standard deviation.
  T* scales(Index level, Index r) const {
    return tape_.at(at_.tape_scales(level), plan_.scales(), chunk_.node + r);
  }
  T* gates(Index level) const { return tape_.at(at_.tape_gates(level), at_.node(), chunk_.node); }

  /// The nodes of the chunk's row r: its place in the arrays, what it continues, and its sequence.
  struct Node {
    Index node, row, sequence;
  };
  Node node(Index r) const {
    const Schedule& s = call_.schedule;
    const Index n = chunk_.node + r;
    return {n, s.row[n], s.sequence[n]};
  }
  /// f(place of the pointer) for each predecessor of the chunk's row r.
  template <class F>
  void for_each_edge(Index r, F f) const {
    if (const int32_t* edges = call_.schedule.edges) {
      const int32_t* of_chunk = edges + chunk_.node;
      for (Index e = of_chunk[r]; e < of_chunk[r + 1]; ++e) f(e - of_chunk[0]);
    } else
      for (Index k = 0; k < call_.shape.arity; ++k) f(k * rows_ + r);
  }
  /// f(place of the pointer, row it continues) for each predecessor of the chunk's row r.
  template <class F>
  void for_each_prev(Index r, F f) const {
    const Schedule& s = call_.schedule;
    if (s.edges)
      for_each_edge(r, [&](Index at) { f(at, Index(s.prev[s.edges[chunk_.node] + at])); });
    else
      for (Index k = 0; k < call_.shape.arity; ++k)
        f(k * rows_ + r, Index(s.prev[k * s.nodes + chunk_.node + r]));
  }
  /// Nodes of the chunk that see an input.
  Index readers() const { return call_.shape.input ? among(call_.schedule.readers) : 0; }
  /// The readers of the chunk that an input product is for.
  Share readers(Index window) const {
    const Index leaves = window > 0 && plan_.leaves_skip ? among(call_.schedule.leaves) : 0;
    return Share::of(min(leaves, readers()), readers());
  }
  /// Nodes of the chunk that are among the first `n` of all.
  Index among(Index n) const { return max(0, min(n - chunk_.node, chunk_.rows)); }

  /// Pointers to what belongs to one row of the chunk, but for cell states.
  void gather(Index r, const Node& n) {
    const Index last = call_.shape.depth - 1;
    x_[r] = row_of(call_.x, call_.schedule.x_row[n.node]);
    for_each_prev(r, [&](Index at, Index prev) {
      h_prev_[at] = prev == no_predecessor ? anew_h() : previous(call_.y, call_.first, prev);
      if (offers()) offer_prev_[at] = row_of(call_.offer, prev);
    });
    h_[last * rows_ + r] = at_.projects() ? tape_.at(at_.tape_unprojected(), call_.shape.hidden, n.node)
                                          : row_of(call_.y, n.row);
    if (at_.emits()) emitted_[r] = row_of(at_.projects() ? call_.y : call_.offer, n.row);
    for (Index level = 0; level < last; ++level) {
      h_[level * rows_ + r] = tape_.at(at_.tape_h(level), call_.shape.hidden, n.node);
      if (plan_.has_cell_state)
        c_[level * rows_ + r] = tape_.at(at_.tape_c(level), at_.cell_columns(), n.node);
    }
    for (Index level = 0; at_.has_middle() && level <= last; ++level)
      middle_[level * rows_ + r] = tape_.at(at_.tape_middle(level), call_.shape.hidden, n.node);
    if (call_.options) gather_masks(r, n);
    for (Index k = 0; makes_inputs() && k < at_.matrices(); ++k)
      recurrent_inputs_[k * rows_ + r] = recurrent_rows_ + (k * rows_ + r) * at_.recurrent_columns();
    if (sums_apart()) sums_[r] = sum_rows_ + r * call_.shape.output;
    if (plan_.sums_cells) c_sums_[r] = c_sum_rows_ + r * at_.cell_columns();
  }

  T** last_c() const { return c_ + (call_.shape.depth - 1) * rows_; }

  /// What the recurrent products read of a row, and time steps where that is a sum.
  void make_input(Index r) {
    const Index P = call_.shape.output;
    T *to = recurrent_rows_ + r * at_.recurrent_columns(), *sum = sums_apart() ? sum_rows_ + r * P : to;
    switch (plan_.recurrent_input) {
    case RecurrentInput::each:
      for_each_edge(r, [&](Index at) { mask_to(recurrent_rows_ + at * P, state_mask(r), h_prev_[at], P); });
      break;
    case RecurrentInput::sum:
      fill(sum, P, T(0));
      for_each_edge(r, [&](Index at) { add_to(sum, h_prev_[at], P); });
      if (sums_apart()) mask_to(to, state_mask(r), sum, P);
      if (plan_.sums_cells) sum_cells(c_sum_rows_ + r * at_.cell_columns(), r);
      break;
    case RecurrentInput::pairs:
      for (Index k = 0; k < call_.shape.arity; ++k)
        for (Index j = 0; j < P; ++j) to[k * P + j] = h_prev_[k * rows_ + r][j];
      pair_up(to, call_.shape.arity * P);
    }
  }
  void sum_cells(T* sum, Index r) const {
    fill(sum, at_.cell_columns(), T(0));
    for_each_edge(r, [&](Index at) { add_to(sum, c_prev_[at], at_.cell_columns()); });
  }
  const T* state_mask(Index r) const { return masks_[3][r]; }

  /// What the time steps of a transition are given, once the rows of a chunk are gathered.
  Span<T> span_of(Index level) const {
    Span<T> span{};
    span.gates = gates(level);
    span.x = x_;
    span.scales = scales(level, 0);
    span.h_prev = level > 0                                      ? h_ + (level - 1) * rows_
                  : plan_.recurrent_input != RecurrentInput::sum ? h_prev_
                  : sums_apart()                                 ? sums_
                                                                 : recurrent_inputs_;
    span.c_prev = level > 0 ? c_ + (level - 1) * rows_ : plan_.sums_cells ? c_sums_ : c_prev_;
    span.h = h_ + level * rows_;
    span.c = c_ + level * rows_;
    span.middle = middle_ + level * rows_;
    span.units = call_.packed.numbers + at_.unit(level);
    span.branch_step = rows_;
    if (call_.schedule.edges) span.edges = call_.schedule.edges + chunk_.node;
    span.each_h = h_prev_;
    span.offer = offer_prev_;
    span.keep_gates = call_.tape != nullptr;
    span.options = &options_;
    if (call_.masks.update.base) span.update = masks_[0];
    if (call_.masks.keep_h.base) span.keep_h = masks_[1];
    if (call_.masks.keep_c.base) span.keep_c = masks_[2];
    return span;
  }

  /// The columns of h that fall to this thread.
  struct Run {
    Index begin, end;
  };
  Run my_states() const {
    return {at_.states.columns_before(mine_.states.begin), at_.states.columns_before(mine_.states.end)};
  }

  const Call<T>& call_;
  const Plan& plan_;
  const CellOptions& options_;
  const Layout<T> at_;
  const Team team_;
  const Columns<T> mine_;
  Arena arena_;
  const Index rows_, edges_; // the most that a chunk has
  Chunk chunk_{};
  TapeView<T> tape_{};
  // A pointer for each row of the chunk; in h_, c_ and middle_ for each transition, one after the other.
  const T **x_, **h_prev_, **c_prev_, **offer_prev_;
  T **h_, **c_, **middle_, **emitted_;
  T* zeros_; // for the state of a predecessor that there is not

private:
  void gather_masks(Index r, const Node& n) {
    const Masks<T>& masks = call_.masks;
    masks_[0][r] = row_of(masks.update, n.row);
    masks_[1][r] = row_of(masks.keep_h, n.row);
    masks_[2][r] = row_of(masks.keep_c, n.row);
    masks_[3][r] = row_of(masks.state, n.sequence);
  }

  const T **masks_[4], **recurrent_inputs_, **sums_, **c_sums_; // masks of update, keep_h, keep_c, state
  T *recurrent_rows_, *sum_rows_, *c_sum_rows_;
};

} // namespace rnncore::RNNCORE_LEVEL

// The engine backward: the chunks and waves of forward, last to first.
//
// Wave by wave the gates on the tape are overwritten by their gradients and one product carries them to
// the previous states. A finished chunk gives the gradients of inputs and weights in large products.
#pragma once

#include "pass.hpp"

namespace rnncore::RNNCORE_LEVEL {

constexpr Index block_bytes = 128 * 1024;
constexpr Index tiles_bytes = 256 * 1024, least_copied = 8; // panels that make copying tiles worth while

template <class T>
class BackwardPass : public Pass<T> {
  using Base = Pass<T>;
  using Base::L, Base::at_, Base::c_prev_, Base::chunk_, Base::gates, Base::h_, Base::masked, Base::mine_,
      Base::plan_, Base::rows_, Base::tape_, Base::take, Base::team_, Base::wait, Base::x_;

public:
  BackwardPass(const Recipe<T>& recipe, const Backward<T>& pass, const Team& team)
      : Base(recipe.plan, pass, team), b_(pass), instants_(recipe.backward[pass.choices != nullptr]) {
    const Index H = b_.shape.hidden, P = b_.shape.output, projected = at_.projects() ? rows_ : 0;
    take(dy_, rows_);
    take(dh_, rows_);
    take(dc_, rows_);
    take(dx_, rows_);
    take(tiles_, at_.hidden.count() < least_copied ? 0 : tiles_size());
    take(d_middle_, at_.has_middle() ? rows_ * H : 0);
    take(d_fed_, masked() ? rows_ * P : 0);
    take(d_projected_rows_, projected);
    take(d_projected_, projected * P);
    take(d_unprojected_rows_, projected);
    take(d_unprojected_, projected * H);
  }

  void run() {
    const Schedule& s = b_.schedule;
    if (first_call()) start_sums();
    tape_ = {b_.tape, s.begin[b_.end] - s.begin[b_.wave], s.begin[b_.wave]};
    for (Index end = b_.end; end > b_.wave; end = chunk_.wave) {
      chunk_ = chunk_at(at_, s, end - 1);
      wait(); // until nobody needs the last chunk's pointers
      gather();
      wait();
      span_level_ = -1;
      for (Index w = chunk_.end; w-- > chunk_.wave;)
        wave(s.begin[w] - chunk_.node, s.begin[w + 1] - s.begin[w]);
      wait(); // until all gates are gradients
      if (b_.dx.base) input_gradients();
      weight_gradients();
    }
  }

private:
  /// Room for a block of tiles of the rows of a chunk, one tile at least.
  Index tiles_size() const {
    return max(rows_ * min(tallest, max(b_.shape.input, b_.shape.output)), tiles_bytes / Index(sizeof(T)));
  }

  /// Of several calls that go back over a schedule piece by piece, the first.
  bool first_call() const { return b_.end == b_.schedule.waves; }
  /// The first chunk on the way back: its sums have nothing to add to yet.
  bool first_chunk() const { return chunk_.end == b_.schedule.waves; }

  /// The sums that are added to instant by instant start from zero; all do where there is nothing to sum.
  void start_sums() {
    const bool all = b_.schedule.waves == 0;
    for (Index i = 0; all && i < at_.packed(); ++i) b_.gradients[i] = T(0);
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
      if (masked()) this->feed(r, 0, b_.shape.output);
      dy_[r] = row_of(b_.dy, n.row);
      dx_[r] = row_of(b_.dx, n.row);
      dh_[r] = row_of(b_.dh, n.sequence);
      if (plan_.has_cell_state) {
        c_prev_[r] = previous(b_.c, b_.first_c, n.prev);
        this->last_c()[r] = row_of(b_.c, n.row);
        dc_[r] = row_of(b_.dc, n.sequence);
      }
      if (!at_.projects()) continue;
      d_projected_rows_[r] = d_projected_ + r * b_.shape.output;
      d_unprojected_rows_[r] = d_unprojected_ + r * b_.shape.hidden;
    }
  }

  /// One wave: `rows` nodes from row `first` of the chunk.
  void wave(Index first, Index rows) {
    if (at_.projects()) unproject(first, rows);
    for (Index level = b_.shape.depth; level-- > 0;)
      for (Index stage = plan_.stages; stage-- > 0;) step(level, stage, first, rows);
  }

  void step(Index level, Index stage, Index first, Index rows) {
    if (level != span_level_) span_ = span_of(span_level_ = level);
    instants_[stage](at_, span_, {chunk_.rows, first, rows, mine_.panels});
    if (!plan_.recurrent[stage].count) return;
    wait(); // the product reads the gradients of all gates
    const bool unmasks = stage == 0 && level == 0 && masked();
    const bool keeps = stage == 0 && !unmasks && direct();
    Target<T> target{nullptr, 0, dh_ + first, 0};
    if (stage > 0) target = {d_middle_ + first * b_.shape.hidden, b_.shape.hidden, nullptr, 0};
    if (unmasks) target = {d_fed_ + first * b_.shape.output, b_.shape.output, nullptr, 0};
    multiply_back(level, plan_.recurrent[stage], first, rows, at_.states, mine_.states,
                  at_.recurrent_transposed(level, stage), target, keeps ? Start::keep : Start::zero);
    const Index last = b_.shape.depth - 1;
    if (stage == 0 && level == 0 && b_.shape.shortcut)
      multiply_back(last, plan_.input, first, rows, at_.states, mine_.states, at_.input_transposed(last),
                    target, Start::keep);
    if (unmasks) unmask(first, rows);
  }

  /// Whether the gradient of the old h has a part that went through no product.
  bool direct() const { return plan_.direct || b_.masks.keep_h.base; }

  /// dh (+)= mask d(mask h)
  void unmask(Index first, Index rows) {
    const auto [begin, end] = this->my_states();
    for (Index r = first; r < first + rows; ++r)
      for (Index j = begin; j < end; ++j) {
        const T d = d_fed_[r * b_.shape.output + j] * this->state_mask(r)[j];
        dh_[r][j] = direct() ? dh_[r][j] + d : d;
      }
  }

  Span<T> span_of(Index level) const {
    Span<T> span = Base::span_of(level);
    if (at_.last(level) && b_.dy.base && !at_.projects()) span.dy = dy_;
    span.dh = at_.projects() ? d_unprojected_rows_ : dh_;
    span.direct = dh_;
    span.dc = dc_;
    span.d_middle = {d_middle_, b_.shape.hidden};
    span.d_units = b_.gradients + at_.unit(level);
    return span;
  }

  /// The gradient of h, and through the projection that of what the instants computed.
  void unproject(Index first, Index rows) {
    const Index P = b_.shape.output, H = b_.shape.hidden;
    const auto [begin, end] = this->my_states();
    for (Index r = first; r < first + rows; ++r)
      for (Index j = begin; j < end; ++j)
        d_projected_[r * P + j] = dh_[r][j] + (b_.dy.base ? dy_[r][j] : T(0));
    wait();
    at_.units.for_each_run(mine_.units.begin, mine_.units.end, [&](Index q, Index run_end) {
      const Index column = at_.units.first(q) * L, width = at_.units.width(q) * L;
      multiply(Product<T, Gathered<T>>{{d_projected_rows_ + first, P},
                                       rows,
                                       b_.packed_transposed + at_.projection_transposed() + P * column,
                                       at_.units.width(q),
                                       run_end - q,
                                       P * width,
                                       {d_unprojected_ + first * H + column, H, nullptr, 0},
                                       width,
                                       at_.units.valid(at_.units.first(run_end) - 1),
                                       Start::zero});
    });
  }

  void input_gradients() {
    multiply_back(0, plan_.input, 0, chunk_.rows, at_.inputs, Share(team_, at_.inputs.count()),
                  at_.input_transposed(0), {nullptr, 0, dx_, 0}, b_.add_dx ? Start::keep : Start::zero);
  }

  /// Gradients of a window of gates times transposed weights, to some panels of `outputs`. The weights of a
  /// panel are taken in blocks that stay in the core's own cache while all rows pass.
  void multiply_back(Index level, const Window& window, Index first, Index rows, const Panels<T>& outputs,
                     Share panels, Index weights, const Target<T>& target, Start start) const {
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
        multiply(Product<T, GateRows<T>>{
            {at_.hidden, window, plan_.slots, gates(level), chunk_.rows, first, p, p_end},
            rows,
            b_.packed_transposed + weights + column * at_.all(window) + at_.before(window, p) * width * L,
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
    for (Index level = 0; level < b_.shape.depth; ++level) {
      if (const Index columns = at_.input_columns(level))
        outer_of(level, plan_.input, level == 0 ? x_ : this->fed(), columns, at_.input(level));
      for (Index s = 0; s < plan_.stages; ++s)
        if (plan_.recurrent[s].count)
          outer_of(level, plan_.recurrent[s], s == 0 ? this->before(level) : this->middle(level),
                   b_.shape.output, at_.recurrent(level, s));
      for (Index p = mine_.panels.begin; p < mine_.panels.end; ++p)
        add_rows(gates(level) + at_.gates(p, chunk_.rows), chunk_.rows, at_.row(p),
                 b_.gradients + at_.bias(level) + at_.gates(p, 1), !first_chunk());
    }
    if (at_.projects()) projection_gradient();
  }

  /// Rows are copied tile by tile where many panels read them, in blocks that stay in the core's own cache.
  void outer_of(Index level, const Window& w, const T* const* a, Index columns, Index matrix) {
    const Parts tiles(columns, tile_rows(int(at_.columns(w, 0) / L)));
    if (at_.hidden.count() < least_copied) {
      outer_panels<GatheredTiles<T>>(level, w, {a, tiles}, Share(tiles.count), columns, matrix);
      return;
    }
    const Index block = max(1, tiles_bytes / (chunk_.rows * tiles.size(0) * Index(sizeof(T))));
    for (Index begin = 0; begin < tiles.count; begin += block) {
      const Index end = min(begin + block, tiles.count);
      Share copied(team_, end - begin), all(end - begin);
      for (Share* share : {&copied, &all}) {
        share->begin += begin;
        share->end += begin;
      }
      T* to = tiles_ + chunk_.rows * (tiles.begin(copied.begin) - tiles.begin(begin));
      copy_tiles(a, chunk_.rows, tiles, copied, to);
      wait();
      outer_panels<CopiedTiles<T>>(level, w, {tiles_, chunk_.rows, begin, tiles}, all, columns, matrix);
      wait();
    }
  }

  template <class A>
  void outer_panels(Index level, const Window& w, const A& a, Share tiles, Index columns, Index matrix) {
    for (Index p = mine_.panels.begin; p < mine_.panels.end; ++p) {
      const Index width = at_.columns(w, p);
      outer<T, A>({a, tiles, chunk_.rows, gates(level) + at_.gates(p, chunk_.rows) + at_.window(w, p),
                   at_.row(p), width / L, L, b_.gradients + matrix + columns * at_.before(w, p), width,
                   !first_chunk()});
    }
  }

  void projection_gradient() {
    const Index P = b_.shape.output, H = b_.shape.hidden;
    const Parts tiles(H, tile_rows(int(at_.states.width(0))));
    for (Index q = mine_.states.begin; q < mine_.states.end; ++q) {
      const Index column = at_.states.first(q) * L, width = at_.states.width(q);
      outer<T, GatheredTiles<T>>({{h_, tiles},
                                  Share(tiles.count),
                                  chunk_.rows,
                                  d_projected_ + column,
                                  P,
                                  width,
                                  at_.states.valid(at_.states.first(q) + width - 1),
                                  b_.gradients + at_.projection() + H * column,
                                  width * L,
                                  !first_chunk()});
    }
  }

  const Backward<T>& b_;
  const Instants<T>* const instants_; // by stage
  Span<T> span_;                      // of the transition at hand
  Index span_level_ = -1;
  // A pointer for each row of the chunk, and the rows that some of them point to.
  const T **dy_, **d_projected_rows_, **d_unprojected_rows_;
  T **dh_, **dc_, **dx_;
  T *tiles_, *d_middle_, *d_fed_, *d_projected_, *d_unprojected_;
};

} // namespace rnncore::RNNCORE_LEVEL

// Attention to a source: scores, weights and context of one row, forward and backward.
//
// Keys and values are read where they lie. Sums run over a vector's lanes and then across them, or step by
// step, and never depend on how many queries are worked on together.
#pragma once

#include "products.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// Rows at a stride.
template <class T>
using Lines = Rows<const T>;

template <class T>
RNNCORE_INLINE T total(Vec<T> v) {
  return packets::predux(v.p);
}

constexpr int dots_tile = 4;

/// c[m][n] = x_m . y_n
template <class T, int M, int N>
void dots(Lines<T> x, Lines<T> y, Index width, Rows<T> c) {
  Vec<T> sum[M][N];
  RNNCORE_UNROLL(4)
  for (int m = 0; m < M; ++m)
    RNNCORE_UNROLL(4)
    for (int n = 0; n < N; ++n) sum[m][n] = Vec<T>(T(0));
  for (Index k = 0; k < width; k += lanes<T>) {
    const Index valid = width - k;
    Vec<T> b[N];
    RNNCORE_UNROLL(4)
    for (int n = 0; n < N; ++n) b[n] = load(y.base + n * y.stride + k, valid);
    RNNCORE_UNROLL(4)
    for (int m = 0; m < M; ++m) {
      const Vec<T> a = load(x.base + m * x.stride + k, valid);
      RNNCORE_UNROLL(4)
      for (int n = 0; n < N; ++n) sum[m][n] = fma(a, b[n], sum[m][n]);
    }
  }
  RNNCORE_UNROLL(4)
  for (int m = 0; m < M; ++m)
    RNNCORE_UNROLL(4)
    for (int n = 0; n < N; ++n) c.base[m * c.stride + n] = total(sum[m][n]);
}

template <class T, int M, int N = dots_tile>
RNNCORE_INLINE void dots_columns(Lines<T> x, Lines<T> y, Index n, Index width, Rows<T> c) {
  if (n == N) return dots<T, M, N>(x, y, width, c);
  if constexpr (N > 1) dots_columns<T, M, N - 1>(x, y, n, width, c);
}

template <class T, int M = dots_tile>
RNNCORE_INLINE void dots_rows(Lines<T> x, Index m, Lines<T> y, const EqualParts& tiles, Index width,
                              Rows<T> c) {
  if (m == M) {
    for (Index j = 0; j < tiles.count; ++j)
      dots_columns<T, M>(x, {y.base + tiles.begin(j) * y.stride, y.stride}, tiles.size(j), width,
                         {c.base + tiles.begin(j), c.stride});
  } else if constexpr (M > 1) {
    dots_rows<T, M - 1>(x, m, y, tiles, width, c);
  }
}

/// c (m, n) = x (m, width) times y (n, width), transposed.
template <class T>
void all_dots(Lines<T> x, Index m, Lines<T> y, Index n, Index width, Rows<T> c) {
  const EqualParts rows(m, dots_tile), columns(n, dots_tile);
  for (Index i = 0; i < rows.count; ++i)
    dots_rows<T>({x.base + rows.begin(i) * x.stride, x.stride}, rows.size(i), y, columns, width,
                 {c.base + rows.begin(i) * c.stride, c.stride});
}

/// Coefficients: that of row i in the sum of row j.
template <class T>
struct Mix {
  const T* base;
  Index row, term;
};

/// M rows of N vectors: to_i (+)= sum_j c_ij x_j
template <class T, int M, int N>
void mix_tile(Mix<T> c, Lines<T> x, Index terms, Rows<T> to, Index tail, bool add) {
  constexpr Index L = lanes<T>;
  Vec<T> sum[M][N];
  RNNCORE_UNROLL(8)
  for (int m = 0; m < M; ++m)
    RNNCORE_UNROLL(4)
    for (int n = 0; n < N; ++n) sum[m][n] = Vec<T>(T(0));
  for (Index j = 0; j < terms; ++j) {
    const T* from = x.base + j * x.stride;
    Vec<T> v[N];
    RNNCORE_UNROLL(4)
    for (int n = 0; n + 1 < N; ++n) v[n] = load(from + n * L);
    v[N - 1] = load(from + (N - 1) * L, tail);
    RNNCORE_UNROLL(8)
    for (int m = 0; m < M; ++m) {
      const Vec<T> factor(c.base[m * c.row + j * c.term]);
      RNNCORE_UNROLL(4)
      for (int n = 0; n < N; ++n) sum[m][n] = fma(factor, v[n], sum[m][n]);
    }
  }
  RNNCORE_UNROLL(8)
  for (int m = 0; m < M; ++m)
    RNNCORE_UNROLL(4)
    for (int n = 0; n < N; ++n) {
      T* at = to.base + m * to.stride + n * L;
      const Index valid = n + 1 < N ? L : tail;
      store(at, add ? load(at, valid) + sum[m][n] : sum[m][n], valid);
    }
}

/// Rows of a tile: fewer than registers hold, to compile less.
constexpr int mix_tile_rows(int n) { return min(4, tile_rows(n)); }

template <class T, int N, int M = mix_tile_rows(N)>
RNNCORE_INLINE void mix_rows(Index m, Mix<T> c, Lines<T> x, Index terms, Rows<T> to, Index tail, bool add) {
  if (m == M) return mix_tile<T, M, N>(c, x, terms, to, tail, add);
  if constexpr (M > 1) mix_rows<T, N, M - 1>(m, c, x, terms, to, tail, add);
}

template <class T, int N>
void mix_columns(Index rows, Mix<T> c, Lines<T> x, Index terms, Rows<T> to, Index tail, bool add) {
  const EqualParts tiles(rows, mix_tile_rows(N));
  for (Index i = 0; i < tiles.count; ++i)
    mix_rows<T, N>(tiles.size(i), {c.base + tiles.begin(i) * c.row, c.row, c.term}, x, terms,
                   {to.base + tiles.begin(i) * to.stride, to.stride}, tail, add);
}

/// to (rows, width) (+)= c x, x (terms, width)
template <class T>
void mix(Index rows, Mix<T> c, Lines<T> x, Index terms, Index width, Rows<T> to, bool add) {
  constexpr Index L = lanes<T>;
  const Panels<T> panels(width, widest);
  for (Index p = 0; p < panels.count(); ++p) {
    const Index column = panels.first(p) * L, tail = panels.valid(panels.first(p) + panels.width(p) - 1);
    const Lines<T> from{x.base + column, x.stride};
    const Rows<T> target{to.base + column, to.stride};
    switch (panels.width(p)) {
    case 1:
      mix_columns<T, 1>(rows, c, from, terms, target, tail, add);
      break;
    case 2:
      mix_columns<T, 2>(rows, c, from, terms, target, tail, add);
      break;
    case 3:
      mix_columns<T, 3>(rows, c, from, terms, target, tail, add);
      break;
    default:
      mix_columns<T, 4>(rows, c, from, terms, target, tail, add);
    }
  }
}

/// Causal steps that share the products with what is before all of them.
constexpr Index causal_tile = 32;

/// One row at some steps: its source, and where everything of it lies.
template <class T>
class AttentionRow {
  static constexpr Index L = lanes<T>;

public:
  AttentionRow(const AttentionForward<T>& call, Index row, Index begin, Index end, T* work)
      : a_(call), row_(row), begin_(begin), steps_(end - begin), b_(call.source ? call.source[row] : row),
        seen_(call.lengths[b_]), work_(work),
        keys_{call.keys + b_ * call.key_size, call.sources * call.key_size},
        values_{call.values + b_ * call.value_size, call.sources * call.value_size} {}

  void forward() const {
    const Rows<T> weights = this->weights();
    if (a_.causal) return look_back();
    if (a_.centre || a_.v) {
      for (Index t = 0; t < steps_; ++t) attend(t);
    } else {
      all_dots(queries(), steps_, keys_, seen_, a_.key_size, weights);
      for (Index t = 0; t < steps_; ++t) softmax(weights.base + t * weights.stride, seen_);
    }
    if (a_.centre) return;
    mix<T>(steps_, {weights.base, weights.stride, 1}, values_, seen_, a_.value_size, contexts(), false);
  }

  void backward(const AttentionBackward<T>& b) const {
    const Lines<T> dcontext = from(b.dcontext), query = queries();
    const Rows<T> weights = this->weights(), dscores{work_, seen_};
    all_dots(dcontext, steps_, values_, seen_, a_.value_size, dscores);
    mix<T>(seen_, {weights.base, 1, weights.stride}, dcontext, steps_, a_.value_size,
           {b.dvalues + b_ * a_.value_size, values_.stride}, true);
    for (Index t = 0; t < steps_; ++t) unweigh(t, dscores.base + t * seen_, b);
    const Rows<T> dquery = from(b.dquery), dkeys{b.dkeys + b_ * a_.key_size, keys_.stride};
    if (a_.v) {
      for (Index t = 0; t < steps_; ++t)
        add_back(query.base + t * query.stride, dscores.base + t * seen_, dquery.base + t * dquery.stride,
                 dkeys, b.dv + row_ * a_.key_size);
      return;
    }
    mix<T>(steps_, {work_, seen_, 1}, keys_, seen_, a_.key_size, dquery, false);
    mix<T>(seen_, {work_, 1, seen_}, query, steps_, a_.key_size, dkeys, true);
  }

private:
  Index at(Index t) const { return (begin_ + t) * a_.rows + row_; }
  /// The row's own lines of an array of steps and rows.
  template <class U>
  Rows<U> from(Rows<U> all) const {
    return {all.base + at(0) * all.stride, a_.rows * all.stride};
  }
  template <class U>
  static Rows<U> after(Rows<U> all, Index lines) {
    return {all.base + lines * all.stride, all.stride};
  }
  Lines<T> queries() const { return from(a_.query); }
  Rows<T> contexts() const { return from(a_.context); }
  Rows<T> weights() const { return from(Rows<T>{a_.weights, a_.length}); }

  /// The steps of the source that can be seen from step t.
  Share window(Index t) const {
    if (a_.causal) return Share(min(seen_, begin_ + t + 1));
    if (!a_.centre) return Share(seen_);
    const T p = a_.centre[at(t)];
    Index first = 0, end = seen_;
    while (first < end && T(first) < p - a_.window) ++first;
    while (end > first && T(end - 1) > p + a_.window) --end;
    return Share::of(first, end);
  }

  /// Steps that see none after them, tile by tile: together what is before the tile, then each its own
  /// part of it, since a later step's numbers times zero may be NaN.
  void look_back() const {
    for (Index t = 0, end; t < steps_; t = end) {
      const Index first = (begin_ + t) / causal_tile * causal_tile;
      end = min(steps_, first + causal_tile - begin_);
      const Index before = min(seen_, first), last = window(end - 1).end;
      const Rows<T> w = after(weights(), t), context = after(contexts(), t);
      all_dots(after(queries(), t), end - t, keys_, last, a_.key_size, w);
      for (Index i = 0; i < end - t; ++i) {
        const Index n = window(t + i).end;
        softmax(w.base + i * w.stride, n);
        for (Index s = n; s < last; ++s) w.base[i * w.stride + s] = T(0);
      }
      mix<T>(end - t, {w.base, w.stride, 1}, values_, before, a_.value_size, context, false);
      for (Index i = 0; i < end - t; ++i)
        mix<T>(1, {w.base + i * w.stride + before, 0, 1}, after(values_, before),
               window(t + i).end - before, a_.value_size, after(context, i), true);
    }
  }

  /// One step by itself: where windows differ, or scores are no products.
  void attend(Index t) const {
    const Lines<T> query = queries();
    const T* q = query.base + t * query.stride;
    const Share s = window(t);
    const Index n = s.end - s.begin;
    T* w = weights().base + t * weights().stride + s.begin;
    const Lines<T> keys{keys_.base + s.begin * keys_.stride, keys_.stride};
    if (a_.v)
      add_scores(q, keys, n, w);
    else
      all_dots({q, 0}, 1, keys, n, a_.key_size, {w, 0});
    softmax(w, n);
    if (!a_.centre) return;
    bell(t, s, work_);
    for (Index j = 0; j < n; ++j) w[j] *= work_[j];
    const Rows<T> context = contexts();
    mix<T>(1, {w, 0, 1}, {values_.base + s.begin * values_.stride, values_.stride}, n, a_.value_size,
           {context.base + t * context.stride, 0}, false);
  }

  static void softmax(T* e, Index n) {
    T largest = n > 0 ? e[0] : T(0);
    for (Index s = 1; s < n; ++s) largest = e[s] > largest ? e[s] : largest;
    for (Index s = 0; s < n; s += L) store(e + s, exp_below(load(e + s, n - s) - Vec<T>(largest)), n - s);
    Vec<T> sum(T(0));
    for (Index s = 0; s < n; s += L) sum = sum + load(e + s, n - s);
    const Vec<T> all(total(sum));
    for (Index s = 0; s < n; s += L) store(e + s, load(e + s, n - s) / all, n - s);
  }

  /// exp(-(s - p)^2 / (2 (window / 2)^2)) for the steps s of a window.
  void bell(Index t, Share s, T* to) const {
    const T p = a_.centre[at(t)], scale = T(-2) / (a_.window * a_.window);
    const Index n = s.end - s.begin;
    for (Index j = 0; j < n; ++j) {
      const T away = T(s.begin + j) - p;
      to[j] = away * away * scale;
    }
    for (Index j = 0; j < n; j += L) store(to + j, exp_below(load(to + j, n - j)), n - j);
  }

  /// e_s = v . tanh(q + key_s)
  void add_scores(const T* q, Lines<T> keys, Index n, T* e) const {
    const EqualParts tiles(n, dots_tile);
    for (Index i = 0; i < tiles.count; ++i)
      add_scores_of<dots_tile>(q, {keys.base + tiles.begin(i) * keys.stride, keys.stride}, tiles.size(i),
                               e + tiles.begin(i));
  }

  template <int N>
  void add_scores_of(const T* q, Lines<T> keys, Index n, T* e) const {
    if (n != N) {
      if constexpr (N > 1) add_scores_of<N - 1>(q, keys, n, e);
      return;
    }
    Vec<T> sum[N];
    RNNCORE_UNROLL(4)
    for (int s = 0; s < N; ++s) sum[s] = Vec<T>(T(0));
    for (Index k = 0; k < a_.key_size; k += L) {
      const Index valid = a_.key_size - k;
      const Vec<T> query = load(q + k, valid), v = load(a_.v + k, valid);
      RNNCORE_UNROLL(4)
      for (int s = 0; s < N; ++s)
        sum[s] = fma(v, tanh(query + load(keys.base + s * keys.stride + k, valid)), sum[s]);
    }
    RNNCORE_UNROLL(4)
    for (int s = 0; s < N; ++s) e[s] = total(sum[s]);
  }

  /// Gradients of the weights of step t to those of its scores, in place, and to that of its centre.
  void unweigh(Index t, T* d, const AttentionBackward<T>& b) const {
    const Share s = window(t);
    const T* w = weights().base + t * weights().stride;
    T along = 0, centre = 0;
    for (Index j = s.begin; j < s.end; ++j) along += w[j] * d[j];
    if (a_.centre) {
      T* bells = work_ + steps_ * seen_;
      bell(t, s, bells);
      const T p = a_.centre[at(t)], scale = T(4) / (a_.window * a_.window);
      for (Index j = s.begin; j < s.end; ++j) {
        centre += w[j] * d[j] * (T(j) - p) * scale;
        d[j] = w[j] * d[j] - w[j] / bells[j - s.begin] * along;
      }
      b.dcentre[at(t)] = centre;
    } else {
      for (Index j = s.begin; j < s.end; ++j) d[j] = w[j] * (d[j] - along);
    }
    for (Index j = 0; j < s.begin; ++j) d[j] = 0;
    for (Index j = s.end; j < seen_; ++j) d[j] = 0;
  }

  /// Gradients of the scores of one step through u_s = tanh(q + key_s).
  void add_back(const T* q, const T* de, T* dq, Rows<T> dkeys, T* dv) const {
    const Vec<T> one(1);
    for (Index k = 0; k < a_.key_size; k += L) {
      const Index valid = a_.key_size - k;
      const Vec<T> query = load(q + k, valid), v = load(a_.v + k, valid);
      Vec<T> sum(T(0)), sum_v = load(dv + k, valid);
      for (Index s = 0; s < seen_; ++s) {
        const Vec<T> u = tanh(query + load(keys_.base + s * keys_.stride + k, valid)), e(de[s]);
        T* dkey = dkeys.base + s * dkeys.stride + k;
        const Vec<T> du = e * v * fma(-u, u, one);
        sum_v = fma(e, u, sum_v);
        sum = sum + du;
        store(dkey, load(dkey, valid) + du, valid);
      }
      store(dq + k, sum, valid);
      store(dv + k, sum_v, valid);
    }
  }

  const AttentionForward<T>& a_;
  const Index row_, begin_, steps_, b_, seen_; // the source, and its length
  T* const work_;
  const Lines<T> keys_, values_;
};

template <class T>
Index attention_work(const AttentionForward<T>& call, Index steps) {
  return (steps + 1) * call.length;
}

template <class T>
void attention_forward(const AttentionForward<T>& call, Index row, Index begin, Index end, T* work) {
  AttentionRow<T>(call, row, begin, end, work).forward();
}

template <class T>
void attention_backward(const AttentionBackward<T>& call, Index row, Index begin, Index end, T* work) {
  AttentionRow<T>(call, row, begin, end, work).backward(call);
}

template <class T>
constexpr Attention<T> attention = {attention_work<T>, attention_forward<T>, attention_backward<T>};

} // namespace rnncore::RNNCORE_LEVEL

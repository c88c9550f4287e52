// Linear-chain CRFs: the best sequences of tags of one row (Viterbi), the best or some of them.
//
// Of equal scores the one with the lower tag at the last step where they differ comes first.
#pragma once

#include "crf.hpp"

namespace rnncore::RNNCORE_LEVEL {

template <class T>
class CrfPaths {
public:
  explicit CrfPaths(const CrfDecode<T>& call)
      : c_(call), t_(*static_cast<const CrfTable*>(call.prepared)), K(t_.tags), W(t_.width),
        memory_(static_cast<double*>(call.work)) {}

  /// The tag at step t of the best sequence; t of -1: there is none.
  struct Place {
    Index y, t;
  };

  /// Bytes of its memory.
  static Index work(Index tags, Index steps, Index count) {
    const Index W = crf_width(tags), doubles = Index(sizeof(double));
    if (count == 1) return (steps + 1) * W * doubles;
    return (2 * tags * count + 4 * W) * doubles + steps * tags * count * Index(sizeof(int32_t)) +
           3 * W * Index(sizeof(int64_t));
  }

  /// The steps of the sequences that there may be; else says that there are none.
  Index starts() const {
    if (c_.steps > 0 && t_.finite) return c_.steps;
    for (Index r = 0; r < c_.count; ++r) no_more(r, c_.steps > 0 ? nan : impossible);
    if (c_.steps == 0) *c_.scores = 0;
    return 0;
  }

  /// Scores of the best that end in each tag at step t; beyond the last, a row of no use.
  double* scores(Index t) const { return memory_ + min(t, c_.steps) * W; }

  /// Adds what the emissions of step t are to the scores that lead there.
  RNNCORE_INLINE void emit(Index t) {
    double* const to = scores(t);
    const T* const x = crf_emissions(c_, t);
    for (Index j = 0; j < W; j += L) {
      const Vec<double> own = possible(x + j, K - j);
      sound_.see(own);
      store(to + j, load((t == 0 ? t_.start : to) + j) + own);
    }
  }

  /// What leads to step t of rows side by side, which have their scores of the step before.
  static void lead(const CrfPaths* paths, Index t) {
    CrfRows from, to;
    for (Index r = 0; r < crf_rows; ++r) {
      from.at[r] = paths[r].scores(t - 1);
      to.at[r] = paths[r].scores(t);
    }
    crf_product<LargestSum>(from, paths->K, paths->t_.to, paths->t_.from, paths->W, to);
  }

  /// The best of all: its score, and where it ends. `back` finds the rest.
  Place last() const {
    if (!sound_.holds()) return no_more(0, nan);
    const double* score = memory_ + (c_.steps - 1) * W;
    const Index y = first_best(score, t_.end);
    const double total = score[y] + t_.end[y];
    if (total == impossible) return no_more(0, impossible);
    *c_.scores = total;
    tag(0, c_.steps - 1) = y;
    return {y, c_.steps - 1};
  }

  /// One step back.
  void back(Place& p) const {
    p.y = first_best(memory_ + --p.t * W, t_.from + p.y * W);
    tag(0, p.t) = p.y;
  }

  /// The `count` best.
  void several() const {
    if (starts() > 0) merge_all();
  }

private:
  static constexpr Index L = lanes<double>;

  static constexpr double nan = std::numeric_limits<double>::quiet_NaN();

  /// There is no r-th best sequence, or none is known.
  Place no_more(Index r, double score) const {
    c_.scores[r * c_.next_score] = score;
    for (Index t = 0; t < c_.steps; ++t) tag(r, t) = -1;
    return {0, -1};
  }

  int64_t& tag(Index r, Index t) const { return c_.tags[r * c_.next + t * c_.tag_stride]; }

  /// The first of the largest of a_i + b_i.
  Index first_best(const double* a, const double* b) const {
    Vec<double> top(impossible);
    for (Index i = 0; i < W; i += L) top = upper(top, load(a + i) + load(b + i));
    const double best = largest_of(top);
#if defined(__AVX512F__)
    for (Index first = 0; first < W; first += 64) { // without a jump to where it is, which none foresees
      uint64_t equal = 0;
      for (Index i = first; i < min(W, first + 64); i += L) {
        const Vec<double> both = load(a + i) + load(b + i);
        equal |= uint64_t(_mm512_cmp_pd_mask(both.p, _mm512_set1_pd(best), _CMP_EQ_OQ)) << (i - first);
      }
      if (equal) return first + lowest_bit(equal);
    }
    return 0; // NaN, of which nothing is said
#else
    Index i = 0;
    while (i < K - 1 && a[i] + b[i] != best) ++i;
    return i;
#endif
  }

  /// Takes up to `count` of the best from K lists, each from its best to its worst: those of `scores` (K,
  /// count) with `add` of each list, and finally `last`. Returns how many, with their lists and places in
  /// `from`.
  Index merge(const double* scores, const int64_t* lengths, const double* add, double last, double* to,
              int32_t* from, double* heads, int64_t* places) const {
    for (Index i = 0; i < K; ++i) {
      places[i] = 0;
      heads[i] = lengths[i] > 0 ? scores[i * c_.count] + add[i] : impossible;
    }
    for (Index found = 0; found < c_.count; ++found) {
      Index i = 0;
      for (Index k = 1; k < K; ++k)
        if (heads[k] > heads[i]) i = k;
      if (heads[i] == impossible) return found;
      to[found] = heads[i] + last;
      from[found] = int32_t(i * c_.count + places[i]);
      ++places[i];
      heads[i] = places[i] < lengths[i] ? scores[i * c_.count + places[i]] + add[i] : impossible;
    }
    return c_.count;
  }

  void merge_all() const {
    const Index n = c_.count;
    CrfSound sound;
    double *const x = memory_, *const heads = x + W, *before = heads + W, *now = before + K * n;
    int64_t* lengths = reinterpret_cast<int64_t*>(now + K * n);
    int64_t *next = lengths + W, *const places = next + W;
    int32_t* const from = reinterpret_cast<int32_t*>(places + W);
    for (Index t = 0; t < c_.steps; ++t) {
      for (Index j = 0; j < W; j += L) {
        const Vec<double> own = possible(crf_emissions(c_, t) + j, K - j);
        sound.see(own);
        store(x + j, own);
      }
      if (!sound.holds()) {
        for (Index r = 0; r < n; ++r) no_more(r, nan);
        return;
      }
      for (Index j = 0; j < K; ++j) {
        if (t == 0) {
          now[j * n] = t_.start[j] + x[j];
          next[j] = now[j * n] > impossible;
        } else {
          next[j] = x[j] == impossible ? 0
                                       : merge(before, lengths, t_.from + j * W, x[j], now + j * n,
                                               from + (t * K + j) * n, heads, places);
        }
      }
      double* const scores = before;
      before = now;
      now = scores;
      int64_t* const counts = lengths;
      lengths = next;
      next = counts;
    }
    // The pointers of step 0 are not needed: they hold where the best end.
    const Index found = merge(before, lengths, t_.end, 0, now, from, heads, places);
    for (Index r = found; r < n; ++r) no_more(r, impossible);
    for (Index r = 0; r < found; ++r) {
      c_.scores[r * c_.next_score] = now[r];
      int32_t at = from[r];
      for (Index t = c_.steps - 1;; --t) {
        tag(r, t) = at / int32_t(n);
        if (t == 0) break;
        at = from[t * K * n + at];
      }
    }
  }

  const CrfDecode<T>& c_;
  const CrfTable& t_;
  const Index K, W;
  double* const memory_;
  CrfSound sound_;
};

template <class T>
Index crf_decode_work(Index tags, Index steps, Index count) {
  return CrfPaths<T>::work(tags, steps, count);
}

/// Of the best of several rows all go forth and back in turn: the next step of one waits for the last one
/// of it.
template <class T>
void crf_decode(const CrfDecode<T>* calls, Index rows) {
  using Paths = CrfPaths<T>;
  if (calls->count > 1) {
    for (Index r = 0; r < rows; ++r) Paths(calls[r]).several();
    return;
  }
  const auto call = [&](Index r) -> const CrfDecode<T>& { return calls[min(r, rows - 1)]; };
  static_assert(crf_rows == 4);
  Paths paths[crf_rows] = {Paths(call(0)), Paths(call(1)), Paths(call(2)), Paths(call(3))};
  typename Paths::Place at[crf_rows];
  Index steps[crf_rows], most = 0;
  for (Index r = 0; r < rows; ++r) most = max(most, steps[r] = paths[r].starts());
  for (Index t = 0; t < most; ++t) {
    if (t > 0) Paths::lead(paths, t);
    for (Index r = 0; r < rows; ++r)
      if (t < steps[r]) paths[r].emit(t);
  }
  for (Index r = 0; r < rows; ++r) at[r] = steps[r] > 0 ? paths[r].last() : typename Paths::Place{0, -1};
  for (Index t = most - 1; t > 0; --t)
    for (Index r = 0; r < rows; ++r)
      if (at[r].t == t) paths[r].back(at[r]);
}

} // namespace rnncore::RNNCORE_LEVEL

// Linear-chain CRFs: one sequence of a batch while sums over its sequences of tags are computed, by
// probabilities (crf_sums.hpp) or by logarithms (crf_logs.hpp), and what both share.
#pragma once

#include "crf.hpp"

namespace rnncore::RNNCORE_LEVEL {

template <class T>
class CrfRow {
public:
  explicit CrfRow(const CrfLoss<T>& call)
      : c_(call), t_(*static_cast<const CrfTable*>(call.prepared)), K(t_.tags), W(t_.width),
        backward_(call.gradient), free_(static_cast<double*>(call.work)) {
    const bool partial = call.possible || (call.targets && !exact());
    first_kind_ = kind_ = partial ? Kind::all : call.targets ? Kind::exact : Kind::partition;
    const Index kept = backward_ ? c_.steps : 2;
    emissions_ = take(kept * W);
    alpha_ = take(kept * W);
    tops_ = take(c_.steps);
    scales_ = take(c_.steps);
    row_ = take(W);
    behind_ = take(W);
    spare_ = take(W);
    fill(spare_, W, 0.);
    if (!backward_) return;
    p_ = take(partial ? c_.steps * W : W);
    sums_ = take((K + 2) * W);
    product_ = take(K * W);
    own_scales_ = take(c_.steps);
  }

  /// Bytes of its memory.
  static Index work(Index tags, Index steps, bool backward) {
    const Index W = crf_width(tags), kept = backward ? steps : 2;
    Index numbers = 2 * kept * W + 2 * (steps + 8) + 3 * W;
    if (backward) numbers += (steps + 1) * W + (2 * tags + 2) * W + steps + 8;
    return numbers * Index(sizeof(double));
  }

  /// The losses of rows side by side.
  static void run(CrfRow* rows, Index count, double* losses);

private:
  static constexpr Index L = lanes<double>;
  static constexpr double least_norm = 1e-100, big = 0x1p64, log2_big = 64;

  /// Which sequences are summed over: all, for log Z; all, for the loss of an exact target; all, and then
  /// those that agree with a partial one.
  enum class Kind { partition, exact, all, agreeing };

  double* take(Index n) {
    double* const own = free_;
    free_ += (n + 7) / 8 * 8;
    return own;
  }

  int64_t target(Index t) const { return c_.targets[t * c_.target_stride]; }

  bool exact() const {
    for (Index t = 0; t < c_.steps; ++t)
      if (target(t) < 0) return false;
    return true;
  }

  double* kept(double* rows, Index t) const { return rows + (backward_ ? t : t & 1) * W; }
  double* emissions(Index t) const { return kept(emissions_, t); }
  double* alpha(Index t) const { return kept(alpha_, t); }

  void begin(bool takes_part) {
    going_ = takes_part && c_.steps > 0 && t_.finite && t_.narrow;
    if (going_) start();
  }

  /// Nothing is known yet.
  void start() {
    total_ = log_last_ = powers_ = 0;
    possible_ = true;
    sound_ = {};
    if (backward_) fill(sums_, (K + 2) * W, 0.);
  }

  /// Whether a row needs a second sum.
  bool begin_agreeing() {
    done_ = going_ && kind_ != Kind::all;
    going_ = going_ && !done_;
    if (!going_) return false;
    kind_ = Kind::agreeing;
    log_last_ = powers_ = 0;
    return true;
  }

  /// The loss, by logarithms if there is none yet; hands on the gradients.
  double loss() {
    if (c_.steps == 0) return 0;
    if (!done_ && !going_) {
      kind_ = first_kind_;
      if (!t_.finite || !logs()) total_ = std::numeric_limits<double>::quiet_NaN();
    }
    if (backward_) finish();
    return total_;
  }

  bool logs() {
    start();
    if (!sum_logs(1)) return false;
    if (kind_ != Kind::all) return true;
    kind_ = Kind::agreeing;
    log_last_ = powers_ = 0;
    return sum_logs(-1);
  }

  /// False: scores beyond the largest double.
  bool sum_logs(double sign) {
    if (!forward_logs()) return false;
    return !settle() || backward_logs(sign);
  }

  /// By probabilities. A row of which these say too little is not going any more.
  static void sum(CrfRow* rows, double sign);

  /// What the forward sums say of the loss. False: there is nothing to go back for.
  bool settle() {
    if (kind_ == Kind::all) first_last_ = log_last_ + powers_ * ln2;
    // What cannot be weighs nothing, and has no gradient.
    possible_ = possible_ && is_finite(total_) && log_last_ > impossible;
    if (!possible_) {
      total_ = kind_ == Kind::partition ? impossible : -impossible;
      if (kind_ == Kind::all) kind_ = Kind::agreeing; // which are as few
      return false;
    }
    if (kind_ == Kind::exact || kind_ == Kind::partition) total_ += log_last_ + powers_ * ln2;
    if (kind_ == Kind::agreeing) total_ += first_last_ - (log_last_ + powers_ * ln2);
    return backward_;
  }

  static constexpr double ln2 = 0.69314718055994530942;

  /// The emissions of a step, impossible where they do not agree; returns the largest of them.
  double read(Index t, double* to, CrfSound& sound) const {
    const T* const x = crf_emissions(c_, t);
    Vec<double> top(impossible);
    for (Index j = 0; j < W; j += L) {
      const Vec<double> v = possible(x + j, K - j);
      sound.see(v);
      top = upper(top, v);
      store(to + j, v);
    }
    if (kind_ != Kind::agreeing) return largest_of(top);
    if (c_.possible) {
      const bool* may = c_.possible + t * c_.stride;
      for (Index j = 0; j < K; ++j)
        if (!may[j]) to[j] = impossible;
    } else if (const Index y = target(t); y >= 0) {
      const double own = to[y];
      fill(to, K, impossible);
      to[y] = own;
    }
    return crf_top(to, W);
  }

  /// Takes note of what the sums of step t are relative to: emissions to `top`, what leads there to
  /// `scale`.
  void relate(Index t, double emission, double top, double scale) {
    switch (kind_) {
    case Kind::partition:
      total_ += top + scale;
      break;
    case Kind::exact:
      total_ += (top - emission) + (scale - led(t));
      break;
    case Kind::all:
      tops_[t] = top;
      scales_[t] = scale;
      break;
    case Kind::agreeing:
      total_ += (tops_[t] - top) + (scales_[t] - scale);
    }
  }

  /// The score that leads to the target at step t, or from the last one to the end.
  double led(Index t) const {
    if (t == c_.steps) return t_.end[target(t - 1)];
    return t == 0 ? t_.start[target(0)] : t_.to[target(t - 1) * W + target(t)];
  }

  double emission_of(const double* x, Index t) const { return kind_ == Kind::exact ? x[target(t)] : 0; }

  void end(double top, double log_last) {
    log_last_ = log_last;
    if (kind_ == Kind::partition) total_ += top;
    if (kind_ == Kind::exact) total_ += top - led(c_.steps);
  }

  Index start_forward() {
    low_ = Vec<double>(largest_double);
    far_ = Vec<double>(0.);
    return c_.steps;
  }

  /// One step forward of rows side by side.
  static void forward(CrfRow* rows, Index t);

  /// Emissions of a step relative to their largest. False: none is possible.
  bool emit(Index t);

  /// alpha, from what leads to a step and the exponentials of its emissions.
  void weigh(Index t);

  /// No sequence is possible, if that is certain.
  void nothing(bool certain) {
    log_last_ = impossible;
    going_ = certain;
  }

  /// Whether the row is going still.
  bool end_forward();

  /// Whether sums, emissions relative to the largest of their step, and emissions are such that nothing
  /// that is possible has become zero.
  bool exact_enough() const {
    return smallest_of(low_) >= least_sum && smallest_of(far_) >= -most_emissions && sound_.holds();
  }

  /// Whether the largest of a row is near 1.
  static RNNCORE_INLINE bool is_steady(Vec<double> high) {
#if defined(__AVX512F__)
    return _mm512_cmp_pd_mask(high.p, _mm512_set1_pd(1 / big), _CMP_GT_OQ) &&
           !_mm512_cmp_pd_mask(high.p, _mm512_set1_pd(big), _CMP_GE_OQ);
#else
    const double top = largest_of(high);
    return top > 1 / big && top < big;
#endif
  }

  /// Multiplies a row by a power of two where its largest is far from 1, and returns it.
  double steady(double* a, Vec<double> high);

  /// What a step's probabilities p (W), in units of `part` and with this sign, add to the gradients of
  /// emissions, starts and ends.
  void spread(Index t, const double* p, double part, double sign) {
    for (Index j = 0; t == 0 && j < W; ++j) sums_[K * W + j] += sign * part * p[j];
    for (Index j = 0; t == c_.steps - 1 && j < W; ++j) sums_[(K + 1) * W + j] += sign * part * p[j];
    double* const all = p_ + t * W;
    if (kind_ == Kind::all) {
      for (Index j = 0; j < W; j += L) store(all + j, Vec<double>(part) * load(p + j));
      return;
    }
    T* const to = c_.gradient + t * c_.stride;
    const Vec<double> own(c_.scale * part);
    if (kind_ == Kind::agreeing) {
      const Vec<double> scale(c_.scale);
      for (Index j = 0; j < K; j += L)
        store_first(to + j, scale * load(all + j) - own * load(p + j), K - j);
      return;
    }
    for (Index j = 0; j < K; j += L) store_first(to + j, own * load(p + j), K - j);
    if (kind_ == Kind::exact) to[target(t)] = T(c_.scale * (part * p[target(t)] - 1));
  }

  /// One step back of rows side by side.
  static void backward(CrfRow* rows, Index t, double sign);

  /// The probabilities of step t, from alpha and the sums beta behind it; then beta times exponentials of
  /// emissions. False: probabilities are too small.
  bool leave(Index t, double sign);

  /// The sums behind the step before.
  void arrive(Index t);

  /// The gradients of transitions.
  void end_backward(double sign);

  // By logarithms: crf_logs.hpp.
  bool forward_logs();
  bool backward_logs(double sign);
  void add_pairs(const double* before, const double* after, double all, double sign);

  /// Hands on the gradients, or says that there are none.
  void finish() {
    const bool finite = is_finite(total_);
    if (!finite)
      for (Index t = 0; t < c_.steps; ++t)
        fill(c_.gradient + t * c_.stride, K, total_ == total_ ? T(0) : T(total_));
    if (!c_.sums || !finite || !is_finite(c_.scale * c_.per)) return;
    if (kind_ == Kind::exact) {
      for (Index t = 1; t < c_.steps; ++t) sums_[target(t - 1) * W + target(t)] -= 1;
      sums_[K * W + target(0)] -= 1;
      sums_[(K + 1) * W + target(c_.steps - 1)] -= 1;
    }
    const double per = c_.scale * c_.per;
    for (Index i = 0; i < K + 2; ++i) crf_add_rounded(sums_ + i * W, K, per, c_.sums + i * K);
  }

  const CrfLoss<T>& c_;
  const CrfTable& t_;
  const Index K, W;
  const bool backward_;
  double* free_;
  Kind kind_, first_kind_;
  // (T, W): exp(emission - top), later what pairs are summed from; alpha. Or their logarithms.
  double *emissions_, *alpha_;
  double *tops_, *scales_;       // (T)  of the sum over all
  double* own_scales_;           // (T)  of the sum at hand
  double *row_, *behind_;        // (W)
  double* spare_;                // (W)  in the place of one where the others go on
  double *p_, *sums_, *product_; // (T, W), (K + 2, W), (K, W)
  double total_ = 0, log_last_ = 0, first_last_ = 0, powers_ = 0;
  double share_ = 0;
  bool possible_ = true;
  bool going_ = false, back_ = false; // by probabilities; back, too
  bool done_ = false;
  Vec<double> low_, far_;
  CrfSound sound_;
};

} // namespace rnncore::RNNCORE_LEVEL

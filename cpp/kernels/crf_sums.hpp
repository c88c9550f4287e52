// Linear-chain CRFs: the sum over all sequences of tags of one row, over those that agree with targets, and
// the gradients of their logarithms (Lafferty et al. 2001; forward-backward).
//
// A step of the sums alpha, over what comes before it, is a product of a vector and exp(transitions), times
// exp(emissions): no logarithm and no other exponential. Powers of two keep its largest entry near 1. What
// is possible never becomes too small for a double: where an entry could (transitions or emissions that
// differ by more than a hundred nats, or tags that hardly any sequence comes to), the row is done again
// with logarithms.
//
// A loss is summed up as differences from what the target scores at each step, so that it loses nothing to
// the size of log Z, which grows with T and with the scores.
#pragma once

#include "attention.hpp"
#include "crf.hpp"

namespace rnncore::RNNCORE_LEVEL {

template <class T>
class CrfRow {
public:
  explicit CrfRow(const CrfLoss<T>& call)
      : c_(call), t_(*static_cast<const CrfTable*>(call.prepared)), K(t_.tags), W(t_.width),
        backward_(call.gradient), free_(static_cast<double*>(call.work)) {
    const bool partial = call.possible || (call.targets && !exact());
    kind_ = partial ? Kind::all : call.targets ? Kind::exact : Kind::partition;
    const Index kept = backward_ ? c_.steps : 2;
    emissions_ = take(kept * W);
    alpha_ = take(kept * W);
    tops_ = take(c_.steps);
    scales_ = take(c_.steps);
    row_ = take(W);
    behind_ = take(W);
    if (!backward_) return;
    p_ = take(partial ? c_.steps * W : W);
    sums_ = take((K + 2) * W);
    product_ = take(K * W);
    own_scales_ = take(c_.steps);
  }

  /// Bytes of its memory.
  static Index work(Index tags, Index steps, bool backward) {
    const Index W = crf_width(tags), kept = backward ? steps : 2;
    Index numbers = 2 * kept * W + 2 * (steps + 8) + 2 * W;
    if (backward) numbers += (steps + 1) * W + (2 * tags + 2) * W + steps + 8;
    return numbers * Index(sizeof(double));
  }

  double run() {
    if (c_.steps == 0) return 0;
    const Kind kind = kind_;
    bool done = t_.finite && t_.narrow && pass(false);
    if (!done) {
      kind_ = kind;
      done = t_.finite && pass(true);
    }
    if (!done) total_ = std::numeric_limits<double>::quiet_NaN();
    if (backward_) finish();
    return total_;
  }

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

  /// Everything, by probabilities or by logarithms. False: not by these.
  bool pass(bool logs) {
    total_ = 0;
    possible_ = true;
    if (backward_) fill(sums_, (K + 2) * W, 0.);
    if (!sum(logs, 1)) return false;
    if (kind_ != Kind::all) return true;
    kind_ = Kind::agreeing;
    return sum(logs, -1);
  }

  bool sum(bool logs, double sign) {
    log_last_ = powers_ = 0;
    if (!(logs ? forward_logs() : forward())) return false;
    if (kind_ == Kind::all) first_last_ = log_last_ + powers_ * ln2;
    // What cannot be weighs nothing, and has no gradient.
    possible_ = possible_ && __builtin_isfinite(total_) && log_last_ > impossible;
    if (!possible_) {
      total_ = kind_ == Kind::partition ? impossible : -impossible;
      if (kind_ == Kind::all) kind_ = Kind::agreeing; // which are as few
      return true;
    }
    if (kind_ == Kind::exact || kind_ == Kind::partition) total_ += log_last_ + powers_ * ln2;
    if (kind_ == Kind::agreeing) total_ += first_last_ - (log_last_ + powers_ * ln2);
    return !backward_ || (logs ? backward_logs(sign) : backward(sign));
  }

  static constexpr double ln2 = 0.69314718055994530942;

  /// The emissions of a step, impossible where they do not agree; returns the largest of them.
  double read(Index t, double* to, Vec<double>& bad) const {
    const T* const x = crf_emissions(c_, t);
    Vec<double> top(impossible);
    for (Index j = 0; j < W; j += L) {
      const Vec<double> v = possible(x + j, K - j);
      bad = bad + is_bad(v);
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

  bool forward() {
    Vec<double> low(largest_double), far(0.), bad(0.);
    for (Index t = 0; t < c_.steps; ++t) {
      double *const x = emissions(t), *const a = alpha(t);
      const double most = read(t, x, bad);
      if (most == impossible) return sum_of(bad) == 0 && nothing();
      relate(t, emission_of(x, t), most, t == 0 ? t_.top_start : t_.top);
      for (Index j = 0; j < W; j += L) {
        const Vec<double> v = load(x + j) - Vec<double>(most);
        far = lower(far, select_le(Vec<double>(-largest_double), v, v, Vec<double>(0.)));
        store(x + j, exp_below(v));
      }
      Vec<double> high(0.);
      const auto set = [&](Index j, Vec<double> led) RNNCORE_HOT {
        const Vec<double> v = led * load(x + j);
        high = upper(high, v);
        low = lower(low, select_le(v, Vec<double>(0.), Vec<double>(largest_double), v));
        store(a + j, v);
      };
      if (t == 0)
        for (Index j = 0; j < W; j += L) set(j, load(t_.exp_start + j));
      else
        crf_product<SumOfProducts>(alpha(t - 1), K, t_.exp_to, W, set);
      const double top = largest_of(high);
      if (top == 0) return exact_enough(low, far, bad) && nothing();
      const double scale = steady(a, top);
      if (backward_) own_scales_[t] = scale;
    }
    if (!exact_enough(low, far, bad)) return false;
    const double* a = alpha(c_.steps - 1);
    Vec<double> last(0.);
    for (Index j = 0; j < W; j += L) last = fma(load(a + j), load(t_.exp_end + j), last);
    end(t_.top_end, std::log(sum_of(last)));
    return true;
  }

  /// Whether sums, emissions relative to the largest of their step, and emissions are such that nothing
  /// that is possible has become zero.
  static bool exact_enough(Vec<double> low, Vec<double> far, Vec<double> bad) {
    return smallest_of(low) >= least_sum && smallest_of(far) >= -most_emissions && sum_of(bad) == 0;
  }

  /// Multiplies a row by a power of two where its largest is far from 1, and returns it.
  double steady(double* a, double top) {
    if (top > 1 / big && top < big) return 1;
    double scale = 1;
    for (; top * scale >= big; powers_ += log2_big) scale /= big;
    for (; top > 0 && top * scale <= 1 / big; powers_ -= log2_big) scale *= big;
    for (Index j = 0; j < W; j += L) store(a + j, load(a + j) * Vec<double>(scale));
    return scale;
  }

  /// No sequence is possible.
  bool nothing() {
    log_last_ = impossible;
    return true;
  }

  /// What a step's probabilities p (W), with this sign, add to the gradients of emissions, starts and ends.
  void spread(Index t, const double* p, double sign) {
    for (Index j = 0; t == 0 && j < W; ++j) sums_[K * W + j] += sign * p[j];
    for (Index j = 0; t == c_.steps - 1 && j < W; ++j) sums_[(K + 1) * W + j] += sign * p[j];
    if (kind_ == Kind::all) {
      copy(p, W, p_ + t * W);
      return;
    }
    T* const to = c_.gradient + t * c_.stride;
    if (kind_ == Kind::agreeing) {
      const double* all = p_ + t * W;
      for (Index j = 0; j < K; ++j) to[j] = T(c_.scale * (all[j] - p[j]));
      return;
    }
    for (Index j = 0; j < K; ++j) to[j] = T(c_.scale * p[j]);
    if (kind_ == Kind::exact) to[target(t)] = T(c_.scale * (p[target(t)] - 1));
  }

  bool backward(double sign) {
    double *b = behind_, *next = row_, *const p = product_;
    copy(t_.exp_end, W, b);
    Vec<double> low(largest_double);
    for (Index t = c_.steps - 1; t >= 0; --t) {
      double* const x = emissions(t);
      const double* a = alpha(t);
      Vec<double> norm(0.);
      for (Index j = 0; j < W; j += L) {
        const Vec<double> both = load(a + j) * load(b + j);
        norm = norm + both;
        store(p + j, both);
      }
      const double all = sum_of(norm);
      if (!(all >= least_norm)) return false;
      const Vec<double> part(1 / all);
      for (Index j = 0; j < W; j += L) store(p + j, load(p + j) * part);
      spread(t, p, sign);
      if (t == 0) break;
      for (Index j = 0; j < W; j += L) store(b + j, load(b + j) * load(x + j));
      Vec<double> high(0.);
      crf_product<SumOfProducts>(b, K, t_.exp_from, W, [&](Index j, Vec<double> v) RNNCORE_HOT {
        high = upper(high, v);
        low = lower(low, select_le(v, Vec<double>(0.), Vec<double>(largest_double), v));
        store(next + j, v);
      });
      // The probability of a pair of tags is its alpha, times exp(transition), times this.
      const Vec<double> share(own_scales_[t] / all);
      for (Index j = 0; j < W; j += L) store(x + j, load(b + j) * share);
      steady(next, largest_of(high));
      double* const done = b;
      b = next;
      next = done;
    }
    if (smallest_of(low) < least_sum) return false;
    if (c_.steps == 1) return true;
    mix<double>(K, {alpha_, 1, W}, {emissions_ + W, W}, c_.steps - 1, W, {product_, W}, false);
    for (Index j = 0; j < K * W; j += L)
      store(sums_ + j, fma(load(product_ + j) * load(t_.exp_to + j), Vec<double>(sign), load(sums_ + j)));
    return true;
  }

  bool forward_logs() {
    for (Index t = 0; t < c_.steps; ++t) {
      double *const x = emissions(t), *const a = alpha(t);
      Vec<double> bad(0.);
      read(t, x, bad);
      if (sum_of(bad) != 0) return false;
      const double own = emission_of(x, t);
      if (t == 0)
        copy(t_.start, W, a);
      else
        crf_log_product(alpha(t - 1), K, t_.to, W, a);
      for (Index j = 0; j < W; ++j)
        if (a[j] == impossible) x[j] = impossible; // whatever the emission of what cannot be is
      const double top = crf_top(x, W);
      if (top == impossible) return nothing();
      for (Index j = 0; j < W; ++j) a[j] += x[j] -= top;
      const double scale = crf_top(a, W);
      for (Index j = 0; j < W; ++j) a[j] -= scale;
      relate(t, own, top, scale);
      if (backward_) own_scales_[t] = scale;
    }
    for (Index j = 0; j < W; ++j) row_[j] = alpha(c_.steps - 1)[j] + t_.end[j];
    end(0, crf_log_sum(row_, W));
    return true;
  }

  bool backward_logs(double sign) {
    double *b = behind_, *next = row_, *const p = product_;
    copy(t_.end, W, b);
    for (Index t = c_.steps - 1; t >= 0; --t) {
      const double *x = emissions(t), *a = alpha(t);
      for (Index j = 0; j < W; ++j) p[j] = a[j] + b[j];
      const double most = crf_top(p, W);
      Vec<double> sum(0.);
      for (Index j = 0; j < W; j += L) {
        const Vec<double> share = exp_below(load(p + j) - Vec<double>(most));
        sum = sum + share;
        store(p + j, share);
      }
      const double all = sum_of(sum); // not in the logarithm: beside a huge one it would be lost
      if (!(all > 0)) return false;   // scores beyond the largest double
      for (Index j = 0; j < W; j += L) store(p + j, load(p + j) / Vec<double>(all));
      spread(t, p, sign);
      if (t == 0) break;
      for (Index j = 0; j < W; ++j) b[j] += x[j];
      add_pairs(alpha(t - 1), b, most + std::log(all) + own_scales_[t], sign);
      crf_log_product(b, K, t_.from, W, next);
      for (Index j = 0; j < W; ++j) // whatever comes after what cannot be is
        if (alpha(t - 1)[j] == impossible) next[j] = impossible;
      const double top = crf_top(next, W);
      for (Index j = 0; j < W; ++j) next[j] -= top;
      double* const done = b;
      b = next;
      next = done;
    }
    return true;
  }

  /// Adds exp(before_i + transition_ij + after_j - all).
  void add_pairs(const double* before, const double* after, double all, double sign) {
    for (Index i = 0; i < K; ++i) {
      if (before[i] == impossible) continue;
      const Vec<double> own(before[i] - all);
      double* const to = sums_ + i * W;
      for (Index j = 0; j < W; j += L) {
        // Scores whose sums have lost all but their size must not make more than a probability.
        const Vec<double> log = lower(own + load(t_.to + i * W + j) + load(after + j), Vec<double>(0.));
        store(to + j, fma(exp_below(log), Vec<double>(sign), load(to + j)));
      }
    }
  }

  /// Hands on the gradients, or says that there are none.
  void finish() {
    const bool finite = __builtin_isfinite(total_);
    if (!finite)
      for (Index t = 0; t < c_.steps; ++t)
        fill(c_.gradient + t * c_.stride, K, total_ == total_ ? T(0) : T(total_));
    if (!c_.sums || !finite || !__builtin_isfinite(c_.scale * c_.per)) return;
    if (kind_ == Kind::exact) {
      for (Index t = 1; t < c_.steps; ++t) sums_[target(t - 1) * W + target(t)] -= 1;
      sums_[K * W + target(0)] -= 1;
      sums_[(K + 1) * W + target(c_.steps - 1)] -= 1;
    }
    const double per = c_.scale * c_.per;
    for (Index i = 0; i < K + 2; ++i)
      for (Index j = 0; j < K; ++j) c_.sums[i * K + j] = int64_t(std::nearbyint(per * sums_[i * W + j]));
  }

  const CrfLoss<T>& c_;
  const CrfTable& t_;
  const Index K, W;
  const bool backward_;
  double* free_;
  Kind kind_;
  // (T, W): exp(emission - top), later what pairs are summed from; alpha. Or their logarithms.
  double *emissions_, *alpha_;
  double *tops_, *scales_;       // (T)  of the sum over all
  double* own_scales_;           // (T)  of the sum at hand
  double *row_, *behind_;        // (W)
  double *p_, *sums_, *product_; // (T, W), (K + 2, W), (K, W)
  double total_ = 0, log_last_ = 0, first_last_ = 0, powers_ = 0;
  bool possible_ = true;
};

template <class T>
Index crf_loss_work(Index tags, Index steps, bool backward) {
  return CrfRow<T>::work(tags, steps, backward);
}

template <class T>
double crf_loss(const CrfLoss<T>& call) {
  return CrfRow<T>(call).run();
}

template <class T>
constexpr Crf<T> crf = {crf_prepared, crf_prepare<T>,     crf_loss_work<T>,
                        crf_loss<T>,  crf_decode_work<T>, crf_decode<T>};

} // namespace rnncore::RNNCORE_LEVEL

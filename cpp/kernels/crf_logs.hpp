// Linear-chain CRFs: the sums of crf_sums.hpp by logarithms, for scores of which exponentials say too
// little.
#pragma once

#include "crf_row.hpp"

namespace rnncore::RNNCORE_LEVEL {

template <class T>
bool CrfRow<T>::forward_logs() {
  for (Index t = 0; t < c_.steps; ++t) {
    double *const x = emissions(t), *const a = alpha(t);
    CrfSound sound;
    read(t, x, sound);
    if (!sound.holds()) return false;
    const double own = emission_of(x, t);
    if (t == 0)
      copy(t_.start, W, a);
    else
      crf_log_product(alpha(t - 1), K, t_.to, W, a);
    for (Index j = 0; j < W; ++j)
      if (a[j] == impossible) x[j] = impossible; // whatever the emission of what cannot be is
    const double top = crf_top(x, W);
    if (top == impossible) {
      nothing(true);
      return true;
    }
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

template <class T>
bool CrfRow<T>::backward_logs(double sign) {
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
    spread(t, p, 1 / all, sign);
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
template <class T>
void CrfRow<T>::add_pairs(const double* before, const double* after, double all, double sign) {
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

} // namespace rnncore::RNNCORE_LEVEL

// Linear-chain CRFs: the sum over all sequences of tags of one row, over those that agree with targets, and
// the gradients of their logarithms (Lafferty et al. 2001; forward-backward).
//
// A step of the sums alpha, over what comes before it, is a product of a vector and exp(transitions), times
// exp(emissions): no logarithm and no other exponential. Powers of two keep its largest entry near 1. What
// is possible never becomes too small for a double: where an entry could (transitions or emissions that
// differ by more than a hundred nats, or tags that hardly any sequence comes to), the row is done again
// with logarithms.
//
// The steps of a row wait for each other, so rows go side by side, a step of each in turn.
//
// A loss is summed up as differences from what the target scores at each step, so that it loses nothing to
// the size of log Z, which grows with T and with the scores.
#pragma once

#include "attention.hpp"
#include "crf_logs.hpp"

namespace rnncore::RNNCORE_LEVEL {

template <class T>
void CrfRow<T>::run(CrfRow* rows, Index count, double* losses) {
  for (Index r = 0; r < crf_rows; ++r) rows[r].begin(r < count);
  sum(rows, 1);
  bool again = false;
  for (Index r = 0; r < count; ++r) again = rows[r].begin_agreeing() || again;
  if (again) sum(rows, -1);
  for (Index r = 0; r < count; ++r) losses[r] = rows[r].loss();
}

template <class T>
void CrfRow<T>::sum(CrfRow* rows, double sign) {
  Index most = 0;
  for (Index r = 0; r < crf_rows; ++r)
    if (rows[r].going_) most = max(most, rows[r].start_forward());
  for (Index t = 0; t < most; ++t) forward(rows, t);
  for (Index r = 0; r < crf_rows; ++r) rows[r].back_ = rows[r].end_forward() && rows[r].settle();
  for (Index t = most - 1; t >= 0; --t) backward(rows, t, sign);
  for (Index r = 0; r < crf_rows; ++r) rows[r].end_backward(sign);
}

template <class T>
void CrfRow<T>::forward(CrfRow* rows, Index t) {
  const CrfTable& table = rows->t_;
  const Index W = table.width;
  CrfRows x, from, to;
  bool on[crf_rows];
  for (Index r = 0; r < crf_rows; ++r) {
    CrfRow& row = rows[r];
    on[r] = row.going_ && row.log_last_ > impossible && t < row.c_.steps && row.emit(t);
    x.at[r] = on[r] ? row.emissions(t) : row.spare_;
    from.at[r] = on[r] && t > 0 ? row.alpha(t - 1) : row.spare_;
    to.at[r] = on[r] ? row.alpha(t) : row.spare_;
  }
  for (Index r = 0; r < crf_rows; r += 2)
    for (Index j = 0; (on[r] || on[r + 1]) && j < W; j += L) {
      const Pair<double> e = exp_below(Pair<double>(load(x.at[r] + j), load(x.at[r + 1] + j)));
      store(x.at[r] + j, e.a);
      store(x.at[r + 1] + j, e.b);
    }
  if (t > 0) crf_product<SumOfProducts>(from, table.tags, table.exp_to, table.exp_from, W, to);
  for (Index r = 0; r < crf_rows; ++r)
    if (on[r]) rows[r].weigh(t);
}

template <class T>
bool CrfRow<T>::emit(Index t) {
  double* const x = emissions(t);
  const double most = read(t, x, sound_);
  if (most == impossible) {
    nothing(sound_.holds());
    return false;
  }
  relate(t, emission_of(x, t), most, t == 0 ? t_.top_start : t_.top);
  Vec<double> far = far_;
  for (Index j = 0; j < W; j += L) {
    const Vec<double> v = load(x + j) - Vec<double>(most);
    far = lower_above(impossible, far, v);
    store(x + j, v);
  }
  far_ = far;
  return true;
}

template <class T>
void CrfRow<T>::weigh(Index t) {
  const double* const x = emissions(t);
  double* const a = alpha(t);
  const double* const led = t == 0 ? t_.exp_start : a;
  Vec<double> high(0.), low = low_;
  for (Index j = 0; j < W; j += L) {
    const Vec<double> v = load(led + j) * load(x + j);
    high = upper(high, v);
    low = lower_above(0, low, v);
    store(a + j, v);
  }
  low_ = low;
  if (!is_steady(high) && largest_of(high) == 0) return nothing(exact_enough());
  const double scale = steady(a, high);
  if (backward_) own_scales_[t] = scale;
}

template <class T>
bool CrfRow<T>::end_forward() {
  if (!going_ || log_last_ == impossible) return going_;
  going_ = exact_enough();
  if (!going_) return false;
  const double* a = alpha(c_.steps - 1);
  Vec<double> last(0.);
  for (Index j = 0; j < W; j += L) last = fma(load(a + j), load(t_.exp_end + j), last);
  end(t_.top_end, std::log(sum_of(last)));
  return true;
}

template <class T>
double CrfRow<T>::steady(double* a, Vec<double> high) {
  if (is_steady(high)) return 1;
  const double top = largest_of(high);
  double scale = 1;
  for (; top * scale >= big; powers_ += log2_big) scale /= big;
  for (; top > 0 && top * scale <= 1 / big; powers_ -= log2_big) scale *= big;
  for (Index j = 0; j < W; j += L) store(a + j, load(a + j) * Vec<double>(scale));
  return scale;
}

template <class T>
void CrfRow<T>::backward(CrfRow* rows, Index t, double sign) {
  const CrfTable& table = rows->t_;
  CrfRows from, to;
  bool on[crf_rows];
  for (Index r = 0; r < crf_rows; ++r) {
    CrfRow& row = rows[r];
    on[r] = row.back_ && t < row.c_.steps && row.leave(t, sign);
    from.at[r] = on[r] ? row.behind_ : row.spare_;
    to.at[r] = on[r] ? row.row_ : row.spare_;
  }
  if (t == 0) return;
  crf_product<SumOfProducts>(from, table.tags, table.exp_from, table.exp_to, table.width, to);
  for (Index r = 0; r < crf_rows; ++r)
    if (on[r]) rows[r].arrive(t);
}

template <class T>
bool CrfRow<T>::leave(Index t, double sign) {
  if (t == c_.steps - 1) {
    copy(t_.exp_end, W, behind_);
    low_ = Vec<double>(largest_double);
  }
  const double *a = alpha(t), *x = emissions(t);
  double *const b = behind_, *const p = product_;
  Vec<double> norm(0.);
  for (Index j = 0; j < W; j += L) {
    const Vec<double> behind = load(b + j), both = load(a + j) * behind;
    norm = norm + both;
    store(p + j, both);
    store(b + j, behind * load(x + j));
  }
  const double all = sum_of(norm);
  back_ = going_ = all >= least_norm;
  if (!going_) return false;
  spread(t, p, 1 / all, sign);
  share_ = own_scales_[t] / all;
  return true;
}

template <class T>
void CrfRow<T>::arrive(Index t) {
  double *const b = behind_, *const next = row_, *const x = emissions(t);
  // The probability of a pair of tags is its alpha, times exp(transition), times this.
  const Vec<double> share(share_);
  Vec<double> high(0.), low = low_;
  for (Index j = 0; j < W; j += L) {
    const Vec<double> v = load(next + j);
    high = upper(high, v);
    low = lower_above(0, low, v);
    store(x + j, load(b + j) * share);
  }
  low_ = low;
  steady(next, high);
  behind_ = next;
  row_ = b;
}

template <class T>
void CrfRow<T>::end_backward(double sign) {
  if (!back_) return;
  back_ = false;
  going_ = c_.steps == 1 || smallest_of(low_) >= least_sum;
  if (!going_ || c_.steps == 1) return;
  mix<double>(K, {alpha_, 1, W}, {emissions_ + W, W}, c_.steps - 1, W, {product_, W}, false);
  for (Index j = 0; j < K * W; j += L)
    store(sums_ + j, fma(load(product_ + j) * load(t_.exp_to + j), Vec<double>(sign), load(sums_ + j)));
}

template <class T>
Index crf_loss_work(Index tags, Index steps, bool backward) {
  return CrfRow<T>::work(tags, steps, backward);
}

template <class T>
void crf_loss(const CrfLoss<T>* calls, Index rows, double* losses) {
  static_assert(crf_rows == 4);
  const auto call = [&](Index r) -> const CrfLoss<T>& { return calls[min(r, rows - 1)]; };
  CrfRow<T> all[crf_rows] = {CrfRow<T>(call(0)), CrfRow<T>(call(1)), CrfRow<T>(call(2)),
                             CrfRow<T>(call(3))};
  CrfRow<T>::run(all, rows, losses);
}

template <class T>
constexpr Crf<T> crf = {crf_prepared, crf_prepare<T>,     crf_loss_work<T>,
                        crf_loss<T>,  crf_decode_work<T>, crf_decode<T>};

} // namespace rnncore::RNNCORE_LEVEL

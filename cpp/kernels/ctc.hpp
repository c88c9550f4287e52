// Connectionist temporal classification (Graves et al. 2006).
//
// A path takes a blank or a label at each frame. Of S labels there are 2 S + 1 states: label i between the
// blanks i and i + 1. Forward, alpha, the probability of the paths that are in a state at frame t:
//
//   blank_t(i) = (blank(i) + label(i - 1)) p_t(blank)
//   label_t(i) = (label(i) + blank(i) + [label i differs from label i - 1] label(i - 1)) p_t(label i)
//
// Backward, beta, the probability of what may follow, the other way round. With P, that of all paths:
//
//   d(-log P) / d logit_t(k) = p_t(k) - sum of alpha beta / P over the states of k
#pragma once

#include "../engine/alignment.hpp"
#include "lattice.hpp"
#include "pointwise.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// log sum exp of a row.
template <class T>
double log_sum_exp(const T* x, Index n) {
  const T top = largest(x, n);
  Vec<T> sum(T(0));
  for (Index i = 0; i < n; i += lanes<T>)
    sum = sum + first_lanes(exp_below(load(x + i, n - i) - Vec<T>(top)), n - i);
  return double(top) + std::log(double(sum_of(sum)));
}

/// Frames whose alpha is in memory at once; of the others one in so many is.
constexpr Index ctc_block = 64;

/// The states at one frame. Label i is at i + 1: what comes before it then has its blank's place.
struct CtcRow {
  WideRow blank, label;

  static Index width(Index count) {
    return (count + 1 + lanes<double> - 1) / lanes<double> * lanes<double>;
  }
  /// Numbers of a row: behind each array there is a vector, which is read but means nothing.
  static Index size(Index count) { return 4 * (width(count) + 2 * lanes<double>); }

  CtcRow(double* memory, Index count) {
    const Index step = size(count) / 4;
    blank = {memory, memory + step};
    label = {memory + 2 * step, memory + 3 * step};
  }

  void clear(Index count) const {
    const Index n = size(count) / 4;
    for (const WideRow row : {blank, label}) {
      fill(row.m, n, 1.);
      fill(row.e, n, nothing);
    }
  }
};

template <class T>
class CtcLattice {
public:
  explicit CtcLattice(const CtcSequence<T>& sequence)
      : s_(sequence), count_(sequence.count), width_(CtcRow::width(count_)), row_(CtcRow::size(count_)),
        memory_(static_cast<double*>(sequence.work)), label_{take(), take()}, skip_(take()), z_(take()) {
    fill(label_.m, padded(), 1.);
    fill(label_.e, padded(), nothing);
    fill(z_, padded(), -double(INFINITY));
    fill(skip_, padded(), nothing);
    for (Index i = 1; i < count_; ++i)
      if (s_.labels[i] != s_.labels[i - 1]) skip_[i] = 0;
  }

  static Index work(const CtcSequence<T>& s, bool backward) {
    const Index rows = backward ? ctc_block + s.steps / ctc_block + 4 : 2;
    return Index(sizeof(double)) * (rows * CtcRow::size(s.count) + 4 * padded(s.count));
  }

  double forward() {
    CtcRow row = first(), next = take_row();
    for (Index t = 0; t < s_.steps; ++t) {
      s_.log_sums[t] = log_sum_exp(s_.logits + t * s_.stride, s_.classes);
      look(t);
      step(row, next);
      const CtcRow done = row;
      row = next;
      next = done;
    }
    return log_of(likelihood(row, 0), likelihood(row, 1));
  }

  void backward(const CtcBackward<T>& b) {
    if (!(b.log_likelihood > -INFINITY)) return give_up(b);
    if (!s_.steps) return;
    const Index blocks = (s_.steps + ctc_block - 1) / ctc_block;
    double* const starts = memory_;
    memory_ += blocks * row_;
    double* const alphas = memory_;
    memory_ += (ctc_block + 1) * row_;
    const auto start = [&](Index block) { return CtcRow(starts + block * row_, count_); };
    const auto alpha = [&](Index i) { return CtcRow(alphas + i * row_, count_); };
    const auto run = [&](Index block) {
      const Index begin = block * ctc_block, n = min(ctc_block, s_.steps - begin);
      copy(starts + block * row_, row_, alphas);
      for (Index i = 0; i < n; ++i) {
        look(begin + i);
        step(alpha(i), alpha(i + 1));
      }
      return n;
    };
    for (Index i = 0; i <= min(ctc_block, s_.steps); ++i) alpha(i).clear(count_);
    start(0).clear(count_);
    start(0).blank.e[0] = 0;
    for (Index block = 0; block + 1 < blocks; ++block)
      copy(alphas + run(block) * row_, row_, starts + (block + 1) * row_);
    const CtcRow beta = take_row();
    beta.blank.e[count_] = 0;
    if (count_) beta.label.e[count_] = 0;
    double m = 1, e = 0;
    for (Index block = blocks - 1; block >= 0; --block) {
      for (Index i = run(block) - 1; i >= 0; --i) {
        const Index t = block * ctc_block + i;
        const CtcRow now = alpha(i + 1);
        if (t == s_.steps - 1) m = likelihood(now, 0), e = likelihood(now, 1);
        look(t);
        subtract(b, t, now, beta, m, e);
        step_back(beta);
      }
    }
  }

private:
  static Index padded(Index count) { return CtcRow::size(count) / 4; }
  Index padded() const { return padded(count_); }

  double* take() {
    double* const memory = memory_;
    memory_ += padded();
    return memory;
  }

  CtcRow take_row() {
    const CtcRow row(memory_, count_);
    memory_ += row_;
    row.clear(count_);
    return row;
  }

  /// Before the first frame: the path is about to begin.
  CtcRow first() {
    const CtcRow row = take_row();
    row.blank.e[0] = 0;
    return row;
  }

  /// The probabilities of the labels and of the blank at a frame.
  void look(Index t) {
    const T* const x = s_.logits + t * s_.stride;
    for (Index i = 0; i < count_; ++i) z_[i] = double(x[s_.labels[i]]) - s_.log_sums[t];
    for (Index i = 0; i < count_; i += lanes<double>) label_.set(i, exp_wide(load(z_ + i)));
    blank_ = exp_wide(Vec<double>(double(x[s_.blank]) - s_.log_sums[t]));
  }

  void step(const CtcRow& from, const CtcRow& to) const {
    for (Index i = 0; i < width_; i += lanes<double>) {
      const Wide blank = from.blank[i], before = from.label[i], own = from.label[i + 1];
      const Wide skipping{before.m, before.e + load(skip_ + i)};
      to.blank.set(i, tidy((blank + before) * blank_));
      to.label.set(i + 1, tidy((own + blank + skipping) * label_[i]));
    }
  }

  /// From the probability of what follows frame t, its own not included, to that of what follows t - 1.
  void step_back(const CtcRow& beta) const {
    for (Index i = 0; i < width_; i += lanes<double>) {
      beta.blank.set(i, beta.blank[i] * blank_);
      beta.label.set(i + 1, beta.label[i + 1] * label_[i]);
    }
    for (Index i = 0; i < width_; i += lanes<double>) {
      const Wide blank = beta.blank[i], next = beta.blank[i + 1];
      const Wide label = beta.label[i + 1], after = beta.label[i + 2];
      const Wide skipping{after.m, after.e + load(skip_ + i + 1)};
      beta.blank.set(i, tidy(blank + label));
      beta.label.set(i + 1, tidy(label + next + skipping));
    }
  }

  /// m or e of the probability of all paths.
  double likelihood(const CtcRow& row, int part) const {
    const Wide all = Wide{Vec<double>(row.blank.m[count_]), Vec<double>(row.blank.e[count_])} +
                     Wide{Vec<double>(row.label.m[count_]), Vec<double>(row.label.e[count_])};
    alignas(64) double numbers[lanes<double>];
    store(numbers, part ? all.e : all.m);
    return numbers[0];
  }

  /// The gradient at frame t.
  void subtract(const CtcBackward<T>& b, Index t, const CtcRow& alpha, const CtcRow& beta, double m,
                double e) {
    const T* const x = s_.logits + t * s_.stride;
    T* const to = b.gradient + t * s_.stride;
    const Vec<T> scale{T(b.scale)}, sum{T(s_.log_sums[t])};
    for_each_vector(to, s_.classes, [=](Vec<T> v) RNNCORE_HOT { return exp_below(v - sum) * scale; }, x);
    const Vec<double> factor(b.scale / m), exponent(e);
    Vec<double> blanks(0.);
    for (Index i = 0; i < width_; i += lanes<double>) {
      const Wide blank = alpha.blank[i] * beta.blank[i], label = alpha.label[i + 1] * beta.label[i + 1];
      blanks = fma(blank.m, shift(blank.e - exponent), blanks);
      store(z_ + i, label.m * shift(label.e - exponent) * factor);
    }
    for (Index i = 0; i < count_; ++i) to[s_.labels[i]] -= T(z_[i]);
    to[s_.blank] -= T(sum_of(blanks * factor));
    fill(z_ + count_, padded() - count_, -double(INFINITY));
  }

  /// No path is possible, and nothing can be made better; or there is a NaN.
  void give_up(const CtcBackward<T>& b) const {
    const T value = b.log_likelihood == -INFINITY ? T(0) : T(b.log_likelihood);
    for (Index t = 0; t < s_.steps; ++t) fill(b.gradient + t * s_.stride, s_.classes, value);
  }

  const CtcSequence<T>& s_;
  const Index count_, width_, row_;
  double* memory_;
  const WideRow label_;
  double *const skip_, *const z_;
  Wide blank_;
};

template <class T>
constexpr Ctc<T> ctc{
    &CtcLattice<T>::work,
    [](const CtcSequence<T>& s) { return CtcLattice<T>(s).forward(); },
    [](const CtcBackward<T>& b) { CtcLattice<T>(b).backward(b); },
};

} // namespace rnncore::RNNCORE_LEVEL

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

/// Forward keeps alpha once in so many frames; backward makes it again for as many at a time.
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
        memory_(static_cast<double*>(sequence.work)), label_{take(1, padded()), take(1, padded())},
        skip_(take(1, padded())), z_(take(1, padded())), occupied_(take(1, padded())) {
    clear(label_);
    fill(z_, padded(), -double(INFINITY));
    fill(skip_, padded(), nothing);
    for (Index i = 1; i < count_; ++i)
      if (s_.labels[i] != s_.labels[i - 1]) skip_[i] = 0;
  }

  static Index work(const CtcSequence<T>& s, bool backward) {
    const Index frames = min(ctc_block, s.steps), row = CtcRow::size(s.count), own = padded(s.count);
    return Index(sizeof(double)) * (5 * own + (backward ? (frames + 2) * row + 2 * frames * own : 2 * row));
  }

  static Index kept(const CtcSequence<T>& s) {
    return (s.steps + ctc_block - 1) / ctc_block * CtcRow::size(s.count);
  }

  double forward() {
    CtcRow row = take_row(), next = take_row();
    row.blank.e[0] = 0; // before the first frame: every path is about to begin
    for (Index t = 0; t < s_.steps; ++t) {
      if (t % ctc_block == 0) copy(row.blank.m, row_, s_.starts + t / ctc_block * row_);
      s_.log_sums[t] = log_sum_exp(s_.logits + t * s_.stride, s_.classes);
      look(t, label_);
      step(row, next, label_);
      const CtcRow done = row;
      row = next;
      next = done;
    }
    return log_of(likelihood(row));
  }

  void backward(const CtcBackward<T>& b) {
    if (!(b.log_likelihood > -INFINITY)) return give_up(b);
    const CtcRow beta = take_row();
    beta.blank.e[count_] = 0;
    if (count_) beta.label.e[count_] = 0;
    Block block(*this, min(ctc_block, s_.steps));
    Wide all{};
    for (Index begin = (s_.steps - 1) / ctc_block * ctc_block; begin >= 0 && s_.steps; begin -= ctc_block)
      for (Index i = block.run(begin) - 1; i >= 0; --i) {
        const CtcRow now = block.alpha(i + 1);
        if (begin + i == s_.steps - 1) all = likelihood(now);
        subtract(b, begin + i, now, beta, all);
        step_back(beta, block.labels(i), block.blanks[i]);
      }
  }

private:
  /// The states of some frames, and the probabilities of their labels.
  struct Block {
    CtcLattice& lattice;
    double *const alphas, *const found;
    Wide blanks[ctc_block];

    Block(CtcLattice& l, Index frames)
        : lattice(l), alphas(l.take(frames + 1, l.row_)), found(l.take(2 * frames, l.padded())) {
      for (Index i = 0; i <= frames; ++i) alpha(i).clear(l.count_);
      for (Index i = 0; i < frames; ++i) l.clear(labels(i));
    }

    CtcRow alpha(Index i) const { return {alphas + i * lattice.row_, lattice.count_}; }
    WideRow labels(Index i) const {
      double* const own = found + 2 * i * lattice.padded();
      return {own, own + lattice.padded()};
    }

    /// From frame `begin` on; returns how many there are.
    Index run(Index begin) {
      const Index n = min(ctc_block, lattice.s_.steps - begin);
      copy(lattice.s_.starts + begin / ctc_block * lattice.row_, lattice.row_, alphas);
      for (Index i = 0; i < n; ++i) {
        lattice.look(begin + i, labels(i));
        lattice.step(alpha(i), alpha(i + 1), labels(i));
        blanks[i] = lattice.blank_;
      }
      return n;
    }
  };

  static Index padded(Index count) { return CtcRow::size(count) / 4; }
  Index padded() const { return padded(count_); }

  /// The next of the memory: so many arrays.
  double* take(Index count, Index size) {
    double* const memory = memory_;
    memory_ += count * size;
    return memory;
  }

  CtcRow take_row() {
    const CtcRow row(take(1, row_), count_);
    row.clear(count_);
    return row;
  }

  void clear(WideRow row) const {
    fill(row.m, padded(), 1.);
    fill(row.e, padded(), nothing);
  }

  /// The probabilities of the labels and of the blank at a frame.
  void look(Index t, WideRow labels) {
    const T* const x = s_.logits + t * s_.stride;
    for (Index i = 0; i < count_; ++i) z_[i] = double(x[s_.labels[i]]) - s_.log_sums[t];
    for (Index i = 0; i < count_; i += lanes<double>) labels.set(i, exp_wide(load(z_ + i)));
    blank_ = exp_wide(Vec<double>(double(x[s_.blank]) - s_.log_sums[t]));
  }

  void step(const CtcRow& from, const CtcRow& to, WideRow labels) const {
    for (Index i = 0; i < width_; i += lanes<double>) {
      const Wide blank = from.blank[i], before = from.label[i], own = from.label[i + 1];
      const Wide skipping{before.m, before.e + load(skip_ + i)};
      to.blank.set(i, tidy((blank + before) * blank_));
      to.label.set(i + 1, tidy((own + blank + skipping) * labels[i]));
    }
  }

  /// From the probability of what follows frame t, its own not included, to that of what follows t - 1.
  void step_back(const CtcRow& beta, WideRow labels, Wide blank_label) const {
    for (Index i = 0; i < width_; i += lanes<double>) {
      beta.blank.set(i, beta.blank[i] * blank_label);
      beta.label.set(i + 1, beta.label[i + 1] * labels[i]);
    }
    for (Index i = 0; i < width_; i += lanes<double>) {
      const Wide blank = beta.blank[i], next = beta.blank[i + 1];
      const Wide label = beta.label[i + 1], after = beta.label[i + 2];
      const Wide skipping{after.m, after.e + load(skip_ + i + 1)};
      beta.blank.set(i, tidy(blank + label));
      beta.label.set(i + 1, tidy(label + next + skipping));
    }
  }

  /// The probability of all paths, in every lane.
  Wide likelihood(const CtcRow& row) const {
    return Wide{Vec<double>(row.blank.m[count_]), Vec<double>(row.blank.e[count_])} +
           Wide{Vec<double>(row.label.m[count_]), Vec<double>(row.label.e[count_])};
  }

  /// The gradient at frame t.
  void subtract(const CtcBackward<T>& b, Index t, const CtcRow& alpha, const CtcRow& beta, Wide all) {
    const T* const x = s_.logits + t * s_.stride;
    T* const to = b.gradient + t * s_.stride;
    const Vec<T> scale{T(b.scale)}, sum{T(s_.log_sums[t])};
    for_each_vector(to, s_.classes, [=](Vec<T> v) RNNCORE_HOT { return exp_below(v - sum) * scale; }, x);
    const Vec<double> factor = Vec<double>(b.scale) / all.m;
    Vec<double> blanks(0.);
    for (Index i = 0; i < width_; i += lanes<double>) {
      const Wide blank = alpha.blank[i] * beta.blank[i], label = alpha.label[i + 1] * beta.label[i + 1];
      blanks = fma(blank.m, shift(blank.e - all.e), blanks);
      store(occupied_ + i, label.m * shift(label.e - all.e) * factor);
    }
    for (Index i = 0; i < count_; ++i) to[s_.labels[i]] -= T(occupied_[i]);
    to[s_.blank] -= T(sum_of(blanks * factor));
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
  double *const skip_, *const z_, *const occupied_;
  Wide blank_;
};

template <class T>
constexpr Ctc<T> ctc{
    &CtcLattice<T>::work,
    &CtcLattice<T>::kept,
    [](const CtcSequence<T>& s) { return CtcLattice<T>(s).forward(); },
    [](const CtcBackward<T>& b) { CtcLattice<T>(b).backward(b); },
};

} // namespace rnncore::RNNCORE_LEVEL

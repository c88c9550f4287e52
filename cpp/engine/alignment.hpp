// What crosses the wall for losses that sum over alignments, as api.hpp does for the rest.
#pragma once

#include "api.hpp"
#include "transducer.hpp"

namespace rnncore {

/// One sequence of frames, and the labels to be found in it.
template <class T>
struct CtcSequence {
  const T* logits; // frame t starts at logits + t * stride
  Index steps, stride, classes, blank;
  const int64_t* labels; // none is the blank
  Index count;
  double* log_sums; // (steps)  of each frame log sum_k exp(logit_k): out of forward, in of backward
  double* starts;   // (`kept` numbers)  the states at every so many frames, likewise
  void* work;
};

/// The gradient of `scale` times the loss, - log_likelihood.
template <class T>
struct CtcBackward : CtcSequence<T> {
  double log_likelihood, scale;
  T* gradient; // as the logits
};

template <class T>
struct Ctc {
  Index (*work)(const CtcSequence<T>&, bool backward); // bytes
  Index (*kept)(const CtcSequence<T>&);
  double (*forward)(const CtcSequence<T>&); // the log-likelihood
  void (*backward)(const CtcBackward<T>&);
};

/// Rows of a batch that a CRF takes side by side.
constexpr Index crf_rows = 4;

/// The scores of a linear-chain CRF over K tags.
template <class T>
struct CrfScores {
  Index tags;
  const T *transitions, *start, *end; // (K, K) [from][to], (K), (K)
  const bool* allowed;                // (K + 2, K)  transitions, starts, ends; or null: all
};

/// One sequence of emissions (K); and the scores, prepared.
template <class T>
struct CrfSequence {
  const void* prepared;
  const T* emissions; // step t starts at emissions + t * stride
  Index steps, stride;
  void* work;
};

/// - log of the probability of all sequences of tags that agree with the targets; or, of no targets, log Z.
template <class T>
struct CrfLoss : CrfSequence<T> {
  const int64_t* targets; // step t at t * target_stride, -1: any tag; or null
  Index target_stride;
  const bool* possible; // (K) for each step, as the emissions: the tags that may be; or null
  // The gradient of `scale` times the loss, in a unit of which there are `per` in 1 for the parameters.
  double scale, per;
  T* gradient;   // as the emissions; null: none is wanted
  int64_t* sums; // (K + 2, K)  transitions, start, end; added to where the loss is finite
};

/// The best sequences of tags with their scores; -1 and -inf where there are no more.
template <class T>
struct CrfDecode : CrfSequence<T> {
  Index count;
  int64_t* tags; // of the r-th best at r * next + t * tag_stride
  Index tag_stride, next;
  double* scores; // at r * next_score
  Index next_score;
};

template <class T>
struct Crf {
  Index (*prepared)(Index tags); // bytes
  void (*prepare)(const CrfScores<T>&, void* prepared);
  Index (*loss_work)(Index tags, Index steps, bool backward);  // bytes
  void (*loss)(const CrfLoss<T>*, Index rows, double* losses); // up to `crf_rows`
  Index (*decode_work)(Index tags, Index steps, Index count);  // bytes
  void (*decode)(const CrfDecode<T>*, Index rows); // up to `crf_rows`, which have `count` in common
};

/// The kernels of one type of numbers.
template <class T>
struct Alignment {
  Ctc<T> ctc;
  Crf<T> crf;
  Transducer<T> transducer;
};

} // namespace rnncore

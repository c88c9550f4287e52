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
  double (*forward)(const CtcSequence<T>&);            // the log-likelihood
  void (*backward)(const CtcBackward<T>&);
};

/// The kernels of one type of numbers.
template <class T>
struct Alignment {
  Ctc<T> ctc;
  Transducer<T> transducer;
};

} // namespace rnncore

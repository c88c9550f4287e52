// What sees one number, or one row, at a time. y may be x.
#pragma once

#include <cmath>

#include "activations.hpp"
#include "time_steps.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// y = f(x...), where each x has n numbers.
template <class T, class F, class... Ts>
RNNCORE_INLINE void for_each_vector(T* y, Index n, F f, const Ts*... x) {
  for (Index i = 0; i < n; i += lanes<T>) store(y + i, f(load(x + i, n - i)...), n - i);
}

/// The frequent ones have loops of their own.
template <class T>
void activate(const Activation& f, const T* x, T* y, Index n) {
  switch (f.kind) {
  case ActivationKind::sigmoid:
    return for_each_vector(y, n, [](Vec<T> v) RNNCORE_HOT { return sigmoid(v); }, x);
  case ActivationKind::tanh:
    return for_each_vector(y, n, [](Vec<T> v) RNNCORE_HOT { return tanh(v); }, x);
  case ActivationKind::relu:
    return for_each_vector(y, n, [](Vec<T> v) RNNCORE_HOT { return Relu::value(v); }, x);
  default:
    return for_each_vector(y, n, [&](Vec<T> v) RNNCORE_HOT { return value_of(f, v); }, x);
  }
}

template <class T>
void activate_backward(const Activation& f, const T* y, const T* dy, T* dx, Index n) {
  const auto times_slope = [=](auto slope) RNNCORE_HOT {
    for_each_vector(dx, n, [&](Vec<T> v, Vec<T> d) RNNCORE_HOT { return d * slope(v); }, y, dy);
  };
  switch (f.kind) {
  case ActivationKind::sigmoid:
    return times_slope([](Vec<T> v) RNNCORE_HOT { return Sigmoid::slope(v); });
  case ActivationKind::tanh:
    return times_slope([](Vec<T> v) RNNCORE_HOT { return Tanh::slope(v); });
  case ActivationKind::relu:
    return times_slope([](Vec<T> v) RNNCORE_HOT { return Relu::slope(v); });
  default:
    return times_slope([&](Vec<T> v) RNNCORE_HOT { return slope_of(f, v); });
  }
}

/// The larger of two numbers, NaN if one of them is.
template <class T>
RNNCORE_INLINE Vec<T> larger(Vec<T> a, Vec<T> b) {
  return select_le(a, a, select_le(b, a, a, b), a);
}

template <class T>
void apply(Function f, const T* x, T* y, Index n) {
  const auto each = [=](auto function) RNNCORE_HOT { for_each_vector(y, n, function, x); };
  switch (f) {
  case Function::negative:
    return each([](Vec<T> v) RNNCORE_HOT { return -v; });
  case Function::absolute:
    return each([](Vec<T> v) RNNCORE_HOT { return -minus_abs(v); });
  case Function::square:
    return each([](Vec<T> v) RNNCORE_HOT { return v * v; });
  case Function::square_root:
    return each([](Vec<T> v) RNNCORE_HOT { return Vec<T>(packets::psqrt(v.p)); });
  case Function::reciprocal:
    return each([](Vec<T> v) RNNCORE_HOT { return Vec<T>(T(1)) / v; });
  }
}

template <class T>
void combine(Operation f, const T* a, const T* b, T* y, Index n) {
  const auto each = [=](auto function) RNNCORE_HOT { for_each_vector(y, n, function, a, b); };
  switch (f) {
  case Operation::add:
    return each([](Vec<T> v, Vec<T> w) RNNCORE_HOT { return v + w; });
  case Operation::subtract:
    return each([](Vec<T> v, Vec<T> w) RNNCORE_HOT { return v - w; });
  case Operation::multiply:
    return each([](Vec<T> v, Vec<T> w) RNNCORE_HOT { return v * w; });
  case Operation::divide:
    return each([](Vec<T> v, Vec<T> w) RNNCORE_HOT { return v / w; });
  case Operation::maximum:
    return each([](Vec<T> v, Vec<T> w) RNNCORE_HOT { return larger(v, w); });
  case Operation::minimum:
    return each([](Vec<T> v, Vec<T> w) RNNCORE_HOT { return -larger(-v, -w); });
  }
}

/// NaN may be passed over: its row becomes NaN by its exponential.
template <class T>
T largest(const T* x, Index n) {
  Vec<T> top(x[0]);
  Index i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) {
    const Vec<T> v = load(x + i);
    top = select_le(top, v, v, top);
  }
  alignas(64) T tops[lanes<T>];
  store(tops, top);
  T most = tops[0];
  for (const T own : tops) most = own > most ? own : most;
  for (; i < n; ++i) most = x[i] > most ? x[i] : most;
  return most;
}

template <class T>
void softmax(const T* x, T* y, Index rows, Index width) {
  for (; width && rows > 0; --rows, x += width, y += width) {
    const Vec<T> top(largest(x, width));
    Vec<T> sum(T(0));
    for (Index i = 0; i < width; i += lanes<T>) {
      const Vec<T> e = exp_below(load(x + i, width - i) - top);
      sum = sum + first_lanes(e, width - i);
      store(y + i, e, width - i);
    }
    const Vec<T> total(sum_of(sum));
    for_each_vector(y, width, [=](Vec<T> e) RNNCORE_HOT { return e / total; }, y);
  }
}

template <class T>
void layer_norm(const LayerNorm<T>& norm, const T* x, T* y, Index rows) {
  const Index width = norm.width;
  for (; rows > 0; --rows, x += width, y += width) {
    Vec<T> sum(T(0)), squares(T(0));
    for (Index i = 0; i < width; i += lanes<T>) sum = sum + load(x + i, width - i);
    const Vec<T> mean(sum_of(sum) / T(width));
    for (Index i = 0; i < width; i += lanes<T>) {
      const Vec<T> centred = first_lanes(load(x + i, width - i) - mean, width - i);
      squares = fma(centred, centred, squares);
    }
    const Vec<T> scale(T(1) / std::sqrt(sum_of(squares) / T(width) + norm.epsilon));
    for (Index i = 0; i < width; i += lanes<T>) {
      const Index n = width - i;
      const Vec<T> normal = (load(x + i, n) - mean) * scale;
      store(y + i, fma(normal, load(norm.weight + i, n), load(norm.bias + i, n)), n);
    }
  }
}

template <class T>
void slopes(const T* a, Index count, const T* x, T* y, Index rows, Index width) {
  const auto sloped = [](Vec<T> v, Vec<T> slope)
                          RNNCORE_HOT { return select_le(v, Vec<T>(T(0)), slope * v, v); };
  if (count == 1) {
    const Vec<T> slope(a[0]);
    return for_each_vector(y, rows * width, [=](Vec<T> v) RNNCORE_HOT { return sloped(v, slope); }, x);
  }
  for (; rows > 0; --rows, x += width, y += width) for_each_vector(y, width, sloped, x, a);
}

} // namespace rnncore::RNNCORE_LEVEL

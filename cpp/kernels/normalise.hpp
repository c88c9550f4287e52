// Layer normalisation (Ba et al. 2016) of one row, in place:
//
//   y = (x - mean) / sqrt(variance + epsilon)
//   dx = (dy - mean(dy) - y mean(dy y)) / sqrt(variance + epsilon)
#pragma once

#include <cmath>

#include "time_steps.hpp"

namespace rnncore::RNNCORE_LEVEL {

constexpr double epsilon = 1e-5;

/// Normalises n numbers, which `for_each(f)` hands out as f(place of a vector, its lanes that count);
/// returns one over the standard deviation.
template <class T, class E>
T normalise(const E& for_each, Index n) {
  Vec<T> sum(T(0)), squares(T(0));
  for_each([&](T* x, Index valid) { sum = sum + load(x, valid); });
  const Vec<T> mean(sum_of(sum) / T(n));
  for_each([&](T* x, Index valid) {
    const Vec<T> centred = first_lanes(load(x, valid) - mean, valid);
    store(x, centred, valid);
    squares = fma(centred, centred, squares);
  });
  const T scale = T(1) / std::sqrt(sum_of(squares) / T(n) + T(epsilon));
  for_each([&](T* x, Index valid) { store(x, load(x, valid) * Vec<T>(scale), valid); });
  return scale;
}

/// f(place in a row, its lanes that count) for each vector of n numbers.
template <class T, class F>
void for_each_vector_of(Index n, F f) {
  for (Index j = 0; j < n; j += lanes<T>) f(j, min(lanes<T>, n - j));
}

template <class T>
T normalise(T* row, Index n) {
  return normalise<T>([=](auto f) { for_each_vector_of<T>(n, [&](Index j, Index v) { f(row + j, v); }); },
                      n);
}

/// From the gradient of what a row became, y, to that of what it was.
template <class T>
void unnormalise(T* d, const T* y, Index n, T scale) {
  Vec<T> sum(T(0)), along(T(0));
  for_each_vector_of<T>(n, [&](Index j, Index valid) {
    const Vec<T> dy = load(d + j, valid);
    sum = sum + dy;
    along = fma(dy, load(y + j, valid), along);
  });
  const Vec<T> mean(sum_of(sum) / T(n)), slope(sum_of(along) / T(n));
  for_each_vector_of<T>(n, [&](Index j, Index valid) {
    const Vec<T> dx = load(d + j, valid) - fma(load(y + j, valid), slope, mean);
    store(d + j, dx * Vec<T>(scale), valid);
  });
}

} // namespace rnncore::RNNCORE_LEVEL

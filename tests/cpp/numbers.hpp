// Numbers to compute with, the same everywhere.
#pragma once

#include <cmath>
#include <vector>

#include "kernels/layout.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// Small whole numbers, whose sums of products are exact in any order.
template <class T>
std::vector<T> whole_numbers(Index n, uint32_t seed) {
  std::vector<T> numbers(n);
  for (T& number : numbers) {
    seed = seed * 1664525u + 1013904223u;
    number = T(int(seed >> 16) % 15 - 7);
  }
  return numbers;
}

/// Numbers within -1 .. 1 whose sums round.
template <class T>
std::vector<T> fractions(Index n, Index seed) {
  std::vector<T> numbers(n);
  for (Index i = 0; i < n; ++i) numbers[i] = T(std::sin(double((seed + i) * (i + 3))));
  return numbers;
}

/// 1, 2, 3, ...: each is told from all others.
template <class T>
std::vector<T> counted(Index n, Index first = 1) {
  std::vector<T> numbers(n);
  for (Index i = 0; i < n; ++i) numbers[i] = T(first + i);
  return numbers;
}

/// Sizes around those of vectors and panels.
template <class T>
std::vector<Index> edge_sizes() {
  constexpr Index L = lanes<T>;
  return {1, L - 1, L, L + 1, 2 * L, 3 * L + 2, 4 * L, 5 * L + 1, 9 * L + 3};
}

} // namespace rnncore::RNNCORE_LEVEL

// What the recurrent products of a node read, made of the states of those it continues; and the gradients.
#pragma once

#include "layout.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// to += from
template <class T>
RNNCORE_INLINE void add_to(T* to, const T* from, Index columns) {
  for (Index j = 0; j < columns; ++j) to[j] += from[j];
}

/// to = mask * from
template <class T>
RNNCORE_INLINE void mask_to(T* to, const T* mask, const T* from, Index columns) {
  for (Index j = 0; j < columns; ++j) to[j] = mask[j] * from[j];
}

/// [a, a_0 a, a_1 a, ...] of the a at its beginning.
template <class T>
void pair_up(T* pairs, Index columns) {
  for (Index i = 0; i < columns; ++i) {
    T* to = pairs + (i + 1) * columns;
    for (Index j = 0; j < columns; ++j) to[j] = pairs[i] * pairs[j];
  }
}

/// From the gradient of what `pair_up` made of a to that of a, some columns, added to `to`:
/// d_i + sum_j (d_ij + d_ji) a_j.
template <class T>
void unpair(const T* pairs, const T* d_pairs, Index columns, Index begin, Index end, T* to) {
  add_to(to, d_pairs + begin, end - begin);
  for (Index j = 0; j < columns; ++j) {
    const T* d = d_pairs + (j + 1) * columns + begin;
    for (Index i = 0; i < end - begin; ++i) to[i] += d[i] * pairs[j];
  }
  for (Index i = begin; i < end; ++i) {
    const T* d = d_pairs + (i + 1) * columns;
    Vec<T> sum(T(0));
    for (Index j = 0; j < columns; j += lanes<T>)
      sum = fma(load(d + j, columns - j), load(pairs + j, columns - j), sum);
    to[i - begin] += sum_of(sum);
  }
}

} // namespace rnncore::RNNCORE_LEVEL

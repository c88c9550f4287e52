// What a search asks of logits and of attention. Searches in Python and in here take the same functions.
#pragma once

#include <vector>

#include "arrays.hpp"

namespace rnncore {

/// log softmax of rows; one with a NaN, or an infinite largest number, is NaN.
template <class T>
void log_softmax(const T* x, Index rows, Index width, T* y);

/// The numbers of the k likeliest of `width` tokens, in ascending order: of equals the first.
template <class T>
void likeliest(const T* log_probs, Index width, Index k, int64_t* found);

/// sum_i log(min(sum_j p_ij, 1)) over `length` steps i of a source; `attention`: the weights p of each step
/// j. What is not attended to, or with NaN, counts as the smallest normal number.
template <class T>
double coverage(const std::vector<const T*>& attention, Index length);

/// The same of arrays: (R, V) to (R, V); (R, V) to (R, k); (R, N, S) and lengths (R) to (R).
template <class T>
py::object log_softmax_of(const py::object& logits);
template <class T>
py::object likeliest_of(const py::object& log_probs, Index k);
template <class T>
py::object coverage_of(const py::object& attention, const py::object& lengths);

} // namespace rnncore

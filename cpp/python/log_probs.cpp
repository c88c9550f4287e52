#include "log_probs.hpp"

#include <cmath>

#include "../engine/denormals.hpp"
#include "../engine/dispatch.hpp"

namespace rnncore {
namespace {

template <class T>
Array<T> table(const char* name, const py::object& object) {
  const Array<T> rows = contiguous<T>(object);
  if (rows.ndim() != 2 || rows.shape(1) == 0)
    throw py::value_error(std::string(name) + ": unexpected shape");
  return rows;
}

} // namespace

template <class T>
void log_softmax(const T* x, Index rows, Index width, T* y) {
  const FlushDenormals flush;
  kernels_of<T>().pointwise.softmax(x, y, rows, width);
  for (; rows > 0; --rows, x += width, y += width) {
    const Index top = std::max_element(x, x + width) - x;
    const T most = x[top], log_share = std::log(y[top]); // of a share exp(0) / sum
    for (Index i = 0; i < width; ++i) y[i] = (x[i] - most) + log_share;
  }
}

template <class T>
void likeliest(const T* log_probs, Index width, Index k, int64_t* found) {
  const auto better = [=](int64_t a, int64_t b) {
    return log_probs[a] != log_probs[b] ? log_probs[a] > log_probs[b] : a < b;
  };
  for (Index i = 0; i < k; ++i) found[i] = i;
  std::make_heap(found, found + k, better); // the worst of them in front
  for (Index i = k; i < width; ++i) {
    if (!(log_probs[i] > log_probs[found[0]])) continue;
    std::pop_heap(found, found + k, better);
    found[k - 1] = i;
    std::push_heap(found, found + k, better);
  }
  std::sort(found, found + k);
}

template <class T>
double coverage(const std::vector<const T*>& attention, Index length) {
  constexpr double least = std::numeric_limits<T>::min();
  double sum = 0;
  for (Index i = 0; i < length; ++i) {
    double seen = 0;
    for (const T* weights : attention) seen += double(weights[i]);
    sum += std::log(seen > least ? std::min(seen, 1.0) : least);
  }
  return sum;
}

template <class T>
py::object log_softmax_of(const py::object& logits) {
  const Array<T> x = table<T>("logits", logits);
  Array<T> y = new_array<T>({x.shape(0), x.shape(1)});
  log_softmax(x.data(), x.shape(0), x.shape(1), y.mutable_data());
  return y;
}

template <class T>
py::object likeliest_of(const py::object& log_probs, Index k) {
  const Array<T> x = table<T>("log_probs", log_probs);
  const Index rows = x.shape(0), width = x.shape(1);
  if (k < 1 || k > width) throw py::value_error("k: there are not so many");
  Array<int64_t> found = new_array<int64_t>({rows, k});
  int64_t* to = found.mutable_data();
  for (Index r = 0; r < rows; ++r) likeliest(x.data() + r * width, width, k, to + r * k);
  return found;
}

template <class T>
py::object coverage_of(const py::object& attention, const py::object& lengths) {
  const Array<T> weights = contiguous<T>(attention);
  if (weights.ndim() != 3) throw py::value_error("attention: unexpected shape");
  const Index rows = weights.shape(0), steps = weights.shape(1), width = weights.shape(2);
  const Array<int64_t> until = of_shape<int64_t>("lengths", lengths, {rows});
  Array<double> found = new_array<double>({rows});
  double* to = found.mutable_data();
  std::vector<const T*> lines(steps);
  for (Index r = 0; r < rows; ++r) {
    if (until.data()[r] > width) throw py::value_error("lengths: not of attention");
    for (Index j = 0; j < steps; ++j) lines[j] = weights.data() + (r * steps + j) * width;
    to[r] = coverage(lines, until.data()[r]);
  }
  return found;
}

#define RNNCORE_LOG_PROBS(T)                                                                               \
  template void log_softmax(const T*, Index, Index, T*);                                                   \
  template void likeliest(const T*, Index, Index, int64_t*);                                               \
  template double coverage(const std::vector<const T*>&, Index);                                           \
  template py::object log_softmax_of<T>(const py::object&);                                                \
  template py::object likeliest_of<T>(const py::object&, Index);                                           \
  template py::object coverage_of<T>(const py::object&, const py::object&);
RNNCORE_LOG_PROBS(float)
RNNCORE_LOG_PROBS(double)
#undef RNNCORE_LOG_PROBS

} // namespace rnncore

// Rows of activations, softmax, layer normalisation and slopes, of every width and of none.
#include "kernels/pointwise.hpp"

#include <limits>

#include "check.hpp"
#include "numbers.hpp"

namespace rnncore::RNNCORE_LEVEL {
namespace {

template <class T>
void activations(Index n) {
  const std::vector<T> x = fractions<T>(n, 2);
  for (const ActivationKind kind :
       {ActivationKind::sigmoid, ActivationKind::tanh, ActivationKind::relu, ActivationKind::elu}) {
    std::vector<T> y(n), in_place = x;
    activate(Activation{kind, 0.5, 0}, x.data(), y.data(), n);
    activate(Activation{kind, 0.5, 0}, in_place.data(), in_place.data(), n);
    CHECK(y == in_place, "%td numbers in place", n);
    for (Index i = 0; i < n; ++i) {
      const double a = x[i];
      const double want = kind == ActivationKind::sigmoid ? 1 / (1 + std::exp(-a))
                          : kind == ActivationKind::tanh  ? std::tanh(a)
                          : a > 0                         ? a
                          : kind == ActivationKind::relu  ? 0
                                                          : 0.5 * std::expm1(a);
      CHECK(std::abs(y[i] - want) <= 4 * std::numeric_limits<T>::epsilon(), "number %td of %td", i, n);
    }
  }
}

template <class T>
void softmaxes(Index rows, Index width, double size) {
  std::vector<T> x = fractions<T>(rows * width, 3), y(rows * width);
  for (T& number : x) number *= T(size);
  softmax(x.data(), y.data(), rows, width);
  for (Index r = 0; r < rows; ++r) {
    double top = -std::numeric_limits<double>::infinity(), sum = 0;
    for (Index i = 0; i < width; ++i) top = std::fmax(top, x[r * width + i]);
    for (Index i = 0; i < width; ++i) sum += std::exp(x[r * width + i] - top);
    for (Index i = 0; i < width; ++i) {
      const double away = x[r * width + i] - top, want = std::exp(away) / sum; // `away` is rounded there
      const double error = (8 + double(width) - away) * std::numeric_limits<T>::epsilon() * want + 2e-38;
      CHECK(std::abs(y[r * width + i] - want) <= error, "softmax of %td, row %td, number %td", width, r, i);
    }
  }
}

template <class T>
void layer_norms(Index rows, Index width) {
  const std::vector<T> x = fractions<T>(rows * width, 4), weight = fractions<T>(width, 5),
                       bias = fractions<T>(width, 6);
  const T epsilon = T(1e-3);
  std::vector<T> y(rows * width);
  layer_norm(LayerNorm<T>{width, weight.data(), bias.data(), epsilon}, x.data(), y.data(), rows);
  for (Index r = 0; r < rows; ++r) {
    double mean = 0, variance = 0;
    for (Index i = 0; i < width; ++i) mean += double(x[r * width + i]) / double(width);
    for (Index i = 0; i < width; ++i) variance += std::pow(x[r * width + i] - mean, 2) / double(width);
    for (Index i = 0; i < width; ++i) {
      const double normal = (x[r * width + i] - mean) / std::sqrt(variance + epsilon);
      const double want = normal * weight[i] + bias[i];
      const double error = (100 + double(width)) * std::numeric_limits<T>::epsilon();
      CHECK(std::abs(y[r * width + i] - want) <= error, "layer norm of %td, row %td, number %td", width, r,
            i);
    }
  }
}

template <class T>
void slopes_of(Index rows, Index width) {
  const std::vector<T> x = fractions<T>(rows * width, 7), weight = fractions<T>(width, 8);
  for (const Index count : {Index(1), width}) {
    std::vector<T> y(rows * width), in_place = x;
    slopes(weight.data(), count, x.data(), y.data(), rows, width);
    slopes(weight.data(), count, in_place.data(), in_place.data(), rows, width);
    CHECK(y == in_place, "slopes of %td in place", width);
    for (Index i = 0; i < rows * width; ++i)
      CHECK(y[i] == (x[i] > 0 ? x[i] : weight[count == 1 ? 0 : i % width] * x[i]), "slope %td of %td", i,
            width);
  }
}

template <class T>
void test() {
  activations<T>(0);
  softmaxes<T>(3, 0, 1);
  for (const Index n : edge_sizes<T>()) {
    activations<T>(n);
    for (const Index rows : {0, 1, 5}) {
      softmaxes<T>(rows, n, 1);
      softmaxes<T>(rows, n, 50);
      layer_norms<T>(rows, n);
      slopes_of<T>(rows, n);
    }
  }
}

} // namespace

void test_pointwise() {
  test<float>();
  test<double>();
}

} // namespace rnncore::RNNCORE_LEVEL

// Activations and their slopes against the C library's functions; clipping; both ends, and no number.
#include "kernels/activations.hpp"

#include <limits>

#include "check.hpp"
#include "numbers.hpp"

namespace rnncore::RNNCORE_LEVEL {
namespace {

/// An activation as its papers have it, and its derivative.
struct Function {
  const char* name;
  Activation activation;
  double (*value)(double x, double alpha, double beta);
  double (*slope)(double x, double alpha, double beta);
  double kink = 0, other_kink = 0; // where there is no derivative
};

double logistic(double x) { return 1 / (1 + std::exp(-x)); }

constexpr double selu_rate = 1.0507009873554805, selu_floor = 1.6732632423543772;

const Function functions[] = {
    {"sigmoid",
     {ActivationKind::sigmoid, 0, 0},
     [](double x, double, double) { return logistic(x); },
     [](double x, double, double) { return logistic(x) * logistic(-x); }},
    {"tanh",
     {ActivationKind::tanh, 0, 0},
     [](double x, double, double) { return std::tanh(x); },
     [](double x, double, double) { return 1 / std::cosh(x) / std::cosh(x); }},
    {"relu",
     {ActivationKind::relu, 0, 0},
     [](double x, double, double) { return x > 0 ? x : 0; },
     [](double x, double, double) { return x > 0 ? 1. : 0.; }},
    {"identity",
     {ActivationKind::identity, 0, 0},
     [](double x, double, double) { return x; },
     [](double, double, double) { return 1.; }},
    {"affine",
     {ActivationKind::affine, 2, -0.5},
     [](double x, double a, double b) { return a * x + b; },
     [](double, double a, double) { return a; }},
    {"leaky_relu",
     {ActivationKind::leaky_relu, 0.25, 0},
     [](double x, double a, double) { return x > 0 ? x : a * x; },
     [](double x, double a, double) { return x > 0 ? 1 : a; }},
    {"thresholded_relu",
     {ActivationKind::thresholded_relu, 0.75, 0},
     [](double x, double a, double) { return x > a ? x : 0; },
     [](double x, double a, double) { return x > a ? 1. : 0.; },
     0.75,
     0.75},
    {"scaled_tanh",
     {ActivationKind::scaled_tanh, 1.75, 0.625},
     [](double x, double a, double b) { return a * std::tanh(b * x); },
     [](double x, double a, double b) { return a * b / std::cosh(b * x) / std::cosh(b * x); }},
    {"hard_sigmoid",
     {ActivationKind::hard_sigmoid, 0.25, 0.5},
     [](double x, double a, double b) { return std::fmax(0, std::fmin(1, a * x + b)); },
     [](double x, double a, double b) { return a * x + b > 0 && a * x + b < 1 ? a : 0; },
     -2,
     2},
    {"elu",
     {ActivationKind::elu, 0.5, 0},
     [](double x, double a, double) { return x > 0 ? x : a * std::expm1(x); },
     [](double x, double a, double) { return x > 0 ? 1 : a * std::exp(x); }},
    {"selu",
     {ActivationKind::selu, 0, 0},
     [](double x, double, double) { return selu_rate * (x > 0 ? x : selu_floor * std::expm1(x)); },
     [](double x, double, double) { return selu_rate * (x > 0 ? 1 : selu_floor * std::exp(x)); }},
    {"softsign",
     {ActivationKind::softsign, 0, 0},
     [](double x, double, double) { return x / (1 + std::abs(x)); },
     [](double x, double, double) { return 1 / (1 + std::abs(x)) / (1 + std::abs(x)); }},
    {"softplus",
     {ActivationKind::softplus, 0, 0},
     [](double x, double, double) { return std::fmax(x, 0) + std::log1p(std::exp(-std::abs(x))); },
     [](double x, double, double) { return logistic(x); }},
    {"exponential",
     {ActivationKind::exponential, 0, 0},
     [](double x, double, double) { return std::exp(x); },
     [](double x, double, double) { return std::exp(x); }},
};

/// f of each number, some of them at the edge of a vector.
template <class T, class F>
std::vector<T> applied(const std::vector<T>& x, F f) {
  std::vector<T> y(x.size());
  const Index n = Index(x.size());
  for (Index i = 0; i < n; i += lanes<T>) store(y.data() + i, f(load(x.data() + i, n - i)), n - i);
  return y;
}

template <class T>
void against_the_library(const Function& f) {
  const double eps = std::numeric_limits<T>::epsilon(), a = f.activation.alpha, b = f.activation.beta;
  std::vector<T> x;
  for (int i = -6007; i <= 6007; i += 2) x.push_back(T(i) / 256); // to 23 and a half both ways
  for (const double more : {0., -0., 1e-30, -1e-30, 80., -80.}) x.push_back(T(more));
  const std::vector<T> y = applied(x, [&](Vec<T> v) { return value_of(f.activation, v); }),
                       slope = applied(y, [&](Vec<T> v) { return slope_of(f.activation, v); });
  for (std::size_t i = 0; i < x.size(); ++i) {
    // Where terms cancel the error is that of the larger of them.
    const double want = f.value(x[i], a, b),
                 terms = f.activation.kind == ActivationKind::affine ? std::abs(b) : 0;
    CHECK(std::abs(y[i] - want) <= 8 * eps * (std::abs(want) + terms) + 2e-38, "%s(%g) = %.17g, not %.17g",
          f.name, double(x[i]), double(y[i]), want);
    if (x[i] == f.kink || x[i] == f.other_kink) continue;
    const double rate = f.slope(x[i], a, b); // from the value, which is rounded
    CHECK(std::abs(slope[i] - rate) <= 8 * eps * (2 + std::abs(rate)), "%s'(%g) = %.17g, not %.17g", f.name,
          double(x[i]), double(slope[i]), rate);
  }
}

template <class T>
void ends(const Function& f) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  const auto at = [&](double x) {
    return double(applied(std::vector<T>{T(x)}, [&](Vec<T> v) { return value_of(f.activation, v); })[0]);
  };
  CHECK(std::isnan(at(std::nan(""))), "%s of no number is %g", f.name, at(std::nan("")));
  if (f.activation.kind == ActivationKind::softsign) return; // inf / inf
  for (const double x : {inf, -inf, 1e30, -1e30}) {
    const double want = T(f.value(x, f.activation.alpha, f.activation.beta));
    CHECK(at(x) == want || std::abs(at(x) - want) <= 1e-6 * std::abs(want) + 2e-38, "%s(%g) = %g, not %g",
          f.name, x, at(x), want);
  }
}

/// As many numbers as there are, none of a vector's others.
template <class T>
void edges() {
  for (Index n = 0; n <= 2 * lanes<T> + 1; ++n) {
    const std::vector<T> x = fractions<T>(n, 1), y = applied(x, [](Vec<T> v) { return tanh(v); });
    for (Index i = 0; i < n; ++i)
      CHECK(std::abs(y[i] - std::tanh(double(x[i]))) <= 1e-6, "number %td of %td", i, n);
  }
}

/// Sums within +- 0.5, cell states within +- 2.
template <class T>
void clipped() {
  const double most = 0.5, cell = 2;
  const CellOptions options{{ActivationKind::sigmoid, 0, 0},
                            {ActivationKind::tanh, 0, 0},
                            {ActivationKind::tanh, 0, 0},
                            cell,
                            most};
  const WithOptions<T> rules{options, Vec<T>(T(0.25))};
  std::vector<T> x;
  for (int i = -999; i <= 999; i += 2) x.push_back(T(i) / 256);
  const std::vector<T> gate = applied(x, [&](Vec<T> v) { return rules.gate(v); }),
                       slope = applied(gate, [&](Vec<T> v) { return rules.gate_slope(v); }),
                       c = applied(x, [&](Vec<T> v) { return rules.clip(v); }),
                       dc = applied(c, [&](Vec<T> v) { return rules.unclip(Vec<T>(T(3)), v); }),
                       dropped = applied(x, [&](Vec<T> v) { return rules.drop(v); });
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double a = x[i], within = std::fmax(-most, std::fmin(most, a)), want = logistic(within);
    CHECK(std::abs(gate[i] - want) <= 1e-6, "the gate of %g", a);
    const double rate = std::abs(a) < most ? want * (1 - want) : 0;
    CHECK(std::abs(slope[i] - rate) <= 1e-6, "the slope of the gate of %g: %g, not %g", a, double(slope[i]),
          rate);
    CHECK(c[i] == T(std::fmax(-cell, std::fmin(cell, a))), "the cell state %g", a);
    CHECK(dc[i] == (std::abs(a) < cell ? T(3) : T(0)), "the gradient of the cell state %g", a);
    CHECK(dropped[i] == x[i] * T(0.25), "the candidate %g", a);
  }
  const CellOptions free{options.gate, options.gate, options.gate, 0, 0};
  const WithOptions<T> none{free, Vec<T>(T(1))};
  CHECK(applied(x, [&](Vec<T> v) { return none.clip(v); }) == x, "a cell clip of %d", 0);
  CHECK(applied(x, [&](Vec<T> v) { return none.unclip(v, v); }) == x, "a cell clip of %d", 0);
}

template <class T>
void test() {
  for (const Function& f : functions) {
    against_the_library<T>(f);
    ends<T>(f);
  }
  edges<T>();
  clipped<T>();
}

} // namespace

void test_activations() {
  test<float>();
  test<double>();
}

} // namespace rnncore::RNNCORE_LEVEL

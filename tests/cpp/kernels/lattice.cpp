// Numbers with an exponent of their own against logarithms of long double.
#include "kernels/lattice.hpp"

#include "check.hpp"
#include "numbers.hpp"

namespace rnncore::RNNCORE_LEVEL {
namespace {

bool near(double a, double b) { return a == b || std::fabs(a - b) <= 1e-14 * (1 + std::fabs(b)); }

double log_add(double a, double b) {
  const double top = a > b ? a : b;
  return top == -INFINITY
             ? top
             : double(top + std::log(std::exp((long double)(a - top)) + std::exp((long double)(b - top))));
}

void exponentials() {
  for (const double z :
       {0., -1e-300, -0.3, -0.7, 0.5, 88., -708., -745., -1e4, -12345.678, -1e9, -3e15, -3e38, -1e280})
    CHECK(near(log_of(exp_wide(Vec<double>(z))), z), "exp of %g: %.17g", z,
          log_of(exp_wide(Vec<double>(z))));
  CHECK(log_of(exp_wide(Vec<double>(-INFINITY))) == -INFINITY, "exp of -inf");
  CHECK(std::isnan(log_of(exp_wide(Vec<double>(NAN)))), "exp of NaN");
}

void sums() {
  for (const double a : {0., -1., -700., -1e5, -1e8})
    for (const double d : {0., 0.5, 30., 700., 1e5}) {
      const Wide x = exp_wide(Vec<double>(a)), y = exp_wide(Vec<double>(a - d));
      CHECK(near(log_of(tidy(x + y)), log_add(a, a - d)), "log(exp(%g) + exp(%g))", a, a - d);
      CHECK(near(log_of(tidy(y + x)), log_add(a, a - d)), "log(exp(%g) + exp(%g))", a - d, a);
      CHECK(near(log_of(tidy(x * y)), 2 * a - d), "exp(%g) exp(%g)", a, a - d);
    }
}

void zeros() {
  const Wide zero{Vec<double>(1.), Vec<double>(nothing)}, x = exp_wide(Vec<double>(-5.));
  CHECK(near(log_of(tidy(zero + x)), -5), "0 + x");
  CHECK(log_of(tidy(zero * x)) == -INFINITY, "0 x");
  CHECK(log_of(tidy(zero + zero)) == -INFINITY, "0 + 0");
  const Wide nan{Vec<double>(NAN), Vec<double>(0.)};
  CHECK(std::isnan(log_of(tidy(nan + x))), "NaN + x");
  CHECK(std::isnan(log_of(tidy(zero + nan))), "0 + NaN");
  CHECK(std::isnan(log_of(tidy(nan * zero))), "NaN 0");
}

void long_products() {
  Wide product = exp_wide(Vec<double>(0.));
  double sum = 0;
  for (int i = 0; i < 100000; ++i) {
    const double z = -std::fabs(std::sin(double(i))) * 3;
    product = tidy(product * exp_wide(Vec<double>(z)));
    sum += z;
  }
  CHECK(std::fabs(log_of(product) - sum) <= 1e-12 * -sum, "a product of 100,000 factors: %.17g, not %.17g",
        log_of(product), sum);
}

} // namespace

void test_lattice() {
  exponentials();
  sums();
  zeros();
  long_products();
}

} // namespace rnncore::RNNCORE_LEVEL

// Vectors: loads and stores at edges, what is selected lane by lane, squares turned round.
#include "kernels/simd.hpp"

#include <limits>

#include "check.hpp"
#include "numbers.hpp"

namespace rnncore::RNNCORE_LEVEL {
namespace {

template <class T>
void edges() {
  constexpr Index L = lanes<T>;
  for (Index n = 1; n <= L + 1; ++n) {
    const Index there = min(n, L);
    const std::vector<T> from = counted<T>(there); // not a number more
    std::vector<T> whole(L, T(-1)), part(L, T(-1));
    const Vec<T> v = load(from.data(), n);
    store(whole.data(), v);
    store(part.data(), v, n);
    for (Index i = 0; i < L; ++i) {
      CHECK(whole[i] == (i < there ? from[i] : T(0)), "lane %td of %td", i, n);
      CHECK(part[i] == (i < there ? from[i] : T(-1)), "lane %td of %td stored", i, n);
    }
  }
}

template <class T>
void lane_by_lane() {
  constexpr T nan = std::numeric_limits<T>::quiet_NaN(), inf = std::numeric_limits<T>::infinity();
  const std::vector<T> values = {T(0), T(-0.0), T(1), T(-1), T(0.3), T(-7), inf, -inf, nan};
  const auto lane = [](Vec<T> v) {
    T all[lanes<T>];
    store(all, v);
    return all[lanes<T> - 1];
  };
  const auto same = [](T a, T b) {
    return (a == b && std::signbit(a) == std::signbit(b)) || (a != a && b != b);
  };
  for (const T a : values) {
    CHECK(same(lane(minus_abs(Vec<T>(a))), -std::abs(a)), "-|%g|", double(a));
    CHECK(same(lane(at_least(Vec<T>(a), Vec<T>(T(-2)))), a < T(-2) ? T(-2) : a), "at least: %g", double(a));
    for (const T b : values) {
      const T selected = lane(select_le(Vec<T>(a), Vec<T>(b), Vec<T>(T(5)), Vec<T>(T(6))));
      CHECK(selected == (a <= b ? T(5) : T(6)), "%g <= %g", double(a), double(b));
      if (b == b) {
        const T size = std::abs(a), want = std::copysign(size, b);
        CHECK(same(lane(with_sign(Vec<T>(size), Vec<T>(b))), want), "sign of %g", double(b));
      }
    }
  }
}

template <class T>
void squares() {
  constexpr Index L = lanes<T>, stride = L + 3;
  const std::vector<T> from = counted<T>(L * stride);
  Square<T> square = load_square(from.data(), stride);
  transpose<T>(square);
  T row[L];
  for (Index i = 0; i < L; ++i) {
    store(row, Vec<T>(square.packet[i]));
    for (Index j = 0; j < L; ++j) CHECK(row[j] == from[j * stride + i], "at %td, %td", i, j);
  }
  T sum = 0;
  for (Index j = 0; j < L; ++j) sum += from[j];
  CHECK(sum_of(load(from.data())) == sum, "sum of %td lanes", L);
}

template <class T>
void exponentials() {
  for (T x = 0; x > Exponential<T>::lowest; x -= T(0.0137) * (1 - x)) {
    T all[lanes<T>];
    store(all, exp_below(Vec<T>(x)));
    const double want = std::exp(double(x));
    CHECK(std::abs(all[0] - want) <= 4 * std::numeric_limits<T>::epsilon() * want, "exp(%g)", double(x));
  }
}

template <class T>
void test() {
  edges<T>();
  lane_by_lane<T>();
  squares<T>();
  exponentials<T>();
}

} // namespace

void test_simd() {
  test<float>();
  test<double>();
}

} // namespace rnncore::RNNCORE_LEVEL

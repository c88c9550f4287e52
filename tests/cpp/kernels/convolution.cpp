// Convolutions against double loops, forward and backward: groups, pieces, threads, what follows the sums.
#include "kernels/convolution.hpp"

#include "../windows.hpp"
#include "check.hpp"
#include "kernels/bfloat16.hpp"
#include "kernels/light_products.hpp"
#include "numbers.hpp"

namespace rnncore::RNNCORE_LEVEL {
namespace {

/// Weights packed for the kernels.
template <class T, class W = T>
struct PackedFilters {
  std::vector<T> numbers;
  std::unique_ptr<char, Freed> weights, transposed;

  PackedFilters(const Filters& filters, const std::vector<T>& weight, const std::vector<T>& bias) {
    const Packing<T> packing = convolution_of<T, W>().packing;
    const Sizes sizes = packing.sizes(&filters, {});
    Weights<const T> from{};
    from.input = weight.data();
    from.input_bias = bias.empty() ? nullptr : bias.data();
    numbers.resize(std::size_t(sizes.numbers));
    weights = space_of(sizes.weight_bytes);
    packing.pack(&filters, {}, &from, numbers.data(), weights.get());
    if (!packing.pack_transposed) return;
    transposed = space_of(sizes.transposed_bytes);
    packing.pack_transposed(&filters, {}, &from, transposed.get());
  }
  Packed<T> packed() const { return {numbers.data(), weights.get()}; }
};

/// What is beyond the numbers that may be written to.
template <class T>
constexpr T mark = T(-4096);

template <class T>
struct Case {
  Filters filters;
  Windows windows;
  Numbers number;
  Index rows, each, outputs, columns; // inputs and outputs of a group, numbers of a window of it
  std::vector<T> x, weight, bias, dy;

  Case(Windows w, Index outputs_, Index groups, bool with_bias)
      : filters{w.channels, outputs_, groups, {w.axes[0].taps, w.axes[1].taps}}, windows(w), number(w),
        rows(outputs_of(w)), each(w.channels / groups), outputs(outputs_ / groups),
        columns(each * taps_of(w)), x(whole_numbers<T>(inputs_of(w), 1)),
        weight(whole_numbers<T>(outputs_ * columns, 2)),
        bias(with_bias ? whole_numbers<T>(outputs_, 3) : std::vector<T>()),
        dy(whole_numbers<T>(rows * outputs_, 4)) {}

  T at(Index o, Index tap, Index i) const { return weight[(o * each + i) * taps_of(windows) + tap]; }
  Index taps() const { return taps_of(windows); }
};

/// In pieces that begin anywhere, by so many threads.
template <class T, class W = T>
std::vector<T> forward(const Case<T>& c, const std::vector<T>& weight, Index piece, Index threads,
                       const Finish<T>& finish = {}) {
  const Convolution<T> kernels = convolution_of<T, W>();
  const PackedFilters<T, W> packed(c.filters, weight, c.bias);
  const auto work = space_of(kernels.work(c.filters, c.windows));
  std::vector<T> y(std::size_t(c.rows * c.filters.outputs + 5), mark<T>);
  for (Index begin = 0; begin < c.rows; begin += piece)
    as_team(threads, [&](const Team& team) {
      kernels.forward({c.filters, c.windows, packed.packed(), c.x.data(), y.data(), finish, begin,
                       min(begin + piece, c.rows), work.get()},
                      team);
    });
  for (Index i = 0; i < 5; ++i)
    CHECK(y[std::size_t(c.rows * c.filters.outputs + i)] == mark<T>, "beyond y");
  y.resize(std::size_t(c.rows * c.filters.outputs));
  return y;
}

template <class T>
std::vector<double> expected(const Case<T>& c) {
  std::vector<double> y;
  for (Index r = 0; r < c.rows; ++r)
    for (Index o = 0; o < c.filters.outputs; ++o) {
      double sum = c.bias.empty() ? 0 : double(c.bias[o]);
      for (Index tap = 0; tap < c.taps(); ++tap) {
        const Index from = c.number(r, tap);
        for (Index i = 0; from >= 0 && i < c.each; ++i)
          sum += double(c.x[from + o / c.outputs * c.each + i]) * double(c.at(o, tap, i));
      }
      y.push_back(sum);
    }
  return y;
}

template <class T>
struct Gradients {
  std::vector<T> dx, weight, bias; // [group][tap][input][output]
  bool operator==(const Gradients&) const = default;
};

template <class T>
Gradients<T> backward(const Case<T>& c, Index piece, Index threads) {
  const Convolution<T> kernels = convolution_of<T, T>();
  const PackedFilters<T> packed(c.filters, c.weight, c.bias);
  const auto work = space_of(kernels.work(c.filters, c.windows));
  Gradients<T> to{std::vector<T>(c.x.size(), T(2)), std::vector<T>(c.weight.size(), T(3)),
                  std::vector<T>(std::size_t(c.filters.outputs), T(4))}; // all are added to
  for (Index begin = 0; begin < c.rows; begin += piece)
    as_team(threads, [&](const Team& team) {
      kernels.backward({c.filters, c.windows, packed.transposed.get(), c.x.data(), c.dy.data(),
                        to.dx.data(), to.weight.data(), to.bias.data(), begin, min(begin + piece, c.rows),
                        work.get()},
                       team);
    });
  return to;
}

template <class T>
void check_backward(const Case<T>& c) {
  std::vector<double> dx(c.x.size(), 2), weight(c.weight.size(), 3),
      bias(std::size_t(c.filters.outputs), 4);
  for (Index r = 0; r < c.rows; ++r)
    for (Index o = 0; o < c.filters.outputs; ++o) {
      const double d = c.dy[r * c.filters.outputs + o];
      const Index group = o / c.outputs;
      bias[o] += d;
      for (Index tap = 0; tap < c.taps(); ++tap) {
        const Index from = c.number(r, tap);
        for (Index i = 0; from >= 0 && i < c.each; ++i) {
          const Index k = from + group * c.each + i;
          dx[k] += d * c.at(o, tap, i);
          weight[((group * c.taps() + tap) * c.each + i) * c.outputs + o % c.outputs] += d * c.x[k];
        }
      }
    }
  const Gradients<T> got = backward(c, max(c.rows, 1), 1);
  const auto same = [&](const char* name, const std::vector<T>& a, const std::vector<double>& b) {
    for (std::size_t i = 0; i < b.size(); ++i)
      CHECK(a[i] == b[i], "%s of %td to %td, groups %td, number %zu: %g, not %g", name, c.filters.inputs,
            c.filters.outputs, c.filters.groups, i, double(a[i]), b[i]);
  };
  same("dx", got.dx, dx);
  same("weights", got.weight, weight);
  same("bias", got.bias, bias);
  for (const Index threads : {2, 3})
    CHECK(backward(c, max(c.rows, 1), threads) == got, "%td threads", threads);
  CHECK(backward(c, row_block, 2) == got, "in pieces");
}

template <class T>
void check(const Case<T>& c) {
  const std::vector<double> want = expected(c);
  const std::vector<T> y = forward(c, c.weight, max(c.rows, 1), 1);
  for (std::size_t i = 0; i < want.size(); ++i)
    CHECK(y[i] == want[i], "%td to %td, groups %td, number %zu: %g, not %g", c.filters.inputs,
          c.filters.outputs, c.filters.groups, i, double(y[i]), want[i]);
  for (const Index threads : {2, 5}) CHECK(forward(c, c.weight, 7, threads) == y, "%td threads", threads);
  check_backward(c);
}

/// Sums that round have the same bits in pieces and by several threads.
template <class T>
void check_bits(Case<T> c) {
  c.x = fractions<T>(Index(c.x.size()), 1);
  c.weight = fractions<T>(Index(c.weight.size()), 2);
  c.dy = fractions<T>(Index(c.dy.size()), 4);
  const std::vector<T> y = forward(c, c.weight, max(c.rows, 1), 1);
  const Gradients<T> gradients = backward(c, max(c.rows, 1), 1);
  for (const Index threads : {1, 3}) {
    CHECK(forward(c, c.weight, 1, threads) == y, "forward, %td threads", threads);
    CHECK(backward(c, row_block, threads) == gradients, "backward, %td threads", threads);
  }
}

template <class T>
void finishes(const Case<T>& c) {
  const std::vector<T> plain = forward(c, c.weight, max(c.rows, 1), 1),
                       add = whole_numbers<T>(Index(plain.size()), 5);
  const Activation relu{ActivationKind::relu, 0, 0}, sigmoids{ActivationKind::sigmoid, 0, 0};
  for (const bool added : {false, true})
    for (const Activation* f : {static_cast<const Activation*>(nullptr), &relu, &sigmoids})
      for (const bool gated : {false, true}) {
        const std::vector<T> y = forward(c, c.weight, 7, 2, {added ? add.data() : nullptr, f, gated && f});
        for (std::size_t i = 0; i < y.size(); ++i) {
          const double sum = double(plain[i]) + (added ? double(add[i]) : 0);
          double want = !f ? sum : f == &relu ? std::fmax(sum, 0) : 1 / (1 + std::exp(-sum));
          if (gated && f) want *= sum;
          const double error = 4 * std::numeric_limits<T>::epsilon() * std::abs(want) + 2e-36;
          CHECK(std::abs(double(y[i]) - want) <= error, "number %zu: %g, not %g", i, double(y[i]), want);
        }
      }
}

/// Whole numbers are exact in bfloat16, too; its weights come with the inputs of a tap beside each other.
void light(const Case<float>& c) {
  std::vector<float> weight;
  for (Index o = 0; o < c.filters.outputs; ++o)
    for (Index tap = 0; tap < c.taps(); ++tap)
      for (Index i = 0; i < c.each; ++i) weight.push_back(c.at(o, tap, i));
  CHECK((forward<float, BFloat16>(c, weight, 7, 2)) == forward(c, c.weight, max(c.rows, 1), 1),
        "bfloat16, %td to %td", c.filters.inputs, c.filters.outputs);
}

template <class T>
void test() {
  constexpr Index L = lanes<T>;
  for (const WindowAxis& first : axes_to_test())
    for (const WindowAxis& second : axes_to_test()) {
      check(Case<T>({2, 3, {first, second}}, 2, 1, true));
      check(Case<T>({1, 6, {first, second}}, 9, 3, false));
    }
  for (const Index outputs : edge_sizes<T>())
    for (const Index channels : {Index(1), Index(2), L, L + 1, 2 * L + 3}) {
      const Case<T> c({2, channels, {axis_of(5, 2, 1, 1, 1, 0), axis_of(11, 3, 1, 1, 1, 1)}}, outputs, 1,
                      true);
      check(c);
      check_bits(c);
      if constexpr (std::is_same_v<T, float>) light(c);
    }
  const Windows wide{3, 2 * L + 2, {still(1), axis_of(90, 3, 1, 2, 2, 2)}}; // more than a block an image
  check_bits(Case<T>(wide, 3 * L, 2, true));
  finishes(Case<T>({2, 3, {axis_of(4, 2), axis_of(5, 2)}}, L + 3, 1, true));
}

} // namespace

void test_convolution() {
  test<float>();
  test<double>();
}

} // namespace rnncore::RNNCORE_LEVEL

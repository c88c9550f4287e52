// Products with weights of 8 and 16 bits: exact where the numbers are, every height and width of a tile.
#include "kernels/light_products.hpp"

#include <limits>

#include "check.hpp"
#include "engine/processor.hpp"
#include "kernels/pack.hpp"
#include "numbers.hpp"

namespace rnncore::RNNCORE_LEVEL {
namespace {

/// Whole numbers of each row within -127 .. 127, one of them 127: their scale is 1.
std::vector<float> bytes(Index rows, Index columns, uint32_t seed) {
  std::vector<float> numbers(rows * columns);
  for (float& number : numbers) {
    seed = seed * 1664525u + 1013904223u;
    number = float(int(seed >> 16) % 255 - 127);
  }
  for (Index r = 0; columns && r < rows; ++r) numbers[r * columns + r % columns] = 127;
  return numbers;
}

/// Rows times a matrix (columns, inner) in torch's layout.
template <class W>
class Multiplied {
  using Own = Arithmetic<float, W>;

public:
  Multiplied(const std::vector<float>& matrix, Index inner, Index columns)
      : panels_(columns, widest), inner_(inner), weights_(Own::depth(inner) * panels_.padded()) {
    pack_window(panels_, plain, matrix.data(), inner, weights_.data());
  }

  std::vector<float> by(const float* a, Index rows, Start start, const std::vector<float>& before) const {
    std::vector<const float*> pointers(rows);
    for (Index r = 0; r < rows; ++r) pointers[r] = a + r * inner_;
    std::vector<char> space(Own::Rows::bytes(rows, inner_));
    const auto factors = Own::Rows::of(pointers.data(), inner_, space.data(), rows);
    for (Index r = 0; r < rows; ++r) factors.prepare(r);
    std::vector<float> c = before, bias(panels_.padded(), 3);
    const Index columns = panels_.columns;
    panels_.for_each_run(0, panels_.count(), [&](Index p, Index end) {
      const Index column = panels_.first(p) * lanes<float>, width = panels_.width(p) * lanes<float>;
      multiply(Product<float, typename Own::Rows, W>{factors,
                                                     rows,
                                                     weights_.data() + Own::depth(inner_) * column,
                                                     panels_.width(p),
                                                     end - p,
                                                     panels_.vectors.n,
                                                     Own::depth(inner_) * width,
                                                     {c.data() + column, columns, nullptr, 0},
                                                     width,
                                                     panels_.valid(panels_.first(end) - 1),
                                                     start,
                                                     bias.data() + column,
                                                     width});
    });
    return c;
  }

private:
  const Panels<float> panels_;
  const Index inner_;
  std::vector<W> weights_;
};

template <class W>
void whole_sums(const char* name, Index rows, Index inner, Index columns, Start start) {
  const std::vector<float> a = bytes(rows, inner, 1), b = bytes(columns, inner, 2),
                           before = whole_numbers<float>(rows * columns, 4);
  const std::vector<float> c = Multiplied<W>(b, inner, columns).by(a.data(), rows, start, before);
  for (Index r = 0; r < rows; ++r)
    for (Index j = 0; j < columns; ++j) {
      float sum = start == Start::zero ? 0 : start == Start::bias ? 3 : before[r * columns + j];
      for (Index k = 0; k < inner; ++k) sum += a[r * inner + k] * b[j * inner + k];
      CHECK(c[r * columns + j] == sum, "%s, %td x %td x %td, row %td, column %td: %g, not %g", name, rows,
            inner, columns, r, j, double(c[r * columns + j]), double(sum));
    }
}

/// Off by no more than rounding explains, and the same bits alone; a row that is not finite is NaN, and the
/// others are as they were.
template <class W>
void rounded_sums(const char* name, double bits, Index rows, Index inner, Index columns) {
  const std::vector<float> a = fractions<float>(rows * inner, 1), b = fractions<float>(columns * inner, 2),
                           zeros(rows * columns);
  const Multiplied<W> product(b, inner, columns);
  const std::vector<float> together = product.by(a.data(), rows, Start::zero, zeros);
  for (Index r = 0; r < rows; ++r) {
    const std::vector<float> alone =
        product.by(a.data() + r * inner, 1, Start::zero, std::vector<float>(columns));
    for (Index j = 0; j < columns; ++j) {
      const float got = together[r * columns + j];
      CHECK(got == alone[j], "%s, %td x %td x %td, row %td: other bits alone", name, rows, inner, columns,
            r);
      double sum = 0;
      for (Index k = 0; k < inner; ++k) sum += double(a[r * inner + k]) * double(b[j * inner + k]);
      // Each factor is within 1, and off by half a step.
      const double bound = double(inner) * (std::pow(2.0, -bits) + std::pow(4.0, -bits));
      CHECK(std::abs(got - sum) <= bound, "%s, %td x %td x %td: off by %g", name, rows, inner, columns,
            got - sum);
    }
  }
  std::vector<float> broken = a;
  broken[inner / 2] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> c = product.by(broken.data(), rows, Start::zero, zeros);
  for (Index i = 0; i < rows * columns; ++i)
    CHECK(i < columns ? c[i] != c[i] : c[i] == together[i], "%s, a row of NaN, number %td", name, i);
}

template <class W>
void test(const char* name, double bits) {
  for (const Index columns : edge_sizes<float>()) {
    for (const Index rows : {0, 1, 2, 3, 5, 7, 8, 9, 17})
      for (const Index inner : {1, 2, 3, 4, 5, 16, 67})
        for (const Start start : {Start::zero, Start::keep, Start::bias})
          whole_sums<W>(name, rows, inner, columns, start);
    for (const Index rows : {1, 4, 11})
      for (const Index inner : {1, 7, 40}) rounded_sums<W>(name, bits, rows, inner, columns);
  }
}

void rounding_to_bfloat16() {
  const auto same = [](float value, uint16_t bits) {
    CHECK(BFloat16(value).bits == bits, "%g is %x, not %x", double(value), BFloat16(value).bits, bits);
  };
  same(1.f, 0x3F80);
  same(-2.f, 0xC000);
  same(1.00390625f, 0x3F80); // halfway: the even one
  same(1.01171875f, 0x3F82);
  same(std::numeric_limits<float>::infinity(), 0x7F80);
  CHECK(BFloat16(std::numeric_limits<float>::quiet_NaN()).bits > 0x7F80, "NaN is %x",
        BFloat16(std::numeric_limits<float>::quiet_NaN()).bits);
}

} // namespace

void test_light_products() {
  rounding_to_bfloat16();
  test<BFloat16>("bfloat16", 8);
  test<Int8<own_dot>>("int8", 7);
#if defined(RNNCORE_HAS_BF16_DOT)
  if (runs_v4_bf16()) test<BFloat16Dot>("bfloat16, two at once", 7);
#endif
#if defined(RNNCORE_ALSO_VNNI)
  if (runs_v4_vnni()) test<Int8<Dot::vnni>>("int8 with VNNI", 7);
#endif
}

} // namespace rnncore::RNNCORE_LEVEL

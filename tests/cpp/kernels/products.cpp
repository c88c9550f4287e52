// The products against double loops: every width and height of a tile, edges, strands, starts.
#include "kernels/products.hpp"

#include <limits>

#include "check.hpp"
#include "numbers.hpp"

namespace rnncore::RNNCORE_LEVEL {
namespace {

/// A matrix whose rows have some numbers after them that nobody may write to.
template <class T>
struct Guarded {
  static constexpr Index guard = 3;
  static constexpr T mark = T(-4096);

  Index rows, columns, stride;
  std::vector<T> numbers;

  Guarded(Index rows_, Index columns_)
      : rows(rows_), columns(columns_), stride(columns_ + guard), numbers(rows_ * stride, mark) {}
  T& at(Index row, Index column) { return numbers[row * stride + column]; }
  void set(const std::vector<T>& values) {
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < columns; ++c) at(r, c) = values[r * columns + c];
  }
  bool kept() {
    for (Index r = 0; r < rows; ++r)
      for (Index c = columns; c < stride; ++c)
        if (at(r, c) != mark) return false;
    return true;
  }
  std::vector<T*> pointers() {
    std::vector<T*> found(rows);
    for (Index r = 0; r < rows; ++r) found[r] = numbers.data() + r * stride;
    return found;
  }
};

/// (inner, columns) as [panel][inner][column of the panel], zero where there is no column.
template <class T>
std::vector<T> packed(const Panels<T>& panels, Index inner, const std::vector<T>& b) {
  std::vector<T> to;
  for (Index p = 0; p < panels.count(); ++p)
    for (Index k = 0; k < inner; ++k)
      for (Index j = 0; j < panels.width(p) * lanes<T>; ++j) {
        const Index column = panels.first(p) * lanes<T> + j;
        to.push_back(column < panels.columns ? b[k * panels.columns + column] : T(0));
      }
  return to;
}

template <class T, class A>
void multiply_all(const A& a, Index rows, const Panels<T>& panels, const std::vector<T>& b, Target<T> c,
                  Start start, const std::vector<T>& bias) {
  const Index inner = a.all_columns();
  panels.for_each_run(0, panels.count(), [&](Index p, Index end) {
    const Index column = panels.first(p) * lanes<T>, width = panels.width(p) * lanes<T>;
    multiply(Product<T, A>{a, rows, b.data() + column * inner, panels.width(p), end - p, panels.vectors.n,
                           width * inner, c.from_column(column), width, panels.valid(panels.first(end) - 1),
                           start, bias.data() + column, width});
  });
}

/// What a sum starts from.
template <class T>
double first(Start start, const std::vector<T>& bias, const std::vector<T>& before, Index columns,
             Index row, Index column) {
  return start == Start::zero ? 0 : start == Start::bias ? bias[column] : before[row * columns + column];
}

template <class T>
void whole_sums(Index rows, Index inner, Index columns, Start start, bool by_pointers) {
  const Panels<T> panels(columns, widest);
  const std::vector<T> a = whole_numbers<T>(rows * inner, 1), b = whole_numbers<T>(inner * columns, 2),
                       before = whole_numbers<T>(rows * columns, 4);
  std::vector<T> bias = whole_numbers<T>(columns, 3);
  bias.resize(panels.padded());
  std::vector<const T*> a_rows(rows);
  for (Index r = 0; r < rows; ++r) a_rows[r] = a.data() + r * inner;
  Guarded<T> c(rows, columns);
  c.set(before);
  const std::vector<T*> c_rows = c.pointers();
  const Target<T> target = by_pointers ? Target<T>{nullptr, 0, c_rows.data(), 0}
                                       : Target<T>{c.numbers.data(), c.stride, nullptr, 0};
  multiply_all(Gathered<T>{a_rows.data(), inner}, rows, panels, packed(panels, inner, b), target, start,
               bias);
  for (Index r = 0; r < rows; ++r)
    for (Index j = 0; j < columns; ++j) {
      double sum = first(start, bias, before, columns, r, j);
      for (Index k = 0; k < inner; ++k) sum += double(a[r * inner + k]) * double(b[k * columns + j]);
      CHECK(c.at(r, j) == sum, "%td x %td x %td, row %td, column %td, start %d: %g, not %g", rows, inner,
            columns, r, j, int(start), double(c.at(r, j)), sum);
    }
  CHECK(c.kept(), "%td x %td x %td writes beyond its columns", rows, inner, columns);
}

/// A row's sums are near the true ones, and have the same bits whatever rows are around it.
template <class T>
void rounded_sums(Index rows, Index inner, Index columns) {
  const Panels<T> panels(columns, widest);
  const std::vector<T> a = fractions<T>(rows * inner, 1), b = fractions<T>(inner * columns, 2),
                       b_packed = packed(panels, inner, b), bias(panels.padded());
  std::vector<const T*> a_rows(rows);
  for (Index r = 0; r < rows; ++r) a_rows[r] = a.data() + r * inner;
  std::vector<T> together(rows * columns), alone(columns);
  multiply_all(Gathered<T>{a_rows.data(), inner}, rows, panels, b_packed,
               Target<T>{together.data(), columns, nullptr, 0}, Start::zero, bias);
  for (Index r = 0; r < rows; ++r) {
    multiply_all(Gathered<T>{a_rows.data() + r, inner}, 1, panels, b_packed,
                 Target<T>{alone.data(), columns, nullptr, 0}, Start::zero, bias);
    for (Index j = 0; j < columns; ++j) {
      const T got = together[r * columns + j];
      CHECK(got == alone[j], "%td x %td x %td, row %td: other bits alone", rows, inner, columns, r);
      double sum = 0, size = 0;
      for (Index k = 0; k < inner; ++k) {
        const double term = double(a[r * inner + k]) * double(b[k * columns + j]);
        sum += term;
        size += std::abs(term);
      }
      const double bound = double(inner) * std::numeric_limits<T>::epsilon() * size;
      CHECK(std::abs(got - sum) <= bound, "%td x %td x %td: off by %g", rows, inner, columns, got - sum);
    }
  }
}

/// Gates of some panels, a window of them, as the product back to the states reads them.
template <class T>
void gates_as_rows(Index hidden_columns, Index most, Window window, Index columns) {
  constexpr Index L = lanes<T>, slots = 5, nodes = 6, skipped_nodes = 2, rows = nodes - skipped_nodes;
  const Panels<T> hidden(hidden_columns, most), panels(columns, widest);
  const std::vector<T> gates = whole_numbers<T>(nodes * slots * hidden.padded(), 1), bias(panels.padded());
  for (Index begin = 0; begin <= hidden.count(); ++begin)
    for (Index end = begin; end <= hidden.count(); ++end) {
      // The columns of each row, one after the other: [panel][slot of the window][vector][lane].
      std::vector<std::vector<T>> a(rows);
      for (Index r = 0; r < rows; ++r)
        for (Index p = begin; p < end; ++p)
          for (Index slot = window.begin; slot < window.begin + window.count; ++slot)
            for (Index i = 0; i < hidden.width(p) * L; ++i)
              a[r].push_back(gates[hidden.first(p) * L * slots * nodes +
                                   ((r + skipped_nodes) * slots + slot) * hidden.width(p) * L + i]);
      const Index inner = Index(a[0].size());
      const GateRows<T> gate_rows{hidden, window, slots, gates.data(), nodes, skipped_nodes, begin, end};
      const auto source = SegmentedRows<T>::of(gate_rows);
      CHECK(source.all_columns() == inner, "%td columns, not %td", source.all_columns(), inner);
      const std::vector<T> b = whole_numbers<T>(inner * columns, 2);
      std::vector<T> c(rows * columns);
      multiply_all(source, rows, panels, packed(panels, inner, b), Target<T>{c.data(), columns, nullptr, 0},
                   Start::zero, bias);
      for (Index r = 0; r < rows; ++r)
        for (Index j = 0; j < columns; ++j) {
          double sum = 0;
          for (Index k = 0; k < inner; ++k) sum += double(a[r][k]) * double(b[k * columns + j]);
          CHECK(c[r * columns + j] == sum, "gates of panels %td .. %td, row %td", begin, end, r);
        }
    }
}

/// C (+)= A^T B, from rows where they lie and from copied ones.
template <class T>
void outer_products(Index rows, Index left, Index columns, bool add, bool copied) {
  const Panels<T> panels(columns, widest);
  const std::vector<T> a = whole_numbers<T>(rows * left, 1), b = whole_numbers<T>(rows * columns, 2),
                       before = whole_numbers<T>(left * columns, 3);
  std::vector<const T*> a_rows(rows);
  for (Index r = 0; r < rows; ++r) a_rows[r] = a.data() + r * left;
  Guarded<T> c(left, columns);
  c.set(before);
  for (Index p = 0; p < panels.count(); ++p) {
    const Index column = panels.first(p) * lanes<T>, width = panels.width(p);
    const EqualParts tiles(left, tile_rows(int(width)));
    const auto multiply_by = [&](const SourceTiles<T>& source) {
      for (const Share some : {Share::of(0, tiles.count / 2), Share::of(tiles.count / 2, tiles.count)})
        outer(Outer<T>{source, some, rows, b.data() + column, columns, width,
                       panels.valid(panels.first(p) + width - 1), c.numbers.data() + column, c.stride,
                       add});
    };
    if (copied) {
      std::vector<T> room(rows * left + tiles.count * CopiedTiles<T>::gap);
      const CopiedTiles<T> source{room.data(), rows, 0, tiles};
      for (const Share some : {Share::of(0, tiles.count / 3), Share::of(tiles.count / 3, tiles.count)})
        source.copy(a_rows.data(), some);
      multiply_by(SourceTiles<T>::of(source));
    } else {
      multiply_by(SourceTiles<T>{a_rows.data(), tiles});
    }
  }
  for (Index i = 0; i < left; ++i)
    for (Index j = 0; j < columns; ++j) {
      double sum = add ? before[i * columns + j] : 0;
      for (Index r = 0; r < rows; ++r) sum += double(a[r * left + i]) * double(b[r * columns + j]);
      CHECK(c.at(i, j) == sum, "outer of %td: %td x %td%s%s, at %td, %td", rows, left, columns,
            add ? ", added" : "", copied ? ", copied" : "", i, j);
    }
  CHECK(c.kept(), "outer of %td: %td x %td writes beyond its columns", rows, left, columns);
}

template <class T>
void sums_of_rows(Index rows, Index columns, bool add) {
  const Index stride = columns + 2;
  const std::vector<T> b = whole_numbers<T>(rows * stride, 1), before = whole_numbers<T>(columns, 2);
  std::vector<T> c = before;
  add_rows(b.data(), rows, stride, columns, c.data(), add);
  for (Index j = 0; j < columns; ++j) {
    double sum = add ? before[j] : 0;
    for (Index r = 0; r < rows; ++r) sum += b[r * stride + j];
    CHECK(c[j] == sum, "the sum of %td rows, column %td", rows, j);
  }
}

template <class T>
void test() {
  for (const Index columns : edge_sizes<T>()) {
    for (const Index rows : {0, 1, 2, 3, 5, 7, 8, 9, 17})
      for (const Index inner : {0, 1, 2, 5, 16})
        for (const Start start : {Start::zero, Start::keep, Start::bias})
          whole_sums<T>(rows, inner, columns, start, (rows + inner) % 2);
    for (const Index rows : {1, 4, 11})
      for (const Index inner : {1, 7, 40}) rounded_sums<T>(rows, inner, columns);
    for (const Index rows : {0, 1, 6})
      for (const Index left : {1, 3, 8, 21})
        for (const bool add : {false, true})
          for (const bool copied : {false, true}) outer_products<T>(rows, left, columns, add, copied);
  }
  for (const Index hidden : {Index(1), Index(lanes<T>), Index(2 * lanes<T> + 3)})
    for (const Index most : {Index(1), widest}) {
      gates_as_rows<T>(hidden, most, {0, 5, {}}, 2 * lanes<T> + 1);
      gates_as_rows<T>(hidden, most, {1, 3, {}}, 7 * lanes<T>);
    }
  for (const Index vectors : {0, 1, 5})
    for (const Index rows : {0, 1, 9})
      for (const bool add : {false, true}) sums_of_rows<T>(rows, vectors * lanes<T>, add);
}

} // namespace

void test_products() {
  for (int n = 1; n <= widest; ++n) // sums, a row of factors or of weights, and the other factor
    CHECK(tile_rows(n) * n + min(tile_rows(n), n) + 1 <= registers, "%d vectors", n);
  test<float>();
  test<double>();
}

} // namespace rnncore::RNNCORE_LEVEL

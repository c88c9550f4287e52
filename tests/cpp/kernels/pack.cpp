// Weights into the order of the products and gradients back: each number by its place, none lost.
#include "kernels/pack.hpp"

#include <algorithm>
#include <utility>

#include "check.hpp"
#include "numbers.hpp"

namespace rnncore::RNNCORE_LEVEL {
namespace {

template <class T>
void transposes(Index K, Index valid) {
  constexpr Index L = lanes<T>, stride = L + 1;
  const std::vector<T> from = counted<T>(valid * K); // not a number more
  std::vector<T> to(K * stride, T(-1));
  Arithmetic<T, T>::pack(from.data(), K, valid, to.data(), 0, stride);
  for (Index k = 0; k < K; ++k)
    for (Index lane = 0; lane < stride; ++lane) {
      const T want = lane == L ? T(-1) : lane < valid ? from[lane * K + k] : T(0);
      CHECK(to[k * stride + lane] == want, "%td of %td columns, lane %td of %td", k, K, lane, valid);
    }
  std::vector<T> sum(valid * K, T(1000));
  add_transposed(to.data(), stride, K, valid, sum.data());
  for (Index i = 0; i < valid * K; ++i)
    CHECK(sum[i] == from[i] + 1000, "%td columns of %td lanes, number %td", K, valid, i);
}

/// f(place in the packed order, hidden unit or `hidden.columns` and more, gate, k)
template <class T, class F>
void for_each_packed(const Panels<T>& hidden, const Window& window, Index K, F f) {
  Index place = 0;
  for (Index panel = 0; panel < hidden.count(); ++panel)
    for (Index k = 0; k < K; ++k)
      for (Index slot = 0; slot < window.count; ++slot)
        for (Index i = 0; i < hidden.width(panel) * lanes<T>; ++i)
          f(place++, hidden.first(panel) * lanes<T> + i, window.gate[slot], k);
}

template <class T>
void windows(Index units, Index most, const Window& window, Index K) {
  const Index gates = 4;
  const Panels<T> hidden(units, most);
  const std::vector<T> matrix = counted<T>(gates * units * K);
  std::vector<T> packed(window.count * hidden.padded() * K, T(-1)), back(matrix.size(), T(1));
  pack_window(hidden, window, matrix.data(), K, packed.data());
  std::vector<T> want_back(back);
  for_each_packed(hidden, window, K, [&](Index place, Index unit, Index gate, Index k) {
    const bool there = unit < units;
    const Index in_matrix = (gate * units + unit) * K + k;
    CHECK(packed[place] == (there ? matrix[in_matrix] : T(0)), "%td units, gate %td, unit %td, k %td",
          units, gate, unit, k);
    if (there) want_back[in_matrix] = matrix[in_matrix] + 1;
  });
  const Index half = hidden.count() / 2;
  for (const Share some : {Share::of(0, half), Share::of(half, hidden.count())})
    add_window(hidden, some, window, packed.data(), K, back.data());
  CHECK(back == want_back, "%td units, %td columns, and back", units, K);
}

template <class T>
void windows_transposed(Index units, Index most, const Window& window, Index columns) {
  constexpr Index L = lanes<T>;
  const Index gates = 4;
  const Panels<T> hidden(units, most), outputs(columns, widest);
  const std::vector<T> matrix = counted<T>(gates * units * columns);
  std::vector<T> packed(outputs.padded() * window.count * hidden.padded(), T(-1));
  pack_window_transposed(hidden, window, matrix.data(), outputs, packed.data());
  Index place = 0;
  for (Index out = 0; out < outputs.count(); ++out)
    for (Index panel = 0; panel < hidden.count(); ++panel)
      for (Index slot = 0; slot < window.count; ++slot)
        for (Index i = 0; i < hidden.width(panel) * L; ++i)
          for (Index o = 0; o < outputs.width(out) * L; ++o, ++place) {
            const Index unit = hidden.first(panel) * L + i, column = outputs.first(out) * L + o;
            const bool there = unit < units && column < columns;
            const T want = there ? matrix[(window.gate[slot] * units + unit) * columns + column] : T(0);
            CHECK(packed[place] == want, "gate %td, unit %td, column %td", window.gate[slot], unit, column);
          }
}

template <class T>
void rows_of_panels(Index rows, Index columns) {
  const Panels<T> panels(columns, widest);
  const std::vector<T> matrix = counted<T>(rows * columns);
  std::vector<T> packed(rows * panels.padded(), T(-1));
  pack_rows(matrix.data(), rows, panels, packed.data());
  Index place = 0;
  for (Index p = 0; p < panels.count(); ++p)
    for (Index r = 0; r < rows; ++r)
      for (Index i = 0; i < panels.width(p) * lanes<T>; ++i, ++place) {
        const Index column = panels.first(p) * lanes<T> + i;
        const T want = column < columns ? matrix[r * columns + column] : T(0);
        CHECK(packed[place] == want, "row %td, column %td of %td", r, column, columns);
      }
}

/// Four gates by one product of x and one of h, in another order than torch's; peepholes.
constexpr Plan one_product() {
  Plan plan{4, 4};
  plan.units = 3;
  plan.input[0] = plan.recurrent[0].window = {0, 4, {1, 3, 0, 2}};
  return plan;
}
/// Three gates in four slots: two products of x add to the first three; h to two of these, and apart to the
/// last.
constexpr Plan two_products() {
  Plan plan{4, 3};
  plan.input[0] = {0, 2, {0, 1}};
  plan.input[1] = {2, 1, {2}};
  plan.recurrent[0].window = {0, 2, {0, 1}};
  plan.recurrent[1] = {0, {3, 1, {2}}};
  return plan;
}

/// The weights of all transitions, in torch's layout, in one row of numbers.
template <class T>
struct Own {
  std::vector<T> numbers;
  std::vector<std::size_t> biases; // where they are
  std::vector<Weights<T>> views;

  Own(const Plan& plan, const Shape& shape) {
    const Layout<T> at(plan, shape);
    const Index H = shape.hidden;
    std::vector<Index> sizes;
    for (Index level = 0; level < shape.depth; ++level)
      for (const Index size :
           {plan.gates * H * at.input_columns(level),
            at.matrices() * plan.recurrent_gates * H * at.recurrent_columns(), plan.gates * H,
            plan.recurrent_gates * H, plan.units * H, at.projects() && level == 0 ? shape.output * H : 0})
        sizes.push_back(size);
    Index all = 0;
    for (const Index size : sizes) all += size;
    numbers = counted<T>(all);
    T* next = numbers.data();
    const auto take = [&](Index size) { return std::exchange(next, next + size); };
    for (std::size_t i = 0; i < sizes.size(); i += 6) {
      Weights<T> w{take(sizes[i]), take(sizes[i + 1]), nullptr, nullptr, nullptr, nullptr};
      const std::size_t first = next - numbers.data();
      w.input_bias = take(sizes[i + 2]);
      w.recurrent_bias = take(sizes[i + 3]);
      for (std::size_t b = first; b < std::size_t(next - numbers.data()); ++b) biases.push_back(b);
      w.units = take(sizes[i + 4]);
      w.projection = take(sizes[i + 5]);
      views.push_back(w);
    }
  }
  std::vector<Weights<const T>> read() const {
    std::vector<Weights<const T>> all;
    for (const Weights<T>& w : views)
      all.push_back({w.input, w.recurrent, w.input_bias, w.recurrent_bias, w.units, w.projection});
    return all;
  }
};

/// How often each of 0, 1, 2, ... is among some numbers.
template <class T>
std::vector<Index> counts(const std::vector<T>& numbers, Index most) {
  std::vector<Index> times(most + 1);
  for (const T number : numbers) {
    CHECK(number >= 0 && number <= T(most), "%g is nobody's weight", double(number));
    if (number >= 0 && number <= T(most)) ++times[Index(number)];
  }
  return times;
}

/// Weights apart from biases are once in what is packed, and come back from it as they were.
template <class T>
void whole_layers(const Plan& plan, const Shape& shape) {
  const Layout<T> at(plan, shape);
  Own<T> own(plan, shape);
  const Index n = Index(own.numbers.size());
  for (const std::size_t b : own.biases) own.numbers[b] = 0;
  // Numbers and weights in the order of their gradients.
  std::vector<T> packed(at.numbers() + GradientOffsets<T>{at}.all(), T(-1)),
      transposed(at.transposed(), T(-1));
  T *numbers = packed.data(), *weights = numbers + at.numbers();
  pack(plan, shape, own.read().data(), numbers, weights);
  pack_transposed(plan, shape, own.read().data(), transposed.data());
  const std::vector<Index> once = counts(packed, n), back = counts(transposed, n);
  for (Index i = 0; i < n; ++i) {
    const T number = own.numbers[i];
    bool unit = false;
    for (const Weights<T>& w : own.views)
      unit = unit || (own.numbers.data() + i >= w.units &&
                      own.numbers.data() + i < w.units + plan.units * shape.hidden);
    if (number == 0) continue;
    CHECK(once[Index(number)] == 1, "weight %td is there %td times", i, once[Index(number)]);
    CHECK(back[Index(number)] == (unit ? 0 : 1), "weight %td is there %td times, transposed", i,
          back[Index(number)]);
  }

  for (std::size_t i = 0; i < own.biases.size(); ++i) own.numbers[own.biases[i]] = T(i % 13 + 1);
  pack(plan, shape, own.read().data(), numbers, weights);
  double in_slots = 0, in_weights = 0;
  for (Index level = 0; level < shape.depth; ++level)
    for (Index i = 0; i < at.node(); ++i) in_slots += packed[at.bias(level) + i];
  for (const std::size_t b : own.biases) in_weights += own.numbers[b];
  CHECK(in_slots == in_weights, "biases add up to %g, not %g", in_slots, in_weights);

  // Packed twice, as the gradients of two passes, by teams of one and, of one pass, of two.
  const std::vector<T> first = packed;
  packed.insert(packed.end(), first.begin(), first.end());
  Own<T> sums(plan, shape), shared(plan, shape);
  for (Own<T>* gradients : {&sums, &shared})
    std::fill(gradients->numbers.begin(), gradients->numbers.end(), T(0));
  add_gradients(plan, shape, packed.data(), 2, Index(first.size()), sums.views.data(),
                Team{0, 1, [](void*) {}, nullptr});
  packed = first;
  for (const Index rank : {0, 1})
    add_gradients(plan, shape, packed.data(), 1, Index(first.size()), shared.views.data(),
                  Team{rank, 2, nullptr, nullptr});
  for (Index i = 0; i < n; ++i) {
    CHECK(sums.numbers[i] == 2 * shared.numbers[i], "gradient %td of two passes", i);
    const bool bias = std::count(own.biases.begin(), own.biases.end(), std::size_t(i));
    if (!bias) CHECK(shared.numbers[i] == own.numbers[i], "gradient %td", i);
  }
  // A bias's gradient is that of its slot: the sum of the biases that end in it.
  for (Index level = 0; level < shape.depth; ++level) {
    const Weights<T>&w = own.views[level], &d = shared.views[level];
    for (Index gate = 0; gate < plan.gates; ++gate)
      for (Index j = 0; j < shape.hidden; ++j) {
        const Index i = gate * shape.hidden + j;
        const bool apart = plan.recurrent[1].window.count && gate == 2;
        const T both = w.input_bias[i] + w.recurrent_bias[i];
        CHECK(d.input_bias[i] == (apart ? w.input_bias[i] : both), "bias %td of transition %td", i, level);
        CHECK(d.recurrent_bias[i] == (apart ? w.recurrent_bias[i] : both), "bias %td of transition %td", i,
              level);
      }
  }
}

constexpr Plan one = one_product(), two = two_products();

template <class T>
void test() {
  constexpr Index L = lanes<T>;
  for (const Index K : {Index(0), Index(1), L - 1, L, L + 1, 3 * L + 2})
    for (Index valid = 1; valid <= L; ++valid) transposes<T>(K, valid);
  for (const Index units : edge_sizes<T>())
    for (const Index most : {Index(1), widest})
      for (const Index K : {Index(0), Index(1), L + 3}) {
        windows<T>(units, most, {0, 4, {1, 3, 0, 2}}, K);
        windows<T>(units, most, {2, 1, {3}}, K);
        if (K) windows_transposed<T>(units, most, {1, 2, {2, 0}}, K);
        if (K) rows_of_panels<T>(units, K);
      }
  for (const Index hidden : {Index(1), L - 1, L + 1, 5 * L})
    for (const Index input : {Index(1), L + 2})
      for (const Plan* plan : {&one, &two}) {
        whole_layers<T>(*plan, {input, hidden, hidden});
        whole_layers<T>(*plan, {input, hidden, hidden, 3, true});
        if (hidden > 1) whole_layers<T>(*plan, {input, hidden, hidden / 2});
      }
}

} // namespace

void test_pack() {
  test<float>();
  test<double>();
}

} // namespace rnncore::RNNCORE_LEVEL

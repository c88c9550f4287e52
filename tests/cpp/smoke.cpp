// The core without Python: the plain cells in both precisions, forward and back, against a plain loop;
// whatever else the table of kernels offers; schedules, memory.
//
//   cmake -S . -B build/cpp -DRNNCORE_MODULE=OFF -DRNNCORE_TESTS=ON
//   cmake --build build/cpp && ctest --test-dir build/cpp
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"
#include "engine/dispatch.hpp"
#include "engine/passes.hpp"
#include "engine/threads.hpp"

using namespace rnncore;
using Numbers = std::vector<double>;

namespace rnncore {

void test_memory();
void test_schedule();

} // namespace rnncore

namespace {

void check(bool right, const std::string& what, double error = 0) {
  CHECK(right, "%s (%.3g)", what.c_str(), error);
}

struct Problem {
  std::string cell;
  Index time, batch, input, hidden, directions;
  bool batch_first, ragged;

  Index gates() const { return cell[0] == 'l' ? 4 : cell[0] == 'g' ? 3 : 1; }
  bool has_c() const { return cell[0] == 'l'; }
  Index state() const { return directions * batch * hidden; }
  std::vector<int64_t> lengths() const {
    std::vector<int64_t> n(batch, time);
    for (Index b = 0; ragged && b < batch; ++b) n[b] = 1 + b * 7 % time;
    return n;
  }
  std::string name() const {
    std::string text = cell;
    for (Index n : {time, batch, input, hidden, directions}) text.append(" ").append(std::to_string(n));
    return text + (batch_first ? " batch first" : "") + (ragged ? " ragged" : "");
  }
};

/// Where each input, or its gradient, lies in one long row: x, h0, c0 and each direction's parameters.
struct Places {
  Index x, h, c, parameters, of_one, end;
  Index recurrent, input_bias, recurrent_bias; // after a direction's input weights

  explicit Places(const Problem& p) {
    const Index rows = p.gates() * p.hidden;
    x = 0;
    h = p.time * p.batch * p.input;
    c = h + p.state();
    parameters = c + p.state();
    recurrent = rows * p.input;
    input_bias = recurrent + rows * p.hidden;
    recurrent_bias = input_bias + rows;
    of_one = recurrent_bias + rows;
    end = parameters + p.directions * of_one;
  }
  template <class T>
  Weights<T> weights(T* all, Index direction) const {
    T* own = all + parameters + direction * of_one;
    return {own, own + recurrent, own + input_bias, own + recurrent_bias, nullptr, nullptr};
  }
};

/// One step of one row as the papers have it: h and c are replaced.
void step(const Problem& p, const Weights<const double>& w, const double* x, Numbers& h, Numbers& c) {
  const auto sigmoid = [&](double a) { return 1 / (1 + std::exp(-a)); };
  const auto tanh = [&](double a) { return std::tanh(a); };
  const Index H = p.hidden;
  const Numbers before = h;
  const auto dot = [&](const double* row, const Numbers& v) {
    double sum = 0;
    for (Index k = 0; k < H; ++k) sum += row[k] * v[k];
    return sum;
  };
  const auto from_x = [&](Index gate, Index j) {
    double sum = w.input_bias[gate * H + j];
    for (Index k = 0; k < p.input; ++k) sum += w.input[(gate * H + j) * p.input + k] * x[k];
    return sum;
  };
  const auto from = [&](const Numbers& v, Index gate, Index j) {
    return w.recurrent_bias[gate * H + j] + dot(w.recurrent + (gate * H + j) * H, v);
  };
  Numbers reset = before; // r h
  for (Index j = 0; p.gates() == 3 && j < H; ++j) reset[j] *= sigmoid(from_x(0, j) + from(before, 0, j));
  for (Index j = 0; j < H; ++j) {
    const auto both = [&](Index gate) { return from_x(gate, j) + from(before, gate, j); };
    if (p.gates() == 1) {
      h[j] = p.cell == "rnn_relu" ? std::max(0., both(0)) : tanh(both(0));
    } else if (p.gates() == 4) {
      c[j] = sigmoid(both(1)) * c[j] + sigmoid(both(0)) * tanh(both(2));
      h[j] = sigmoid(both(3)) * tanh(c[j]);
    } else {
      const double z = sigmoid(both(1));
      const bool reset_before = p.cell.find("before") != p.cell.npos;
      const double n = reset_before ? tanh(from_x(2, j) + from(reset, 2, j))
                                    : tanh(from_x(2, j) + sigmoid(both(0)) * from(before, 2, j));
      h[j] = (1 - z) * n + z * before[j];
    }
  }
}

/// y, then the final h and c: what goes out, in one long row.
Numbers loop(const Problem& p, const Numbers& in) {
  const Places at(p);
  const Grid grid{p.time, p.batch, p.batch_first};
  const auto lengths = p.lengths();
  const Index D = p.directions, H = p.hidden, y = p.time * p.batch * D * H;
  Numbers out(y + 2 * p.state());
  for (Index d = 0; d < D; ++d)
    for (Index b = 0; b < p.batch; ++b) {
      const Index state = (d * p.batch + b) * H;
      Numbers h(&in[at.h + state], &in[at.h + state] + H), c(&in[at.c + state], &in[at.c + state] + H);
      for (Index i = 0; i < lengths[b]; ++i) {
        const Index row = grid.row(d ? lengths[b] - 1 - i : i, b);
        step(p, at.weights(in.data(), d), &in[at.x + row * p.input], h, c);
        std::copy(h.begin(), h.end(), &out[row * D * H + d * H]);
      }
      std::copy(h.begin(), h.end(), &out[y + state]);
      if (p.has_c()) std::copy(c.begin(), c.end(), &out[y + p.state() + state]);
    }
  return out;
}

struct Results {
  Numbers outputs, gradients; // as `loop` and `Places` order them
};

template <class T>
Results kernels_compute(const Problem& p, const Numbers& in, const Numbers& upstream, bool train) {
  const Places at(p);
  Index number = 0;
  while (kernels_of<T>().cell(number).name != p.cell) ++number;
  const CellKernels<T> cell = kernels_of<T>().cell(number);
  const std::vector<T> inputs(in.begin(), in.end());
  std::vector<T> y(p.time * p.batch * p.directions * p.hidden), h(inputs.begin() + at.h, inputs.end()),
      c(inputs.begin() + at.c, inputs.end()), gradients(in.size());
  std::vector<std::vector<Weights<const T>>> weights;
  std::vector<Weights<T>> of_gradients;
  std::vector<const Weights<T>*> weight_gradients;
  for (Index d = 0; d < p.directions; ++d) {
    weights.push_back({at.weights<const T>(inputs.data(), d)});
    of_gradients.push_back(at.weights<T>(gradients.data(), d));
  }
  for (const Weights<T>& w : of_gradients) weight_gradients.push_back(&w);
  const Activation tanh{ActivationKind::tanh, 0, 0}, sigmoid{ActivationKind::sigmoid, 0, 0};
  Passes<T> passes(cell, {p.input, p.hidden, p.hidden}, {sigmoid, tanh, tanh, 0, 0}, true, weights);
  const Grid grid{p.time, p.batch, p.batch_first};
  const auto lengths = p.lengths();
  Record<T> record;
  ForwardArrays<T> forward{};
  forward.grid = grid;
  forward.lengths = p.ragged ? lengths.data() : nullptr;
  forward.x = inputs.data();
  forward.y = y.data();
  forward.h = h.data();
  forward.running_c = p.has_c() ? c.data() : nullptr;
  passes.forward(forward, train ? &record : nullptr, p.time > 2 ? 2 : 0);
  Results results{{y.begin(), y.end()}, {}};
  const auto append = [&](const std::vector<T>& state, bool there) {
    for (Index i = 0; i < p.state(); ++i) results.outputs.push_back(there ? double(state[i]) : 0);
  };
  append(h, true);
  append(c, p.has_c());
  if (!train) return results;

  const std::vector<T> up(upstream.begin(), upstream.end());
  const T* dh = up.data() + y.size();
  std::copy(dh, dh + p.state(), gradients.begin() + at.h);
  if (p.has_c()) std::copy(dh + p.state(), dh + 2 * p.state(), gradients.begin() + at.c);
  std::vector<T> first(inputs.begin() + at.h, inputs.begin() + at.parameters);
  BackwardArrays<T> backward{};
  backward.x = inputs.data();
  backward.y = y.data();
  backward.first_h = first.data();
  backward.first_c = p.has_c() ? first.data() + p.state() : nullptr;
  backward.dy = up.data();
  backward.dh = gradients.data() + at.h;
  backward.dc = p.has_c() ? gradients.data() + at.c : nullptr;
  backward.dx = gradients.data();
  backward.weights = weight_gradients.data();
  passes.backward(backward, grid, record);
  results.gradients = {gradients.begin(), gradients.end()};
  return results;
}

void compare(const std::string& what, const Numbers& got, const Numbers& want, double tolerance) {
  double error = 0, largest = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    error = std::max(error, std::abs(got[i] - want[i]));
    largest = std::max(largest, std::abs(want[i]));
  }
  check(error <= tolerance * largest, what, error / largest);
}

/// Sixty of the entries, or all, against central differences of the loop.
void compare_gradients(const Problem& p, const Numbers& in, const Numbers& upstream, const Numbers& got) {
  double largest = 0;
  for (const double gradient : got) largest = std::max(largest, std::abs(gradient));
  const double eps = 1e-5;
  for (std::size_t i = 0; i < in.size(); i += in.size() / 60 + 1) {
    double difference = 0;
    for (const double sign : {1., -1.}) {
      Numbers moved = in;
      moved[i] += sign * eps;
      const Numbers out = loop(p, moved);
      for (std::size_t j = 0; j < out.size(); ++j) difference += sign * out[j] * upstream[j];
    }
    const double error = std::abs(difference / (2 * eps) - got[i]) / largest;
    check(error < 1e-7, p.name() + ": gradient " + std::to_string(i), error);
  }
}

void run(const Problem& p) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> uniform(-1, 1);
  const auto draw = [&](Index n, double size) {
    Numbers numbers(n);
    for (double& number : numbers) number = float(size * uniform(random));
    return numbers;
  };
  const Places at(p);
  Numbers in = draw(at.end, 1);
  for (Index i = at.parameters; i < at.end; ++i) in[i] = float(in[i] / std::sqrt(double(p.hidden)));
  const Numbers upstream = draw(p.time * p.batch * p.directions * p.hidden + 2 * p.state(), 1);

  const Numbers want = loop(p, in);
  set_num_threads(1);
  const Results f32 = kernels_compute<float>(p, in, upstream, true);
  const Results f64 = kernels_compute<double>(p, in, upstream, true);
  compare(p.name() + ": float64", f64.outputs, want, 1e-12);
  compare(p.name() + ": float32", f32.outputs, want, 2e-5);
  compare_gradients(p, in, upstream, f64.gradients);
  compare(p.name() + ": float32 gradients", f32.gradients, f64.gradients, 2e-5);
  for (const Index threads : {2, 3}) {
    set_num_threads(threads);
    const Results together = kernels_compute<float>(p, in, upstream, true);
    check(together.outputs == f32.outputs && together.gradients == f32.gradients,
          p.name() + ": other bits with " + std::to_string(threads) + " threads");
    check(kernels_compute<float>(p, in, upstream, false).outputs == f32.outputs, p.name() + ": inference");
  }
}

/// x W^T + b, and back; whole numbers, so that everything is exact.
template <class T>
void run_linear(Index rows, Index inputs, Index outputs) {
  std::vector<T> w(outputs * inputs), bias(outputs), x(rows * inputs), y(rows * outputs), dx(x.size());
  std::vector<T> dw(w.size()), db(bias.size()), want(y.size()), want_dx(x.size()), want_dw(w.size());
  std::mt19937 random(1);
  for (std::vector<T>* numbers : {&w, &bias, &x})
    for (T& number : *numbers) number = T(int(random() % 7) - 3);
  for (Index r = 0; r < rows; ++r)
    for (Index o = 0; o < outputs; ++o) {
      T& sum = want[r * outputs + o] = bias[o];
      for (Index i = 0; i < inputs; ++i) sum += x[r * inputs + i] * w[o * inputs + i];
    }
  for (Index r = 0; r < rows; ++r)
    for (Index o = 0; o < outputs; ++o)
      for (Index i = 0; i < inputs; ++i) {
        want_dx[r * inputs + i] += want[r * outputs + o] * w[o * inputs + i];
        want_dw[o * inputs + i] += want[r * outputs + o] * x[r * inputs + i];
      }
  const Linear<T>& linear = kernels_of<T>().linear;
  const Shape shape{inputs, outputs};
  const Sizes sizes = linear.packing.sizes(nullptr, shape);
  Buffer numbers(sizes.numbers * sizeof(T)), packed(sizes.weight_bytes), transposed(sizes.transposed_bytes);
  const Weights<const T> weights{w.data(), nullptr, bias.data(), nullptr, nullptr, nullptr};
  linear.packing.pack(nullptr, shape, &weights, numbers.as<T>(), packed.as<T>());
  linear.packing.pack_transposed(nullptr, shape, &weights, transposed.as<T>());
  on_team(2, [&](const Team& team) {
    linear.forward(
        {shape, rows, {numbers.as<T>(), packed.as<T>()}, {x.data(), inputs}, {y.data(), outputs}, nullptr},
        team);
  });
  on_team(2, [&](const Team& team) {
    linear.backward({shape,
                     rows,
                     transposed.as<T>(),
                     {x.data(), inputs},
                     {y.data(), outputs},
                     {dx.data(), inputs},
                     dw.data(),
                     db.data()},
                    team);
  });
  check(y == want && dx == want_dx && dw == want_dw, "linear");
}

/// Every row looks at its source at each step, and back, in arrays that are not a number too long.
template <class T>
void run_attention(Index steps, Index rows, Index length, Index keys, Index values, bool additive,
                   bool windowed, bool causal, T tolerance) {
  std::mt19937 random{7};
  std::normal_distribution<double> normal;
  const auto drawn = [&](Index n) {
    std::vector<T> numbers(n);
    for (T& number : numbers) number = T(normal(random));
    return numbers;
  };
  const std::vector<T> query = drawn(steps * rows * keys), key = drawn(length * rows * keys),
                       value = drawn(length * rows * values), v = drawn(keys),
                       dcontext = drawn(steps * rows * values);
  std::vector<T> centre(steps * rows), context(steps * rows * values), weights(steps * rows * length),
      dquery(query.size()), dkeys(key.size()), dvalues(value.size()), dv(rows * keys),
      dcentre(centre.size());
  std::vector<int64_t> lengths(rows);
  for (Index r = 0; r < rows; ++r) lengths[r] = 1 + (length - 1) * r / rows;
  for (Index i = 0; i < steps * rows; ++i) centre[i] = T(0.7) * T(lengths[i % rows]);

  AttentionBackward<T> call{};
  call.rows = call.sources = rows;
  call.length = length;
  call.key_size = keys;
  call.value_size = values;
  call.lengths = lengths.data();
  call.keys = key.data();
  call.values = value.data();
  call.v = additive ? v.data() : nullptr;
  call.centre = windowed ? centre.data() : nullptr;
  call.window = 2;
  call.causal = causal;
  call.query = {query.data(), keys};
  call.context = {context.data(), values};
  call.weights = weights.data();
  call.dcontext = {dcontext.data(), values};
  call.dquery = {dquery.data(), keys};
  call.dcentre = dcentre.data();
  call.dkeys = dkeys.data();
  call.dvalues = dvalues.data();
  call.dv = dv.data();
  const Attention<T>& attention = attention_of<T>();
  std::vector<T> work(attention.work(call, steps));
  for (Index r = 0; r < rows; ++r) attention.forward(call, r, 0, steps, work.data());
  for (Index r = 0; r < rows; ++r) attention.backward(call, r, 0, steps, work.data());

  for (Index i = 0; i < steps * rows; ++i) {
    const Index r = i % rows;
    Numbers w(lengths[r]);
    double sum = 0;
    for (Index s = 0; s < lengths[r]; ++s) {
      double score = 0;
      for (Index k = 0; k < keys; ++k) {
        const double q = query[i * keys + k], there = key[(s * rows + r) * keys + k];
        score += additive ? v[k] * std::tanh(q + there) : q * there;
      }
      const bool seen = causal ? s <= i / rows : !windowed || std::abs(double(s) - centre[i]) <= 2;
      sum += w[s] = seen ? std::exp(score) : 0;
    }
    for (Index j = 0; j < values; ++j) {
      double c = 0;
      for (Index s = 0; s < lengths[r]; ++s) {
        const double away = double(s) - centre[i], bell = windowed ? std::exp(-away * away / 2) : 1;
        c += w[s] / sum * bell * value[(s * rows + r) * values + j];
      }
      check(std::abs(context[i * values + j] - c) <= tolerance * (1 + std::abs(c)), "attention", c);
    }
  }
  // What the queries' gradients sum up to, the keys' do as well: scores see query and keys alike.
  double by_query = 0, by_keys = 0;
  for (std::size_t i = 0; i < query.size(); ++i) by_query += additive ? dquery[i] : dquery[i] * query[i];
  for (std::size_t i = 0; i < key.size(); ++i) by_keys += additive ? dkeys[i] : dkeys[i] * key[i];
  const double scale = tolerance * double(query.size() + key.size());
  check(std::abs(by_query - by_keys) <= scale, "attention's gradients", by_query - by_keys);
}

template <class T>
void run_activations(T tolerance) {
  std::vector<T> x, sigmoid, tanh;
  for (T a = -100; a <= 100; a += T(0.01)) x.push_back(a);
  sigmoid.resize(x.size());
  tanh.resize(x.size());
  const auto activate = kernels_of<T>().pointwise.activate;
  activate({ActivationKind::sigmoid, 0, 0}, x.data(), sigmoid.data(), Index(x.size()));
  activate({ActivationKind::tanh, 0, 0}, x.data(), tanh.data(), Index(x.size()));
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double a = x[i], s = 1 / (1 + std::exp(-a)), t = std::tanh(a);
    check(std::abs(sigmoid[i] - s) <= tolerance * s + 2e-38, "sigmoid", a);
    check(std::abs(tanh[i] - t) <= tolerance * std::abs(t) + 2e-38, "tanh", a);
  }
}

} // namespace

int main() {
  try {
    kernels();
  } catch (const std::runtime_error& error) { // not for this processor
    std::printf("%s\n", error.what());
    return skipped;
  }
  start_threads();
  test_memory();
  test_schedule();
  int problems = 0;
  for (const std::string cell : {"rnn_tanh", "rnn_relu", "lstm", "gru", "gru_reset_before"})
    for (const Index directions : {1, 2})
      for (const bool ragged : {false, true}) {
        for (const auto& [time, batch, input, hidden] :
             std::initializer_list<std::array<Index, 4>>{{1, 1, 1, 1},
                                                         {4, 3, 3, 5},
                                                         {3, 2, 17, 33},
                                                         {2, 18, 2, 9},
                                                         {2, 1, 5, 64},
                                                         {3, 33, 7, 20}}) {
          run({cell, time, batch, input, hidden, directions, (time + directions) % 2 == 0, ragged});
          ++problems;
        }
        if (directions == 1) run({cell, 2, 1, 40, 330, 1, false, ragged}); // cut by hidden units
      }
  for (const Index n : {1, 5, 16, 67}) {
    run_linear<float>(n * 3, n, 70 - n);
    run_linear<double>(n * 3, n, 70 - n);
  }
  for (const bool additive : {false, true})
    for (const bool windowed : {false, true})
      for (const Index n : {1, 3, 7, 18}) {
        run_attention<float>(n, 4, 2 * n + 1, 3 * n, 5 * n - 2, additive, windowed, false, 5e-5f);
        run_attention<double>(n, 4, 2 * n + 1, 3 * n, 5 * n - 2, additive, windowed, false, 1e-12);
      }
  for (const Index n : {1, 7, 40, 70}) {
    run_attention<float>(n, 4, n, 9, 17, false, false, true, 5e-5f);
    run_attention<double>(n, 4, n, 9, 17, false, false, true, 1e-12);
  }
  run_activations<float>(5e-7f);
  run_activations<double>(1e-15);
  std::printf("%s, vectors of %d bytes: %d problems, %d faults\n", kernels().level,
              int(kernels().vector_bytes), problems, faults);
  return faults ? EXIT_FAILURE : EXIT_SUCCESS;
}

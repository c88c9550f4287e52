// Weights from torch's layout into the order in which the products read them, and gradients back.
#pragma once

#include "arithmetic.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// Visits the vectors of a window in the order of its columns: f(row of torch's matrix, lanes that hold
/// a hidden unit).
template <class T, class F>
RNNCORE_INLINE void for_each_vector(const Panels<T>& hidden, Index panel, Window w, F f) {
  for (Index slot = 0; slot < w.count; ++slot)
    for (Index u = 0; u < hidden.width(panel); ++u) {
      const Index v = hidden.first(panel) + u;
      f(w.gate[slot] * hidden.columns + v * lanes<T>, hidden.valid(v));
    }
}

/// to[lane][k] += from[k][lane] for `valid` lanes
template <class T>
void add_transposed(const T* from, Index from_stride, Index K, Index valid, T* to) {
  constexpr Index L = lanes<T>;
  Index k = 0;
  if (valid >= L)
    for (; k + L <= K; k += L) {
      Square<T> square = load_square(from + k * from_stride, from_stride);
      transpose<T>(square);
      for (Index lane = 0; lane < L; ++lane)
        store(to + lane * K + k, load(to + lane * K + k) + Vec<T>(square.packet[lane]));
    }
  for (; k < K; ++k)
    for (Index lane = 0; lane < min(L, valid); ++lane) to[lane * K + k] += from[k * from_stride + lane];
}

/// matrix (G * H, K) -> [panel][column of the window], as products with such weights read them
template <class T, class W>
void pack_window(const Panels<T>& hidden, Window w, const T* matrix, Index K, W* packed) {
  using Own = Arithmetic<T, W>;
  for (Index panel = 0; panel < hidden.count(); ++panel) {
    const Index columns = w.count * hidden.width(panel) * lanes<T>;
    Index column = 0;
    for_each_vector(hidden, panel, w, [&](Index row, Index valid) {
      Own::pack(matrix + row * K, K, valid, packed, column, columns);
      column += lanes<T>;
    });
    packed += Own::depth(K) * columns;
  }
}

/// [panel][k][column of the window], some panels of it, added to matrix (G * H, K)
template <class T>
void add_window(const Panels<T>& hidden, Share panels, Window w, const T* packed, Index K, T* matrix) {
  packed += K * w.count * hidden.first(panels.begin) * lanes<T>;
  for (Index panel = panels.begin; panel < panels.end; ++panel) {
    const Index columns = w.count * hidden.width(panel) * lanes<T>;
    const T* from = packed;
    for_each_vector(hidden, panel, w, [&](Index row, Index valid) {
      add_transposed(from, columns, K, valid, matrix + row * K);
      from += lanes<T>;
    });
    packed += K * columns;
  }
}

/// Part of a row: `count` numbers, and zeros up to `width`, a multiple of the lanes.
template <class T>
RNNCORE_INLINE void pack_row(const T* from, Index count, Index width, T* packed) {
  Index k = 0;
  for (; k + lanes<T> <= count; k += lanes<T>) store(packed + k, load(from + k));
  for (; k < width; ++k) packed[k] = k < count ? from[k] : T(0);
}

/// matrix (G * H, O) -> [panel of outputs][gate column][output of the panel]
template <class T>
void pack_window_transposed(const Panels<T>& hidden, Window w, const T* matrix, const Panels<T>& outputs,
                            T* packed) {
  for (Index out = 0; out < outputs.count(); ++out) {
    const Index o0 = outputs.first(out) * lanes<T>, width = outputs.width(out) * lanes<T>;
    const Index count = min(width, outputs.columns - o0);
    for (Index panel = 0; panel < hidden.count(); ++panel)
      for_each_vector(hidden, panel, w, [&](Index row, Index valid) {
        for (Index lane = 0; lane < lanes<T>; ++lane, packed += width)
          pack_row(matrix + (row + lane) * outputs.columns + o0, lane < valid ? count : 0, width, packed);
      });
  }
}

/// matrix (R, K) -> [panel of K][r][k of the panel]: for the product back from its rows to its columns
template <class T>
void pack_rows(const T* matrix, Index rows, const Panels<T>& columns, T* packed) {
  for (Index p = 0; p < columns.count(); ++p) {
    const Index begin = columns.first(p) * lanes<T>, width = columns.width(p) * lanes<T>;
    const Index count = min(width, columns.columns - begin);
    for (Index r = 0; r < rows; ++r, packed += width)
      pack_row(matrix + r * columns.columns + begin, count, width, packed);
  }
}

/// A window over plain columns.
constexpr Window plain{0, 1, {0}};

/// Biases of one transition, of some panels: f(bias of torch's, its place in [panel][slot][vector][lane]).
template <class T, class U, class F>
void for_each_bias(const Layout<T>& at, Share panels, const Weights<U>& w, F f) {
  const auto visit = [&](const Window& window, U* bias) {
    for (Index panel = panels.begin; bias && panel < panels.end; ++panel) {
      Index to = at.gates(panel, 1) + at.window(window, panel);
      for_each_vector(at.hidden, panel, window, [&](Index row, Index valid) {
        for (Index lane = 0; lane < valid; ++lane) f(bias[row + lane], to + lane);
        to += lanes<T>;
      });
    }
  };
  for (const Window& window : at.plan.input) visit(window, w.input_bias);
  for (const Recurrence& product : at.plan.recurrent) visit(product.window, w.recurrent_bias);
  visit(at.plan.offer, w.recurrent_bias);
}

/// f(window of the input's product, which one it is)
template <class T, class F>
void for_each_input(const Layout<T>& at, Index level, F f) {
  for (Index i = 0; i < 2 && at.input_columns(level); ++i)
    if (at.plan.input[i].count) f(at.plan.input[i], i);
}

/// f(window of a recurrent product, which matrix, which product, where its matrix begins in torch's layout)
template <class T, class F>
void for_each_recurrence(const Layout<T>& at, F f) {
  const Index matrix = at.plan.recurrent_gates * at.shape.hidden * at.recurrent_columns();
  for (Index k = 0; k < at.matrices(); ++k)
    for (Index i = 0; i < 2; ++i)
      if (at.plan.recurrent[i].window.count) f(at.plan.recurrent[i].window, k, i, k * matrix);
}

/// Each slot starts from the sum of the biases that end in it. Units: [unit][vector][lane].
template <class T, class W>
void pack_level(const Layout<T>& at, Index level, const Weights<const T>& w, T* numbers, W* weights) {
  const OffsetsOf<T, W> offsets{at};
  const Plan& plan = at.plan;
  const Index H = at.shape.hidden, padded = at.hidden.padded();
  T *bias = numbers + at.bias(level), *units = numbers + at.unit(level);
  for (Index i = 0; i < at.node() + plan.units * padded; ++i) bias[i] = T(0);
  for_each_bias(at, Share(at.hidden.count()), w, [&](T from, Index to) { bias[to] += from; });
  for (Index u = 0; u < plan.units; ++u)
    for (Index j = 0; j < H; ++j) units[u * padded + j] = w.units[u * H + j];
  for_each_input(at, level, [&](const Window& window, Index i) {
    pack_window(at.hidden, window, w.input, at.input_columns(level), weights + offsets.input(level, i));
  });
  for_each_recurrence(at, [&](const Window& window, Index k, Index i, Index matrix) {
    pack_window(at.hidden, window, w.recurrent + matrix, at.recurrent_columns(),
                weights + offsets.recurrent(level, k, i));
  });
}

/// The matrix of what nodes emit, (P, H), in torch's layout.
template <class T, class U>
U* emission_of(const Layout<T>& at, const Weights<U>& w) {
  return at.projects() ? w.projection
                       : w.recurrent + at.plan.offer.gate[0] * at.shape.hidden * at.shape.output;
}

template <class T, class W>
void pack(const Plan& plan, Shape shape, const Weights<const T>* from, T* numbers, W* weights) {
  const Layout<T> at(plan, shape);
  for (Index level = 0; level < shape.depth; ++level) pack_level(at, level, from[level], numbers, weights);
  if (at.emits())
    pack_window(at.states, plain, emission_of(at, from[0]), shape.hidden,
                weights + OffsetsOf<T, W>{at}.emission());
}

template <class T>
void pack_transposed(const Plan& plan, Shape shape, const Weights<const T>* from, T* packed) {
  const Layout<T> at(plan, shape);
  for (Index level = 0; level < shape.depth; ++level) {
    const Weights<const T>& w = from[level];
    for_each_input(at, level, [&](const Window& window, Index i) {
      pack_window_transposed(at.hidden, window, w.input, level == 0 ? at.inputs : at.states,
                             packed + at.input_transposed(level, i));
    });
    for_each_recurrence(at, [&](const Window& window, Index k, Index i, Index matrix) {
      pack_window_transposed(at.hidden, window, w.recurrent + matrix, at.recurrent_inputs,
                             packed + at.recurrent_transposed(level, k, i));
    });
  }
  if (at.emits())
    pack_rows(emission_of(at, from[0]), shape.output, at.units, packed + at.emission_transposed());
}

/// The gradients of some panels of one transition, in the order of `pack_level`, added to torch's layout.
template <class T>
void add_level(const Layout<T>& at, Share panels, Index level, const T* gradients, const Weights<T>& w) {
  const GradientOffsets<T> offsets{at};
  const Plan& plan = at.plan;
  const T *numbers = gradients, *weights = gradients + at.numbers();
  const Index H = at.shape.hidden, padded = at.hidden.padded();
  for_each_bias(at, panels, w, [&](T& to, Index from) { to += numbers[at.bias(level) + from]; });
  const Index begin = at.hidden.columns_before(panels.begin), end = at.hidden.columns_before(panels.end);
  for (Index u = 0; u < plan.units; ++u)
    for (Index j = begin; j < end; ++j) w.units[u * H + j] += numbers[at.unit(level) + u * padded + j];
  for_each_input(at, level, [&](const Window& window, Index i) {
    add_window(at.hidden, panels, window, weights + offsets.input(level, i), at.input_columns(level),
               w.input);
  });
  for_each_recurrence(at, [&](const Window& window, Index k, Index i, Index matrix) {
    add_window(at.hidden, panels, window, weights + offsets.recurrent(level, k, i), at.recurrent_columns(),
               w.recurrent + matrix);
  });
}

/// Gradients gathered in the order of `pack`, by several passes one after the other, added to torch's
/// layout. The first one's end up as the sum of all.
template <class T>
void add_gradients(const Plan& plan, Shape shape, T* gradients, Index passes, Index stride,
                   const Weights<T>* weights, Team team) {
  const Layout<T> at(plan, shape);
  const GradientOffsets<T> offsets{at};
  const Share sums(team, (at.numbers() + offsets.all()) / lanes<T>);
  for (Index i = sums.begin * lanes<T>; passes > 1 && i < sums.end * lanes<T>; i += lanes<T>) {
    Vec<T> sum = load(gradients + i);
    for (Index pass = 1; pass < passes; ++pass) sum = sum + load(gradients + pass * stride + i);
    store(gradients + i, sum);
  }
  if (passes > 1) team.wait(team.barrier);
  const Share panels(team, at.hidden.count()), outputs(team, at.states.count());
  for (Index level = 0; level < shape.depth; ++level)
    add_level(at, panels, level, gradients, weights[level]);
  if (at.emits())
    add_window(at.states, outputs, plain, gradients + at.numbers() + offsets.emission(), shape.hidden,
               emission_of(at, weights[0]));
}

} // namespace rnncore::RNNCORE_LEVEL

// Weights from torch's layout into the order in which the products read them, and gradients back.
#pragma once

#include "layout.hpp"

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

/// to[k][lane] = from[lane][k], or zero from `valid` lanes on
template <class T>
void transpose_rows(const T* from, Index K, Index valid, T* to, Index to_stride) {
  constexpr Index L = lanes<T>;
  Index k = 0;
  if (valid >= L)
    for (; k + L <= K; k += L) {
      Square<T> square = load_square(from + k, K);
      transpose<T>(square);
      for (Index i = 0; i < L; ++i) store(to + (k + i) * to_stride, Vec<T>(square.packet[i]));
    }
  for (; k < K; ++k)
    for (Index lane = 0; lane < L; ++lane)
      to[k * to_stride + lane] = lane < valid ? from[lane * K + k] : T(0);
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

/// matrix (G * H, K) -> [panel][k][column of the window]
template <class T>
void pack_window(const Panels<T>& hidden, Window w, const T* matrix, Index K, T* packed) {
  for (Index panel = 0; panel < hidden.count(); ++panel) {
    const Index columns = w.count * hidden.width(panel) * lanes<T>;
    T* to = packed;
    for_each_vector(hidden, panel, w, [&](Index row, Index valid) {
      transpose_rows(matrix + row * K, K, valid, to, columns);
      to += lanes<T>;
    });
    packed += K * columns;
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

/// matrix (G * H, O) -> [panel of outputs][gate column][output of the panel]
template <class T>
void pack_window_transposed(const Panels<T>& hidden, Window w, const T* matrix, const Panels<T>& outputs,
                            T* packed) {
  constexpr Index L = lanes<T>;
  for (Index out = 0; out < outputs.count(); ++out) {
    const Index o0 = outputs.first(out) * L, width = outputs.width(out) * L;
    const Index valid_outputs = min(width, outputs.columns - o0);
    for (Index panel = 0; panel < hidden.count(); ++panel)
      for_each_vector(hidden, panel, w, [&](Index row, Index valid) {
        for (Index lane = 0; lane < L; ++lane, packed += width)
          for (Index o = 0; o < width; ++o)
            packed[o] =
                lane < valid && o < valid_outputs ? matrix[(row + lane) * outputs.columns + o0 + o] : T(0);
      });
  }
}

/// The biases of both products summed into the slots they end in: [panel][slot][vector][lane]
template <class C, class T>
void pack_bias(const Layout<C, T>& at, Weights<const T> w, T* packed) {
  for (Index i = 0; i < at.node(); ++i) packed[i] = T(0);
  const auto add = [&](Window window, const T* bias) {
    for (Index panel = 0; bias && panel < at.hidden.count(); ++panel) {
      T* to = packed + at.gates(panel, 1) + at.window(window, panel);
      for_each_vector(at.hidden, panel, window, [&](Index row, Index valid) {
        for (Index lane = 0; lane < valid; ++lane) to[lane] += bias[row + lane];
        to += lanes<T>;
      });
    }
  };
  add(C::input, w.input_bias);
  for (const Window& window : C::recurrent) add(window, w.recurrent_bias);
}

template <class C, class T>
void add_bias(const Layout<C, T>& at, Share panels, const T* packed, Weights<T> w) {
  const auto add = [&](Window window, T* bias) {
    for (Index panel = panels.begin; bias && panel < panels.end; ++panel) {
      const T* from = packed + at.gates(panel, 1) + at.window(window, panel);
      for_each_vector(at.hidden, panel, window, [&](Index row, Index valid) {
        for (Index lane = 0; lane < valid; ++lane) bias[row + lane] += from[lane];
        from += lanes<T>;
      });
    }
  };
  add(C::input, w.input_bias);
  for (const Window& window : C::recurrent) add(window, w.recurrent_bias);
}

template <class C, class T>
void pack(Shape shape, Weights<const T> w, T* packed) {
  const Layout<C, T> at(shape);
  pack_bias(at, w, packed + at.bias());
  pack_window(at.hidden, C::input, w.input, shape.input, packed + at.input());
  for (Index s = 0; s < at.stages; ++s)
    pack_window(at.hidden, C::recurrent[s], w.recurrent, shape.hidden, packed + at.recurrent(s));
}

template <class C, class T>
void pack_transposed(Shape shape, Weights<const T> w, T* packed) {
  const Layout<C, T> at(shape);
  pack_window_transposed(at.hidden, C::input, w.input, at.inputs, packed + at.input_transposed());
  for (Index s = 0; s < at.stages; ++s)
    pack_window_transposed(at.hidden, C::recurrent[s], w.recurrent, at.states,
                           packed + at.recurrent_transposed(s));
}

/// Gradients gathered in the order of `pack`, by several passes one after the other, added to torch's
/// layout. The first one's end up as the sum of all.
template <class C, class T>
void add_gradients(Shape shape, T* packed, Index passes, Index stride, Weights<T> w, Team team) {
  const Layout<C, T> at(shape);
  const Share sums(team, at.packed() / lanes<T>);
  for (Index i = sums.begin * lanes<T>; passes > 1 && i < sums.end * lanes<T>; i += lanes<T>) {
    Vec<T> sum = load(packed + i);
    for (Index pass = 1; pass < passes; ++pass) sum = sum + load(packed + pass * stride + i);
    store(packed + i, sum);
  }
  if (passes > 1) team.wait(team.barrier);
  const Share panels(team, at.hidden.count());
  add_bias(at, panels, packed + at.bias(), w);
  add_window(at.hidden, panels, C::input, packed + at.input(), shape.input, w.input);
  for (Index s = 0; s < at.stages; ++s)
    add_window(at.hidden, panels, C::recurrent[s], packed + at.recurrent(s), shape.hidden, w.recurrent);
}

} // namespace rnncore::RNNCORE_LEVEL

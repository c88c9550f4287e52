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

/// matrix (G * H, K) -> [panel][k][column of the window]
template <class T>
void pack_window(const Panels<T>& hidden, Window w, const T* matrix, Index K, T* packed) {
  constexpr Index L = lanes<T>, block = 16;
  for (Index panel = 0; panel < hidden.count(); ++panel) {
    const Index columns = w.count * hidden.width(panel) * L;
    for (Index k0 = 0; k0 < K; k0 += block) {
      const Index k1 = min(K, k0 + block);
      T* to = packed;
      for_each_vector(hidden, panel, w, [&](Index row, Index valid) {
        for (Index lane = 0; lane < L; ++lane)
          for (Index k = k0; k < k1; ++k)
            to[k * columns + lane] = lane < valid ? matrix[(row + lane) * K + k] : T(0);
        to += L;
      });
    }
    packed += K * columns;
  }
}

/// [panel][k][column of the window], some panels of it, added to matrix (G * H, K)
template <class T>
void add_window(const Panels<T>& hidden, Share panels, Window w, const T* packed, Index K, T* matrix) {
  constexpr Index L = lanes<T>, block = 16;
  packed += K * w.count * hidden.first(panels.begin) * L;
  for (Index panel = panels.begin; panel < panels.end; ++panel) {
    const Index columns = w.count * hidden.width(panel) * L;
    for (Index k0 = 0; k0 < K; k0 += block) {
      const Index k1 = min(K, k0 + block);
      const T* from = packed;
      for_each_vector(hidden, panel, w, [&](Index row, Index valid) {
        for (Index lane = 0; lane < valid; ++lane)
          for (Index k = k0; k < k1; ++k) matrix[(row + lane) * K + k] += from[k * columns + lane];
        from += L;
      });
    }
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

/// Gradients gathered in the order of `pack`, added to torch's layout.
template <class C, class T>
void add_gradients(Shape shape, const T* packed, Weights<T> w, Team team) {
  const Layout<C, T> at(shape);
  const Share panels(team, at.hidden.count());
  add_bias(at, panels, packed + at.bias(), w);
  add_window(at.hidden, panels, C::input, packed + at.input(), shape.input, w.input);
  for (Index s = 0; s < at.stages; ++s)
    add_window(at.hidden, panels, C::recurrent[s], packed + at.recurrent(s), shape.hidden, w.recurrent);
}

} // namespace rnncore::RNNCORE_LEVEL

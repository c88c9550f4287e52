// Long short-term memory (Hochreiter and Schmidhuber 1997, forget gate of Gers et al. 2000):
//
//   i, f, o = sigmoid(W x + b + U h + b'),  g = tanh(W x + b + U h + b')
//   c' = f c + i g
//   h' = o tanh(c')
#pragma once

#include "../activations.hpp"
#include "time_step.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// Which gates there are (Greff et al. 2017): one that is missing is open.
struct Gates {
  bool input = true, forget = true, output = true;
  bool coupled = false;  // f = 1 - i
  bool peephole = false; // gates see the cell state, each through weights of its own (Gers et al. 2002)
};

template <Gates has>
struct Lstm {
  static constexpr Index i = 0, f = i + has.input, g = f + has.forget, o = g + 1, slots = o + has.output;
  static constexpr Index p_i = 0, p_f = has.input, p_o = p_f + has.forget; // peepholes
  using Rules = Fixed<Sigmoid, Tanh>;
  static constexpr Window all{0, slots, {0, 1, 2, 3}};
  static constexpr Plan plan{.slots = slots,
                             .gates = slots,
                             .units = has.peephole ? slots - 1 : 0,
                             .input = {all},
                             .recurrent = {{0, all}},
                             .has_cell_state = true};

  template <class V>
  static RNNCORE_INLINE V input(const V (&s)[slots]) {
    return has.input ? s[i] : V(1);
  }
  template <class V>
  static RNNCORE_INLINE V forget(const V (&s)[slots]) {
    return has.coupled ? V(1) - s[i] : has.forget ? s[f] : V(1);
  }
  template <class V>
  static RNNCORE_INLINE V output(const V (&s)[slots]) {
    return has.output ? s[slots - 1] : V(1);
  }

  /// c' = f c + i g
  template <class V>
  static RNNCORE_INLINE V cell(const auto& rules, const V (&s)[slots], const TimeStep<V>& t) {
    return rules.clip(fma(forget(s), t.c_prev, input(s) * rules.drop(s[g])));
  }

  template <class V>
  static RNNCORE_INLINE void forward(Phase<0>, const auto& rules, V (&s)[slots], TimeStep<V>& t) {
    const auto open = [&](Index gate, Index peephole, V c) {
      s[gate] = rules.gate(has.peephole ? fma(t.unit[peephole], c, s[gate]) : s[gate]);
    };
    if constexpr (has.input) open(i, p_i, t.c_prev);
    if constexpr (has.forget) open(f, p_f, t.c_prev);
    s[g] = rules.candidate(s[g]);
    t.c = cell(rules, s, t);
    if constexpr (has.output) open(o, p_o, t.c);
    t.h = output(s) * rules.output(t.c);
  }

  template <class V>
  static RNNCORE_INLINE void backward(Phase<0>, const auto& rules, V (&s)[slots], const TimeStep<V>& t,
                                      Gradient<V>& d) {
    const auto shut = [&](Index gate, V d_gate, Index peephole, V c) {
      s[gate] = d_gate * rules.gate_slope(s[gate]);
      if (has.peephole) d.unit[peephole] = fma(s[gate], c, d.unit[peephole]);
    };
    const V m = rules.output(t.c);
    V dc = fma(d.h * output(s), rules.output_slope(m), d.c); // h' = o tanh(c')
    if constexpr (has.output) shut(o, d.h * m, p_o, t.c);
    if constexpr (has.output && has.peephole) dc = fma(s[o], t.unit[p_o], dc);
    dc = rules.unclip(dc, t.c);

    const V update = rules.drop(s[g]); // c' = f c + i g
    const V d_i = has.coupled ? dc * (update - t.c_prev) : dc * update;
    d.c = dc * forget(s);
    s[g] = rules.drop(dc * input(s)) * rules.candidate_slope(s[g]);
    if constexpr (has.input) shut(i, d_i, p_i, t.c_prev);
    if constexpr (has.forget) shut(f, dc * t.c_prev, p_f, t.c_prev);
    if constexpr (has.input && has.peephole) d.c = fma(s[i], t.unit[p_i], d.c);
    if constexpr (has.forget && has.peephole) d.c = fma(s[f], t.unit[p_f], d.c);
  }
};

constexpr Index any = 0; // children: as many as there are

/// With layer normalisation (Ba et al. 2016, eq. 20 to 22): LN(W x) and LN(U h) in place of W x and U h,
/// each gate with gains of its own, and h' = o tanh(LN(c')). `per_gate`: each gate has its own mean and
/// deviation, else all share theirs. With places for several children there is a forget gate for each, as
/// in a `TreeLstm`: U h is summed over all places before it is normalised. `any`: their number is not
/// given, as in a `ChildSumLstm`; U h_k is normalised for itself.
template <bool per_gate, Index children = 1>
struct NormalisedLstm {
  static constexpr Index i = 0, f = 1, g = f + children, o = g + 1, rows = o + 1; // of U h
  static constexpr Index from_h = 4, c = from_h + rows, m = c + 1, slots = m + 1; // c', tanh(LN(c'))
  /// Which gate of x goes with a row of U h.
  static constexpr Index of_x(Index row) { return row == i ? 0 : row < g ? 1 : row == g ? 2 : 3; }
  /// Where a row of U h stands among those of the weights.
  static constexpr Index in_matrix(Index row) { return children == any ? of_x(row) : row; }
  static constexpr Index matrix_rows = children == any ? 4 : rows;
  static constexpr Index gain_x = 0, gain_h = 4, bias = gain_h + matrix_rows, gain_c = bias + 4,
                         bias_c = gain_c + 1;
  using Rules = Fixed<Sigmoid, Tanh>;
  using Steps = NormalisedLstm<false, children>; // what shares a mean is read from the plan
  static constexpr Plan plan = [] {
    Plan plan{.slots = slots,
              .gates = 4,
              .recurrent_gates = matrix_rows,
              .phases = 2,
              .units = bias_c + 1,
              .input = {{0, 4, {0, 1, 2, 3}}},
              .has_cell_state = true,
              .branches = children > 1 ? children : 0,
              .recurrent_input = children == any ? RecurrentInput::sum : RecurrentInput::each,
              .offer = {f, children == any, {f}},
              .normalises_offer = children == any};
    for (Index row = 0; row < rows; ++row) {
      Window& window = plan.recurrent[row / 4].window;
      if (window.count == 0) window.begin = from_h + row;
      window.gate[window.count++] = in_matrix(row);
    }
    for (Index slot = 0; slot < 4; slot += per_gate ? 1 : 4)
      plan.norm[plan.norms++] = {0, slot, per_gate ? 1 : 4};
    for (Index row = 0; row < rows; row += per_gate ? 1 : rows)
      plan.norm[plan.norms++] = {0, from_h + row, per_gate ? 1 : rows};
    plan.norm[plan.norms++] = {1, c, 1};
    return plan;
  }();

  template <class V>
  static RNNCORE_INLINE V c_prev(const TimeStep<V>& t, Index k) {
    return children > 1 ? t.branch[k] : t.c_prev;
  }
  template <class V>
  static RNNCORE_INLINE V sum(Index row, const V (&s)[slots], const TimeStep<V>& t) {
    const Index x = of_x(row);
    return fma(t.unit[gain_x + x], s[x],
               fma(t.unit[gain_h + in_matrix(row)], s[from_h + row], t.unit[bias + x]));
  }

  template <class V>
  static RNNCORE_INLINE void forward(Phase<0>, const auto& rules, V (&s)[slots], TimeStep<V>& t) {
    V sum_c = rules.gate(sum(i, s, t)) * rules.drop(rules.candidate(sum(g, s, t)));
    for (Index k = 0; k < children; ++k) sum_c = fma(rules.gate(sum(f + k, s, t)), c_prev(t, k), sum_c);
    t.c = s[c] = rules.clip(children == any ? sum_c + t.kept : sum_c);
  }
  template <class V>
  static RNNCORE_INLINE void forward(Phase<1>, const auto& rules, V (&s)[slots], TimeStep<V>& t) {
    s[m] = rules.output(fma(t.unit[gain_c], s[c], t.unit[bias_c]));
    t.h = rules.gate(sum(o, s, t)) * s[m];
  }

  template <class V>
  static RNNCORE_INLINE void backward(Phase<1>, const auto& rules, V (&s)[slots], const TimeStep<V>& t,
                                      Gradient<V>& d) {
    const V d_m = d.h * rules.gate(sum(o, s, t)) * rules.output_slope(s[m]);
    d.unit[gain_c] = fma(d_m, s[c], d.unit[gain_c]);
    d.unit[bias_c] = d.unit[bias_c] + d_m;
    s[c] = d_m * t.unit[gain_c];
  }
  template <class V>
  static RNNCORE_INLINE void backward(Phase<0>, const auto& rules, V (&s)[slots], const TimeStep<V>& t,
                                      Gradient<V>& d) {
    const V v_i = rules.gate(sum(i, s, t)), v_g = rules.candidate(sum(g, s, t)),
            v_o = rules.gate(sum(o, s, t));
    const V dc = rules.unclip(d.c + s[c], t.c);
    const auto back = [&](Index row, V d_sum) {
      const Index gain = gain_h + in_matrix(row);
      d.unit[gain] = fma(d_sum, s[from_h + row], d.unit[gain]);
      s[from_h + row] = d_sum * t.unit[gain];
    };
    const auto shut = [&](Index row, V d_sum) {
      back(row, d_sum);
      back_to_x(of_x(row), d_sum, s, t, d);
    };
    V d_forget(0); // of what all children's gates have in common
    for (Index k = 0; k < children; ++k) {
      const V v_f = rules.gate(sum(f + k, s, t)), d_f = dc * c_prev(t, k) * rules.gate_slope(v_f);
      back(f + k, d_f);
      d_forget = d_forget + d_f;
      (children > 1 ? d.branch[k] : d.c) = dc * v_f;
    }
    if (children == any)
      d.kept = dc;
    else
      back_to_x(f, d_forget, s, t, d);
    shut(i, dc * rules.drop(v_g) * rules.gate_slope(v_i));
    shut(g, rules.drop(dc * v_i) * rules.candidate_slope(v_g));
    shut(o, d.h * s[m] * rules.gate_slope(v_o));
  }
  template <class V>
  static RNNCORE_INLINE void back_to_x(Index x, V d_sum, V (&s)[slots], const TimeStep<V>& t,
                                       Gradient<V>& d) {
    d.unit[gain_x + x] = fma(d_sum, s[x], d.unit[gain_x + x]);
    d.unit[bias + x] = d.unit[bias + x] + d_sum;
    s[x] = d_sum * t.unit[gain_x + x];
  }

  // The forget gates of any number of children, as in `Joined`.
  template <class V>
  static RNNCORE_INLINE V joined(const V (&s)[slots], const TimeStep<V>& t, V offer) {
    return fma(t.unit[gain_x + f], s[f], fma(t.unit[gain_h + f], offer, t.unit[bias + f]));
  }
  template <class V>
  static RNNCORE_INLINE V unjoin(V d_sum, V offer, const TimeStep<V>& t, Gradient<V>& d) {
    d.unit[gain_h + f] = fma(d_sum, offer, d.unit[gain_h + f]);
    return d_sum * t.unit[gain_h + f];
  }
  template <class V>
  static RNNCORE_INLINE void unjoin_common(V d_sums, V (&s)[slots], const TimeStep<V>& t, Gradient<V>& d) {
    back_to_x(f, d_sums, s, t, d);
  }
};

} // namespace rnncore::RNNCORE_LEVEL

// Tree-structured gated cells.
#pragma once

#include "gru.hpp"
#include "lstm.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// Long short-term memory with places for several children (Tai et al. 2015, eq. 9 to 14):
///
///   i, o = sigmoid(W x + b + sum_k U_k h_k),  g = tanh(the same sum)
///   f_k = sigmoid(W x + b + sum_l U_kl h_l)   with the same W and b for every k
///   c' = i g + sum_k f_k c_k,  h' = o tanh(c')
///
/// A leaf, with nothing to forget, is an LSTM of the first slots; only where the others are more than a
/// product fills is a forget gate among those.
template <Index children>
struct TreeLstm {
  using Leaf = Lstm<Gates{.forget = (children > widest)}>;
  using Rules = Fixed<Sigmoid, Tanh>;
  static constexpr Index i = Leaf::i, g = Leaf::g, o = Leaf::o, slots = 3 + children;
  static constexpr auto f = [](Index k) { return k < Leaf::slots - 3 ? Leaf::f : 3 + k; };
  static constexpr Plan plan = [] {
    Plan plan{.slots = slots,
              .gates = 4,
              .recurrent_gates = slots,
              .leaves_skip = true,
              .has_cell_state = true,
              .branches = children};
    const auto fill = [&](Index slot, Index x_gate, Index h_gate) {
      const Index window = slot >= Leaf::slots, begin = window * Leaf::slots;
      Window &input = plan.input[window], &recurrent = plan.recurrent[window].window;
      input.begin = recurrent.begin = begin;
      input.count = ++recurrent.count;
      input.gate[slot - begin] = x_gate;
      recurrent.gate[slot - begin] = h_gate;
    };
    fill(i, 0, 0);
    for (Index k = 0; k < children; ++k) fill(f(k), 1, 1 + k);
    fill(g, 2, 1 + children);
    fill(o, 3, 2 + children);
    return plan;
  }();

  template <class V>
  static RNNCORE_INLINE V cell(const auto& rules, const V (&s)[slots], const TimeStep<V>& t) {
    V sum = s[i] * rules.drop(s[g]);
    for (Index k = 0; k < children; ++k) sum = fma(s[f(k)], t.branch[k], sum);
    return rules.clip(sum);
  }

  template <class V>
  static RNNCORE_INLINE void forward(Phase<0>, const auto& rules, V (&s)[slots], TimeStep<V>& t) {
    s[i] = rules.gate(s[i]);
    for (Index k = 0; k < children; ++k) s[f(k)] = rules.gate(s[f(k)]);
    s[g] = rules.candidate(s[g]);
    s[o] = rules.gate(s[o]);
    t.c = cell(rules, s, t);
    t.h = s[o] * rules.output(t.c);
  }

  template <class V>
  static RNNCORE_INLINE void backward(Phase<0>, const auto& rules, V (&s)[slots], const TimeStep<V>& t,
                                      Gradient<V>& d) {
    const V m = rules.output(t.c);
    const V dc = rules.unclip(fma(d.h * s[o], rules.output_slope(m), d.c), t.c);
    const V d_i = dc * rules.drop(s[g]);
    s[o] = d.h * m * rules.gate_slope(s[o]);
    s[g] = rules.drop(dc * s[i]) * rules.candidate_slope(s[g]);
    s[i] = d_i * rules.gate_slope(s[i]);
    for (Index k = 0; k < children; ++k) {
      d.branch[k] = dc * s[f(k)];
      s[f(k)] = dc * t.branch[k] * rules.gate_slope(s[f(k)]);
    }
  }
};

/// Long short-term memory with any number of children, their order unseen (Tai et al. 2015, eq. 2 to 8):
///
///   i, o = sigmoid(W x + b + U sum_k h_k),  g = tanh(the same sum),  f_k = sigmoid(W x + b + U h_k)
///   c' = i g + sum_k f_k c_k,  h' = o tanh(c')
struct ChildSumLstm : Joined<3> {
  enum { i, g, o, f, slots }; // f: what all f_k have in common
  using Rules = Fixed<Sigmoid, Tanh>;
  static constexpr Plan plan{.slots = slots,
                             .gates = 4,
                             .input = {{i, 3, {0, 2, 3}}, {f, 1, {1}}},
                             .leaves_skip = true,
                             .recurrent = {{0, {i, 3, {0, 2, 3}}}},
                             .has_cell_state = true,
                             .recurrent_input = RecurrentInput::sum,
                             .offer = {f, 1, {1}}};

  template <class V>
  static RNNCORE_INLINE V cell(const auto& rules, const V (&s)[slots], const TimeStep<V>& t) {
    return rules.clip(fma(s[i], rules.drop(s[g]), t.kept));
  }

  template <class V>
  static RNNCORE_INLINE void forward(Phase<0>, const auto& rules, V (&s)[slots], TimeStep<V>& t) {
    s[i] = rules.gate(s[i]);
    s[g] = rules.candidate(s[g]);
    s[o] = rules.gate(s[o]);
    t.c = cell(rules, s, t);
    t.h = s[o] * rules.output(t.c);
  }

  template <class V>
  static RNNCORE_INLINE void backward(Phase<0>, const auto& rules, V (&s)[slots], const TimeStep<V>& t,
                                      Gradient<V>& d) {
    const V m = rules.output(t.c);
    d.kept = rules.unclip(fma(d.h * s[o], rules.output_slope(m), d.c), t.c);
    const V d_i = d.kept * rules.drop(s[g]);
    s[o] = d.h * m * rules.gate_slope(s[o]);
    s[g] = rules.drop(d.kept * s[i]) * rules.candidate_slope(s[g]);
    s[i] = d_i * rules.gate_slope(s[i]);
  }
};

/// The gated recurrent unit likewise (Zhou et al. 2016, eq. 9 to 13), in torch's order r, z, n:
///
///   z = sigmoid(W x + b + U h),  h = sum_k h_k,  r_k = sigmoid(W x + b + U h_k)
///   n = tanh(W x + b + U sum_k r_k h_k),  h' = (1 - z) n + z h
struct ChildSumGru : GruResetBefore, Joined<GruResetBefore::r> {
  static constexpr Plan plan{.slots = slots,
                             .gates = 3,
                             .phases = 2,
                             .input = {{r, 3, {0, 1, 2}}},
                             .recurrent = {{0, {z, 1, {1}}}, {1, {n, 1, {2}}}},
                             .recurrent_input = RecurrentInput::sum,
                             .offer = {r, 1, {0}}, // r: what all r_k have in common
                             .sees_h = true,
                             .direct = true};
  using GruResetBefore::backward, GruResetBefore::forward; // of the second phase

  template <class V>
  static RNNCORE_INLINE void forward(Phase<0>, const auto& rules, V (&s)[slots], TimeStep<V>& t) {
    s[z] = rules.gate(s[z]);
    t.middle = t.kept;
  }
  template <class V>
  static RNNCORE_INLINE void backward(Phase<0>, const auto&, V (&)[slots], const TimeStep<V>&,
                                      Gradient<V>& d) {
    d.kept = d.middle;
  }
};

} // namespace rnncore::RNNCORE_LEVEL

// A line per cell: what one precision of one instruction set offers.
#pragma once

#include "backward.hpp"
#include "cells/gru.hpp"
#include "cells/lstm.hpp"
#include "cells/vanilla.hpp"
#include "forward.hpp"
#include "linear.hpp"

namespace rnncore::RNNCORE_LEVEL {

template <class C, class T>
Sizes sizes(Shape shape) {
  const Layout<C, T> at(shape);
  return {at.packed(), at.packed_transposed(), at.tape()};
}

template <class C, class T>
Index forward_work(Shape shape, Schedule schedule) {
  Forward<T> measured{};
  measured.shape = shape;
  measured.schedule = schedule;
  return ForwardPass<C, T>(measured, Team{0, 1, nullptr, nullptr}).work();
}

template <class C, class T>
Index backward_work(Shape shape, Schedule schedule) {
  Backward<T> measured{};
  measured.shape = shape;
  measured.schedule = schedule;
  return BackwardPass<C, T>(measured, Team{0, 1, nullptr, nullptr}).work();
}

template <class C, class T>
Index shares(Shape shape) {
  return Layout<C, T>(shape).states.count();
}

template <class C, class T>
void forward(const Forward<T>& pass, Team team) {
  ForwardPass<C, T>(pass, team).run();
}

template <class C, class T>
void backward(const Backward<T>& pass, Team team) {
  BackwardPass<C, T>(pass, team).run();
}

template <class C, class T>
constexpr Cell<T> line(const char* name) {
  return {name,
          C::has_cell_state,
          {C::gates, sizes<C, T>, pack<C, T>, pack_transposed<C, T>},
          add_gradients<C, T>,
          forward_work<C, T>,
          backward_work<C, T>,
          shares<C, T>,
          forward<C, T>,
          backward<C, T>};
}

template <class T>
constexpr Cell<T> cells[] = {
    line<Vanilla<Tanh>, T>("rnn_tanh"),
    line<Vanilla<Relu>, T>("rnn_relu"),
    line<Vanilla<Identity>, T>("rnn_identity"),
    line<Lstm<Standard>, T>("lstm"),
    line<Lstm<NoActivation>, T>("lstm_linear"),
    line<GruResetAfter<Standard>, T>("gru"),
    line<GruResetAfter<NoActivation>, T>("gru_linear"),
    line<GruResetBefore<Standard>, T>("gru_reset_before"),
    line<GruResetBefore<NoActivation>, T>("gru_reset_before_linear"),
};

template <class T>
constexpr Linear<T> linear = {
    {1, linear_sizes<T>, linear_pack<T>, linear_pack_transposed<T>}, linear_forward<T>, linear_backward<T>};

template <class T, Vec<T> (*function)(Vec<T>)>
void elementwise(const T* x, T* y, Index n) {
  for (Index i = 0; i < n; i += lanes<T>) store(y + i, function(load(x + i, n - i)), n - i);
}

template <class T>
Vec<T> sigmoid_of(Vec<T> x) {
  return sigmoid(x);
}

template <class T>
Vec<T> tanh_of(Vec<T> x) {
  return tanh(x);
}

template <class T>
constexpr Kernels<T> kernels = {sizeof(cells<T>) / sizeof(Cell<T>), cells<T>, linear<T>,
                                elementwise<T, sigmoid_of<T>>, elementwise<T, tanh_of<T>>};

} // namespace rnncore::RNNCORE_LEVEL

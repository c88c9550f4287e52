// A line per cell: what one precision of one instruction set offers.
#pragma once

#include <new>

#include "backward.hpp"
#include "cells/gru.hpp"
#include "cells/lstm.hpp"
#include "cells/minimal.hpp"
#include "cells/tree.hpp"
#include "cells/vanilla.hpp"
#include "convolution.hpp"
#include "forward.hpp"
#include "level.hpp"
#include "linear.hpp"
#include "normalised.hpp"
#include "pack.hpp"
#include "pointwise.hpp"
#include "pooling.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// Whether a cell is compiled for what its paper says alone, too. Trees of three children and more, trees
/// that normalise, and all cells for processors that have no AVX2 are not: they would take much of the
/// compiler's time, and are rarely met.
template <class C>
constexpr bool has_paper_instance =
    vector_bytes != 16 && C::plan.branches <= 2 &&
    (C::plan.norms == 0 || (C::plan.branches == 0 && C::plan.offer.count == 0));

/// The cell whose time steps a cell shares: its own, or those of one that differs in its plan alone.
template <class C>
struct SharedSteps {
  using Cell = C;
};
template <class C>
  requires requires { typename C::Steps; }
struct SharedSteps<C> {
  using Cell = typename C::Steps;
};

/// Whether a phase of a cell is compiled with these rules.
template <class C, bool has_options, Index S>
constexpr bool exists = S < C::plan.phases && (has_options || has_paper_instance<C>);

template <class C, class T, bool has_options, Index S>
constexpr StepFunction<T> forward_of() {
  using Cell = typename SharedSteps<C>::Cell;
  if constexpr (!exists<C, has_options, S>)
    return nullptr;
  else if constexpr (C::plan.norms > 0)
    return normalised_forward<Cell, T, has_options, S>;
  else
    return forward_steps<Cell, T, has_options, S>;
}

template <class C, class T, bool has_options, Index S>
constexpr StepFunction<T> backward_of() {
  using Cell = typename SharedSteps<C>::Cell;
  if constexpr (!exists<C, has_options, S>)
    return nullptr;
  else if constexpr (C::plan.norms > 0)
    return normalised_backward<Cell, T, has_options, S>;
  else
    return backward_steps<Cell, T, has_options, S>;
}

/// The rules of a cell's paper as a user would choose them.
template <class C>
constexpr CellOptions paper_options = {
    {C::Rules::gate_kind, 0, 0}, {C::Rules::candidate_kind, 0, 0}, {C::Rules::candidate_kind, 0, 0}, 0, 0};

template <class C, class T>
constexpr Recipe<T> recipe = [] {
  Recipe<T> recipe{C::plan,
                   paper_options<C>,
                   {{forward_of<C, T, false, 0>(), forward_of<C, T, false, 1>()},
                    {forward_of<C, T, true, 0>(), forward_of<C, T, true, 1>()}},
                   {{backward_of<C, T, false, 0>(), backward_of<C, T, false, 1>()},
                    {backward_of<C, T, true, 0>(), backward_of<C, T, true, 1>()}}};
  if (!has_paper_instance<C>)
    for (Index phase = 0; phase < 2; ++phase) {
      recipe.forward[false][phase] = recipe.forward[true][phase];
      recipe.backward[false][phase] = recipe.backward[true][phase];
    }
  if constexpr (requires { typename C::Leaf; })
    for (Index has_options = 0; has_options < 2; ++has_options) {
      recipe.leaf_forward[has_options] = RNNCORE_LEVEL::recipe<typename C::Leaf, T>.forward[has_options][0];
      recipe.leaf_backward[has_options] =
          RNNCORE_LEVEL::recipe<typename C::Leaf, T>.backward[has_options][0];
    }
  return recipe;
}();

/// The engine's functions, compiled once for all cells, which are told by their recipes.
template <class T, class W>
struct Engine {
  static const Recipe<T>& recipe_of(const void* cell) { return *static_cast<const Recipe<T>*>(cell); }
  static const Plan& plan_of(const void* cell) { return recipe_of(cell).plan; }

  static Sizes sizes(const void* cell, Shape shape) {
    const Layout<T> at(plan_of(cell), shape);
    return {at.numbers(),
            at.numbers() + GradientOffsets<T>{at}.all(),
            OffsetsOf<T, W>{at}.all() * Index(sizeof(W)),
            trains<T, W> ? at.transposed() * Index(sizeof(T)) : 0,
            at.tape(),
            at.matrices(),
            at.recurrent_columns()};
  }
  static void pack(const void* cell, Shape shape, const Weights<const T>* from, T* numbers, void* weights) {
    RNNCORE_LEVEL::pack(plan_of(cell), shape, from, numbers, static_cast<W*>(weights));
  }
  static void pack_transposed(const void* cell, Shape shape, const Weights<const T>* from,
                              void* transposed) {
    RNNCORE_LEVEL::pack_transposed(plan_of(cell), shape, from, static_cast<T*>(transposed));
  }
  static void add_gradients(const void* cell, Shape shape, T* gradients, Index passes, Index stride,
                            const Weights<T>* weights, Team team) {
    RNNCORE_LEVEL::add_gradients(plan_of(cell), shape, gradients, passes, stride, weights, team);
  }

  static Index forward_work(const void* cell, const Forward<T>& call) {
    return ForwardPass<T, W>(recipe_of(cell), call, alone).work();
  }
  static Index backward_work(const void* cell, const Backward<T>& call) {
    return BackwardPass<T>(recipe_of(cell), call, alone).work();
  }
  static Index chunk_nodes(const void* cell, Shape shape) {
    return RNNCORE_LEVEL::chunk_nodes(Layout<T>(plan_of(cell), shape));
  }
  static Index shares(const void* cell, Shape shape) {
    return plan_of(cell).norms ? 1 : Layout<T>(plan_of(cell), shape).units.count();
  }
  static void forward(const void* cell, const Forward<T>& call, Team team) {
    ForwardPass<T, W>(recipe_of(cell), call, team).run();
  }
  static void backward(const void* cell, const Backward<T>& call, Team team) {
    BackwardPass<T>(recipe_of(cell), call, team).run();
  }

  static void make_pass(const void* cell, const Forward<T>& call, void* pass) {
    (new (pass) ForwardPass<T, W>(recipe_of(cell), call, alone))->open(call.wave);
  }
  static void run_pass(void* pass) { static_cast<ForwardPass<T, W>*>(pass)->walk(); }
};

template <class C, class T, class W>
constexpr CellKernels<T> line(const char* name) {
  using Own = Engine<T, W>;
  CellKernels<T> kernels{name,
                         C::plan.has_cell_state,
                         C::plan.recurrent[0].window.count > 0,
                         C::plan.offer.count > 0,
                         C::plan.recurrent_input == RecurrentInput::pairs,
                         C::plan.norms > 0,
                         C::Rules::gate_kind,
                         C::Rules::candidate_kind,
                         {&recipe<C, T>, C::plan.gates, C::plan.recurrent_gates, C::plan.units, Own::sizes,
                          Own::pack, nullptr},
                         nullptr,
                         Own::forward_work,
                         nullptr,
                         Own::chunk_nodes,
                         Own::shares,
                         Own::forward,
                         nullptr,
                         sizeof(ForwardPass<T, W>),
                         Own::make_pass,
                         Own::run_pass};
  if constexpr (trains<T, W>) {
    kernels.packing.pack_transposed = Own::pack_transposed;
    kernels.add_gradients = Own::add_gradients;
    kernels.backward_work = Own::backward_work;
    kernels.backward = Own::backward;
  }
  return kernels;
}

template <class T, class W>
constexpr CellKernels<T> cells[] = {
    line<Vanilla<Tanh>, T, W>("rnn_tanh"),
    line<Vanilla<Relu>, T, W>("rnn_relu"),
    line<Independent<Relu>, T, W>("indrnn"),
    line<Lstm<Gates{}>, T, W>("lstm"),
    line<Lstm<Gates{.peephole = true}>, T, W>("lstm_peephole"),
    line<Lstm<Gates{.forget = false, .coupled = true}>, T, W>("lstm_coupled"),
    line<Lstm<Gates{.forget = false, .coupled = true, .peephole = true}>, T, W>("lstm_coupled_peephole"),
    line<Lstm<Gates{.input = false}>, T, W>("lstm_no_input_gate"),
    line<Lstm<Gates{.forget = false}>, T, W>("lstm_no_forget_gate"),
    line<Lstm<Gates{.output = false}>, T, W>("lstm_no_output_gate"),
    line<NormalisedLstm<false>, T, W>("lstm_norm"),
    line<NormalisedLstm<true>, T, W>("lstm_norm_gate"),
    line<GruResetAfter, T, W>("gru"),
    line<GruResetBefore, T, W>("gru_reset_before"),
    line<UpdateGated, T, W>("ugrnn"),
    line<MinimalGated, T, W>("mgu"),
    line<MinGru, T, W>("min_gru"),
    line<MinLstm, T, W>("min_lstm"),
    line<TreeLstm<2>, T, W>("tree_lstm_2"),
    line<TreeLstm<3>, T, W>("tree_lstm_3"),
    line<TreeLstm<4>, T, W>("tree_lstm_4"),
    line<TreeLstm<5>, T, W>("tree_lstm_5"),
    line<NormalisedLstm<false, 2>, T, W>("tree_lstm_2_norm"),
    line<NormalisedLstm<false, 3>, T, W>("tree_lstm_3_norm"),
    line<NormalisedLstm<false, 4>, T, W>("tree_lstm_4_norm"),
    line<NormalisedLstm<false, 5>, T, W>("tree_lstm_5_norm"),
    line<NormalisedLstm<true, 2>, T, W>("tree_lstm_2_norm_gate"),
    line<NormalisedLstm<true, 3>, T, W>("tree_lstm_3_norm_gate"),
    line<NormalisedLstm<true, 4>, T, W>("tree_lstm_4_norm_gate"),
    line<NormalisedLstm<true, 5>, T, W>("tree_lstm_5_norm_gate"),
    line<ChildSumLstm, T, W>("child_sum_lstm"),
    line<NormalisedLstm<false, any>, T, W>("child_sum_lstm_norm"),
    line<NormalisedLstm<true, any>, T, W>("child_sum_lstm_norm_gate"),
    line<ChildSumGru, T, W>("child_sum_gru"),
    line<Tensor<Tanh>, T, W>("tensor"),
};

template <class T, class W>
constexpr Linear<T> linear_of() {
  Linear<T> linear{{nullptr, 1, 1, 0, linear_sizes<T, W>, linear_pack<T, W>, nullptr},
                   linear_work<T, W>,
                   linear_forward<T, W>,
                   nullptr};
  if constexpr (trains<T, W>) {
    linear.packing.pack_transposed = linear_pack_transposed<T>;
    linear.backward = linear_backward<T>;
  }
  return linear;
}

template <class T, class W = T>
constexpr Kernels<T> kernels = {
    sizeof(cells<T, W>) / sizeof(CellKernels<T>),
    cells<T, W>,
    linear_of<T, W>(),
    {apply<T>, combine<T>, activate<T>, activate_backward<T>, softmax<T>, layer_norm<T>, slopes<T>},
    convolution_of<T, W>(),
    pool<T>,
    pool_backward<T>};

} // namespace rnncore::RNNCORE_LEVEL

// What the engine is given of each cell: its plan, and its time steps as they are compiled.
#pragma once

#include <type_traits>

#include "cells/gru.hpp"
#include "cells/lstm.hpp"
#include "cells/minimal.hpp"
#include "cells/tree.hpp"
#include "cells/vanilla.hpp"
#include "chain_steps.hpp"
#include "level.hpp"
#include "normalised.hpp"

namespace rnncore::RNNCORE_LEVEL {

template <class C, class... Others>
constexpr bool is_one_of = (std::is_same_v<C, Others> || ...);

/// Whether a cell is compiled for what its paper says alone, too. Trees of three children and more, trees
/// that normalise, in float64 all but the commonest cells, and all cells for processors that have no AVX2
/// are not: they would take much of the compiler's time and of the wheel, and are rarely met.
template <class C, class T>
constexpr bool has_paper_instance =
    vector_bytes != 16 && C::plan.branches <= 2 &&
    (C::plan.norms == 0 || (C::plan.branches == 0 && C::plan.offer.count == 0)) &&
    (sizeof(T) == 4 || is_one_of<C, Vanilla<Tanh>, Lstm<Gates{}>, GruResetAfter>);

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
template <class C, class T, bool has_options, Index S>
constexpr bool exists = S < C::plan.phases && (has_options || has_paper_instance<C, T>);

template <class C, class T, bool has_options, Index S>
constexpr StepFunction<T> forward_of() {
  using Cell = typename SharedSteps<C>::Cell;
  if constexpr (!exists<C, T, has_options, S>)
    return nullptr;
  else if constexpr (C::plan.norms > 0)
    return normalised_forward<Cell, T, has_options, S>;
  else
    return forward_steps<Cell, T, has_options, S>;
}

template <class C, class T, bool has_options, Index S>
constexpr StepFunction<T> backward_of() {
  using Cell = typename SharedSteps<C>::Cell;
  if constexpr (!exists<C, T, has_options, S>)
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

/// The time steps of a cell by the rules of its paper, or by those that a user chose.
template <class C, class T, bool has_options>
struct StepsOf {
  static const Steps<T> value;
};
template <class C, class T, bool has_options>
constinit const Steps<T> StepsOf<C, T, has_options>::value = {
    {forward_of<C, T, has_options, 0>(), forward_of<C, T, has_options, 1>()},
    {backward_of<C, T, has_options, 0>(), backward_of<C, T, has_options, 1>()}};

template <class C, class T>
constexpr const Steps<T>* steps_of(bool has_options) {
  if constexpr (has_paper_instance<C, T>)
    if (!has_options) return &StepsOf<C, T, false>::value;
  return &StepsOf<C, T, true>::value;
}

/// The cells that single sequences of audio and control are made of, where vectors are wide.
template <class C, class T>
constexpr bool has_chain = vector_bytes > 16 &&
                           sizeof(T) == 4 && is_one_of<C, Lstm<Gates{}>, GruResetAfter>;

template <class C, class T>
constexpr Recipe<T> recipe = [] {
  Recipe<T> recipe{C::plan, paper_options<C>, {steps_of<C, T>(false), steps_of<C, T>(true)}};
  if constexpr (requires { typename C::Leaf; })
    for (const bool has_options : {false, true})
      recipe.leaf[has_options] = steps_of<typename C::Leaf, T>(has_options);
  if constexpr (has_chain<C, T>) {
    recipe.chain[0] = chain_steps<C, T, T>;
#if defined(__AVX512VNNI__) || defined(RNNCORE_ALSO_VNNI)
    recipe.chain[chain_kind<T, BFloat16>] = chain_steps<C, T, BFloat16>;
    recipe.chain[chain_kind<T, Int8<Dot::vnni>>] = chain_steps<C, T, Int8<Dot::vnni>>;
#endif
  }
  return recipe;
}();

/// A line per cell: its name, and what it is.
#define RNNCORE_CELLS(line)                                                                                \
  line("rnn_tanh", Vanilla<Tanh>) line("rnn_relu", Vanilla<Relu>) line("indrnn", Independent<Relu>) line(  \
      "lstm", Lstm<Gates{}>) line("lstm_peephole", Lstm<Gates{.peephole = true}>)                          \
      line("lstm_coupled", Lstm<Gates{.forget = false, .coupled = true}>) line(                            \
          "lstm_coupled_peephole", Lstm<Gates{.forget = false, .coupled = true, .peephole = true}>)        \
          line("lstm_no_input_gate", Lstm<Gates{.input = false}>) line(                                    \
              "lstm_no_forget_gate", Lstm<Gates{.forget = false}>) line("lstm_no_output_gate",             \
                                                                        Lstm<Gates{.output = false}>)      \
              line("lstm_norm", NormalisedLstm<false>) line("lstm_norm_gate", NormalisedLstm<true>) line(  \
                  "gru", GruResetAfter) line("gru_reset_before", GruResetBefore)                           \
                  line("ugrnn", UpdateGated) line("mgu", MinimalGated) line("min_gru", MinGru) line(       \
                      "min_lstm", MinLstm) line("tree_lstm_2", TreeLstm<2>)                                \
                      line("tree_lstm_3", TreeLstm<3>) line("tree_lstm_4", TreeLstm<4>) line(              \
                          "tree_lstm_5", TreeLstm<5>) line("tree_lstm_2_norm", NormalisedLstm<false, 2>)   \
                          line("tree_lstm_3_norm", NormalisedLstm<false, 3>)                               \
                              line("tree_lstm_4_norm", NormalisedLstm<false, 4>)                           \
                                  line("tree_lstm_5_norm", NormalisedLstm<false, 5>)                       \
                                      line("tree_lstm_2_norm_gate", NormalisedLstm<true, 2>)               \
                                          line("tree_lstm_3_norm_gate", NormalisedLstm<true, 3>)           \
                                              line("tree_lstm_4_norm_gate", NormalisedLstm<true, 4>)       \
                                                  line("tree_lstm_5_norm_gate", NormalisedLstm<true, 5>)   \
                                                      line("child_sum_lstm", ChildSumLstm)                 \
                                                          line("child_sum_lstm_norm",                      \
                                                               NormalisedLstm<false, any>)                 \
                                                              line("child_sum_lstm_norm_gate",             \
                                                                   NormalisedLstm<true, any>)              \
                                                                  line("child_sum_gru", ChildSumGru)       \
                                                                      line("tensor", Tensor<Tanh>)

// Time steps by chosen rules are compiled in option_steps.cpp, where less is done to make them fast: most
// of what they take is the choosing.
#define RNNCORE_OPTION_STEPS(name, ...)                                                                    \
  extern template struct StepsOf<__VA_ARGS__, float, true>;                                                \
  extern template struct StepsOf<__VA_ARGS__, double, true>;
RNNCORE_CELLS(RNNCORE_OPTION_STEPS)
#undef RNNCORE_OPTION_STEPS

} // namespace rnncore::RNNCORE_LEVEL

// What one precision of one instruction set offers.
#pragma once

#include <new>

#include "backward.hpp"
#include "convolution.hpp"
#include "forward.hpp"
#include "level.hpp"
#include "linear.hpp"
#include "own_steps.hpp"
#include "pack.hpp"
#include "pointwise.hpp"
#include "pooling.hpp"
#include "recipes.hpp"

namespace rnncore::RNNCORE_LEVEL {

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

template <class T, class W>
constexpr CellKernels<T> kernels_of(const char* name, const Plan& plan, const Recipe<T>* recipe) {
  using Own = Engine<T, W>;
  CellKernels<T> kernels{
      name,
      plan.has_cell_state,
      plan.recurrent[0].window.count + plan.recurrent[1].window.count > 0,
      plan.recurrent_input == RecurrentInput::sum,
      plan.offer.count > 0,
      plan.recurrent_input == RecurrentInput::pairs,
      plan.norms > 0,
      {},
      {},
      {recipe, plan.gates, plan.recurrent_gates, plan.units, Own::sizes, Own::pack, nullptr},
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

template <class T>
struct NamedRecipe {
  const char* name;
  const Recipe<T>* recipe;
};
template <class T>
constexpr NamedRecipe<T> recipes[] = {
#define RNNCORE_LINE(name, ...) {name, &recipe<__VA_ARGS__, T>},
    RNNCORE_CELLS(RNNCORE_LINE)
#undef RNNCORE_LINE
};

/// Made when asked for: all of them, for each type of weights, would be much of the module's tables.
template <class T, class W>
CellKernels<T> cell(Index number) {
  const auto& [name, recipe] = recipes<T>[number];
  CellKernels<T> kernels = kernels_of<T, W>(name, recipe->plan, recipe);
  kernels.gate = recipe->paper.gate.kind;
  kernels.candidate = recipe->paper.candidate.kind;
  return kernels;
}

template <class T, class W>
void make_own(const OwnCell& cell, void* memory, CellKernels<T>* made) {
  const auto& own = *new (memory) OwnRecipe<T>(cell);
  *made = kernels_of<T, W>("", own.plan, &own.recipe);
}

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
    sizeof(recipes<T>) / sizeof(NamedRecipe<T>),
    cell<T, W>,
    sizeof(OwnRecipe<T>),
    make_own<T, W>,
    linear_of<T, W>(),
    {apply<T>, combine<T>, activate<T>, activate_backward<T>, softmax<T>, layer_norm<T>, slopes<T>},
    convolution_of<T, W>(),
    pool<T>,
    pool_backward<T>};

} // namespace rnncore::RNNCORE_LEVEL

// Time steps of a cell that a program tells: straight code over registers, each a vector of hidden units
// for several rows at once, so that choosing what to do takes little of the time.
#pragma once

#include "time_steps.hpp"

namespace rnncore::RNNCORE_LEVEL {

// Compiled in own_steps.cpp.
template <class T>
struct OwnSteps {
  static const Steps<T> value;
};
extern template struct OwnSteps<float>;
extern template struct OwnSteps<double>;

inline constexpr CellOptions no_options{};

/// What the engine is given of such a cell, which must stay where it is, as must this.
template <class T>
struct OwnRecipe {
  explicit OwnRecipe(const OwnCell& cell) : plan{.slots = cell.slots, .gates = cell.gates} {
    plan.recurrent_gates = cell.recurrent_gates;
    plan.phases = cell.phases;
    plan.units = cell.units;
    for (Index i = 0; i < 2; ++i) {
      plan.input[i] = cell.input[i];
      plan.recurrent[i] = cell.recurrent[i];
    }
    plan.has_cell_state = cell.cells > 0;
    plan.direct = cell.direct;
    if (cell.sums) plan.recurrent_input = RecurrentInput::sum;
    plan.sums_cells = cell.sums && plan.has_cell_state;
    plan.own = &cell;
  }
  OwnRecipe(const OwnRecipe&) = delete;

  Plan plan;
  const Recipe<T> recipe{plan, no_options, {&OwnSteps<T>::value, &OwnSteps<T>::value}};
};

} // namespace rnncore::RNNCORE_LEVEL

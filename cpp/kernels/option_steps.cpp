#include "recipes.hpp"

namespace rnncore::RNNCORE_LEVEL {

#define RNNCORE_OPTION_STEPS(name, ...)                                                                    \
  template struct StepsOf<__VA_ARGS__, float, true>;                                                       \
  template struct StepsOf<__VA_ARGS__, double, true>;
RNNCORE_CELLS(RNNCORE_OPTION_STEPS)

} // namespace rnncore::RNNCORE_LEVEL

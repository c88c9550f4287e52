// How many processors the system lets this process have.
#pragma once

#include <string>

#include "api.hpp"

namespace rnncore {

/// The processors that this process may run on, as many of them as its control groups' quota of time is
/// worth, rounded up; at least one. `root`: where the folders of the system are, "" but for tests.
Index processors(const std::string& root = "");

} // namespace rnncore

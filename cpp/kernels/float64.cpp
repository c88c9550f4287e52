#include "cells.hpp"

namespace rnncore::RNNCORE_LEVEL {

extern const Kernels<double> float64;
const Kernels<double> float64 = kernels<double>;

} // namespace rnncore::RNNCORE_LEVEL

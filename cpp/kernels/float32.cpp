#include "cells.hpp"

namespace rnncore::RNNCORE_LEVEL {

extern const Kernels<float> float32;
const Kernels<float> float32 = kernels<float>;

} // namespace rnncore::RNNCORE_LEVEL

// All types of weights together: the time steps, which do not know them, are then compiled once.
#include "cells.hpp"
#include "light_products.hpp"

namespace rnncore::RNNCORE_LEVEL {

extern const Kernels<float> float32, bfloat16, int8;
const Kernels<float> float32 = kernels<float>;
const Kernels<float> bfloat16 = kernels<float, BFloat16>;
const Kernels<float> int8 = kernels<float, Int8<own_dot>>;
#if defined(RNNCORE_HAS_BF16_DOT)
extern const Kernels<float> bfloat16_dot;
const Kernels<float> bfloat16_dot = kernels<float, BFloat16Dot>;
#endif
#if defined(RNNCORE_ALSO_VNNI)
extern const Kernels<float> int8_vnni;
const Kernels<float> int8_vnni = kernels<float, Int8<Dot::vnni>>;
#endif

} // namespace rnncore::RNNCORE_LEVEL

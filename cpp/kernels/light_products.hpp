// Products with weights of fewer bits than the sums, compiled in light_products.cpp.
#pragma once

#include "bfloat16.hpp"
#include "int8.hpp"
#include "products.hpp"

namespace rnncore::RNNCORE_LEVEL {

extern template void multiply(const Product<float, PairedRows, BFloat16>&);
#if defined(RNNCORE_HAS_BF16_DOT)
extern template void multiply(const Product<float, RoundedRows, BFloat16Dot>&);
#endif
extern template void multiply(const Product<float, QuantisedRows<own_dot>, Int8<own_dot>>&);
#if defined(RNNCORE_ALSO_VNNI)
extern template void multiply(const Product<float, QuantisedRows<Dot::vnni>, Int8<Dot::vnni>>&);
#endif

} // namespace rnncore::RNNCORE_LEVEL

#include "light_products.hpp"

namespace rnncore::RNNCORE_LEVEL {

template void multiply(const Product<float, PairedRows, BFloat16>&);
#if defined(RNNCORE_HAS_BF16_DOT)
template void multiply(const Product<float, RoundedRows, BFloat16Dot>&);
#endif
template void multiply(const Product<float, QuantisedRows<own_dot>, Int8<own_dot>>&);
#if defined(RNNCORE_ALSO_VNNI)
template void multiply(const Product<float, QuantisedRows<Dot::vnni>, Int8<Dot::vnni>>&);
#endif

} // namespace rnncore::RNNCORE_LEVEL

#include "products.hpp"

namespace rnncore::RNNCORE_LEVEL {

template void multiply(const Product<float, Gathered<float>>&);
template void multiply(const Product<float, SegmentedRows<float>>&);
template void multiply(const Product<double, SegmentedRows<double>>&);
template void outer(const Outer<float>&);
template void outer(const Outer<double>&);

} // namespace rnncore::RNNCORE_LEVEL

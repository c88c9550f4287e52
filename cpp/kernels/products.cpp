#include "products.hpp"

namespace rnncore::RNNCORE_LEVEL {

template void multiply(const Product<float, SourceRows<float>>&);
template void multiply(const Product<double, SourceRows<double>>&);
template void outer(const Outer<float>&);
template void outer(const Outer<double>&);

} // namespace rnncore::RNNCORE_LEVEL

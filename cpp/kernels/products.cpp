#include "products.hpp"

namespace rnncore::RNNCORE_LEVEL {

template void multiply(const Product<float, Gathered<float>>&);
template void multiply(const Product<float, GateRows<float>>&);
template void multiply(const Product<float, RunRows<float>>&);
template void outer(const Outer<float, GatheredTiles<float>>&);
template void outer(const Outer<float, CopiedTiles<float>>&);
template void multiply(const Product<double, Gathered<double>>&);
template void multiply(const Product<double, GateRows<double>>&);
template void multiply(const Product<double, RunRows<double>>&);
template void outer(const Outer<double, GatheredTiles<double>>&);
template void outer(const Outer<double, CopiedTiles<double>>&);

} // namespace rnncore::RNNCORE_LEVEL

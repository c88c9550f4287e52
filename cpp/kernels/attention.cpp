#include "attention.hpp"

namespace rnncore::RNNCORE_LEVEL {

extern const Attention<float> attention32;
const Attention<float> attention32 = attention<float>;

extern const Attention<double> attention64;
const Attention<double> attention64 = attention<double>;

} // namespace rnncore::RNNCORE_LEVEL

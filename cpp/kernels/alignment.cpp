// Losses that sum over alignments, of one instruction set.
#include "level.hpp"

#include "ctc.hpp"
#include "transducer.hpp"

namespace rnncore::RNNCORE_LEVEL {

extern const Alignment<float> alignment32;
extern const Alignment<double> alignment64;
const Alignment<float> alignment32{ctc<float>, transducer<float>};
const Alignment<double> alignment64{ctc<double>, transducer<double>};

} // namespace rnncore::RNNCORE_LEVEL

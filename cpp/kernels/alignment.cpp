// Losses that sum over alignments, of one instruction set.
#include "level.hpp"

#include "crf_paths.hpp"
#include "crf_sums.hpp"
#include "ctc.hpp"
#include "transducer.hpp"

namespace rnncore::RNNCORE_LEVEL {

extern const Alignment<float> alignment32;
extern const Alignment<double> alignment64;
const Alignment<float> alignment32{ctc<float>, crf<float>, transducer<float>};
const Alignment<double> alignment64{ctc<double>, crf<double>, transducer<double>};

} // namespace rnncore::RNNCORE_LEVEL

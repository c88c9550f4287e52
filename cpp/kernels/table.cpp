// The table of one instruction set, and what has no file of its own.
#include "level.hpp"

#include "attention.hpp"
#include "crf_paths.hpp"
#include "crf_sums.hpp"
#include "ctc.hpp"
#include "fingerprint.hpp"
#include "transducer.hpp"

namespace rnncore::RNNCORE_LEVEL {

extern const Kernels<float> float32, bfloat16, int8;
extern const Kernels<double> float64;

namespace {

const Attention<float> attention32 = attention<float>;
const Attention<double> attention64 = attention<double>;
const Alignment<float> alignment32{ctc<float>, crf<float>, transducer<float>};
const Alignment<double> alignment64{ctc<double>, crf<double>, transducer<double>};

uint64_t fingerprint(const Bytes* blocks, Index count) {
  Fingerprint all;
  for (const Bytes* block = blocks; block < blocks + count; ++block) all.add(*block);
  return all.value();
}

} // namespace

/// `rows`: kernels for bfloat16 weights and rows.
constexpr KernelTable table_of(const char* name, const Kernels<float>* rows,
                               const Kernels<float>* int8_weights) {
  return {name,         macros,       sizeof(Vec<float>), &float32,     &float64,     &bfloat16,  rows,
          int8_weights, &attention32, &attention64,       &alignment32, &alignment64, fingerprint};
}

#if defined(RNNCORE_HAS_BF16_DOT)
extern const Kernels<float> bfloat16_dot;
#endif

extern const KernelTable table;
#if defined(__AVX512BF16__)
const KernelTable table = table_of(level, &bfloat16_dot, &int8);
#else
const KernelTable table = table_of(level, &bfloat16, &int8);
#endif

#if defined(RNNCORE_ALSO_VNNI)
extern const Kernels<float> int8_vnni;
extern const KernelTable table_vnni, table_bf16;
const KernelTable table_vnni = table_of("v4_vnni", &bfloat16, &int8_vnni);
const KernelTable table_bf16 = table_of("v4_bf16", &bfloat16_dot, &int8_vnni);
#endif

} // namespace rnncore::RNNCORE_LEVEL

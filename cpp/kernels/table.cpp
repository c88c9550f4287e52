// The table of one instruction set.
#include "level.hpp"

#include "attention.hpp"
#include "fingerprint.hpp"

namespace rnncore::RNNCORE_LEVEL {

extern const Kernels<float> float32, bfloat16, int8;
extern const Kernels<double> float64;

namespace {

const Attention<float> attention32 = attention<float>;
const Attention<double> attention64 = attention<double>;

uint64_t fingerprint(const Bytes* blocks, Index count) {
  Fingerprint all;
  for (const Bytes* block = blocks; block < blocks + count; ++block) all.add(*block);
  return all.value();
}

} // namespace

extern const KernelTable table;
const KernelTable table = {level,     macros, sizeof(Vec<float>), &float32,     &float64,
                           &bfloat16, &int8,  &attention32,       &attention64, fingerprint};

#if defined(RNNCORE_ALSO_VNNI)
extern const Kernels<float> int8_vnni;
extern const KernelTable table_vnni;
const KernelTable table_vnni = {"v4_vnni", macros,     sizeof(Vec<float>), &float32,     &float64,
                                &bfloat16, &int8_vnni, &attention32,       &attention64, fingerprint};
#endif

} // namespace rnncore::RNNCORE_LEVEL

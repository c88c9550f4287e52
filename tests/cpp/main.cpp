// The headers of one level's kernels, each against plain loops.
#include "check.hpp"
#include "engine/processor.hpp"

#define RNNCORE_JOINED_(a, b) a##b
#define RNNCORE_JOINED(a, b) RNNCORE_JOINED_(a, b)

namespace rnncore::RNNCORE_LEVEL {

void test_activations();
void test_convolution();
void test_crf();
void test_fingerprint();
void test_lattice();
void test_layout();
void test_light_products();
void test_pack();
void test_pointwise();
void test_pooling();
void test_products();
void test_simd();
void test_transducer();
void test_walk();
void test_windows();

} // namespace rnncore::RNNCORE_LEVEL

int main() {
  if (!rnncore::RNNCORE_JOINED(runs_, RNNCORE_LEVEL)()) {
    std::puts("this processor does not have the instruction set");
    return skipped;
  }
  using namespace rnncore::RNNCORE_LEVEL;
  test_simd();
  test_layout();
  test_lattice();
  test_crf();
  test_transducer();
  test_pack();
  test_products();
  test_light_products();
  test_activations();
  test_pointwise();
  test_windows();
  test_convolution();
  test_pooling();
  test_walk();
  test_fingerprint();
  std::printf("%d faults\n", faults);
  return faults ? 1 : 0;
}

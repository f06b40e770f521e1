// A digest of what each kernel computes from the same random calls, for each instruction set of this processor.
//
//   digests ROUNDS SEED

#include "random_calls.h"

int main(int, char** arguments) {
  for (const gomin::Kernels* kernels : available()) {
    for (const Call& call : kCalls) {
      random_bits.seed(static_cast<unsigned>(std::atoi(arguments[2])));
      digest = 0;
      for (int round = std::atoi(arguments[1]); round > 0; --round) call.run(*kernels);
      std::printf("%s %s %016llx\n", kernels->name, call.name, static_cast<unsigned long long>(digest));
    }
  }
}

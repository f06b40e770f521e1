// Random calls of the kernels for some time. It is compiled with AddressSanitizer and UndefinedBehaviorSanitizer, which
// end it at the first access beyond an array.
//
//   guards SECONDS SEED

#include <chrono>

#include "random_calls.h"

int main(int, char** arguments) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(std::atoi(arguments[1]));
  random_bits.seed(static_cast<unsigned>(std::atoi(arguments[2])));
  int rounds = 0;
  do {
    for (const gomin::Kernels* kernels : available()) {
      for (const Call& call : kCalls) call.run(*kernels);
    }
    ++rounds;
  } while (rounds < 50 || std::chrono::steady_clock::now() < end);
  for (const gomin::Kernels* kernels : available()) std::printf("%s ", kernels->name);
  std::printf("%d rounds\n", rounds);
}

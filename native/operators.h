// The operators, each of which reads its inputs, checks their shapes and divides the work among the threads.
#pragma once

#include "call.h"

namespace gomin {

// snakes.cpp
void compute_snake(const Kernel& kernel, Call& call);
void compute_anti_aliased_snake(const Kernel& kernel, Call& call);

// filters.cpp
void compute_row_filter(const Kernel& kernel, Call& call);
void compute_snake_filter(const Kernel& kernel, Call& call);
void compute_filter_pair(const Kernel& kernel, Call& call);

// interleave.cpp
void compute_interleave(const Kernel& kernel, Call& call);

// denoiser.cpp
void compute_residual_layer(const Kernel& kernel, Call& call);
void compute_modulation(const Kernel& kernel, Call& call);

}  // namespace gomin

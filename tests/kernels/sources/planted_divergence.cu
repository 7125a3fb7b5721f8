// Threads that wait for others in vain.

extern "C" __global__ void barrier_in_branch(real *__restrict__ y, int64 n) {
    if (threadIdx.x < n) __syncthreads();
    y[threadIdx.x] = real(1.0f);
}
extern "C" __global__ void barrier_after_branch(real *__restrict__ y, int64 n) {
    if (threadIdx.x < n) y[threadIdx.x] = real(1.0f);
    __syncthreads();
    if (threadIdx.x >= n) y[threadIdx.x] = real(1.0f);
}

extern "C" __global__ void early_exit(real *__restrict__ y, int64 n) {
    if (threadIdx.x >= n) return;
    y[threadIdx.x] = real(1.0f);
    __syncthreads();
}

extern "C" __global__ void two_barriers(real *__restrict__ y) {
    if (threadIdx.x % 2) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    y[threadIdx.x] = real(1.0f);
}

extern "C" __global__ void warp_against_block(acc *__restrict__ y) {
    acc x = 1;
    if (threadIdx.x < 16) x = __shfl_xor_sync(0xffffffffu, x, 1);
    __syncthreads();
    y[threadIdx.x] = x;
}

extern "C" __global__ void sum_after_exit(acc *__restrict__ y, int64 n) {
    if (threadIdx.x >= n) return;
    y[threadIdx.x] = warp_sum(acc(1));
}

extern "C" __global__ void not_in_mask(acc *__restrict__ y) { y[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, acc(1), 1); }

extern "C" __global__ void read_beyond_mask(acc *__restrict__ y) {
    if (threadIdx.x < 16) y[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, acc(1), 16);
}

extern "C" __global__ void two_masks(acc *__restrict__ y) {
    unsigned mask = threadIdx.x < 16 ? 0xffffffffu : 0xffff0000u;
    y[threadIdx.x] = __shfl_sync(mask, acc(1), 31);
}

// A tail guard that lets one thread too many through.
extern "C" __global__ void tail(const real *__restrict__ x, real *__restrict__ y, int64 n) {
    int64 i = thread_index();
    if (i <= n) y[i] = x[i];
}
extern "C" __global__ void tail_corrected(const real *__restrict__ x, real *__restrict__ y, int64 n) {
    int64 i = thread_index();
    if (i < n) y[i] = x[i];
}

// The same in shared memory, whose end is that of the block's: no array's.
extern "C" __global__ void shared_tail(real *__restrict__ y, int64 n) {
    DYNAMIC_SHARED(real, tile);
    tile[threadIdx.x] = real(1.0f);
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x + n];
}

// An array between others, behind a pointer, so that its size is not known where it is read.
__device__ __forceinline__ real at(const real *tile, int64 i) { return tile[i]; }
extern "C" __global__ void fixed_tail(real *__restrict__ y, int64 n) {
    __shared__ real before[64], tile[64], after[64];
    before[threadIdx.x] = tile[threadIdx.x] = after[threadIdx.x] = real(1.0f);
    __syncthreads();
    y[threadIdx.x] = real((acc)at(tile, threadIdx.x + n) + (acc)before[threadIdx.x] + (acc)after[threadIdx.x]);
}

// What every kernel starts with: the loader (gpugrad/cuda/loader.py) puts this text before the file, and two types between them:
//
// real  the type in which arrays are stored: float, double, float16 or bfloat16
// acc   the type in which sums and functions are computed: double for double, else float
//
// No header is included: NVRTC then compiles in milliseconds, and needs no CUDA toolkit on the user's machine.
#pragma once

typedef long long int64;
typedef int int32;
typedef unsigned int uint32;
typedef unsigned long long uint64;

#ifdef __CUDACC__
#define DYNAMIC_SHARED(T, name)                            \
    extern __shared__ __align__(16) unsigned char name##_bytes[]; \
    T *name = reinterpret_cast<T *>(name##_bytes)
#endif

// ------------------------------------------------------------------------------------------------ 16-bit floats: storage only

struct bfloat16 {
    unsigned short bits;
    bfloat16() = default;
    __device__ __forceinline__ bfloat16(float f) {  // to nearest, ties to even; nan stays nan
        uint32 u = __float_as_uint(f);
        bits = f != f ? 0x7fc0 | (u >> 16 & 0x8000) : (unsigned short)((u + 0x7fff + (u >> 16 & 1)) >> 16);
    }
    __device__ __forceinline__ operator float() const { return __uint_as_float((uint32)bits << 16); }
};

struct float16 {
    unsigned short bits;
    float16() = default;
    __device__ __forceinline__ float16(float f);
    __device__ __forceinline__ operator float() const;
};

#ifdef __CUDACC__
__device__ __forceinline__ float16::float16(float f) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(f)); }
__device__ __forceinline__ float16::operator float() const {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(bits));
    return f;
}
#else
inline float16::float16(float f) { bits = emulator::float_to_half(f); }
inline float16::operator float() const { return emulator::half_to_float(bits); }
#endif

// ------------------------------------------------------------------------------------------------ where a thread is

__device__ __forceinline__ int64 thread_index() { return (int64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ int64 thread_count() { return (int64)gridDim.x * blockDim.x; }

// ------------------------------------------------------------------------------------------------ sums and maxima: the same order always, so the same bits

template <class T> __device__ __forceinline__ T warp_sum(T x) {
    for (int offset = 16; offset; offset >>= 1) x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

template <class T> __device__ __forceinline__ T larger(T a, T b) { return a > b || a != a ? a : b; }  // nan wins, as in NumPy

template <class T> __device__ __forceinline__ T warp_max(T x) {
    for (int offset = 16; offset; offset >>= 1) x = larger(x, __shfl_xor_sync(0xffffffffu, x, offset));
    return x;
}

// Over the whole block; every thread gets the result. `shared` holds 32 values; blockDim.x is a multiple of 32. May be called again at once.
template <class T> __device__ __forceinline__ T block_sum(T x, T *shared) {
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    x = warp_sum(threadIdx.x % 32 < blockDim.x / 32 ? shared[threadIdx.x % 32] : T(0));
    __syncthreads();
    return x;
}

template <class T> __device__ __forceinline__ T block_max(T x, T *shared) {
    x = warp_max(x);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    x = warp_max(shared[threadIdx.x % 32 < blockDim.x / 32 ? threadIdx.x % 32 : 0]);
    __syncthreads();
    return x;
}

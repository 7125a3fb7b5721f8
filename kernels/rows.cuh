// What the kernels over rows of logits share (cross_entropy.cu and softmax.cu): loads of 16 bytes, the sum of exp in one reading, and teams of threads.
#pragma once

constexpr int PACKED = 16 / sizeof(real);  // elements of a load

template <int V> struct alignas(sizeof(real) * V) Pack {
    real at[V];
};

__device__ __forceinline__ acc infinity() { return (acc)__uint_as_float(0x7f800000u); }
__device__ __forceinline__ acc nan_() { return (acc)__uint_as_float(0x7fc00000u); }

// The sum of exp over some logits is exp(max) (1 + rest). Of no logits, and of -inf alone, max is -inf and counts for nothing.
struct Sum {
    acc max, rest;
};

__device__ __forceinline__ acc drop(acc low, acc high) { return low == -infinity() ? acc(0) : low == high ? acc(1) : exp(low - high); }  // high may be infinite

__device__ __forceinline__ Sum joined(Sum a, Sum b) {
    bool below = b.max <= a.max;  // false with nan, which then stays in the rest
    Sum high = below ? a : b, low = below ? b : a;
    return {high.max, high.rest + (low.rest + 1) * drop(low.max, high.max)};
}

__device__ __forceinline__ Sum warp_joined(Sum s) {
    for (int offset = 16; offset; offset >>= 1) s = joined(s, {__shfl_xor_sync(0xffffffffu, s.max, offset), __shfl_xor_sync(0xffffffffu, s.rest, offset)});
    return {__shfl_sync(0xffffffffu, s.max, 0), __shfl_sync(0xffffffffu, s.rest, 0)};  // one order of joining for all
}

__device__ __forceinline__ bool aligned(const void *p) { return (uint64)p % 16 == 0; }

// A team is what works on one row: a warp where it is narrow, else a block. Its threads take the elements lane after lane; what they find is put together in an
// order that depends on the sizes alone, and each gets the result.

__device__ __forceinline__ int64 warp_least(int64 x) {
    for (int offset = 16; offset; offset >>= 1) {
        int64 other = __shfl_xor_sync(0xffffffffu, x, offset);
        x = other < x ? other : x;
    }
    return x;
}

struct Warp {
    __device__ __forceinline__ int64 lane() const { return threadIdx.x % 32; }
    __device__ __forceinline__ int64 lanes() const { return 32; }
    __device__ __forceinline__ acc sum(acc x) const { return warp_sum(x); }
    __device__ __forceinline__ int64 least(int64 x) const { return warp_least(x); }
    __device__ __forceinline__ Sum join(Sum s) const { return warp_joined(s); }
};

struct Block {
    acc *shared;       // 64 values
    int64 *places;     // 32, or null where least is not asked for
    __device__ __forceinline__ int64 lane() const { return threadIdx.x; }
    __device__ __forceinline__ int64 lanes() const { return blockDim.x; }
    __device__ __forceinline__ acc sum(acc x) const { return block_sum(x, shared); }
    __device__ __forceinline__ int64 least(int64 x) const {
        x = warp_least(x);
        if (threadIdx.x % 32 == 0) places[threadIdx.x / 32] = x;
        __syncthreads();
        x = warp_least(places[threadIdx.x % 32 < blockDim.x / 32 ? threadIdx.x % 32 : 0]);
        __syncthreads();
        return x;
    }
    __device__ __forceinline__ Sum join(Sum s) const {
        s = warp_joined(s);
        int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        if (lane == 0) {
            shared[warp] = s.max;
            shared[32 + warp] = s.rest;
        }
        __syncthreads();
        bool there = lane < blockDim.x / 32;
        s = warp_joined({there ? shared[lane] : -infinity(), there ? shared[32 + lane] : acc(0)});
        __syncthreads();
        return s;
    }
};

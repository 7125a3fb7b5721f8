// Products of small matrices on tensor cores: a warp computes C += A B with A of 16 x k, B of k x 8, C of 16 x 8.
//
//     mma_m16n8k8_tf32(c, a, b)        k = 8,  a: float[4], b: float[2], rounded to TF32 (11 significant bits) here
//     mma_m16n8k16<T>(c, a, b)         k = 16, a: uint32[4], b: uint32[2], each two values of T = float16 or bfloat16 (mma_pair)
//
// c is float[4] in both. Every thread of the warp must call, and blockDim.x is a multiple of 32. Each holds its part, a fragment, of each matrix: with
// g = lane / 4 and t = lane % 4 (PTX ISA, "Matrix fragments for mma.m16n8k8" and "... for mma.m16n8k16 with floating point type")
//
//     c[0], c[1]   C[g][2t], C[g][2t + 1]          c[2], c[3]   the same of row g + 8
//     k = 8:       a[0] A[g][t]          a[1] A[g + 8][t]           a[2] A[g][t + 4]           a[3] A[g + 8][t + 4]
//                  b[0] B[t][g]          b[1] B[t + 4][g]
//     k = 16:      a[0] A[g][2t, 2t + 1]      a[1] A[g + 8][2t, 2t + 1]      a[2] A[g][2t + 8, 2t + 9]      a[3] A[g + 8][2t + 8, 2t + 9]
//                  b[0] B[2t, 2t + 1][g]      b[1] B[2t + 8, 2t + 9][g]
//
// So in shared memory A wants its rows, and B its columns, with neighbours along k beside each other, for a pair is then one load of 32 bits; a row of
// a length that is 4 modulo 32 words makes the loads of a warp meet all banks.
//
// GPUs before sm_80 have none of the three products, and neither has the emulator: there the warp exchanges its fragments by shuffles and multiplies. The
// sums are then those of float32 one after another; tensor cores add in an order, and with a rounding of the sums, that NVIDIA does not state.

// To the nearest number of TF32, halves away from zero, as the GPU's conversion; in the format of float.
__device__ __forceinline__ uint32 mma_tf32(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    uint32 bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
#else
    uint32 bits = __float_as_uint(x);
    if ((bits & 0x7f800000) != 0x7f800000) bits += 0x1000;  // not of inf and nan
    else if (bits & 0x7fffff) bits = 0x7fffffff;
    return bits & 0xffffe000;
#endif
}

template <class T> __device__ __forceinline__ uint32 mma_pair(T first, T second) { return (uint32)first.bits | (uint32)second.bits << 16; }

// The emulated products: `value(register, i)` is the i-th number in a register, `per` how many there are.
template <int per, class Value>
__device__ __forceinline__ void mma_by_shuffles(float (&c)[4], const uint32 (&a)[4], const uint32 (&b)[2], Value value) {
    const uint32 all = 0xffffffffu;
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int s = 0; s < 4; s++) {  // the lane's t that holds these k
            uint32 rows[2], columns[2];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                rows[i] = __shfl_sync(all, a[2 * half + i], 4 * g + s);
                columns[i] = __shfl_sync(all, b[half], 4 * (2 * t + i) + s);
            }
#pragma unroll
            for (int k = 0; k < per; k++)
#pragma unroll
                for (int i = 0; i < 4; i++) c[i] = fmaf(value(rows[i / 2], k), value(columns[i % 2], k), c[i]);
        }
}

__device__ __forceinline__ void mma_m16n8k8_tf32(float (&c)[4], const float (&a)[4], const float (&b)[2]) {
    uint32 x[4], y[2];
#pragma unroll
    for (int i = 0; i < 4; i++) x[i] = mma_tf32(a[i]);
#pragma unroll
    for (int i = 0; i < 2; i++) y[i] = mma_tf32(b[i]);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
#else
    mma_by_shuffles<1>(c, x, y, [](uint32 bits, int) { return __uint_as_float(bits); });
#endif
}

template <class T> struct Mma16;  // the type's name in PTX, and how to read a half of a register

#define MMA_16(T, name)                                                                                                                \
    template <> struct Mma16<T> {                                                                                                      \
        __device__ __forceinline__ static void product(float (&c)[4], const uint32 (&a)[4], const uint32 (&b)[2]) { MMA_16_BODY(T, name) } \
    };
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define MMA_16_BODY(T, name)                                                                                                           \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." name "." name ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"  \
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                                               \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
#define MMA_16_BODY(T, name)                                \
    mma_by_shuffles<2>(c, a, b, [](uint32 bits, int i) {    \
        T x;                                                \
        x.bits = (unsigned short)(bits >> 16 * i);          \
        return (float)x;                                    \
    });
#endif
MMA_16(float16, "f16")
MMA_16(bfloat16, "bf16")

template <class T> __device__ __forceinline__ void mma_m16n8k16(float (&c)[4], const uint32 (&a)[4], const uint32 (&b)[2]) { Mma16<T>::product(c, a, b); }

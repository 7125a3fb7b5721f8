// Dropout: x times 0 with probability p, else times 1 / (1 - p), from the generator that NumPy has, so that every device draws the same bits.
//
// Philox 4x64 with ten rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011, section 3.3) turns a counter of 256 bits and a key of 128
// into four words of 64 bits. NumPy counts up before each four words. An element takes 32 bits, so a thread makes eight elements of one counter.
//
// Why it is fast: a mask is never in memory, and no thread waits for another; on the host its numbers would take longer to draw and to copy than a layer to compute.

struct Words {
    uint64 at[4];
};

__device__ __forceinline__ Words philox(Words counter, uint64 key0, uint64 key1) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const uint64 m0 = 0xD2E7470EE14C6C93ull, m1 = 0xCA5A826395121157ull;
        uint64 high0 = __umul64hi(m0, counter.at[0]), high1 = __umul64hi(m1, counter.at[2]);
        counter = {{high1 ^ counter.at[1] ^ key0, m1 * counter.at[2], high0 ^ counter.at[3] ^ key1, m0 * counter.at[0]}};
        key0 += 0x9E3779B97F4A7C15ull;
        key1 += 0xBB67AE8584CAA73Bull;
    }
    return counter;
}

// counter + n, of 256 bits
__device__ __forceinline__ Words advanced(Words counter, uint64 n) {
    counter.at[0] += n;
    bool carry = counter.at[0] < n;
#pragma unroll
    for (int i = 1; i < 4; i++) {
        counter.at[i] += carry;
        carry = carry && counter.at[i] == 0;
    }
    return counter;
}

extern "C" __global__ void __launch_bounds__(256) dropout(const real *__restrict__ x, real *__restrict__ y, int64 n, int64 key0, int64 key1, int64 c0, int64 c1, int64 c2, int64 c3, int64 threshold, double scale) {
    const int64 block = thread_index();
    if (block * 8 >= n) return;
    const Words words = philox(advanced({{(uint64)c0, (uint64)c1, (uint64)c2, (uint64)c3}}, (uint64)block + 1), (uint64)key0, (uint64)key1);
    const acc kept = (acc)scale;
#pragma unroll
    for (int k = 0; k < 8; k++) {
        const int64 bits = (int64)(words.at[k / 2] >> (k % 2 ? 32 : 0) & 0xffffffffull);
        if (block * 8 + k < n) y[block * 8 + k] = real(acc(x[block * 8 + k]) * (bits < threshold ? kept : acc(0)));
    }
}

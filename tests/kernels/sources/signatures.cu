// What the loader must read in a file of kernels: `extern "C" __global__ void commented_out(int n)` is not one of its entry points.
/* Nor is this one:
extern "C" __global__ void blocked_out(float x) {} */

template <class T> __device__ __forceinline__ T twice(T x) { return x + x; }  // templates may stand beside entry points

extern "C" __global__ void __launch_bounds__(256) scale(const real *__restrict__ x, real *__restrict__ y, double factor, int64 n) {
    int64 i = thread_index();
    if (i < n) y[i] = real((float)((acc)x[i] * (acc)factor));
}

extern "C" __global__ __launch_bounds__((32 * 4), 2) void many_lines(
    const acc *sums,            // a comment, with a comma
    const int64 *__restrict__ labels /* and (another) */,
    const int32 *a, const uint32 *b, const uint64 *c, const bool *d,
    const float *e, const double* f,
    real * y,
    int64 n)
{
    int64 i = thread_index();
    if (i < n) y[i] = real((float)twice(sums ? sums[i] : acc(1)));
}

extern "C" __global__ void nothing() {}

extern "C" __global__ void numbers(double *out, double x, int64 n) {
    if (thread_index() == 0) {
        out[0] = x;
        out[1] = (double)n;
    }
}

extern "C" __global__ void add_in_place(real *x, const real *y, int64 n) {
    int64 i = thread_index();
    if (i < n) x[i] = real((float)((acc)x[i] + (acc)y[i]));
}

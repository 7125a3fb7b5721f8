// The third line does not compile.
extern "C" __global__ void broken(real *x, int64 n) {
    x[0] = real(n) +;
}

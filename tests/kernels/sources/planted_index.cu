// Marks each element, of more than 32 bits can count.
extern "C" __global__ void mark(bool *__restrict__ y, int64 n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;  // comes back to 0 after 2^32
    if (i < n) y[i] = true;
}
extern "C" __global__ void mark_corrected(bool *__restrict__ y, int64 n) {
    int64 i = thread_index();
    if (i < n) y[i] = true;
}

// The first element of each row of a matrix.
extern "C" __global__ void mark_rows(bool *__restrict__ y, int64 rows, int64 columns) {
    int row = (int)thread_index();
    if (row < rows) y[row * (int)columns] = true;  // becomes negative after 2^31
}
extern "C" __global__ void mark_rows_corrected(bool *__restrict__ y, int64 rows, int64 columns) {
    int64 row = thread_index();
    if (row < rows) y[row * columns] = true;
}

// Sums of the rows of x (rows, columns), a thread for each: the step from row to row is the number of columns, not of rows.
extern "C" __global__ void row_sums(const acc *__restrict__ x, acc *__restrict__ y, int64 rows, int64 columns) {
    int64 row = thread_index();
    if (row >= rows) return;
    acc sum = 0;
    for (int64 j = 0; j < columns; j++) sum += x[row * rows + j];
    y[row] = sum;
}
extern "C" __global__ void row_sums_corrected(const acc *__restrict__ x, acc *__restrict__ y, int64 rows, int64 columns) {
    int64 row = thread_index();
    if (row >= rows) return;
    acc sum = 0;
    for (int64 j = 0; j < columns; j++) sum += x[row * columns + j];
    y[row] = sum;
}

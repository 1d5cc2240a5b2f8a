// Pictures as people store them <-> batches as networks take them, one thread a pixel.
//
// The same arithmetic as frames.py, so the results are equal bit for bit: one rounded product a value, then
// rounding to even and clipping. kernels.ptx is compiled from this file by docs/compile_kernels.py.

// uint8 RGB (height, width, 3) -> float32 (3, padded_height, padded_width) in [0, 1], edge pixels repeated.
extern "C" __global__ void batch_from_frame(
    const unsigned char *frame, float *batch, int height, int width, int padded_height, int padded_width)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= padded_width || y >= padded_height)
        return;
    long long row = y < height ? y : height - 1;
    long long column = x < width ? x : width - 1;
    long long plane = (long long)padded_height * padded_width;
    const unsigned char *pixel = frame + 3 * (row * width + column);
    float *value = batch + (long long)y * padded_width + x;
    for (int channel = 0; channel < 3; ++channel)
        value[channel * plane] = pixel[channel] * (1.0f / 255.0f);
}

// float32 (3, padded_height, padded_width) -> uint8 RGB (height, width, 3); what is not a number becomes 0.
extern "C" __global__ void frame_from_batch(
    const float *batch, unsigned char *frame, int height, int width, int padded_height, int padded_width)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height)
        return;
    long long plane = (long long)padded_height * padded_width;
    const float *value = batch + (long long)y * padded_width + x;
    unsigned char *pixel = frame + 3 * ((long long)y * width + x);
    for (int channel = 0; channel < 3; ++channel)
        pixel[channel] = (unsigned char)fminf(fmaxf(rintf(value[channel * plane] * 255.0f), 0.0f), 255.0f);
}

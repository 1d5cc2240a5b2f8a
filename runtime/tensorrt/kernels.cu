// Images as people store them <-> batches as one network takes them, one thread a pixel.
//
// The same arithmetic as frames.py, so the results are equal bit for bit: every product and every sum is rounded to
// float32 (compiled with --fmad=false), then rounding to even and clipping. gain, offset: per channel in the
// network's order. swaps: that order is BGR. kernels.ptx is compiled from this file by docs/compile_kernels.py.

// uint8 RGB (height, width, 3) -> float32 (3, padded_height, padded_width), edge pixels repeated.
extern "C" __global__ void batch_from_frame(
    const unsigned char *frame, float *batch, int height, int width, int padded_height, int padded_width,
    float gain_0, float gain_1, float gain_2, float offset_0, float offset_1, float offset_2, int swaps)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= padded_width || y >= padded_height)
        return;
    const float gain[3] = {gain_0, gain_1, gain_2}, offset[3] = {offset_0, offset_1, offset_2};
    long long row = y < height ? y : height - 1;
    long long column = x < width ? x : width - 1;
    long long plane = (long long)padded_height * padded_width;
    const unsigned char *pixel = frame + 3 * (row * width + column);
    float *value = batch + (long long)y * padded_width + x;
    for (int channel = 0; channel < 3; ++channel) {
        float rgb = pixel[swaps ? 2 - channel : channel] * (1.0f / 255.0f);
        value[channel * plane] = rgb * gain[channel] + offset[channel];
    }
}

// float32 (3, padded_height, padded_width) -> 16 bytes, then uint8 RGB (height, width, 3). The first byte becomes 1
// if a value is NaN or infinite; such a value becomes 0 or 255.
extern "C" __global__ void frame_from_batch(
    const float *batch, unsigned char *frame, int height, int width, int padded_height, int padded_width,
    float gain_0, float gain_1, float gain_2, float offset_0, float offset_1, float offset_2, int swaps)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height)
        return;
    const float gain[3] = {gain_0, gain_1, gain_2}, offset[3] = {offset_0, offset_1, offset_2};
    long long plane = (long long)padded_height * padded_width;
    const float *value = batch + (long long)y * padded_width + x;
    unsigned char *pixel = frame + 16 + 3 * ((long long)y * width + x);
    for (int channel = 0; channel < 3; ++channel) {
        float rgb = value[channel * plane] * gain[channel] + offset[channel];
        if (!(fabsf(rgb) <= 3.402823466e38f))
            frame[0] = 1;
        pixel[swaps ? 2 - channel : channel] = (unsigned char)fminf(fmaxf(rintf(rgb * 255.0f), 0.0f), 255.0f);
    }
}

// Images as people and cameras store them <-> batches as one network takes them, one thread a pixel.
//
// The same arithmetic as frames.py and yuv.py, so the results are equal bit for bit: every product and every sum is
// rounded to float32 (compiled with --fmad=false), then rounding to even and clipping. kernels.ptx is compiled from
// this file by docs/compile_kernels.py. The members of each struct are what engine_buffers.py packs, in that order.

// half: the batch is float16. lanes: channels that lie side by side; 1 is planar, otherwise they are filled with 0.
// gain, offset: per channel in the network's order. swaps: that order is BGR.
struct Conversion {
    int height, width, padded_height, padded_width, half, lanes;
    float gain[3], offset[3];
    int swaps;
};

// See YuvLayout. Chroma is 8 times its sample before its gain.
struct Yuv {
    int stride, chroma_stride, u, v, chroma_step;
    float luma_gain, luma_offset, chroma_gain, chroma_offset, red_v, green_u, green_v, blue_u;
};

struct YuvConversion {
    Conversion to;
    Yuv from;
};

#ifdef __CUDACC__
static __device__ unsigned short half_from_float(float value)
{
    unsigned short half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
    return half;
}

static __device__ float float_from_half(unsigned short half)
{
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
    return value;
}
#endif

static __device__ long long index_of(const Conversion &c, int channel, int x, int y)
{
    long long plane = (long long)c.padded_height * c.padded_width;
    return (channel / c.lanes * plane + (long long)y * c.padded_width + x) * c.lanes + channel % c.lanes;
}

static __device__ void put(void *batch, const Conversion &c, int channel, int x, int y, float value)
{
    long long index = index_of(c, channel, x, y);
    if (c.half)
        ((unsigned short *)batch)[index] = half_from_float(value);
    else
        ((float *)batch)[index] = value;
}

static __device__ void put_pixel(void *batch, const Conversion &c, int x, int y, float red, float green, float blue)
{
    put(batch, c, 0, x, y, (c.swaps ? blue : red) * c.gain[0] + c.offset[0]);
    put(batch, c, 1, x, y, green * c.gain[1] + c.offset[1]);
    put(batch, c, 2, x, y, (c.swaps ? red : blue) * c.gain[2] + c.offset[2]);
    for (int channel = 3; channel < (2 / c.lanes + 1) * c.lanes; ++channel)
        put(batch, c, channel, x, y, 0.0f);
}

static __device__ float clipped(float value) { return fminf(fmaxf(value, 0.0f), 1.0f); }

// uint8 RGB (height, width, 3) -> (3, padded_height, padded_width), edge pixels repeated.
extern "C" __global__ void batch_from_frame(const unsigned char *frame, void *batch, Conversion c)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= c.padded_width || y >= c.padded_height)
        return;
    long long row = y < c.height ? y : c.height - 1;
    long long column = x < c.width ? x : c.width - 1;
    const unsigned char *pixel = frame + 3 * (row * c.width + column);
    float scale = 1.0f / 255.0f;
    put_pixel(batch, c, x, y, pixel[0] * scale, pixel[1] * scale, pixel[2] * scale);
}

// 8 times the chroma at a pixel: the left sample lies on even columns, and between two rows of luma.
static __device__ float chroma_at(const unsigned char *plane, const Conversion &c, const Yuv &yuv, int x, int y)
{
    int rows = (c.height + 1) / 2, columns = (c.width + 1) / 2;
    int near = y / 2, other = near + (y % 2 ? 1 : -1);
    other = other < 0 ? 0 : other < rows ? other : rows - 1;
    int left = x / 2, right = left + x % 2;
    right = right < columns ? right : columns - 1;
    const unsigned char *a = plane + (long long)near * yuv.chroma_stride;
    const unsigned char *b = plane + (long long)other * yuv.chroma_stride;
    left *= yuv.chroma_step;
    right *= yuv.chroma_step;
    return 3 * (a[left] + a[right]) + b[left] + b[right];
}

// YUV 4:2:0 -> (3, padded_height, padded_width), edge pixels repeated; not rounded to levels in between.
extern "C" __global__ void batch_from_yuv(const unsigned char *frame, void *batch, YuvConversion c)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= c.to.padded_width || y >= c.to.padded_height)
        return;
    int row = y < c.to.height ? y : c.to.height - 1;
    int column = x < c.to.width ? x : c.to.width - 1;
    float luma = frame[(long long)row * c.from.stride + column] * c.from.luma_gain + c.from.luma_offset;
    float u = chroma_at(frame + c.from.u, c.to, c.from, column, row) * c.from.chroma_gain + c.from.chroma_offset;
    float v = chroma_at(frame + c.from.v, c.to, c.from, column, row) * c.from.chroma_gain + c.from.chroma_offset;
    float green = luma + c.from.green_u * u + c.from.green_v * v;
    put_pixel(batch, c.to, x, y, clipped(luma + c.from.red_v * v), clipped(green), clipped(luma + c.from.blue_u * u));
}

// (3, padded_height, padded_width) -> 16 bytes, then uint8 RGB (height, width, 3). The first byte becomes 1 if a
// value is NaN or infinite; such a value becomes 0 or 255.
extern "C" __global__ void frame_from_batch(const void *batch, unsigned char *frame, Conversion c)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= c.width || y >= c.height)
        return;
    unsigned char *pixel = frame + 16 + 3 * ((long long)y * c.width + x);
    for (int channel = 0; channel < 3; ++channel) {
        long long index = index_of(c, channel, x, y);
        float value = c.half ? float_from_half(((const unsigned short *)batch)[index]) : ((const float *)batch)[index];
        float rgb = value * c.gain[channel] + c.offset[channel];
        if (!(fabsf(rgb) <= 3.402823466e38f))
            frame[0] = 1;
        pixel[c.swaps ? 2 - channel : channel] = (unsigned char)fminf(fmaxf(rintf(rgb * 255.0f), 0.0f), 255.0f);
    }
}

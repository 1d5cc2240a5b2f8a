// A CUDA driver for a machine without a GPU, with the real names, signatures and error numbers of cuda.h.
//
// Memory is this CPU's, a stream does its work at once or, while it captures, records it, and the kernels are
// those of kernels.cu, compiled for this CPU. It proves calls and arguments; how a GPU behaves it does not.
//
// FAKE_CUDA_INIT: what cuInit returns. FAKE_CUDA_VERSION: of the driver, 12060. FAKE_CUDA_MEMORY: bytes in all.
// cuFakeLive() tells how many objects are not freed yet.

#include <math.h>
#include <chrono>
#include <stdlib.h>
#include <string.h>

#include <functional>
#include <set>
#include <string>
#include <vector>

#define __global__
#define __device__
static unsigned short half_from_float(float value)
{ _Float16 half = (_Float16)value; unsigned short bits; memcpy(&bits, &half, 2); return bits; }
static float float_from_half(unsigned short bits) { _Float16 half; memcpy(&half, &bits, 2); return (float)half; }
struct Index { int x, y; };
static Index blockIdx, threadIdx, blockDim;
#include "KERNELS"

typedef int CUresult;
typedef unsigned long long CUdeviceptr;
typedef std::function<void()> Work;
typedef std::chrono::steady_clock Clock;
struct Event { bool timing; bool recorded; Clock::time_point at; };
struct Stream { bool capturing = false; bool spoilt = false; std::vector<Work> captured; };

enum { OK = 0, INVALID = 1, NO_MEMORY = 2, NO_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, CAPTURING = 900,
       INVALIDATED = 901 };

static std::set<void *> live;
static thread_local int depth = 0;
static size_t used = 0;

static long long setting(const char *name, long long otherwise)
{
    const char *text = getenv(name);
    return text ? atoll(text) : otherwise;
}

template <typename T> static T *own(T *thing) { live.insert(thing); return thing; }

template <typename T> static CUresult disown(T *thing)
{
    if (!depth) return NO_CONTEXT;
    if (!live.erase(thing)) return INVALID_HANDLE;
    delete thing;
    return OK;
}

static CUresult put(Stream *stream, Work work)
{
    if (!depth) return NO_CONTEXT;
    if (!live.count(stream)) return INVALID_HANDLE;
    if (stream->capturing) stream->captured.push_back(work); else work();
    return OK;
}

static CUresult allocate(void **pointer, size_t bytes)
{
    if (!depth) return NO_CONTEXT;
    if (used + bytes > (size_t)setting("FAKE_CUDA_MEMORY", 1 << 28)) return NO_MEMORY;
    size_t *block = (size_t *)aligned_alloc(256, 256 + (bytes + 255) / 256 * 256);
    block[0] = bytes;
    used += bytes;
    *pointer = own((char *)block + 256);
    return OK;
}

static CUresult release(void *pointer)
{
    if (!depth) return NO_CONTEXT;
    if (!live.erase(pointer)) return INVALID;
    size_t *block = (size_t *)((char *)pointer - 256);
    used -= block[0];
    free(block);
    return OK;
}

extern "C" {

int cuFakeLive() { return (int)live.size(); }

CUresult cuInit(unsigned) { return (CUresult)setting("FAKE_CUDA_INIT", OK); }
CUresult cuDriverGetVersion(int *version) { *version = (int)setting("FAKE_CUDA_VERSION", 12060); return OK; }
CUresult cuDeviceGetCount(int *count) { *count = 1; return OK; }
CUresult cuDeviceGet(int *device, int index) { *device = index; return index ? 101 : OK; }
CUresult cuDeviceGetName(char *name, int size, int) { strncpy(name, "Fake GPU", size); return OK; }
CUresult cuDeviceTotalMem_v2(size_t *bytes, int) { *bytes = 1 << 28; return OK; }
CUresult cuDeviceGetAttribute(int *value, int attribute, int)
{
    *value = attribute == 75 ? 8 : attribute == 76 ? 7 : attribute == 18 ? 1 : attribute == 16 ? 8 : attribute == 13 ? 918000 : 0;
    return OK;
}
CUresult cuGetErrorString(CUresult error, const char **text)
{
    *text = error == NO_MEMORY ? "out of memory" : error == NOT_FOUND ? "named symbol not found" : "an error";
    return OK;
}

CUresult cuDevicePrimaryCtxRetain(void **context, int) { *context = &used; return OK; }
CUresult cuDevicePrimaryCtxRelease_v2(int) { return OK; }
CUresult cuCtxPushCurrent_v2(void *context) { depth += context == &used; return context == &used ? OK : NO_CONTEXT; }
CUresult cuCtxPopCurrent_v2(void **context) { *context = &used; return depth-- > 0 ? OK : NO_CONTEXT; }

CUresult cuMemGetInfo_v2(size_t *left, size_t *total)
{
    *total = (size_t)setting("FAKE_CUDA_MEMORY", 1 << 28);
    *left = *total - used;
    return depth ? OK : NO_CONTEXT;
}
CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) { return allocate((void **)address, bytes); }
CUresult cuMemFree_v2(CUdeviceptr address) { return release((void *)address); }
CUresult cuMemHostAlloc(void **pointer, size_t bytes, unsigned) { return allocate(pointer, bytes); }
CUresult cuMemFreeHost(void *pointer) { return release(pointer); }
CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *address, void *pointer, unsigned)
{
    *address = (CUdeviceptr)pointer;
    return live.count(pointer) ? OK : INVALID;
}
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr target, const void *source, size_t bytes, Stream *stream)
{
    return put(stream, [=] { memcpy((void *)target, source, bytes); });
}
CUresult cuMemcpyDtoHAsync_v2(void *target, CUdeviceptr source, size_t bytes, Stream *stream)
{
    return put(stream, [=] { memcpy(target, (void *)source, bytes); });
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr target, CUdeviceptr source, size_t bytes, Stream *stream)
{
    return put(stream, [=] { memcpy((void *)target, (void *)source, bytes); });
}

CUresult cuStreamCreate(Stream **stream, unsigned flags)
{
    *stream = own(new Stream);
    return flags == 1 ? OK : INVALID; // CU_STREAM_NON_BLOCKING
}
CUresult cuStreamDestroy_v2(Stream *stream) { return disown(stream); }
CUresult cuEventCreate(Event **event, unsigned flags)
{
    *event = own(new Event{!(flags & 2), false, {}}); // CU_EVENT_DISABLE_TIMING
    return flags == 1 || flags == 3 ? OK : INVALID; // to sleep on, with and without times
}
CUresult cuEventDestroy_v2(Event *event) { return disown(event); }
CUresult cuEventRecord(Event *event, Stream *stream)
{
    stream->spoilt |= stream->capturing;
    if (!depth || stream->capturing) return depth ? CAPTURING : NO_CONTEXT;
    event->recorded = true;
    event->at = Clock::now();
    return OK;
}
CUresult cuStreamWaitEvent(Stream *stream, Event *event, unsigned flags)
{
    return live.count(stream) && live.count(event) && !flags ? OK : INVALID_HANDLE;
}
CUresult cuEventSynchronize(Event *event) { return live.count(event) ? OK : INVALID_HANDLE; }
CUresult cuEventElapsedTime(float *ms, Event *start, Event *end)
{
    if (!start->timing || !end->timing || !start->recorded || !end->recorded) return INVALID_HANDLE;
    *ms = std::chrono::duration<float, std::milli>(end->at - start->at).count();
    return OK;
}
CUresult cuEventElapsedTime_v2(float *ms, Event *start, Event *end) { return cuEventElapsedTime(ms, start, end); }

CUresult cuStreamBeginCapture_v2(Stream *stream, int mode)
{
    *stream = Stream{true, false, {}};
    return mode == 1 ? OK : INVALID; // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
}
CUresult cuStreamEndCapture(Stream *stream, std::vector<Work> **graph)
{
    bool spoilt = stream->spoilt;
    *graph = spoilt ? nullptr : own(new std::vector<Work>(stream->captured));
    *stream = Stream{};
    return spoilt ? INVALIDATED : OK;
}
CUresult cuGraphInstantiateWithFlags(std::vector<Work> **executable, std::vector<Work> *graph, unsigned long long)
{
    *executable = own(new std::vector<Work>(*graph));
    return OK;
}
CUresult cuGraphDestroy(std::vector<Work> *graph) { return disown(graph); }
CUresult cuGraphExecDestroy(std::vector<Work> *executable) { return disown(executable); }
CUresult cuGraphLaunch(std::vector<Work> *executable, Stream *stream)
{
    return put(stream, [=] { for (Work &work : *executable) work(); });
}

CUresult cuModuleLoadData(std::string **module, const void *image)
{
    *module = own(new std::string((const char *)image)); // ends at the zero byte that PTX has to end with
    return depth ? OK : NO_CONTEXT;
}
CUresult cuModuleLoadDataEx(std::string **module, const void *image, unsigned, int *, void **)
{
    return cuModuleLoadData(module, image);
}
CUresult cuModuleUnload(std::string *module) { return disown(module); }
CUresult cuModuleGetFunction(const char **function, std::string *module, const char *name)
{
    const char *known[] = {"batch_from_frame", "batch_from_yuv", "frame_from_batch"};
    for (const char *kernel : known)
        if (!strcmp(name, kernel)) *function = kernel;
    return module->find(std::string(".entry ") + name + "(") == std::string::npos ? NOT_FOUND : OK;
}
CUresult cuFuncSetBlockShape(const char *, int, int, int) { return OK; }
CUresult cuLaunchKernel(const char *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
    unsigned block_y, unsigned block_z, unsigned shared, Stream *stream, void **p, void **extra)
{
    if (grid_z != 1 || block_z != 1 || shared) return INVALID;
    // pycuda packs the arguments into one buffer, ctypes points to each of them
    size_t bytes = 16 + (strcmp(function, "batch_from_yuv") ? sizeof(Conversion) : sizeof(YuvConversion));
    void *packed[3] = {};
    if (!p) {
        if (extra[0] != (void *)1 || extra[2] != (void *)2 || *(size_t *)extra[3] != bytes || extra[4]) return INVALID;
        for (int i = 0; i < 3; ++i) packed[i] = (char *)extra[1] + 8 * i;
        p = packed;
    }
    void *a = *(void **)p[0], *b = *(void **)p[1];
    YuvConversion c = {};
    memcpy(&c, p[2], bytes - 16);
    return put(stream, [=] {
        blockDim = {(int)block_x, (int)block_y};
        for (blockIdx.y = 0; blockIdx.y < (int)grid_y; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < (int)grid_x; ++blockIdx.x)
        for (threadIdx.y = 0; threadIdx.y < (int)block_y; ++threadIdx.y)
        for (threadIdx.x = 0; threadIdx.x < (int)block_x; ++threadIdx.x)
            if (!strcmp(function, "batch_from_frame")) batch_from_frame((unsigned char *)a, b, c.to);
            else if (!strcmp(function, "batch_from_yuv")) batch_from_yuv((unsigned char *)a, b, c);
            else frame_from_batch(a, (unsigned char *)b, c.to);
    });
}
}

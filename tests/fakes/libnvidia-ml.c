// NVIDIA's management library for a machine without a GPU: one board, with the real names, signatures and error
// numbers of nvml.h, so that the real nvidia-ml-py runs. It proves calls and arguments; how a GPU behaves it does not.
//
// FAKE_NVML_INIT: what nvmlInit returns. FAKE_NVML_OLD: 1 for a driver and board without energy counter and without
// the later call for temperatures. FAKE_NVML_LOST: 1 once the GPU has fallen off the bus. Read at every call.

#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, LOST = 15 };
typedef struct { unsigned version, sensor; int celsius; } Temperature;
typedef struct { unsigned gpu, memory; } Utilization;

static int board, running;
static unsigned long long millijoules = 5000;

static int setting(const char *name) { const char *text = getenv(name); return text ? atoi(text) : 0; }

static int on(void *device)
{
    return device != &board || !running ? INVALID : setting("FAKE_NVML_LOST") ? LOST : OK;
}

int nvmlFakeRunning() { return running; }
int nvmlInitWithFlags(unsigned flags)
{
    int code = setting("FAKE_NVML_INIT");
    running += !code;
    return flags ? INVALID : code;
}
int nvmlShutdown() { return running-- > 0 ? OK : 1; }
const char *nvmlErrorString(int code) { return code == OK ? "Success" : "an error"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = &board; return index ? INVALID : OK; }

int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *value)
{
    if (setting("FAKE_NVML_OLD")) return NOT_SUPPORTED;
    *value = millijoules += 100000;
    return on(device);
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) { *milliwatts = 72500; return on(device); }
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius)
{
    *celsius = 61;
    return sensor ? INVALID : on(device);
}
int nvmlDeviceGetTemperatureV(void *device, Temperature *temperature)
{
    if (setting("FAKE_NVML_OLD")) return NOT_SUPPORTED;
    if (temperature->version != (sizeof(Temperature) | 1 << 24) || temperature->sensor) return INVALID;
    temperature->celsius = 62;
    return on(device);
}
int nvmlDeviceGetClockInfo(void *device, int kind, unsigned *megahertz)
{
    *megahertz = kind == 1 ? 2520 : kind == 2 ? 10501 : 0; // NVML_CLOCK_SM, NVML_CLOCK_MEM
    return on(device);
}
int nvmlDeviceGetUtilizationRates(void *device, Utilization *load)
{
    *load = (Utilization){97, 40};
    return on(device);
}
int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *reasons)
{
    *reasons = 0x44; // the power cap, and hot
    return on(device);
}

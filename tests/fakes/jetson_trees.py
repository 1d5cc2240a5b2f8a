"""The files of /sys, /proc and /etc that telemetry reads, of Jetsons that are not at hand.

Documented, never recorded by us: which files there are, their units and the names of rails, zones and clocks are
from the sources named at each tree; the numbers are made up, or quoted where that is said.
"""

from collections.abc import Mapping
from pathlib import Path

Tree = Mapping[str, str]


def write_tree(root: Path, tree: Tree) -> Path:
    for name, text in tree.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def ina3221(number: int, *rails: tuple[str, int, int]) -> dict[str, str]:
    """One chip, as docs.kernel.org/hwmon/ina3221.html lists its files. rails: (label, mV, mA)."""
    chip = f"sys/class/hwmon/hwmon{number}"
    files = {
        f"{chip}/name": "ina3221\n",
        f"{chip}/in7_label": "sum of shunt voltages\n",
        f"{chip}/in7_input": "2\n",
    }
    for channel, (label, millivolts, milliamperes) in enumerate(rails, start=1):
        files[f"{chip}/in{channel}_label"] = f"{label}\n"
        files[f"{chip}/in{channel}_input"] = f"{millivolts}\n"
        files[f"{chip}/curr{channel}_input"] = f"{milliamperes}\n"
    return files


def zones(**millidegrees: int | str) -> dict[str, str]:
    """Thermal zones; `_` stands for `-`."""
    files = {}
    for number, (name, told) in enumerate(millidegrees.items()):
        files[f"sys/class/thermal/thermal_zone{number}/type"] = f"{name.replace('_', '-')}\n"
        files[f"sys/class/thermal/thermal_zone{number}/temp"] = f"{told}\n"
    return files


def alerts(**states: int) -> dict[str, str]:
    """Cooling devices `NAME-throttle-alert` beside a fan, which is none."""
    files = {
        "sys/class/thermal/cooling_device9/type": "pwm-fan\n",
        "sys/class/thermal/cooling_device9/cur_state": "3",
    }
    for number, (name, state) in enumerate(states.items()):
        files[f"sys/class/thermal/cooling_device{number}/type"] = f"{name}-throttle-alert\n"
        files[f"sys/class/thermal/cooling_device{number}/cur_state"] = f"{state}\n"
    return files


def cpu(first: int, cores: str, now_khz: int, low_khz: int, high_khz: int) -> dict[str, str]:
    """A group of cores with one clock: docs.kernel.org/admin-guide/pm/cpufreq.html."""
    told = {"related_cpus": cores, "scaling_cur_freq": now_khz, "scaling_min_freq": low_khz}
    told["scaling_max_freq"] = high_khz
    folder = f"sys/devices/system/cpu/cpufreq/policy{first}"
    return {f"{folder}/{name}": f"{value}\n" for name, value in told.items()}


def gpu(name: str, now_hz: int, low_hz: int, high_hz: int, load: int | None = None) -> dict[str, str]:
    """load: per mille."""
    told = {"cur_freq": now_hz, "min_freq": low_hz, "max_freq": high_hz}
    files = {f"sys/class/devfreq/{name}/{file}": f"{value}\n" for file, value in told.items()}
    return files | ({} if load is None else {f"sys/class/devfreq/{name}/device/load": f"{load}\n"})


# Rails and zones: docs.nvidia.com/jetson/archives/r35.6.0/DeveloperGuide, "Jetson Xavier NX Series and Jetson AGX
# Xavier Series". The powers: the line of tegrastats that github.com/DataDog/datadog-agent quotes for that board.
# The name of the GPU's clock: jtop/core/gpu.py of github.com/rbonghi/jetson_stats.
AGX_XAVIER_JETPACK5: Tree = {
    "proc/device-tree/compatible": "nvidia,p2972-0000\0nvidia,tegra194\0",
    **ina3221(3, ("GPU", 19000, 0), ("CPU", 19000, 16), ("SOC", 19000, 49)),
    **ina3221(4, ("CV", 19000, 0), ("VDDRQ", 19000, 33), ("SYS5V", 19000, 78)),
    **zones(CPU_therm=37500, GPU_therm=37500, AUX_therm=36000, AO_therm=37500, PMIC_Die=100000, Tboard_tegra=37000),
    **cpu(0, "0 1", 1190400, 1190400, 2265600),
    **cpu(2, "2 3", 2265600, 1190400, 2265600),
    **gpu("17000000.gv11b", 318750000, 114750000, 1377000000, load=0),
    "sys/kernel/debug/bpmp/debug/clk/emc/rate": "665600000\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=2 NAME=MODE_15W >\n"
    "< PM_CONFIG DEFAULT=2 >\n",
}

# Rails and zones: docs.nvidia.com/jetson/archives/r36.4.4/DeveloperGuide, "Jetson Orin Nano Series, Jetson Orin NX
# Series and Jetson AGX Orin Series". Modes and their ids: its table of supported modes, for Orin Nano 8GB Super.
ORIN_NANO_JETPACK6: Tree = {
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0",
    **ina3221(1, ("VDD_IN", 4984, 1176), ("VDD_CPU_GPU_CV", 4984, 264), ("VDD_SOC", 4976, 296)),
    **zones(cpu_thermal=49218, gpu_thermal="", cv0_thermal=-256000, soc0_thermal=48125, tj_thermal=50593),
    **alerts(cpu=0, gpu=1),
    **cpu(0, "0 1 2 3", 1728000, 1728000, 1728000),
    **cpu(4, "4 5", 1728000, 1728000, 1728000),
    **gpu("17000000.gpu", 1020000000, 1020000000, 1020000000, load=842),
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=25W >\n"
    "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n< PM_CONFIG DEFAULT=1 >\n",
    "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet\n",
}

# The same document. The second chip has one rail that is connected, and it is part of VIN_SYS_5V0.
AGX_ORIN_JETPACK6: Tree = {
    "proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0005\0nvidia,tegra234\0",
    **ina3221(2, ("VDD_GPU_SOC", 20000, 100), ("VDD_CPU_CV", 20000, 50), ("VIN_SYS_5V0", 5000, 900)),
    **ina3221(4, ("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 100), ("NC", 0, 0)),
    **zones(cpu_thermal=52562, tj_thermal=52562),
}

# Rails, zones and alerts: the README of github.com/swsususu/ThorFAN, of a developer kit with L4T 38.4. VIN in
# microwatts from an INA238: github.com/rbonghi/jetson_stats/pull/900. GPU clocks: its jtop/core/thor_power.py.
THOR_JETPACK7: Tree = {
    "proc/device-tree/compatible": "nvidia,p4071-0000+p3834-0008\0nvidia,p3834-0008\0nvidia,tegra264\0",
    **ina3221(1, ("VDD_GPU", 20000, -20), ("VDD_CPU_SOC_MSS", 20000, 325), ("VIN_SYS_5V0", 5000, 1304)),
    "sys/class/hwmon/hwmon3/name": "ina238\n",
    "sys/class/hwmon/hwmon3/label": "VIN\n",
    "sys/class/hwmon/hwmon3/power1_input": "28548000\n",
    "sys/class/hwmon/hwmon3/in1_input": "19000\n",
    "sys/class/hwmon/hwmon3/curr1_input": "1502\n",
    "sys/class/hwmon/hwmon0/name": "nvme\n",
    **zones(tj_thermal=55100, soc012_thermal=55100, cpu_thermal=53700, gpu_thermal="", soc345_thermal=53700),
    **alerts(cpu=0, gpu=0, soc012=0),
    **cpu(0, "0", 2601000, 972000, 2601000),
    **gpu("gpu-gpc-0", 1575000000, 315000000, 1575000000),
    **gpu("gpu-nvd-0", 1692000000, 315000000, 1692000000),
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=120W >\n",
    "var/lib/nvpmodel/status": "pmode:0001\n",
}

# docs.kernel.org/power/powercap/powercap.html, for one socket of a workstation.
XEON: Tree = {
    "sys/class/powercap/intel-rapl:0/name": "package-0\n",
    "sys/class/powercap/intel-rapl:0/energy_uj": "262000000000\n",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850\n",
    "sys/class/powercap/intel-rapl:0:0/name": "dram\n",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "5000000\n",
    "sys/class/powercap/intel-rapl:0:0/max_energy_range_uj": "65712999613\n",
    **zones(acpitz=27800, x86_pkg_temp=61000),
    **cpu(0, "0", 3400000, 800000, 3500000),
    **cpu(10, "10", 3500000, 800000, 3500000),
    **cpu(2, "2", 3300000, 800000, 3500000),
}

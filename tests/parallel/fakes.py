"""Devices that are not there: what a mesh needs to know of one."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Device:
    id: int
    process_index: int = 0
    slice_index: int = 0
    platform: str = "gpu"
    device_kind: str = "fake"


def devices(slices: int = 1, hosts: int = 1, each: int = 8, platform: str = "gpu") -> list[Device]:
    """So many slices of so many hosts of so many devices, numbered from the first on."""
    return [
        Device(host * each + number, host, host // hosts, platform)
        for host in range(slices * hosts)
        for number in range(each)
    ]
